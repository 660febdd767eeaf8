"""Densities of places on Earth: mixtures of exact heat kernels on the benchmark of Mathieu & Nickel (2020)."""

from pyro_riemann.experiments.earth._fits import load_places, run, split, to_chart, to_degrees
from pyro_riemann.experiments.earth._report import report, write_report

__all__ = ["load_places", "report", "run", "split", "to_chart", "to_degrees", "write_report"]
