"""The mixture of posteriors at pseudo-inputs."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution

from pyro_riemann._checks import check_same, check_tensor
from pyro_riemann._estimate import Estimate
from pyro_riemann._modes import ValidatedDistribution, guarded_law
from pyro_riemann.distributions._base import RiemannianDistribution, Shape


@guarded_law
class VampPrior(ValidatedDistribution):
    r"""VampPrior :math:`p(z) = \sum_k w_k\, q(z \mid u_k)`: a mixture of posteriors at K pseudo-inputs.

    The components are one distribution of batch shape ``(*batch, K)`` and event shape ``(d,)``: what the
    encoder returns for the pseudo-inputs, for instance a Normal made an event by ``.to_event(1)``, or any
    distribution of this package, whose metric comes along. Densities are with respect to dz.

    Args:
        components: distribution of batch shape ``(*batch, K)``, event shape ``(d,)``.
        logits: unnormalised log weights, ``(K,)`` or ``(*batch, K)``; equal weights if None.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: if ``components`` has no such shape or ``logits`` does not match it.

    Source: Tomczak & Welling 2018, VAE with a VampPrior, eq. 9.

    Example:
        >>> from pyro.distributions import Normal
        >>> from pyro_riemann import VampPrior
        >>> codes = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> prior = VampPrior(Normal(codes, 0.1).to_event(1))
        >>> prior.sample((3,)).shape
        torch.Size([3, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": constraints.real_vector}
    has_rsample = False

    def __init__(
        self, components: Distribution, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> None:
        if not isinstance(components, Distribution):
            raise TypeError(f"`components` must be a distribution, got {type(components).__name__}.")
        shape = components.batch_shape
        if len(components.event_shape) != 1 or len(shape) < 1:
            raise ValueError(
                f"`components` must have batch shape (*batch, K) and event shape (d,), got {tuple(shape)} and "
                f"{tuple(components.event_shape)}; `.to_event(1)` makes the last batch axis of a Normal an event."
            )
        like = _first_parameter(components)
        if logits is None:
            logits = like.new_zeros(shape[-1:])
        check_same("logits", check_tensor("logits", logits), like)
        try:
            self.logits = logits.expand(shape)
        except RuntimeError:
            raise ValueError(
                f"`logits` must have shape ({shape[-1]},), one entry a component, or {tuple(shape)}; got "
                f"{tuple(logits.shape)}."
            ) from None
        self.components = components
        super().__init__(shape[:-1], components.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint | None:
        """The support of the components."""
        return self.components.support

    @property
    def log_weights(self) -> Tensor:
        """Normalised log weights, ``(*batch, K)``."""
        return self.logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        """Euclidean mean in the chart, ``(*batch, d)``: that of the components, weighted."""
        return (self.log_weights.exp().unsqueeze(-1) * self.components.mean).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, within and between the components."""
        second = self.components.variance + (self.components.mean - self.mean.unsqueeze(-2)).square()
        return (self.log_weights.exp().unsqueeze(-1) * second).sum(-2)

    def expand(self, batch_shape: Shape, _instance: Self | None = None) -> Self:
        """The same mixture with a larger ``batch_shape``."""
        new = self._get_checked_instance(VampPrior, _instance)
        shape = torch.Size(batch_shape) + self.logits.shape[-1:]
        new.logits, new.components = self.logits.expand(shape), self.components.expand(shape)
        super(VampPrior, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self.__dict__.get("_validate_args")
        return new

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch, d)``, without gradient."""
        with torch.no_grad():
            sample_shape = torch.Size(sample_shape)
            picked = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)
            if isinstance(self.components, RiemannianDistribution):  # draws are dear: only those that are kept
                return self.components.take(picked).sample()
            draws = self.components.sample(sample_shape)
            index = picked[..., None, None].expand(*picked.shape, 1, self.event_shape[0])
            return draws.gather(-2, index).squeeze(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``."""
        if self._validate_args:
            self._validate_sample(value)
        return (self.log_weights + self.components.log_prob(value.unsqueeze(-2))).logsumexp(-1)

    def log_normalizer(self) -> Estimate:
        """Log of the mixture's mass with respect to dz, ``(*batch)``.

        The weighted masses of the components where these are short-time heat-kernel densities; otherwise 0, exactly.
        """
        log_mass: Estimate | None = getattr(self.components, "log_mass", lambda: None)()
        if log_mass is None:
            zero = torch.zeros_like(self.logits[..., 0])
            return Estimate(zero, zero)
        terms = self.log_weights + log_mass.value
        return Estimate(terms.logsumexp(-1), (terms.softmax(-1) * log_mass.standard_error).detach().sum(-1))


def _first_parameter(distribution: Any) -> Tensor:
    """A tensor whose dtype and device are those of the distribution."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    parameter: Tensor = getattr(distribution, next(iter(distribution.arg_constraints)))
    return parameter
