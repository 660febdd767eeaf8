"""Families of distributions whose Fisher metric an immersion makes Euclidean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from pyro.distributions import GammaPoisson
from torch import Tensor, distributions

from pyro_riemann._formulas import fisher

Law = distributions.Distribution
L = TypeVar("L", bound=Law)


class Family(NamedTuple):
    """An isometric immersion of a family, some of whose parameters are fixed."""

    immersion: Callable[[Law], Tensor]
    fixed: tuple[str, ...]


_FAMILIES: dict[type[Law], Family] = {}


def register_immersion(family: type[L], immersion: Callable[[L], Tensor], fixed: Sequence[str] = ()) -> None:
    r"""Tell :class:`PullbackMetric` what Fisher's metric of a family of distributions is.

    For an immersion h with :math:`J_h^\top J_h = F`, the Fisher information of the family in its parameters, the
    pullback of F through a decoder is that of the Euclidean metric through h of what the decoder returns. Known are
    ``Bernoulli``, ``Categorical``, ``OneHotCategorical``, ``Poisson``, ``Exponential``; with fixed dispersion
    ``NegativeBinomial`` and ``GammaPoisson``; with fixed scale ``Normal``, ``LogNormal``, ``Laplace`` and ``StudentT``;
    with fixed covariance ``MultivariateNormal``; with fixed shape ``Gamma``; with fixed concentration ``VonMises``. No
    immersion is known, but the metric is, of ``Normal`` and ``LogNormal`` with a scale of their own and of Pyro's
    ``ZeroInflatedNegativeBinomial`` with fixed dispersion.

    Args:
        family: class of the distribution; its subclasses have the same immersion, unless they are given another.
        immersion: maps a distribution of batch shape ``(n, *batch)`` to ``(n, *out)``, the n points each for itself.
        fixed: names of parameters that h takes for constant. A decoder under which they depend on z is refused, or
            served otherwise, if the KL divergence of the family is known.

    Raises:
        TypeError: if ``family`` is no class of distributions, or ``immersion`` is not callable.

    Source: Arvanitidis, Gonzalez-Duque, Pouplin, Kalatzis and Hauberg (2022), *Pulling back information geometry*,
    section 3; Amari and Nagaoka (2000), *Methods of Information Geometry*, section 2.2.

    Example:
        >>> from torch.distributions import HalfNormal
        >>> class Spread(HalfNormal): pass
        >>> register_immersion(Spread, lambda law: 2**0.5 * law.scale.log())
        >>> metric = PullbackMetric(lambda z: Spread(z.exp()), dim=2, jitter=0.0)
        >>> metric.metric(torch.zeros(2))  # 2 / scale^2, the Fisher information, times scale^2
        tensor([[2.0000, 0.0000],
                [0.0000, 2.0000]])
    """
    if not (isinstance(family, type) and issubclass(family, Law)):
        raise TypeError(f"`family` must be a subclass of torch.distributions.Distribution, got {family!r}.")
    if not callable(immersion):
        raise TypeError(f"`immersion` must be callable, got {type(immersion).__name__}.")
    _FAMILIES[family] = Family(cast(Callable[[Law], Tensor], immersion), tuple(fixed))


def known_family(law: Law) -> Family | None:
    """The entry of the distribution's class, or of the nearest class above it."""
    return next((_FAMILIES[cls] for cls in type(law).__mro__ if cls in _FAMILIES), None)


def _bernoulli(law: distributions.Bernoulli) -> Tensor:
    if "logits" in vars(law):
        return cast(Tensor, fisher.bernoulli_logits(torch, law.logits))
    return cast(Tensor, fisher.bernoulli(torch, law.probs))


def _categorical(law: distributions.Categorical | distributions.OneHotCategorical) -> Tensor:
    return cast(Tensor, fisher.two_roots(torch, law.probs))


def _poisson(law: distributions.Poisson) -> Tensor:
    return cast(Tensor, fisher.two_roots(torch, law.rate))


def _negative_binomial(law: distributions.NegativeBinomial) -> Tensor:
    if "logits" in vars(law):
        return cast(Tensor, fisher.negative_binomial_logits(torch, law.logits, law.total_count))
    return cast(Tensor, fisher.negative_binomial(torch, law.probs / (1 - law.probs), law.total_count))


def _gamma_poisson(law: GammaPoisson) -> Tensor:
    return cast(Tensor, fisher.negative_binomial(torch, 1 / law.rate, law.concentration))


def _location(law: distributions.Normal | distributions.LogNormal | distributions.Laplace) -> Tensor:
    return law.loc / law.scale


def _student(law: distributions.StudentT) -> Tensor:
    return ((law.df + 1) / (law.df + 3)).sqrt() * law.loc / law.scale


def _multivariate_normal(law: distributions.MultivariateNormal) -> Tensor:
    return torch.linalg.solve_triangular(law.scale_tril, law.loc.unsqueeze(-1), upper=False).squeeze(-1)


def _exponential(law: distributions.Exponential) -> Tensor:
    return -law.rate.log()


def _gamma(law: distributions.Gamma) -> Tensor:
    return -law.concentration.sqrt() * law.rate.log()


def _von_mises(law: distributions.VonMises) -> Tensor:
    kappa = law.concentration
    radius = (kappa * torch.special.i1e(kappa) / torch.special.i0e(kappa)).sqrt()
    return torch.stack([radius * law.loc.cos(), radius * law.loc.sin()], -1)


register_immersion(distributions.Bernoulli, _bernoulli)
register_immersion(distributions.Categorical, _categorical)
register_immersion(distributions.OneHotCategorical, _categorical)
register_immersion(distributions.Poisson, _poisson)
register_immersion(distributions.NegativeBinomial, _negative_binomial, fixed=("total_count",))
register_immersion(GammaPoisson, _gamma_poisson, fixed=("concentration",))
register_immersion(distributions.Normal, _location, fixed=("scale",))
register_immersion(distributions.LogNormal, _location, fixed=("scale",))
register_immersion(distributions.Laplace, _location, fixed=("scale",))
register_immersion(distributions.StudentT, _student, fixed=("df", "scale"))
register_immersion(distributions.MultivariateNormal, _multivariate_normal, fixed=("scale_tril",))
register_immersion(distributions.Exponential, _exponential)
register_immersion(distributions.Gamma, _gamma, fixed=("concentration",))
register_immersion(distributions.VonMises, _von_mises, fixed=("concentration",))
