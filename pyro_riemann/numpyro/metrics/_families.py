"""Families of distributions whose Fisher metric an immersion makes Euclidean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array

from pyro_riemann._formulas import fisher

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
