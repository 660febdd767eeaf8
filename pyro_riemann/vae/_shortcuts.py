"""What training may leave out without changing a gradient."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.distributions import RiemannianHeatKernel, RiemannianWrappedNormal
from pyro_riemann.distributions._base import Shape
from pyro_riemann.distributions._tangent import tangent_vectors
from pyro_riemann.geodesics import GeodesicSolver

# length of the straight line in the chart: no iteration, whatever the error
_STRAIGHT = GeodesicSolver(
    num_knots=1, num_segments=2, max_iterations=0, max_polish=0, tolerance=math.inf, on_failure="ignore"
)


class LastCall:
    """A function of one tensor that remembers its last result.

    Prior and posterior ask for log det G at the same draw, and a draw of the posterior starts at its location, where
    log det G set its time: each costs d decoder evaluations a point.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function
        self.key: tuple[Any, ...] | None = None
        self.kept: tuple[Tensor, Any] | None = None
        self.with_grad = False

    def __call__(self, z: Tensor) -> Any:
        key, with_grad = self._key(z), torch.is_grad_enabled()
        if key is None:
            return self.function(z)
        # a result that gradients may flow through serves also where none are wanted
        if self.kept is None or self.key != key or (with_grad and not self.with_grad):
            # the argument is kept too: its memory cannot be given to another tensor meanwhile
            self.key, self.with_grad, self.kept = key, with_grad, (z, self.function(z))
        return self.kept[1]

    @staticmethod
    def _key(z: Tensor) -> tuple[Any, ...] | None:
        """What identifies the values of a tensor and the graph behind them; None inside a transform or trace."""
        if torch.jit.is_tracing() or z.is_inference():
            return None
        try:
            place = z.data_ptr()
        except RuntimeError:  # inside a function transform
            return None
        return (place, z.shape, z.stride(), z.dtype, z._version, z.requires_grad, id(z.grad_fn))


@contextmanager
def constants_left_out(vae: Any) -> Iterator[None]:
    """Posterior densities without their costly constants inside: for training steps, whose gradients do not see them.

    Never for a number that is reported.
    """
    vae.leaves_out_constants = True
    try:
        yield
    finally:
        vae.leaves_out_constants = False


class FrozenWrappedNormal(RiemannianWrappedNormal):
    """A wrapped normal none of whose parameters is trained, for training steps only.

    Its log density is then a constant of the optimisation. At its own draws this class leaves out log V, by far the
    dearest term (Jacobi fields along every draw), and takes no derivatives; draws are unchanged.
    """

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            v = tangent_vectors(self.metric, self.loc, self.time, noise)
            z = self.metric.expmap(self.loc.expand_as(v), v)
        self._own = (weakref.ref(z), noise.square().sum(-1))
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        own, squared_noise = getattr(self, "_own", (lambda: None, None))
        if own() is not value or squared_noise is None:
            return super().log_prob(value)
        with torch.no_grad():
            constant = -0.5 * self.metric.dim * (2 * math.pi * self.time).log()
            exponent = constant - 0.5 * squared_noise
        return exponent + 0.5 * self.metric.logdet(value)  # a result that the prior can use again


class PosteriorHeatKernel(RiemannianHeatKernel):
    """A heat kernel of whose mass :func:`evaluate` takes account, and says so: a word in training would be one more."""

    _answers_for_its_mass = True


class FrozenHeatKernel(PosteriorHeatKernel):
    """A heat kernel none of whose parameters is trained, for training steps only.

    Its log density is a constant of the optimisation too. At its own draws this class puts the length of the straight
    line in place of the distance, which takes a boundary-value problem, and takes no derivatives; draws are unchanged.
    """

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            z = super().rsample(sample_shape)
        self._own = weakref.ref(z)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._own is None or self._own() is not value:
            return super().log_prob(value)
        with torch.no_grad():
            squared = _STRAIGHT.squared_dist(self.metric, self.loc, value)
            constant = -0.5 * self.metric.dim * (2 * math.pi * self.time).log()
            exponent = constant - 0.5 * squared / self.time
        return exponent + 0.5 * self.metric.logdet(value)  # a result that the prior can use again
