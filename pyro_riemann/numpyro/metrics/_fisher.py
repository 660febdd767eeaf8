"""Distributions as points of a space with their Fisher metric: which space, and with what coordinates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array
from numpyro.distributions.discrete import ZeroInflatedLogits, ZeroInflatedProbs  # NumPyro 0.19 has them there alone
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._decoded import OutputError
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro.metrics._ambient import Ambient, Divergence, Flat, HalfPlanes, ZeroInflated
from pyro_riemann.numpyro.metrics._families import Law, known_family


@dataclasses.dataclass(frozen=True)
class Chart:
    """Coordinates of the distributions that a decoder returns at one point, and the space that these are of.

    Attributes:
        name: of the family.
        immersion: coordinates of a distribution.
        fixed: names of the parameters that must not depend on z.
        space: where the coordinates are.
        size: their number.
    """

    name: str
    immersion: Callable[[Law], Array]
    fixed: tuple[str, ...]
    space: Ambient
    size: int

    @property
    def is_flat(self) -> bool:
        """Whether the space is Euclidean."""
        return isinstance(self.space, Flat)

    def image(self, law: Law) -> Array:
        """Coordinates ``(size,)``."""
        return self.immersion(law)

    def constants(self, law: Law) -> Array:
        """The parameters that must not depend on z, side by side."""
        return _constants(law, self.fixed)


def charts_of(samples: Sequence[tuple[Law, ...]], own_scale: bool) -> tuple[Chart, ...]:
    """How to read the distributions that a decoder returns at a point.

    Args:
        samples: what it returned at some points: independent distributions.
        own_scale: whether normals are to have a scale of their own also where it seems constant.

    Raises:
        OutputError: if the Fisher metric of one is not known.
    """
    return tuple(_chart(laws, own_scale) for laws in zip(*samples, strict=True))


def _chart(laws: tuple[Law, ...], own_scale: bool) -> Chart:
    law = laws[0]
    base = _base(law)
    name, family = type(base).__name__, known_family(base)
    values = {
        part: jnp.stack([_constants(each, (part,)) for each in laws]) for part in (family.fixed if family else ())
    }
    varying = [part for part, value in values.items() if not holds(unvarying(value))]
    if isinstance(base, distributions.Normal | distributions.LogNormal):
        # where values cannot be read, the metric that is right in either case
        unknown = any(isinstance(value, jax.core.Tracer) for value in values.values())
        if varying or own_scale or unknown:
            for each in laws:
                _check_scale(each)
            return Chart(name, _half_planes, (), HalfPlanes(), _half_planes(law).size)
    if family is not None and not varying:
        immersion = _Broadcast(family.immersion)
        return Chart(name, immersion, family.fixed, Flat(), immersion(law).size)
    if isinstance(base, ZeroInflatedProbs) and _is_negative_binomial(_base(base.base_dist)):
        counts = jnp.stack([jnp.ravel(_counts_of(each).concentration) * 1.0 for each in laws])
        if not holds(unvarying(counts)):
            raise OutputError(
                f"`immersion` returns a {name} whose `concentration` depends on z: its Fisher metric is known for a "
                'fixed one. Return an array, such as the mean (`output="mean"`).'
            )
        return Chart(name, _zero_inflated, (), ZeroInflated(), _zero_inflated(law).size)
    said = f", whose `{varying[0]}` depends on z" if varying else ""
    law = _within(law)
    leaves, structure = jax.tree.flatten(law)
    space = Divergence(structure, tuple(jnp.shape(leaf) for leaf in leaves))
    try:
        if not all(jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) for leaf in leaves):
            raise NotImplementedError
        kl_divergence(space.law(_parameters(law)), law)
    except NotImplementedError as error:
        raise OutputError(
            f"`immersion` returns a {name}{said}: its Fisher metric is not known, neither by an immersion nor by "
            "numpyro's `kl_divergence`. Give an immersion by `register_immersion`, or return an array, such as the "
            'mean (`output="mean"`).'
        ) from error
    return Chart(name, _parameters, (), space, _parameters(law).size)


def unvarying(values: Array) -> Array:
    """Whether numbers ``(n, k)`` are the same in all rows, up to rounding."""
    tolerance = 100 * float(jnp.finfo(values.dtype).eps)
    return (jnp.abs(values - values[:1]) <= tolerance * jnp.abs(values)).all()


def _within(law: Law) -> Law:
    while isinstance(law, distributions.Independent):
        law = law.base_dist
    return law


def _base(law: Law) -> Law:
    """The distribution within all ``Independent`` and ``ExpandedDistribution``."""
    while isinstance(law, distributions.Independent | distributions.ExpandedDistribution):
        law = law.base_dist
    return law


def _constants(law: Law, names: tuple[str, ...]) -> Array:
    base = _base(law)
    values = [jnp.ravel(jnp.asarray(getattr(base, name))) for name in names]
    return jnp.concatenate([value if jnp.issubdtype(value.dtype, jnp.floating) else value * 1.0 for value in values])


@dataclasses.dataclass(frozen=True)
class _Broadcast:
    """The image of every distribution of the batch, also of those that were expanded from one."""

    immersion: Callable[[Law], Array]

    def __call__(self, law: Law) -> Array:
        law = _within(law)
        base = _base(law)
        image = jnp.asarray(self.immersion(base))
        return jnp.broadcast_to(image, (*law.batch_shape, *image.shape[len(base.batch_shape) :])).ravel()


def _parameters(law: Law) -> Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(_within(law))])


# ---------------------------------------------------------------- coordinates in curved spaces


def _check_scale(law: Law) -> None:
    scale = jnp.asarray(cast(distributions.Normal, _base(law)).scale)
    if not holds(scale > 0):
        raise OutputError(
            f"`immersion` returns a {type(_base(law)).__name__} whose `scale` is {float(scale.min()):.3g} somewhere; "
            "it must be positive. Is it a log-variance? Its half has the exponential that is meant."
        )


def _half_planes(law: Law) -> Array:
    normal, shape = cast(distributions.Normal, _base(law)), _within(law).batch_shape
    scale = jnp.asarray(normal.scale)
    scale = jnp.where(scale > 0, scale, jnp.nan)
    return jnp.concatenate([jnp.broadcast_to(part, shape).ravel() for part in (jnp.asarray(normal.loc), scale)])


def _is_negative_binomial(law: Law) -> bool:
    kinds = (distributions.GammaPoisson, distributions.NegativeBinomialProbs, distributions.NegativeBinomialLogits)
    return isinstance(law, kinds)


def _counts_of(law: Law) -> distributions.GammaPoisson:
    """The law without the added zeros, or one that has the same attributes."""
    inflated = cast(ZeroInflatedProbs, _base(law))
    return cast(distributions.GammaPoisson, _base(inflated.base_dist))


def _zero_inflated(law: Law) -> Array:
    inflated, shape = cast(ZeroInflatedProbs, _base(law)), _within(law).batch_shape
    counts = _counts_of(law)
    if isinstance(inflated, ZeroInflatedLogits):
        gate = jnp.asarray(inflated.gate_logits)
    else:
        gate = jnp.log(inflated.gate) - jnp.log1p(-inflated.gate)
    parts = (jnp.log(counts.mean), gate, jnp.log(jnp.asarray(counts.concentration)))
    return jnp.concatenate([jnp.broadcast_to(part, shape).ravel() for part in parts])
