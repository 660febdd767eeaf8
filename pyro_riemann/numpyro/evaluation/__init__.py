"""How well draws and distances do: tables of samplers, distances under retrainings."""

from pyro_riemann.numpyro.evaluation._features import PrecisionRecall, frechet_distance, precision_recall
from pyro_riemann.numpyro.evaluation._identifiability import (
    EncodingModel,
    IdentifiabilityReport,
    identifiability_report,
)
from pyro_riemann.numpyro.evaluation._samplers import compare_samplers

__all__ = [
    "EncodingModel",
    "IdentifiabilityReport",
    "PrecisionRecall",
    "compare_samplers",
    "frechet_distance",
    "identifiability_report",
    "precision_recall",
]
