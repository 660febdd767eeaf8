"""``python -m pyro_riemann``."""

from pyro_riemann.cli import app

if __name__ == "__main__":
    app(prog_name="python -m pyro_riemann")
