"""Second-order Taylor propagation through the layers of a network.

Nested forward mode carries value, tangent, tangent again and second derivative through the
network each time a second derivative is asked for. A jet evaluates value and Jacobian once, keeps
the layers' slopes, and afterwards gives the second derivative along any direction for the
price of one more plain evaluation. All is ordinary tensor arithmetic: it traces, batches and
differentiates.

An immersion offers it by a method ``jet(z)`` that returns one :class:`Jet` for each output.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann import _autodiff
from pyro_riemann._rescale import Rescale

_ELEMENTWISE = (nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.ReLU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Tanh)


class Jet:
    """Value and Jacobian of a function of z, and its second derivative along a direction chosen later.

    Attributes:
        factor: jet and weight of which this is the product, if it is one.
    """

    def __init__(
        self,
        value: Tensor | Callable[[], Tensor],
        tangents: Tensor | Callable[[], Tensor],
        second: Callable[[Tensor], Tensor] | None,
        factor: tuple[Jet, Tensor] | None = None,
    ) -> None:
        self._value, self._tangents, self._second = value, tangents, second
        self.factor = factor

    @property
    def value(self) -> Tensor:
        """``f(z)``, ``(*batch, n)``; computed when first read, since metrics do without it."""
        if not isinstance(self._value, Tensor):
            self._value = self._value()
        return self._value

    @property
    def tangents(self) -> Tensor:
        """Derivative along each latent axis, ``(d, *batch, n)`` or broadcastable to it; computed when first read."""
        if not isinstance(self._tangents, Tensor):
            self._tangents = self._tangents()
        return self._tangents

    @property
    def is_linear(self) -> bool:
        """True if the second derivative is known to vanish."""
        return self._second is None

    def second(self, v: Tensor) -> Tensor:
        """Second derivative ``D^2 f[v, v]`` along ``v`` of shape ``(*batch, d)``, ``(*batch, n)``."""
        return torch.zeros_like(self.value) if self._second is None else self._second(v)

    def along(self, v: Tensor) -> Tensor:
        """First derivative along ``v``, ``(*batch, n)``."""
        total = self.tangents[0] * v[..., :1]
        for axis in range(1, self.tangents.shape[0]):
            total = torch.addcmul(total, self.tangents[axis], v[..., axis : axis + 1])
        return total

    def jacobian(self) -> Tensor:
        """Jacobian ``(*batch, n, d)``."""
        return torch.broadcast_tensors(self.tangents, self.value.unsqueeze(0))[0].movedim(0, -1)

    def scaled(self, factor: float) -> Jet:
        """The jet of ``factor * f``."""
        second = self._second
        scaled = None if second is None else partial(_compose, lambda bend: factor * bend, second)
        return Jet(lambda: factor * self.value, factor * self.tangents, scaled)

    def affine(self, loc: Tensor, scale: Tensor) -> Jet:
        """The jet of ``loc + scale * f``, a number ``scale``."""
        second = self._second
        return Jet(
            lambda: loc + scale * self.value,
            lambda: scale * self.tangents,
            None if second is None else partial(_compose, lambda bend: scale * bend, second),
            factor=None if self.factor is None else (self.factor[0], scale * self.factor[1]),
        )

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Jet:
        """The jet of ``weight @ f + bias``."""
        second = self._second
        return Jet(
            lambda: functional.linear(self.value, weight, bias),
            lambda: functional.linear(self.tangents, weight),
            None if second is None else partial(_compose, lambda bend: functional.linear(bend, weight), second),
            factor=(self, weight),
        )

    def elementwise(
        self, value: Tensor | Callable[[], Tensor], first: Tensor, second: Callable[[], Tensor], relative: bool = False
    ) -> Jet:
        """The jet of ``phi(f)``, given value and both derivatives of ``phi`` at f.

        With ``relative`` the function ``second`` gives ``phi'' / phi'``, which saves passes over memory: on a
        processor these cost as much as the matrix products.
        """
        inner = self._second

        def bend(v: Tensor) -> Tensor:
            along = self.along(v)
            own = second() * along
            if relative:
                return first * (own * along if inner is None else torch.addcmul(inner(v), own, along))
            return own * along if inner is None else torch.addcmul(own * along, first, inner(v))

        return Jet(value, first * self.tangents, bend)


def _compose(outer: Callable[[Tensor], Tensor], inner: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    return outer(inner(v))


def variable(z: Tensor, dim: int) -> Jet:
    """The jet of the identity."""
    basis = torch.eye(dim, dtype=z.dtype, device=z.device)
    return Jet(z, basis.reshape(dim, *(1,) * (z.dim() - 1), dim), None)


def propagate(layer: nn.Module, jet: Jet) -> Jet:
    """Pass a jet through a linear layer, an elementwise activation or a change of units."""
    if isinstance(layer, nn.Linear):
        return jet.linear(layer.weight, layer.bias)
    if isinstance(layer, Rescale):
        return jet.affine(layer.loc, layer.scale)
    at = jet.value
    if isinstance(layer, nn.ELU) and layer.alpha == 1.0:
        slope = at.clamp(max=0).exp()  # 1 for positive arguments
        return jet.elementwise(layer(at), slope, lambda: (at <= 0).to(at), relative=True)
    value, first = _autodiff.directional(layer, at, torch.ones_like(at))
    return jet.elementwise(value, first, lambda: _autodiff.second_directional(layer, at, torch.ones_like(at))[2])


def is_sequential(network: object) -> bool:
    """True for a plain ``nn.Sequential`` of layers that :func:`propagate` knows."""
    return type(network) is nn.Sequential and all(
        type(layer) in (nn.Linear, Rescale, *_ELEMENTWISE) and not layer._forward_hooks and not layer._forward_pre_hooks
        for layer in network
    )


def sequential(network: nn.Sequential, z: Tensor, dim: int) -> Jet:
    """The jet of a multilayer perceptron at ``z``."""
    jet = variable(z, dim)
    for layer in network:
        jet = propagate(layer, jet)
    return jet


def metric_and_force(jets: tuple[Jet, ...], z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Pullback metric ``sum J^T J`` at ``z`` and the function ``v -> sum J^T D^2 f[v, v]``.

    Shapes ``(*batch, d, d)`` and ``(*batch, d)``. For outputs ``W h`` with more rows than columns both are
    taken in the space of h, through ``W^T W``: fewer operations in a large batch.
    """
    metric = torch.zeros_like(z).unsqueeze(-1)  # the tangents of a linear map have no batch shape of their own
    curved: list[tuple[Tensor, Jet]] = []
    for jet in jets:
        if jet.factor is not None and _squaring_pays(*jet.factor):
            jet, weight = jet.factor
            covectors = functional.linear(jet.tangents, weight.mT @ weight)
        else:
            covectors = jet.tangents
        metric = metric + torch.einsum("k...a,l...a->...kl", jet.tangents, covectors)
        if not jet.is_linear:
            curved.append((covectors, jet))

    def force(v: Tensor) -> Tensor:
        total = torch.zeros_like(v)
        for covectors, jet in curved:
            total = total + torch.einsum("k...a,...a->...k", covectors, jet.second(v))
        return total

    return metric, force


def _squaring_pays(jet: Jet, weight: Tensor) -> bool:
    """True if forming ``W^T W`` costs less than it saves on the tangents."""
    if torch.jit.is_tracing():
        return False
    rows, columns = weight.shape
    return jet.tangents.numel() * (rows - columns) > rows * columns**2
