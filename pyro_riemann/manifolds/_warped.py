"""Any metric in other coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, Unpack

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from pyro_riemann._checks import check_point
from pyro_riemann._formulas.peaks import Peaks, pulled_back
from pyro_riemann._formulas.rewritten import Warped
from pyro_riemann._interface import Discretisation, Energy, Settings
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.geodesics._energy import ChordEnergy
from pyro_riemann.metrics import RiemannianMetric

Map = Callable[[Tensor], Tensor]


class WarpedMetric(Warped[Tensor], RiemannianMetric):
    r"""The metric of ``base`` rewritten in other coordinates, :math:`G(z) = J^\top G_{base}(F(z))\, J`.

    F maps the new chart to the chart of ``base`` and J is its Jacobian. The manifold stays the same, so
    everything goes through F to ``base`` and back: what is a closed form there is one here, and what
    is solved numerically there (on a decoder, say) is solved there.

    Args:
        base: metric in the old coordinates.
        diffeomorphism: F, as a ``torch.distributions`` (or Pyro) transform, whose ``inv`` is used for the
            way back, or as a pair of functions ``(forward, inverse)``. Both map ``(*batch, d)`` to
            ``(*batch, d)``, point by point. Modules among them become submodules.

    Raises:
        TypeError: if ``diffeomorphism`` is neither.
        ValueError: if the inverse does not undo the forward map.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 2, for pullbacks by diffeomorphisms.

    Example:
        >>> from torch.distributions.transforms import ExpTransform
        >>> metric = WarpedMetric(EuclideanMetric(1), ExpTransform())  # log coordinates
        >>> metric.metric(torch.zeros(1))
        tensor([[1.]])
        >>> round(metric.dist(torch.zeros(1), torch.ones(1)).item(), 4)  # e - 1
        1.7183
        >>> shear = WarpedMetric(Sphere(2), (lambda z: z + z.flip(-1) * torch.tensor([0.0, 1.0]),
        ...                                  lambda x: x - x.flip(-1) * torch.tensor([0.0, 1.0])))
        >>> shear.scalar_curvature(torch.zeros(2)).item()
        2.0
    """

    base: RiemannianMetric

    def __init__(self, base: RiemannianMetric, diffeomorphism: Transform | tuple[Map, Map]) -> None:
        super().__init__()
        if not isinstance(base, RiemannianMetric):
            raise TypeError(f"`base` must be a RiemannianMetric, got {type(base).__name__}.")
        self.dim, self.base = base.dim, base
        if isinstance(diffeomorphism, Transform):
            self._transform: Transform | None = diffeomorphism
        elif isinstance(diffeomorphism, tuple) and len(diffeomorphism) == 2 and all(map(callable, diffeomorphism)):
            self._transform = None
            self._to, self._back = diffeomorphism
        else:
            raise TypeError(
                "`diffeomorphism` must be a torch.distributions Transform or a pair of functions "
                f"(forward, inverse), got {type(diffeomorphism).__name__}."
            )
        self._probe()

    def _probe(self) -> None:
        """Refuse a pair that are not each other's inverse, as far as one call at two points can tell."""
        like = next(self.parameters(), next(self.buffers(), None))
        point = torch.linspace(0.1, 0.7, 2 * self.dim, device="cpu").reshape(2, self.dim)
        if like is not None and like.is_floating_point():
            point = point.to(like)
        try:
            with torch.no_grad():
                there = self.to_base(point)
                back = self.from_base(there)
        except RuntimeError:  # functions that hold tensors on another device: a real call will tell
            return
        if bool(torch.isfinite(back).all()) and not torch.allclose(back, point.to(back), atol=1e-2, rtol=1e-2):
            raise ValueError(
                f"The inverse of `diffeomorphism` does not undo it: {point[0].tolist()} goes to {there[0].tolist()} "
                f"and comes back as {back[0].tolist()}."
            )

    # ---------------------------------------------------------------- the map

    def to_base(self, z: Tensor) -> Tensor:
        """F(z): the points ``z`` in the chart of ``base``, ``(*batch, d)``."""
        check_point("z", z, self.dim)
        x = self._to(z) if self._transform is None else self._transform(z)
        if not torch.jit.is_tracing() and x.shape != z.shape:
            raise ValueError(f"`diffeomorphism` must keep the shape: {tuple(z.shape)} became {tuple(x.shape)}.")
        return x

    def from_base(self, x: Tensor) -> Tensor:
        """The points ``x`` of the chart of ``base`` in this chart, ``(*batch, d)``."""
        return self._back(x) if self._transform is None else self._transform.inv(x)

    @property
    def landmarks(self) -> Tensor | None:  # type: ignore[override]  # others hold it
        """The landmarks of ``base`` in this chart, ``(k, d)``: those that it contains, without gradient."""
        if self.base.landmarks is None:
            return None
        with torch.no_grad():
            points = self.from_base(self.base.landmarks)
        return points[torch.isfinite(points).all(-1)]

    @torch.no_grad()
    def peaks(self) -> Peaks | None:
        known = self.base.peaks()
        if known is None:
            return None
        loc = self.from_base(known.loc)
        real = torch.isfinite(loc).all(-1)  # some may lie outside the image of this chart
        loc, covariance = loc[real], known.covariance[real]
        return pulled_back(torch, loc, self._jacobian(loc)[1], covariance)

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(self.to_base(z), self.to_base(y), init=init, **settings)
        points = self.from_base(base.points)
        return Geodesic(points, base.length, base.energy, base.converged, lambda t: self.from_base(base(t)))

    def immersed(self) -> Self | None:
        """This metric where ``base`` is a pullback, else None: a pullback in other coordinates is a pullback."""
        return None if self.base.immersed() is None else self

    def energy(self, settings: Discretisation, guide: Tensor | None = None) -> Energy:
        if self.immersed() is None:
            return super().energy(settings, guide)
        return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)
