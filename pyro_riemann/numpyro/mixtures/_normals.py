"""Mixtures of Riemannian or wrapped normals on any metric, by expectation maximisation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._formulas.mixtures import maximise
from pyro_riemann.numpyro._checks import check_finite, check_one_of, check_point, is_traced
from pyro_riemann.numpyro.distributions import RiemannianNormal, RiemannianWrappedNormal, VampPrior
from pyro_riemann.numpyro.metrics import RiemannianMetric
from pyro_riemann.numpyro.statistics import kmeans

FAMILIES = ("wrapped", "riemannian")


class RiemannianMixture(VampPrior):
    r"""Mixture :math:`p(z) = \sum_k w_k\,p_k(z)` of normal laws on a manifold, an ordinary NumPyro distribution.

    The components are one :class:`pyro_riemann.numpyro.RiemannianNormal` or
    :class:`pyro_riemann.numpyro.RiemannianWrappedNormal` of batch shape ``(*batch, K)``; :func:`fit_normals` fits them.
    Densities are with respect to dz.

    Args:
        components: normal laws, batch shape ``(*batch, K)``.
        logits: unnormalised log weights, ``(K,)`` or ``(*batch, K)``; equal weights if None.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: if ``components`` has no such shape or ``logits`` does not match it.

    Source: Arvanitidis, Hansen & Hauberg (2016), *A locally adaptive normal distribution*, section 4.

    Example:
        >>> from pyro_riemann.numpyro import RiemannianWrappedNormal, Sphere
        >>> law = RiemannianMixture(RiemannianWrappedNormal(jnp.array([[0.0, 0.0], [1.0, 0.0]]), 0.1, Sphere(2)))
        >>> law.responsibilities(jnp.array([0.5, 3.0])).shape, law.sample(jax.random.key(0), (5,)).shape
        ((2,), (5, 2))
    """

    components: RiemannianNormal | RiemannianWrappedNormal

    def responsibilities(self, value: Array) -> Array:
        """Probability that ``value (*batch, d)`` came from each component, ``(*batch, K)``."""
        return jax.nn.softmax(self.log_weights + self.components.log_prob(value[..., None, :]), -1)


class NormalsFit(NamedTuple):
    """A mixture of normals and how it came about.

    Attributes:
        mixture: the fitted law.
        log_likelihood: mean log density of the points with respect to dM, in nats, ``(num_steps + 1,)``: before each
            step and at the end, fewer where it stopped early; it never falls.
        converged: whether the last step gained less than the tolerance.

    Example:
        >>> from pyro_riemann.numpyro import Sphere
        >>> points = 0.3 * jax.random.normal(jax.random.key(1), (100, 2))
        >>> fit = fit_normals(points, Sphere(2), 2, jax.random.key(0), num_steps=5)
        >>> bool((jnp.diff(fit.log_likelihood) >= 0).all())
        True
    """

    mixture: RiemannianMixture
    log_likelihood: Array
    converged: bool


def fit_normals(
    points: Array,
    metric: RiemannianMetric,
    num_components: int,
    key: Array,
    *,
    family: str = "wrapped",
    min_variance: float = 1e-6,
    num_steps: int = 100,
    tolerance: float = 1e-6,
) -> NormalsFit:
    r"""Mixture of normals with centres, spreads and weights of maximum likelihood, on any metric; it runs on the host.

    ``"wrapped"``: :class:`pyro_riemann.numpyro.RiemannianWrappedNormal` with a covariance each, exactly normalised;
    ``"riemannian"``: :class:`pyro_riemann.numpyro.RiemannianNormal` with a scale each. In flat space the first is the
    Gaussian mixture with full covariances, the second that with spherical ones. With
    :class:`pyro_riemann.numpyro.metrics.LocalMetric` it is the locally adaptive normal distribution.

    Expectation: responsibilities :math:`r_{ik}`. Maximisation, sums weighed by :math:`r_{ik} / \sum_i r_{ik}`:

    .. math:: \mu_k \leftarrow \exp_{\mu_k}\!\Big(\Sigma_k \sum_i \nabla_\mu \log p_k(x_i)\Big), \qquad
        \Sigma_k \leftarrow \sum_i \log_{\mu_k}(x_i) \log_{\mu_k}(x_i)^\top,

    and :math:`\sigma_k^2 \leftarrow \sigma_k^2 (1 + \tfrac2d \sum_i \partial_{\log \sigma^2} \log p_k(x_i))` for the
    scales. A step is halved until the likelihood does not fall. The start is
    :func:`pyro_riemann.numpyro.statistics.kmeans`.

    Each step takes the logarithms of all points at all centres: tabulate a metric without closed forms first.

    Args:
        points: ``(n, d)``.
        metric: any metric.
        num_components: number K of components.
        key: of the start, a key of ``jax.random``.
        family: ``"wrapped"`` or ``"riemannian"``.
        min_variance: added to every variance, in squared lengths; without it the likelihood has no maximum.
        num_steps: most steps.
        tolerance: stop where a step gains less in the mean log likelihood.

    Returns:
        The mixture, the mean log likelihood of every step, and whether it converged.

    Raises:
        TypeError: if ``points`` is not a floating array, or under a transformation of JAX.
        ValueError: naming the argument at fault.

    Source: Dempster, Laird & Rubin (1977), *Maximum likelihood from incomplete data via the EM algorithm*; Arvanitidis,
    Hansen & Hauberg (2016), *A locally adaptive normal distribution*, section 4.

    Example:
        >>> from pyro_riemann.numpyro import Hyperbolic
        >>> noise = 0.05 * jax.random.normal(jax.random.key(1), (2, 60, 2))
        >>> points = jnp.concatenate([noise[0] + 0.3, noise[1] - 0.3])
        >>> fit_normals(points, Hyperbolic(2), 2, jax.random.key(0)).mixture.components.loc.shape
        (2, 2)
    """
    if is_traced(metric, points, key):
        raise TypeError("`fit_normals` cannot run under a transformation of JAX: the number of its steps is not known.")
    check_one_of("family", family, FAMILIES)
    points = check_finite("points", check_point("points", points, metric.dim, metric))
    if points.ndim != 2 or not 1 <= num_components <= len(points):
        raise ValueError(
            f"`points` must have shape (n, {metric.dim}) with n at least `num_components`, got {points.shape} "
            f"and {num_components}."
        )
    if min_variance <= 0:
        raise ValueError(f"`min_variance` must be positive, got {min_variance}.")
    start = kmeans(metric, points, num_components, key)
    share = jax.nn.one_hot(start.labels, num_components, dtype=points.dtype)
    law, history, converged = maximise(
        _start(family, metric, points, start.centers, share, min_variance),
        partial(_expect, points),
        partial(_move, family, points, min_variance),
        num_steps=num_steps,
        tolerance=tolerance,
    )
    return NormalsFit(law, jnp.stack(history), converged)


class _Step(NamedTuple):
    """Of each point its responsibilities; of each component the slopes of its likelihood, for one of its points."""

    share: Array  # (n, K)
    by_loc: Array  # (K, d)
    by_log_variance: Array  # (K,), of scales


@jax.jit
def _expect(points: Array, law: RiemannianMixture) -> tuple[Array, _Step]:
    """Mean log likelihood, and the step that the responsibilities suggest."""
    old, metric = law.components, law.components.metric
    log_variance = jnp.log(jnp.square(old.scale)) if isinstance(old, RiemannianNormal) else jnp.zeros(len(old.loc))

    def weighed(loc: Array, log_variance: Array) -> tuple[Array, tuple[Array, Array]]:
        if isinstance(old, RiemannianNormal):
            moving: RiemannianNormal | RiemannianWrappedNormal = RiemannianNormal(
                loc, jnp.exp(0.5 * log_variance), metric
            )
        else:
            moving = RiemannianWrappedNormal(loc, None, metric, scale_tril=old.scale_tril)
        terms = moving.log_prob(points[:, None])
        joint = jax.lax.stop_gradient(law.log_weights + terms)
        share = jax.nn.softmax(joint, -1)
        return (share * terms).sum(), (joint, share)

    slopes, (joint, share) = jax.grad(weighed, argnums=(0, 1), has_aux=True)(
        old.loc, log_variance.astype(old.loc.dtype)
    )
    value = jax.nn.logsumexp(joint, axis=-1) - 0.5 * metric.logdet(points)
    size = _size(share)
    return value.mean(), _Step(share, slopes[0] / size[:, None], slopes[1] / size)


@partial(jax.jit, static_argnames="family")
def _move(
    family: str, points: Array, least: float, law: RiemannianMixture, step: _Step, length: float
) -> RiemannianMixture:
    """The law after a step."""
    old, metric = law.components, law.components.metric
    if isinstance(old, RiemannianWrappedNormal):
        velocity = (old.scale_tril @ old.scale_tril.mT @ step.by_loc[..., None])[..., 0]
        loc = metric.expmap(old.loc, length * velocity)
        spread = _spread(family, metric, points, loc, step.share, least)
    else:
        variance = jnp.square(old.scale)
        velocity = variance[:, None] * jnp.linalg.solve(metric.metric(old.loc), step.by_loc[..., None])[..., 0]
        loc = metric.expmap(old.loc, length * velocity)
        grown = variance * (1 + 2 / metric.dim * length * step.by_log_variance).clip(0.1, 10.0)
        spread = jnp.sqrt(jnp.maximum(grown, least))
    return _law(family, metric, loc, spread, step.share)


@partial(jax.jit, static_argnames="family")
def _start(
    family: str, metric: RiemannianMetric, points: Array, loc: Array, share: Array, least: float
) -> RiemannianMixture:
    return _law(family, metric, loc, _spread(family, metric, points, loc, share, least), share)


def _size(share: Array) -> Array:
    """Number of points of each component, ``(K,)``, never 0."""
    return jnp.maximum(share.sum(0), jnp.finfo(share.dtype).tiny)


def _law(family: str, metric: RiemannianMetric, loc: Array, spread: Array, share: Array) -> RiemannianMixture:
    logits = jnp.log(_size(share))
    if family == "wrapped":
        return RiemannianMixture(RiemannianWrappedNormal(loc, None, metric, scale_tril=spread), logits)
    return RiemannianMixture(RiemannianNormal(loc, spread, metric), logits)


def _spread(family: str, metric: RiemannianMetric, points: Array, loc: Array, share: Array, least: float) -> Array:
    """Cholesky factors ``(K, d, d)`` of the covariances about ``loc``, or scales ``(K,)``."""
    weight = share / _size(share)
    v = metric.logmap(*jnp.broadcast_arrays(loc, points[:, None]))  # (n, K, d)
    if family == "wrapped":
        covariance = jnp.einsum("nk,nki,nkj->kij", weight, v, v) + least * jnp.linalg.inv(metric.metric(loc))
        return jnp.linalg.cholesky(covariance)
    squared = metric.inner(loc, v, v)
    return jnp.sqrt((weight * squared).sum(0) / metric.dim + least)
