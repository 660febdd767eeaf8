"""What any public call owes on any input: finite numbers, an error that names the argument, or a warning."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import Phase
from hypothesis import strategies as st
from torch import Tensor

from pyro_riemann import ConstantMetric, PullbackMetric, RiemannianMetric, time_limit
from tests.metrics_zoo import PLACES, Place, at

F32, F64 = torch.float32, torch.float64
PHASES = (Phase.explicit, Phase.generate)  # a case is a line of a table: there is nothing to shrink
CLOSED = (
    *("EuclideanMetric", "ConstantMetric", "Sphere", "Hyperbolic", "Hyperboloid", "HalfSpace", "FlatTorus", "SPD"),
    *("ProductMetric", "ScaledMetric"),
)
NUMERIC = tuple(name for name in PLACES if name not in CLOSED)
SECONDS = 60.0


class Case(NamedTuple):
    """Points: ``scale`` from the centre of a metric, and ``step`` from each other, both powers of ten.

    Attributes:
        name: of the metric.
        dtype: of all numbers.
        scale: power of ten of how far points lie from the centre.
        step: power of ten of how far they lie from each other; None if they are the same.
        shape: of the batch.
        seed: of the directions.
    """

    name: str
    dtype: torch.dtype = F64
    scale: int = 0
    step: int | None = 0
    shape: tuple[int, ...] = (2,)
    seed: int = 0

    def place(self) -> Place:
        """The metric and its centre."""
        metric, centre = singular(int(self.name[9:])) if self.name.startswith("singular ") else PLACES[self.name]()
        return Place(metric.to(self.dtype), centre.to(self.dtype))

    def points(self) -> tuple[RiemannianMetric, Tensor, Tensor, Tensor]:
        """The metric, two points and a vector, each ``(*shape, d)``."""
        metric, centre = self.place()
        generator = torch.Generator().manual_seed(self.seed)
        first, second = torch.randn(2, *self.shape, metric.dim, generator=generator, dtype=F64).to(self.dtype)
        z = centre + 10.0**self.scale * first
        step = 0 * second if self.step is None else 10.0**self.step * second
        return metric, z, z + step, step


def singular(power: int) -> Place:
    """A surface that is ``10^-power`` times as wide as it is long, without jitter; of a plane if ``power`` is odd."""
    width = 10.0**-power
    if power % 2:
        turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]], dtype=F64)
        return at(ConstantMetric(turn.T @ torch.diag(torch.tensor([1.0, width], dtype=F64)) @ turn))
    return at(PullbackMetric(lambda z: torch.stack([z[..., 0], width * z[..., 1], z[..., 0].sin()], -1), 2, jitter=0.0))


def cases(names: tuple[str, ...], largest: int = 8, shapes: tuple[tuple[int, ...], ...] | None = None) -> Any:
    """Cases of some metrics, with points up to ``10^largest`` away."""
    return st.builds(
        Case,
        st.sampled_from(names),
        st.sampled_from((F32, F64)),
        st.integers(-8, largest),
        st.one_of(st.none(), st.integers(-8, largest)),
        st.sampled_from(shapes or ((), (2,), (0,), (2, 1))),
        st.integers(0, 99),
    )


def answer(
    call: Callable[[], Any], allow: Callable[[np.ndarray], Any] = np.isfinite, sure: bool = False
) -> tuple[Any, ...] | None:
    """What the call returns; None where it refused clearly, or warned of numbers that are not right.

    Args:
        call: of a public routine.
        allow: which numbers are right.
        sure: None as well where it warned of anything, as a solver does that did not converge.

    Raises:
        AssertionError: if it returned a number that is not allowed in silence, or refused without naming a culprit.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with time_limit(SECONDS):
                given = call()
        except TimeoutError:  # says what it had reached: its own tests
            return None
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
            if re.search(r"`\w[\w.]*`|Expected (value|parameter) ", str(error)) is None:
                raise AssertionError(f"does not say what is wrong: {error!r}") from error
            return None
    parts = given if isinstance(given, tuple) else (given,)
    numbers = [part.detach().numpy() if isinstance(part, Tensor) else np.asarray(part) for part in parts]
    if not all(bool(allow(part).all()) for part in numbers):
        assert any(issubclass(one.category, UserWarning) for one in told), f"not a word of {numbers}"
        return None
    return None if sure and told else parts


def with_gradients(function: Callable[..., Tensor], *points: Tensor) -> tuple[Tensor, ...]:
    """A value and its derivatives by the points, of those that it depends on."""
    leaves = [point.detach().clone().requires_grad_() for point in points]
    value = function(*leaves)
    if not value.requires_grad:
        return (value,)
    slopes = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return value.detach(), *(slope for slope in slopes if slope is not None)
