"""The latent explorer: one page that shows the plane of codes, its geodesics and its Brownian motion.

``python -m pyro_riemann explore RUN`` serves the page of a quickstart's output folder on this machine alone, or writes
it to a file that works without a server. Python puts a table of the metric and the decoder's weights into the page; the
geometry is then done by the page itself.
"""

from pyro_riemann.explorer._page import PageServer, explorer_page
from pyro_riemann.explorer._run import Run, load_run, run_page

__all__ = ["PageServer", "Run", "explorer_page", "load_run", "run_page"]
