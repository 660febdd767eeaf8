"""What training may leave out without changing a gradient."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.distributions import RiemannianWrappedNormal
from pyro_riemann.distributions._base import Shape
from pyro_riemann.distributions._tangent import tangent_vectors


class LastCall:
    """A function of one tensor that remembers its last result.

    Prior and posterior ask for log det G at the same draw, and a wrapped normal for the Cholesky factor at its
    location, whose determinant set its time: each costs d decoder evaluations a point.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.key: tuple[Any, ...] | None = None
        self.kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, z: Tensor) -> Tensor:
        key = self._key(z)
        if key is None:
            return self.function(z)
        if self.kept is None or self.key != key:
            # the argument is kept too: its memory cannot be given to another tensor meanwhile
            self.key, self.kept = key, (z, self.function(z))
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
        graph = (torch.is_grad_enabled(), z.requires_grad, id(z.grad_fn))
        return (place, z.shape, z.stride(), z.dtype, z._version, *graph)


class FrozenWrappedNormal(RiemannianWrappedNormal):
    """A wrapped normal none of whose parameters is trained, for training steps only.

    Its log density is then a constant of the optimisation. At its own draws this class leaves out log V, by far the
    dearest term (Jacobi fields along every draw), and takes no derivatives; draws are unchanged.
    """

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        with torch.no_grad():
            noise = torch.randn(self._extended_shape(torch.Size(sample_shape))).to(self.loc)
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
            return constant - 0.5 * squared_noise + 0.5 * self.metric.logdet(value)
