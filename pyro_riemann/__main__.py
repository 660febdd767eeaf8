"""``python -m pyro_riemann``."""

from __future__ import annotations

import sys

from pyro_riemann._lazy import needs


def main(program: str | None = None) -> None:
    """The command line, or which extra it needs."""
    try:
        with needs("The command line", "all"):
            from pyro_riemann.cli import app
    except ImportError as error:
        sys.exit(f"Error: {error}")
    app(prog_name=program)


if __name__ == "__main__":
    main("python -m pyro_riemann")
