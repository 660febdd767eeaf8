"""Single-cell counts: the geometry of negative binomial VAEs against mixtures of RNA in known proportions."""

from pyro_riemann.experiments.single_cell._models import Cells, load_cells, most_variable, split
from pyro_riemann.experiments.single_cell._report import report, write_report
from pyro_riemann.experiments.single_cell._run import run

__all__ = ["Cells", "load_cells", "most_variable", "report", "run", "split", "write_report"]
