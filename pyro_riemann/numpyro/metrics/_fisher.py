"""Distributions as points of a space with their Fisher metric: which space, and with what coordinates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array
from numpyro.distributions.kl import kl_divergence

from pyro_riemann._decoded import OutputError
from pyro_riemann._formulas import fisher
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro.metrics._ambient import Ambient, Divergence, Flat, HalfPlanes, ZeroInflated

Law = distributions.Distribution
L = TypeVar("L", bound=Law)


class Family(NamedTuple):
    """An isometric immersion of a family, some of whose parameters are fixed."""

    immersion: Callable[[Law], Array]
    fixed: tuple[str, ...]


_FAMILIES: dict[type[Law], Family] = {}


def register_immersion(family: type[L], immersion: Callable[[L], Array], fixed: Sequence[str] = ()) -> None:
    r"""Tell :class:`PullbackMetric` what Fisher's metric of a family of distributions is.

    For an immersion h with :math:`J_h^\top J_h = F`, the Fisher information of the family in its parameters, the
    pullback of F through a decoder is that of the Euclidean metric through h of what the decoder returns. Known are
    ``Bernoulli`` and ``Categorical`` (of probabilities and logits), ``Poisson``, ``Exponential``; with fixed dispersion
    ``GammaPoisson`` and the negative binomials; with fixed scale ``Normal``, ``LogNormal``, ``Laplace`` and
    ``StudentT``; with fixed covariance ``MultivariateNormal``; with fixed shape ``Gamma``; with fixed concentration
    ``VonMises``.

    Args:
        family: class of the distribution; its subclasses have the same immersion, unless they are given another.
        immersion: maps a distribution of batch shape ``batch`` to ``(*batch, *out)``.
        fixed: names of parameters that h takes for constant. A decoder under which they depend on z is refused, or
            served otherwise, if the KL divergence of the family is known.

    Raises:
        TypeError: if ``family`` is no class of distributions, or ``immersion`` is not callable.

    Source: Arvanitidis, Gonzalez-Duque, Pouplin, Kalatzis and Hauberg (2022), *Pulling back information geometry*,
    section 3; Amari and Nagaoka (2000), *Methods of Information Geometry*, section 2.2.

    Example:
        >>> from numpyro.distributions import HalfNormal
        >>> class Spread(HalfNormal): pass
        >>> register_immersion(Spread, lambda law: 2**0.5 * jnp.log(law.scale))
        >>> metric = PullbackMetric(lambda z: Spread(jnp.exp(z)), dim=2, jitter=0.0)
        >>> metric.metric(jnp.zeros(2)).round(4).tolist()  # 2 / scale^2, the Fisher information, times scale^2
        [[2.0, 0.0], [0.0, 2.0]]
    """
    if not (isinstance(family, type) and issubclass(family, Law)):
        raise TypeError(f"`family` must be a subclass of numpyro.distributions.Distribution, got {family!r}.")
    if not callable(immersion):
        raise TypeError(f"`immersion` must be callable, got {type(immersion).__name__}.")
    _FAMILIES[family] = Family(cast(Callable[[Law], Array], immersion), tuple(fixed))


def known_family(law: Law) -> Family | None:
    """The entry of the distribution's class, or of the nearest class above it."""
    return next((_FAMILIES[cls] for cls in type(law).__mro__ if cls in _FAMILIES), None)


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
    if isinstance(base, distributions.ZeroInflatedProbs) and _is_negative_binomial(_base(base.base_dist)):
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


# ---------------------------------------------------------------- the families


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
    inflated = cast(distributions.ZeroInflatedProbs, _base(law))
    return cast(distributions.GammaPoisson, _base(inflated.base_dist))


def _zero_inflated(law: Law) -> Array:
    inflated, shape = cast(distributions.ZeroInflatedProbs, _base(law)), _within(law).batch_shape
    counts = _counts_of(law)
    if isinstance(inflated, distributions.ZeroInflatedLogits):
        gate = jnp.asarray(inflated.gate_logits)
    else:
        gate = jnp.log(inflated.gate) - jnp.log1p(-inflated.gate)
    parts = (jnp.log(counts.mean), gate, jnp.log(jnp.asarray(counts.concentration)))
    return jnp.concatenate([jnp.broadcast_to(part, shape).ravel() for part in parts])


