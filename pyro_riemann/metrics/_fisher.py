"""Distributions as points of a space with their Fisher metric: which space, and with what coordinates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from pyro.distributions import ZeroInflatedNegativeBinomial
from torch import Tensor, distributions
from torch.distributions.kl import kl_divergence

from pyro_riemann._checks import holds
from pyro_riemann._decoded import OutputError
from pyro_riemann.metrics._ambient import Ambient, Divergence, Flat, HalfPlanes, ZeroInflated
from pyro_riemann.metrics._families import Law, known_family

_ADVICE = (
    'For normals, `ambient="fisher"` is the metric with a scale of their own; for others, let all of it depend on z, '
    'give an immersion by `register_immersion`, or return a tensor, such as the mean (`output="mean"`).'
)


@dataclasses.dataclass(frozen=True)
class Chart:
    """Coordinates of the distributions that a decoder returns, and the space that these are of.

    Attributes:
        name: of the family.
        immersion: coordinates of a distribution of batch shape ``(n, *batch)``, ``(n, *out)``.
        fixed: names of the parameters that must not depend on z.
        space: where the coordinates are.
        size: their number.
    """

    name: str
    immersion: Callable[[Law], Tensor]
    fixed: tuple[str, ...]
    space: Ambient
    size: int

    @property
    def is_flat(self) -> bool:
        """Whether the space is Euclidean."""
        return isinstance(self.space, Flat)

    def image(self, law: Law) -> Tensor:
        """Coordinates ``(n, size)``.

        Raises:
            OutputError: if a parameter that should be fixed depends on z, or a scale is not positive.
        """
        base = unwrapped(law)
        for name in self.fixed:
            if _varies(base, name):
                raise OutputError(
                    f"`immersion` returns a {self.name} whose `{name}` is the same at the points at which the metric "
                    f"was made and depends on z elsewhere. {_ADVICE}"
                )
        return _rows(self.immersion(base))


def unwrapped(law: Law) -> Law:
    """The distribution within all ``Independent``."""
    while isinstance(law, distributions.Independent):
        law = law.base_dist
    return law


def _varies(law: Law, name: str) -> bool:
    value = cast(Tensor, getattr(law, name))
    tolerance = 100 * torch.finfo(value.dtype).eps if value.dtype.is_floating_point else 0.0
    return not holds((value - value[:1]).abs() <= tolerance * value.abs())


def charts_of(laws: Sequence[Law], own_scale: bool) -> tuple[Chart, ...]:
    """How to read the distributions that a decoder returned at some points, the first axis of each.

    Args:
        laws: independent distributions, each of batch shape ``(n, *batch)``.
        own_scale: whether normals are to have a scale of their own also where it seems constant.

    Raises:
        OutputError: if the Fisher metric of one is not known.
    """
    return tuple(_chart(unwrapped(law), own_scale) for law in laws)


def _chart(law: Law, own_scale: bool) -> Chart:
    name, family = type(law).__name__, known_family(law)
    if not law.batch_shape:
        raise OutputError(
            f"`immersion` returns a {name} of batch shape (): it is called with (n, d), and the first axis of the "
            "distribution's batch shape must be that n."
        )
    varying = [] if family is None else [part for part in family.fixed if _varies(law, part)]
    if isinstance(law, distributions.Normal | distributions.LogNormal) and (varying or own_scale):
        return Chart(name, _half_planes, (), HalfPlanes(), _size(_half_planes(law)))
    if family is not None and not varying:
        return Chart(name, family.immersion, family.fixed, Flat(), _size(family.immersion(law)))
    if isinstance(law, ZeroInflatedNegativeBinomial) and not _varies(law, "total_count"):
        return Chart(name, _zero_inflated, ("total_count",), ZeroInflated(), _size(_zero_inflated(law)))
    said = f", whose `{varying[0]}` depends on z" if varying else ""
    parameters = _parameters(law)
    try:
        if not parameters:
            raise NotImplementedError
        space = Divergence(type(law), tuple(parameters), tuple(tuple(x.shape[1:]) for x in parameters.values()))
        flat = _flat(parameters)
        kl_divergence(space.law(flat), law)
    except (NotImplementedError, TypeError) as error:
        raise OutputError(
            f"`immersion` returns a {name}{said}: its Fisher metric is not known, neither by an immersion nor by "
            "torch's `kl_divergence`. Give an immersion by `register_immersion`, or return a tensor, such as the mean "
            '(`output="mean"`).'
        ) from error
    return Chart(name, _Parameters(space.names), (), space, _size(flat))


def _rows(image: Tensor) -> Tensor:
    return image.flatten(1) if image.dim() > 1 else image.unsqueeze(1)


def _size(image: Tensor) -> int:
    return image[0].numel()


def _parameters(law: Law) -> dict[str, Tensor]:
    """The parameters that the distribution was given, by the names under which its class takes them."""
    family = type(law)  # of several ways to give a parameter, torch computes the others when they are asked for
    constraints = cast(Mapping[str, object], family.arg_constraints)
    names = [name for name in constraints if name in vars(law) or isinstance(getattr(family, name), property)]
    for one, other in (("probs", "logits"), ("gate", "gate_logits")):
        if {one, other} <= set(names):
            names.remove(other)
    return {name: cast(Tensor, getattr(law, name)) for name in names}


def _flat(parameters: dict[str, Tensor]) -> Tensor:
    return torch.cat([_rows(value) for value in parameters.values()], -1)


@dataclasses.dataclass(frozen=True)
class _Parameters:
    """The coordinates of a family with the metric of its KL divergence."""

    names: tuple[str, ...]

    def __call__(self, law: Law) -> Tensor:
        return _flat({name: getattr(law, name) for name in self.names})


# ---------------------------------------------------------------- coordinates in curved spaces


def _half_planes(law: Law) -> Tensor:
    normal = cast(distributions.Normal, law)
    if not holds(normal.scale > 0):
        raise OutputError(
            f"`immersion` returns a {type(law).__name__} whose `scale` is {float(normal.scale.min()):.3g} somewhere; "
            "it must be positive. Is it a log-variance? Its half has the exponential that is meant."
        )
    return torch.cat([_rows(normal.loc), _rows(normal.scale)], -1)


def _zero_inflated(law: Law) -> Tensor:
    counts = cast(ZeroInflatedNegativeBinomial, law)
    count = counts.total_count.log().expand_as(counts.logits)
    return torch.cat([_rows(part) for part in (count + counts.logits, counts.gate_logits, count)], -1)
