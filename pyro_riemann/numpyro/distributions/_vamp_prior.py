"""The mixture of posteriors at pseudo-inputs."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from pyro_riemann.numpyro._checks import check_array, check_key
from pyro_riemann.numpyro._estimate import Estimate
from pyro_riemann.numpyro._memo import remember
from pyro_riemann.numpyro.distributions._base import Intermediates, RiemannianDistribution, Shape


class VampPrior(Distribution):
    r"""VampPrior :math:`p(z) = \sum_k w_k\, q(z \mid u_k)`: a mixture of posteriors at K pseudo-inputs.

    The components are one distribution of batch shape ``(*batch, K)`` and event shape ``(d,)``: what the
    encoder returns for the pseudo-inputs, for instance a Normal made an event by ``.to_event(1)``, or any
    distribution of this package, whose metric comes along. Densities are with respect to dz.

    Args:
        components: distribution of batch shape ``(*batch, K)``, event shape ``(d,)``.
        logits: unnormalised log weights, ``(K,)`` or ``(*batch, K)``; equal weights if None.
        validate_args: check the values of arguments; NumPyro's own setting if None.

    Raises:
        TypeError, ValueError: if ``components`` has no such shape or ``logits`` does not match it.
        TypeError: by methods, if ``key`` is no key.

    Source: Tomczak & Welling 2018, VAE with a VampPrior, eq. 9.

    Example:
        >>> from numpyro.distributions import Normal
        >>> from pyro_riemann.numpyro import VampPrior
        >>> codes = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
        >>> prior = VampPrior(Normal(codes, 0.1).to_event(1))
        >>> prior.sample(jax.random.key(0), (3,)).shape
        (3, 2)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real_vector}
    pytree_data_fields: ClassVar[tuple[str, ...]] = ("components", "logits")

    def __init__(
        self, components: Distribution, logits: Array | None = None, *, validate_args: bool | None = None
    ) -> None:
        if not isinstance(components, Distribution):
            raise TypeError(f"`components` must be a distribution, got {type(components).__name__}.")
        shape = components.batch_shape
        if len(components.event_shape) != 1 or len(shape) < 1:
            raise ValueError(
                f"`components` must have batch shape (*batch, K) and event shape (d,), got {shape} and "
                f"{components.event_shape}; `.to_event(1)` makes the last batch axis of a Normal an event."
            )
        if logits is None:
            logits = jnp.zeros(shape[-1:], jnp.result_type(*jax.tree.leaves(components)))
        logits = remember(lambda given: check_array("logits", given), logits)
        if logits.shape not in (shape, shape[-1:]):
            raise ValueError(
                f"`logits` must have shape ({shape[-1]},), one entry a component, or {shape}; got {logits.shape}."
            )
        self.logits = remember(lambda given: jnp.broadcast_to(given, shape), logits)
        self.components = components
        super().__init__(shape[:-1], components.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The support of the components."""
        return self.components.support

    @property
    def log_weights(self) -> Array:
        """Normalised log weights, ``(*batch, K)``."""
        return jax.nn.log_softmax(self.logits, -1)

    @property
    def mean(self) -> Array:
        """Euclidean mean in the chart, ``(*batch, d)``: that of the components, weighted."""
        return (jnp.exp(self.log_weights)[..., None] * self.components.mean).sum(-2)

    @property
    def variance(self) -> Array:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, within and between the components."""
        second = self.components.variance + (self.components.mean - self.mean[..., None, :]) ** 2
        return (jnp.exp(self.log_weights)[..., None] * second).sum(-2)

    def sample(self, key: Array, sample_shape: Shape = ()) -> Array:
        """Draws ``(*sample, *batch, d)``; not reparametrised.

        Args:
            key: one key of ``jax.random``.
            sample_shape: shape of the draws.
        """
        for_choice, for_draw = jax.random.split(check_key(key))
        shape = (*sample_shape, *self.batch_shape)
        picked = jax.random.categorical(for_choice, self.logits, shape=shape)
        if isinstance(self.components, RiemannianDistribution):  # draws are dear: only those that are kept
            draws = self.components.take(picked).sample(for_draw)
        else:
            every = self.components.sample(for_draw, tuple(sample_shape))
            draws = jnp.take_along_axis(every, picked[..., None, None], -2, mode="clip")[..., 0, :]
        return jax.lax.stop_gradient(draws)

    @validate_sample
    def log_prob(self, value: Array, intermediates: Intermediates | None = None) -> Array:
        """Log density of the mixture with respect to Lebesgue measure dz, shape ``(*batch)``.

        Args:
            value: points, ``(*batch, d)``.
            intermediates: ignored.
        """
        return jax.nn.logsumexp(self.log_weights + self.components.log_prob(value[..., None, :]), axis=-1)

    def log_normalizer(self) -> Estimate:
        """Log of the mixture's mass with respect to dz, ``(*batch)``.

        The weighted masses of the components where these are short-time heat-kernel densities; otherwise 0, exactly.
        """
        log_mass: Estimate | None = getattr(self.components, "log_mass", lambda: None)()
        if log_mass is None:
            zero = jnp.zeros_like(self.logits[..., 0])
            return Estimate(zero, zero)
        terms = self.log_weights + log_mass.value
        error = (jax.nn.softmax(terms, -1) * log_mass.standard_error).sum(-1)
        return Estimate(jax.nn.logsumexp(terms, axis=-1), jax.lax.stop_gradient(error))
