"""Geometry-aware sampling: draws of the Riemannian uniform of a metric, with their diagnostics.

:func:`sample_uniform` chooses; every sampler can be called by itself, and all return one :class:`SamplingResult`.
:func:`interpolate` follows the same geometry between two codes.
"""

from pyro_riemann._formulas.unit_laws import SamplerReport
from pyro_riemann._formulas.unit_moves import HamiltonianInfo, HamiltonianState
from pyro_riemann._formulas.unit_tempering import TemperedInfo, TemperedState
from pyro_riemann.sampling._front import sample_uniform
from pyro_riemann.sampling._hmc import hmc
from pyro_riemann.sampling._interpolation import Interpolation, interpolate
from pyro_riemann.sampling._kernels import HamiltonianKernel, TemperedKernel
from pyro_riemann.sampling._law import BoxLaw
from pyro_riemann.sampling._mixture import importance_resampling, independence_metropolis
from pyro_riemann.sampling._proposal import MixtureProposal
from pyro_riemann.sampling._result import SamplingResult
from pyro_riemann.sampling._target import default_box
from pyro_riemann.sampling._tempered import tempered_smc

__all__ = [
    "BoxLaw",
    "HamiltonianInfo",
    "HamiltonianKernel",
    "HamiltonianState",
    "Interpolation",
    "MixtureProposal",
    "SamplerReport",
    "SamplingResult",
    "TemperedInfo",
    "TemperedKernel",
    "TemperedState",
    "default_box",
    "hmc",
    "importance_resampling",
    "independence_metropolis",
    "interpolate",
    "sample_uniform",
    "tempered_smc",
]
