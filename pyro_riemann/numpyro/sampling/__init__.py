"""Geometry-aware sampling: draws of the Riemannian uniform of a metric, with their diagnostics.

:func:`sample_uniform` chooses; every sampler can be called by itself, and all return one :class:`SamplingResult`. The
kernels move particles of any log density.
"""

from typing import TYPE_CHECKING

from pyro_riemann._formulas.novelty import CodeDistances, Novelty
from pyro_riemann._formulas.unit_laws import SamplerReport
from pyro_riemann._formulas.unit_moves import HamiltonianInfo, HamiltonianState
from pyro_riemann._formulas.unit_tempering import TemperedInfo, TemperedState
from pyro_riemann._lazy import lazily

if TYPE_CHECKING:
    from pyro_riemann.numpyro.sampling._codes import (
        GaussianMixtureSampler,
        LatentSampler,
        NormalSampler,
        PosteriorSampler,
        UniformSampler,
    )
    from pyro_riemann.numpyro.sampling._door import default_box
    from pyro_riemann.numpyro.sampling._front import importance_resampling, sample_uniform, tempered_smc
    from pyro_riemann.numpyro.sampling._interpolation import Interpolation, interpolate
    from pyro_riemann.numpyro.sampling._kernels import HamiltonianKernel, TemperedKernel
    from pyro_riemann.numpyro.sampling._law import BoxLaw
    from pyro_riemann.numpyro.sampling._result import SamplingResult

__all__ = [
    "sample_uniform",
    "SamplingResult",
    "CodeDistances",
    "Novelty",
    "SamplerReport",
    "default_box",
    "interpolate",
    "Interpolation",
    "importance_resampling",
    "tempered_smc",
    "BoxLaw",
    "TemperedKernel",
    "TemperedState",
    "TemperedInfo",
    "HamiltonianKernel",
    "HamiltonianState",
    "HamiltonianInfo",
    "LatentSampler",
    "NormalSampler",
    "GaussianMixtureSampler",
    "PosteriorSampler",
    "UniformSampler",
]

_MODULES = dict.fromkeys(("_law", "_door", "_kernels", "_interpolation"), "jax")
_JUDGED = dict.fromkeys(("_front", "_result", "_codes"), "diagnostics")

if not TYPE_CHECKING:  # the distributions are built on some of these, and need no table of chains
    __getattr__, __dir__ = lazily(__name__, __all__, _MODULES | _JUDGED)
