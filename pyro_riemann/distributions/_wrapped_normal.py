"""A tangent Gaussian carried to the manifold by the exponential map."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pyro_riemann._checks import holds
from pyro_riemann._estimate import Estimate
from pyro_riemann._formulas import densities
from pyro_riemann._formulas.tangent_rule import check_num_nodes
from pyro_riemann.distributions._base import RiemannianDistribution, Shape, broadcast_covariance, broadcast_loc
from pyro_riemann.distributions._folded_mass import folded_mass, warn_if_folded
from pyro_riemann.distributions._tangent import chart_moments, is_closed_form, tangent_vectors, whole_rule
from pyro_riemann.metrics import ConstantMetric, RiemannianMetric

_WITH_COVARIANCE = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}


@dataclasses.dataclass
class _Draw:
    """How a draw came about: enough for its density without a boundary-value problem."""

    v: Tensor
    squared_noise: Tensor
    log_van_vleck: Tensor | None
    seen: tuple[Tensor, ...] | None  # copies of all that must still be as it was; None while torch.jit traces


class RiemannianWrappedNormal(RiemannianDistribution):
    r"""Law of :math:`z = \exp_\mu(v)` with :math:`v \sim N(0, t\,G(\mu)^{-1})`.

    .. math::
        \log p(z) = -\tfrac d2 \log(2\pi t) - \frac{\ell^2(z, \mu)}{2t} + \log V(z, \mu) + \tfrac12 \log\det G(z)

    with respect to Lebesgue measure dz in the chart; V is the Van Vleck-Morette determinant, the
    inverse Jacobian determinant of the exponential map. Exactly normalised, with exact, reparametrised draws.

    *Where geodesics meet again* several tangent vectors lead to one point and the density is a sum over them. On flat
    tori and cylinders, spheres and hyperbolic space, in whatever coordinates, :meth:`log_prob` is that sum in closed
    form (:meth:`RiemannianMetric.log_folded_density <pyro_riemann.metrics.RiemannianMetric.log_folded_density>`; on a
    torus of mass 1 over one period): its mass is 1 at every ``time``, and an evidence lower bound with it is one. On
    the sphere, d >= 2, it is infinite at ``loc`` and at the antipode, and a large number there.

    On any other metric :meth:`log_prob` knows one geodesic: the shortest or, of its own draws, the one that was
    drawn. :meth:`folded_mass` is the share of the draws past the cut locus, where this is too little; where it
    exceeds 0.001, :meth:`log_prob` warns with the number, at calls that no gradient is asked of.

    *Own draws.* On a metric without closed forms :meth:`log_prob`, given the very tensor that :meth:`rsample` returned
    (as Pyro's ELBOs do), takes length and determinant from the tangent vector behind it and solves no boundary-value
    problem, for as long as loc, time and the metric at the draw are what they were. The gradient is the total
    derivative along the draw's path, as it is for ``z.clone()``; for the partial derivative at a fixed point pass
    ``z.detach()``.

    *With a covariance.* ``scale_tril`` gives :math:`v \sim N(0, L L^\top)`, in the coordinates of the chart at
    :math:`\mu`; the isotropic law is :math:`L L^\top = t\,G(\mu)^{-1}`. The sum over geodesics is exact on flat,
    spherical and hyperbolic space and on products without spheres and tori; on other products of these, and on tori so
    short that 10,000 images count, :meth:`log_prob` raises ``NotImplementedError``.

    Args:
        loc: centre :math:`\mu`, ``(*batch, d)``.
        time: variance t of the tangent Gaussian, ``(*batch)``; None where ``scale_tril`` is given.
        metric: the Riemannian metric.
        scale_tril: lower triangular L with a positive diagonal, ``(*batch, d, d)``, in place of ``time``:
            :math:`v \sim N(0, L L^\top)` in the coordinates of the chart.
        validate_args: check arguments and values; Pyro's own setting if None.

    Raises:
        TypeError, ValueError: naming the argument at fault; also by methods, if a value is not a finite tensor like
            ``loc``, or a geodesic leaves the reals.

    Source: Nagano et al. (2019), *A wrapped normal distribution on hyperbolic space for gradient-based learning*,
    section 3; here for any metric.

    Example:
        >>> from pyro_riemann import EuclideanMetric, RiemannianWrappedNormal
        >>> q = RiemannianWrappedNormal(torch.zeros(2), 0.5, EuclideanMetric(2))
        >>> z = q.rsample()
        >>> bool(torch.isclose(q.log_prob(z), q.log_prob(z.clone())))
        True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"loc": constraints.real_vector, "time": constraints.positive}
    has_rsample = True
    _settings: ClassVar[tuple[str, ...]] = ("arg_constraints",)  # of the instance: one with a covariance has others

    def __init__(
        self,
        loc: Tensor,
        time: Tensor | float | None,
        metric: RiemannianMetric,
        *,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if time is not None and scale_tril is None:
            self.loc, self.time = broadcast_loc(loc, "time", time, metric)
        elif time is None and scale_tril is not None:
            self.arg_constraints = _WITH_COVARIANCE  # type: ignore[misc]  # a class variable: of this law other ones
            self.loc, self.scale_tril = broadcast_covariance(loc, scale_tril, metric)
        else:
            raise ValueError("Give one of `time` and `scale_tril`, and None for the other.")
        super().__init__(metric, self.loc, validate_args)

    @classmethod
    def infer_shapes(cls, **arg_shapes: Shape) -> tuple[torch.Size, torch.Size]:
        batch, event = super().infer_shapes(**arg_shapes)
        return torch.broadcast_shapes(batch, torch.Size(arg_shapes.get("scale_tril", ()))[:-2]), event

    @property
    def has_covariance(self) -> bool:
        """Whether the law was given a ``scale_tril``."""
        return "scale_tril" in self.arg_constraints

    def _tangent_vectors(self, noise: Tensor) -> Tensor:
        """Vectors at ``loc`` of standard normal ``noise (*sample, *batch, d)``."""
        if self.has_covariance:
            return (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        return tangent_vectors(self.metric, self.loc, self.time, noise)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Exact draws ``(*sample_shape, *batch, d)``; pathwise gradients in loc, time and the metric's parameters."""
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        v = self._tangent_vectors(noise)
        centre, remembered = self.loc.expand_as(v), not is_closed_form(self.metric)
        log_van_vleck = None
        if remembered and torch.is_grad_enabled():  # a guide's draw: its density is asked for next
            z, log_van_vleck = self.metric.expmap_log_van_vleck(centre, v)
        else:
            z = self.metric.expmap(centre, v)
        if remembered and not z.is_inference():
            # keyed by the tensor itself and weakly: an entry dies with its draw and holds no graph beyond it
            draws = self.__dict__.setdefault("_draws", WeakIdKeyDictionary())
            seen = None if torch.jit.is_tracing() else tuple(part.clone() for part in self._state(z)[0])
            draws[z] = _Draw(v, noise.square().sum(-1), log_van_vleck, seen)
        return z

    def rsample_with_log_prob(self, sample_shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """Draws ``(*sample_shape, *batch, d)`` and their log density in dz, ``(*sample_shape, *batch)``.

        No boundary-value problem is solved.
        """
        z = self.rsample(sample_shape)
        return z, self.log_prob(z)

    @property
    def mean(self) -> Tensor:
        """Euclidean mean in the chart, ``(*batch, d)``, by quadrature in the tangent space."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """Euclidean variance of each coordinate of the chart, ``(*batch, d)``, like :attr:`mean`."""
        return self._moments()[1]

    def _moments(self) -> tuple[Tensor, Tensor]:
        count = check_num_nodes(None, self.metric.dim)
        if not self.has_covariance:
            return chart_moments(self.metric, self.loc, self.time, count, power=0.0)
        nodes, log_weights = whole_rule(self.metric.dim, count, self.loc)
        shape = (-1, *(1,) * (self.loc.dim() - 1))
        v = self._tangent_vectors(nodes.reshape(*shape, self.metric.dim).expand(-1, *self.loc.shape))
        z, weights = self.metric.expmap(self.loc.expand_as(v), v), log_weights.softmax(0).reshape(*shape, 1)
        mean = (weights * z).sum(0)
        return mean, (weights * (z - mean).square()).sum(0)

    def entropy(self) -> Tensor:
        """Entropy with respect to Lebesgue measure dz, ``(*batch)``, where the metric is constant: the Gaussian's.

        Raises:
            NotImplementedError: on any other metric; ``-law.log_prob(law.sample((1000,))).mean(0)`` estimates it.
        """
        if not isinstance(self.metric, ConstantMetric) or not self.metric.is_uniquely_geodesic:
            raise NotImplementedError(
                f"The entropy on {type(self.metric).__name__} has no closed form; "
                "`-law.log_prob(law.sample((1000,))).mean(0)` estimates it."
            )
        if self.has_covariance:
            half = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        else:
            half = 0.5 * (self.metric.dim * self.time.log() - self.metric.logdet(self.loc))
        return half + 0.5 * self.metric.dim * (1 + math.log(2 * math.pi))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to Lebesgue measure dz at ``value``, ``(*batch, d)``; shape ``(*batch)``.

        Of a draw of its own, without a boundary-value problem: see above.
        """
        if self._validate_args:
            self._validate_sample(value)
        z, loc = torch.broadcast_tensors(value, self.loc)
        log_density = self._folded(loc, z)
        if log_density is None:
            log_density = self._log_density_of_one_geodesic(value, loc, z)
        return log_density + 0.5 * self.metric.logdet(value)

    def folded_mass(self, num_directions: int = 32) -> Estimate:
        """Share of the draws past the cut locus, where :meth:`log_prob` knows one geodesic of several, ``(*batch)``.

        Along each direction from ``loc`` the radius from which on the geodesic is no longer the shortest, by bisection
        with distances. A lower bound as far as the solver misses shorter curves; what lies beyond the edge of a chart
        counts as error. 0, exactly, where :meth:`log_prob` counts all geodesics.

        Args:
            num_directions: directions from every ``loc``.

        Raises:
            ValueError: if ``num_directions`` is less than 2.
        """
        if num_directions < 2:
            raise ValueError(f"`num_directions` must be at least 2, got {num_directions}.")
        if self._folded(self.loc, self.loc) is not None:
            zero = torch.zeros_like(self.loc[..., 0])
            return Estimate(zero, zero)
        spread = self._spread().detach()
        return folded_mass(self.metric, self.loc.detach(), spread, num_directions, closely=True)[0]

    def _spread(self) -> Tensor:
        """What the law is made of besides ``loc``: ``time``, or ``scale_tril``."""
        return self.scale_tril if self.has_covariance else self.time

    def _folded(self, loc: Tensor, z: Tensor) -> Tensor | None:
        """Log density with respect to dM by all geodesics, where they are known."""
        if self.has_covariance:
            return self.metric.log_folded_normal(loc, z, self.scale_tril)
        return self.metric.log_folded_density(loc, z, self.time)

    def _density_of(self, squared_noise: Tensor, log_van_vleck: Tensor) -> Tensor:
        """Log density with respect to dM by the geodesic that this noise makes."""
        dim = self.metric.dim
        if not self.has_covariance:
            return densities.single_geodesic(torch, dim, self.time, self.time * squared_noise, log_van_vleck)
        log_factor = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        logdet = self.metric.logdet(self.loc)
        return densities.tangent_normal(torch, dim, squared_noise, log_factor, logdet, log_van_vleck)

    def _solved(self, loc: Tensor, z: Tensor) -> Tensor:
        """Log density with respect to dM by the shortest geodesic."""
        if self.has_covariance:
            v = self.metric.logmap(loc, z).unsqueeze(-1)
            factor = self.scale_tril.expand(*v.shape[:-1], -1)
            noise = torch.linalg.solve_triangular(factor, v, upper=False).squeeze(-1).square().sum(-1)
        else:
            noise = self.metric.squared_dist(loc, z) / self.time
        return self._density_of(noise, self.metric.log_van_vleck(loc, z))

    def _log_density_of_one_geodesic(self, value: Tensor, loc: Tensor, z: Tensor) -> Tensor:
        """Log density with respect to dM by the geodesic that was drawn, else by the shortest one."""
        draw = self.__dict__.get("_draws", {}).get(value)
        if torch.jit.is_tracing():
            state, carries = None, True
        else:
            state, carries = self._state(value)
        if not carries:
            warn_if_folded(self.metric, self.loc, self._spread())
        if draw is None or not _same(draw.seen, state):
            return self._solved(loc, z)
        if draw.log_van_vleck is None:
            draw.log_van_vleck = self.metric.expmap_log_van_vleck(loc.detach(), draw.v)[1].detach()
        of_draw = self._density_of(draw.squared_noise, draw.log_van_vleck)
        if value.grad_fn is not None or not carries:
            return of_draw
        # a detached draw: the value is the same, the gradient that at a fixed point
        solved = self._solved(loc, z)
        return solved + (of_draw - solved).detach()

    def _state(self, z: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """What the density of a draw depends on, and whether a density at ``z`` would carry a gradient."""
        with torch.enable_grad():  # the same kernels whatever the mode
            metric = self.metric.metric(z.detach())
        carries = metric.requires_grad or any(part.requires_grad for part in (z, self.loc, self._spread()))
        state = (z.detach(), self.loc.detach(), self._spread().detach(), metric.detach())
        return state, carries and torch.is_grad_enabled()

    def __getstate__(self) -> dict[str, Any]:
        return {name: entry for name, entry in self.__dict__.items() if name != "_draws"}


def _same(seen: tuple[Tensor, ...] | None, now: tuple[Tensor, ...] | None) -> bool:
    """Whether nothing has changed, to the last bit; nothing can be compared while ``torch.jit`` traces."""
    if seen is None or now is None:
        return seen is None and now is None
    return all(one.shape == two.shape and holds(one == two) for one, two in zip(seen, now, strict=True))
