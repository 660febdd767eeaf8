"""Any law at any time, at any point: finite densities and draws with finite gradients, or a word."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_riemann import RiemannianUniform, RiemannianWrappedNormal
from tests.fuzz.contract import F32, F64, PHASES, Case, answer, with_gradients
from tests.laws import LAWS, Law

few = settings(max_examples=40, deadline=None, derandomize=True, database=None, phases=PHASES)


class Draw(NamedTuple):
    """A law about the centre of a metric, and a point at a distance from it.

    Attributes:
        law: its name.
        metric: likewise.
        time: power of ten of the variance.
        far: power of ten of the distance in the chart; None at the centre itself.
        dtype: of all numbers.
        seed: of the direction.
    """

    law: str
    metric: str
    time: int = 0
    far: int | None = 0
    dtype: torch.dtype = F64
    seed: int = 0


def covariance(loc: Tensor, time: Tensor, metric: object) -> RiemannianWrappedNormal:
    """The wrapped normal by a matrix."""
    eye = torch.eye(loc.shape[-1], dtype=loc.dtype)
    return RiemannianWrappedNormal(loc, None, metric, scale_tril=time.sqrt() * eye)


FUZZED: dict[str, Law] = {
    **{name: law for name, law in LAWS.items() if name != "RiemannianUniform"},
    "covariance": covariance,
    "uniform": lambda loc, time, metric: RiemannianUniform(metric, loc - time.sqrt(), loc + time.sqrt()),
}


def draws(metrics: tuple[str, ...], smallest: int = -8, largest: int = 8) -> st.SearchStrategy[Draw]:
    """Laws on some metrics, at times from ``10^smallest`` to ``10^largest``."""
    power = st.integers(smallest, largest)
    return st.builds(
        Draw,
        st.sampled_from(sorted(FUZZED)),
        st.sampled_from(metrics),
        power,
        st.one_of(st.none(), power),
        st.sampled_from((F32, F64)),
        st.integers(0, 99),
    )


def finite_or_nowhere(numbers: np.ndarray) -> np.ndarray:
    """Finite, or the logarithm of 0."""
    return np.isfinite(numbers) | (numbers == -np.inf)


def check(one: Draw) -> None:
    """Density with gradients in all arguments, and draws."""
    metric, loc = Case(one.metric, one.dtype).place()
    time = torch.tensor(10.0**one.time, dtype=one.dtype)
    step = torch.randn(metric.dim, generator=torch.Generator().manual_seed(one.seed), dtype=F64).to(one.dtype)
    value = loc if one.far is None else loc + 10.0**one.far * step
    law = FUZZED[one.law]
    bounds = finite_or_nowhere if one.law == "uniform" else np.isfinite
    found = answer(lambda: with_gradients(lambda x, t, z: law(x, t, metric).log_prob(z), loc, time, value), bounds)
    assert found is None or found[0].dtype == one.dtype
    torch.manual_seed(one.seed)
    drawn = answer(lambda: law(loc, time, metric).sample((3,)))
    assert drawn is None or drawn[0].shape == (3, metric.dim)


QUICK = ("EuclideanMetric", "ConstantMetric", "Sphere", "Hyperbolic", "Hyperboloid", "HalfSpace", "FlatTorus")


@few
@given(draws(QUICK))
@example(Draw("RiemannianHeatKernel", "HalfSpace", 0, 2, F32))  # were NaN without a word
@example(Draw("covariance", "HalfSpace", 0, 2, F32))
@example(Draw("RiemannianWrappedNormal", "HalfSpace", -2, 8, F64))
@example(Draw("RiemannianWrappedNormal", "SPD", 0, 2, F64))
@example(Draw("uniform", "Sphere", -8, None, F32))
def test_laws(one: Draw) -> None:
    check(one)
