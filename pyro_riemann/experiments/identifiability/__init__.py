"""Do distances mean the same after a VAE is trained again: the protocol of Syrota et al. (2025)."""

from pyro_riemann.experiments.identifiability._report import report, write_report
from pyro_riemann.experiments.identifiability._run import Protocol, run

__all__ = ["Protocol", "report", "run", "write_report"]