def _image(value: object) -> Array:
    return cast(Array, value)


def _bernoulli(law: distributions.BernoulliProbs) -> Array:
    return _image(fisher.bernoulli(jnp, jnp.asarray(law.probs)))


def _bernoulli_logits(law: distributions.BernoulliLogits) -> Array:
    return _image(fisher.bernoulli_logits(jnp, jnp.asarray(law.logits)))


def _categorical(law: distributions.CategoricalProbs | distributions.CategoricalLogits) -> Array:
    return _image(fisher.two_roots(jnp, jnp.asarray(law.probs)))


def _poisson(law: distributions.Poisson) -> Array:
    return _image(fisher.two_roots(jnp, jnp.asarray(law.rate)))


def _gamma_poisson(law: distributions.GammaPoisson) -> Array:
    return _image(fisher.negative_binomial(jnp, 1 / jnp.asarray(law.rate), jnp.asarray(law.concentration)))


def _negative_binomial(law: distributions.NegativeBinomialProbs) -> Array:
    probs = jnp.asarray(law.probs)
    return _image(fisher.negative_binomial(jnp, probs / (1 - probs), jnp.asarray(law.concentration)))


def _negative_binomial_logits(law: distributions.NegativeBinomialLogits) -> Array:
    return _image(fisher.negative_binomial_logits(jnp, jnp.asarray(law.logits), jnp.asarray(law.concentration)))


def _location(law: distributions.Normal | distributions.LogNormal | distributions.Laplace) -> Array:
    return jnp.asarray(law.loc / law.scale)


def _student(law: distributions.StudentT) -> Array:
    return jnp.asarray(jnp.sqrt((law.df + 1) / (law.df + 3)) * law.loc / law.scale)


def _multivariate_normal(law: distributions.MultivariateNormal) -> Array:
    root = jnp.broadcast_to(law.scale_tril, (*law.batch_shape, *law.scale_tril.shape[-2:]))
    loc = jnp.broadcast_to(law.loc, root.shape[:-1])
    return jax.lax.linalg.triangular_solve(root, loc[..., None], left_side=True, lower=True)[..., 0]


def _exponential(law: distributions.Exponential) -> Array:
    return -jnp.log(jnp.asarray(law.rate))


def _gamma(law: distributions.Gamma) -> Array:
    return -jnp.sqrt(jnp.asarray(law.concentration)) * jnp.log(jnp.asarray(law.rate))


def _von_mises(law: distributions.VonMises) -> Array:
    kappa, loc = jnp.asarray(law.concentration), jnp.asarray(law.loc)
    radius = jnp.sqrt(kappa * jax.scipy.special.i1e(kappa) / jax.scipy.special.i0e(kappa))
    return jnp.stack([radius * jnp.cos(loc), radius * jnp.sin(loc)], -1)


register_immersion(distributions.BernoulliProbs, _bernoulli)
register_immersion(distributions.BernoulliLogits, _bernoulli_logits)
register_immersion(distributions.CategoricalProbs, _categorical)
register_immersion(distributions.CategoricalLogits, _categorical)
register_immersion(distributions.Poisson, _poisson)
register_immersion(distributions.GammaPoisson, _gamma_poisson, fixed=("concentration",))
register_immersion(distributions.NegativeBinomialProbs, _negative_binomial, fixed=("concentration",))
register_immersion(distributions.NegativeBinomialLogits, _negative_binomial_logits, fixed=("concentration",))
register_immersion(distributions.Normal, _location, fixed=("scale",))
register_immersion(distributions.LogNormal, _location, fixed=("scale",))
register_immersion(distributions.Laplace, _location, fixed=("scale",))
register_immersion(distributions.StudentT, _student, fixed=("df", "scale"))
register_immersion(distributions.MultivariateNormal, _multivariate_normal, fixed=("scale_tril",))
register_immersion(distributions.Exponential, _exponential)
register_immersion(distributions.Gamma, _gamma, fixed=("concentration",))
register_immersion(distributions.VonMises, _von_mises, fixed=("concentration",))
