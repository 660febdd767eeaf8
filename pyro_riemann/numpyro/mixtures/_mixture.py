"""A mixture of exact heat kernels, several times at each centre."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann.numpyro._checks import check_array, check_finite, check_key, check_point, check_positive
from pyro_riemann.numpyro.distributions import RiemannianHeatKernel
from pyro_riemann.numpyro.distributions._base import Intermediates, Shape
from pyro_riemann.numpyro.metrics import RiemannianMetric

_KERNELS = 1 << 20  # at a time


class HeatKernelMixture(Distribution):
    r"""Mixture of exact heat kernels :math:`\sum_{ik} w_{ik}\, p_{t_{ik}}(\mu_i, z)`: Brownian motion, a random start.

    Every centre has K kernels, of as many times; ``K = 1`` is the usual mixture. The metric must know its heat kernel,
    ``metric.log_heat_kernel(z, y, time)``: the sphere, hyperbolic space in all its charts, the flat torus, and each
    of them in other coordinates. The mass is 1 then, with respect to dz in the chart. Every
    density takes all n K kernels: with thousands of centres the other face, which leaves far ones out, is quicker.

    Args:
        loc: centres :math:`\mu`, ``(n, d)``.
        time: times t, the variance of small steps, ``(n, K)`` or ``(K,)`` if all centres have the same.
        logits: unnormalised log weights, ``(n, K)``; minus infinity leaves a kernel out.
        metric: the Riemannian metric.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: if the metric has no exact heat kernel, or naming the argument at fault; TypeError also
            by methods, if ``key`` is no key.

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 4.1.

    Example:
        >>> from pyro_riemann.numpyro import Sphere
        >>> centres = jnp.array([[0.0, 0.0], [1.0, 0.0]])
        >>> law = HeatKernelMixture(centres, jnp.array([0.01, 20.0]), jnp.zeros((2, 2)), Sphere(2))
        >>> law.log_prob(jnp.zeros((3, 2))).shape, law.sample(jax.random.key(0), (5,)).shape
        ((3,), (5, 2))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    pytree_data_fields: ClassVar[tuple[str, ...]] = ("loc", "time", "logits", "metric")

    def __init__(
        self,
        loc: Array,
        time: Array,
        logits: Array,
        metric: RiemannianMetric,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(metric, RiemannianMetric):
            raise TypeError(f"`metric` must be a RiemannianMetric, got {type(metric).__name__}.")
        loc = check_finite("loc", check_point("loc", loc, metric.dim, metric))
        time, logits = check_positive("time", check_array("time", time)), check_array("logits", logits)
        if loc.ndim != 2 or logits.ndim != 2 or len(logits) != len(loc):
            raise ValueError(
                f"`loc` must have shape (n, {metric.dim}) and `logits` (n, K), got {loc.shape} and {logits.shape}."
            )
        if time.shape not in (logits.shape, logits.shape[1:]):
            raise ValueError(f"`time` must have shape {logits.shape} or {logits.shape[1:]}, got {time.shape}.")
        try:
            jax.eval_shape(metric.log_heat_kernel, loc[:1], loc[:1], jnp.ones(1, loc.dtype))
        except NotImplementedError as error:
            raise TypeError(
                f"`metric` must know its exact heat kernel, as Sphere, Hyperbolic and FlatTorus do; got "
                f"{type(metric).__name__}."
            ) from error
        self.loc, self.time, self.logits = loc, jnp.broadcast_to(time, logits.shape), logits
        self.metric = metric
        super().__init__((), loc.shape[1:], validate_args=validate_args)

    @property
    def log_weights(self) -> Array:
        """Normalised log weights, ``(n, K)``."""
        return self.logits - jax.nn.logsumexp(self.logits)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample, d)`` by Brownian motion from the centres, without gradient.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        for_choice, for_draw = jax.random.split(check_key(key))
        picked = jax.random.categorical(for_choice, self.logits.ravel(), shape=tuple(sample_shape))
        start, time = self.loc[picked // self.logits.shape[1]], self.time.ravel()[picked]
        return jax.lax.stop_gradient(RiemannianHeatKernel(start, time, self.metric).sample(for_draw))

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: ignored.

        Raises:
            TypeError, ValueError: if ``value`` is no floating array of that shape.
        """
        points = check_point("value", value, self.metric.dim, self.metric).reshape(-1, self.metric.dim)
        log_weights = self.log_weights

        def density(z: Array) -> Array:
            return jax.nn.logsumexp(log_weights + self.log_kernels(z))

        log_density = jax.lax.map(density, points, batch_size=max(1, _KERNELS // self.logits.size))
        return (log_density + 0.5 * self.metric.logdet(points)).reshape(value.shape[:-1])

    def log_kernels(self, z: Array) -> Array:
        """Logarithms of all kernels with respect to dM, ``(n, K)``, at one point ``z`` ``(d,)``."""
        return self.metric.log_heat_kernel(self.loc[:, None], z, self.time)
