"""New items of a trained VAE, and draws of the Riemannian uniform of a metric, with their diagnostics.

:func:`sample` makes items of any model in one call. :func:`sample_uniform` chooses a sampler of a metric; every sampler
can be called by itself, and all return one :class:`SamplingResult`. :func:`interpolate` follows the same geometry
between two codes.
"""

from typing import TYPE_CHECKING

from pyro_riemann._formulas.novelty import CodeDistances, Novelty
from pyro_riemann._formulas.unit_laws import SamplerReport
from pyro_riemann._formulas.unit_moves import HamiltonianInfo, HamiltonianState
from pyro_riemann._formulas.unit_tempering import TemperedInfo, TemperedState
from pyro_riemann._lazy import lazily

if TYPE_CHECKING:
    from pyro_riemann.sampling._codes import (
        GaussianMixtureSampler,
        LatentSampler,
        NormalSampler,
        PosteriorSampler,
        UniformSampler,
    )
    from pyro_riemann.sampling._front import sample_uniform
    from pyro_riemann.sampling._hmc import hmc
    from pyro_riemann.sampling._interpolation import Interpolation, interpolate
    from pyro_riemann.sampling._kernels import HamiltonianKernel, TemperedKernel
    from pyro_riemann.sampling._law import BoxLaw
    from pyro_riemann.sampling._mixture import importance_resampling, independence_metropolis, tempered_smc
    from pyro_riemann.sampling._proposal import MixtureProposal
    from pyro_riemann.sampling._result import SamplingResult
    from pyro_riemann.sampling._sample import Samples, sample
    from pyro_riemann.sampling._target import default_box

__all__ = [
    "sample",
    "Samples",
    "sample_uniform",
    "SamplingResult",
    "CodeDistances",
    "Novelty",
    "SamplerReport",
    "default_box",
    "importance_resampling",
    "independence_metropolis",
    "tempered_smc",
    "hmc",
    "BoxLaw",
    "MixtureProposal",
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
    "interpolate",
    "Interpolation",
]

_MODULES = dict.fromkeys(("_law", "_target", "_kernels", "_proposal", "_interpolation"), "torch")
_JUDGED = dict.fromkeys(("_front", "_hmc", "_mixture", "_result", "_codes", "_sample"), "diagnostics")

if not TYPE_CHECKING:  # the distributions are built on some of these, and need no table of chains
    __getattr__, __dir__ = lazily(__name__, __all__, _MODULES | _JUDGED)
