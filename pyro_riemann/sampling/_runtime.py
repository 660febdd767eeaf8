"""torch at work for the samplers that both array libraries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._checks import check_same, check_tensor, holds
from pyro_riemann._formulas import Namespace
from pyro_riemann._formulas.runtime import Eager, squared_distances
from pyro_riemann._memory import into_place, slices


class TorchRuntime(Eager):
    """Keys are generators; None is the global one."""

    xp: Namespace = torch

    def uniform(self, key: torch.Generator | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """On the device of ``like``."""
        return torch.rand(shape, generator=key, dtype=like.dtype, device=like.device)

    def kick(self, key: torch.Generator | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """On the device of ``like``."""
        normal = torch.randn(like.shape, generator=key, dtype=like.dtype, device=like.device)
        return normal, self.uniform(key, (len(like), 2), like)

    def ndtri(self, uniform: Tensor) -> Tensor:
        """torch's own."""
        return torch.special.ndtri(uniform)

    def logsumexp(self, terms: Tensor, axis: int) -> Tensor:
        """torch's own."""
        return terms.logsumexp(axis)

    def squared_distances(self, z: Tensor, loc: Tensor, precision: Tensor) -> Tensor:
        """By two matrix products where these keep enough digits."""
        found: Tensor = squared_distances(torch, z, loc, precision)
        return found

    def in_pieces(self, function: Callable[[Tensor], Any], rows: int, points: Tensor) -> Any:
        """One piece after another."""
        if len(points) <= rows:
            return function(points)
        return into_place(lambda piece: function(points[piece]), slices(len(points), rows))

    def slopes(self, log_density: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """By reverse mode."""

        def slopes(z: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                point = z.detach().requires_grad_()
                value = log_density(point)
                # a flat density does not depend on the point: the zero keeps that on the graph
                (gradient,) = torch.autograd.grad(value.sum() + 0 * point.sum(), point)
            return value.detach(), gradient

        return slopes

    def check_key(self, key: torch.Generator | None) -> torch.Generator | None:
        """A generator or None."""
        if key is not None and not isinstance(key, torch.Generator):
            raise TypeError(f"`key` must be a torch.Generator or None, got {type(key).__name__}.")
        return key

    def check_like(self, name: str, value: Tensor, like: Tensor) -> Tensor:
        """A floating tensor of the dtype and device of ``like``."""
        check_same(name, check_tensor(name, value), like)
        return value

    def holds(self, mask: Tensor) -> bool:
        """Where it can be read."""
        return holds(mask)


RUNTIME = TorchRuntime()
