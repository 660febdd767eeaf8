"""The interface of a Riemannian metric, and the two metrics that every metric can make of itself."""

from __future__ import annotations

from pyro_riemann.metrics._conformal import VolumeMetric
from pyro_riemann.metrics._generic import Corner, GenericMetric
from pyro_riemann.metrics._grid import TableMetric


class RiemannianMetric(GenericMetric):
    r"""A Riemannian metric :math:`G(z)` on the chart :math:`\mathbb{R}^d`.

    A metric of your own is a subclass that sets ``dim`` and implements :meth:`metric`;
    distances, geodesics, Brownian motion and the distributions follow from these two.
    A subclass with a closed form overrides the method concerned.

    Points and tangent vectors have shape ``(*batch, dim)``; the measure of the manifold
    is :math:`dM = \sqrt{\det G}\, dz`.

    Attributes:
        dim: dimension d of the chart.
        solver: settings of the boundary-value solver behind :meth:`geodesic` and
            :meth:`squared_dist`; assign another :class:`GeodesicSolver` to change them.
        flow_steps: Runge-Kutta steps behind :meth:`expmap`; fewer do for short vectors.
        landmarks: points ``(k, d)`` that every search for a path should know of, or None; assign a tensor to a metric
            whose volume is hard to find.
        max_memory: bytes that a routine of many points may hold at a time, besides its points and results: as many
            points are in work as :meth:`footprint` says there is room for. Assign a number to a metric to change it.
        is_symmetric: whether the reflection of geodesics in any point is an isometry, which makes parallel transport a
            closed form.
        is_uniquely_geodesic: whether one geodesic alone joins any two points, as in flat and hyperbolic space; None
            where that is not known.

    Raises:
        TypeError: by methods of the curved metrics of this package, if a point is not a floating tensor.
        ValueError: by these methods, if the last axis of a point is not d, or a curve is asked for between points
            that are not finite or leaves the reals.
        RuntimeError: by methods that measure distances, if a pair has no converged geodesic and the solver has
            ``on_failure="raise"``.

    Source: do Carmo (1992), *Riemannian Geometry*, chapters 1 to 5; Hsu (2002), *Stochastic Analysis on Manifolds*,
    section 3.3.

    Example:
        >>> import torch
        >>> from pyro_riemann import RiemannianMetric
        >>> class HalfPlane(RiemannianMetric):
        ...     dim = 2
        ...     def metric(self, z):
        ...         return torch.diag_embed(z[..., 1:].expand_as(z) ** -2)
        >>> z, y = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0])
        >>> round(HalfPlane().dist(z, y).item(), 4)
        0.6931
    """

    def conformal(self, log_scale: float = 0.0) -> ConformalMetric:
        """The metric ``exp(log_scale) (det G)^{-1} I``, a :class:`ConformalMetric`: its curves follow the data.

        Raises:
            ValueError: if ``log_scale`` is not finite.
        """
        return ConformalMetric(self, log_scale)

    def tabulate(self, low: Corner, high: Corner, resolution: int, outside: str = "metric") -> GridMetric:
        """This metric as a :class:`GridMetric` on a box of the chart; d <= 3.

        Args:
            low: lower corner of the box, a number or ``(d,)``.
            high: upper corner, likewise.
            resolution: nodes an axis, at least 4.
            outside: what it is beyond the box, see there.

        Raises:
            ValueError: as :class:`GridMetric`.
        """
        return GridMetric(self, low, high, resolution, outside)


class ConformalMetric(VolumeMetric, RiemannianMetric):
    r"""The metric :math:`e^{s} (\det G(z))^{-1} I` of a base metric G.

    Its length is :math:`\int |\gamma'| / \sqrt{\det G(\gamma)}\, dt`: what Chadebec & Allassonniere (2022, eq. 8)
    minimise to interpolate between two codes. Curves follow the data, where G is large.

    Args:
        base: any metric; its parameters are shared, not copied.
        log_scale: :math:`s`. It changes no shortest curve, only the unit of length; choose it
            near ``base.logdet`` at the data where the determinant leaves the range of the dtype.

    Raises:
        ValueError: if ``log_scale`` is not finite; by distances and curves that leave the range of the dtype.

    Example:
        >>> base = ConstantMetric(torch.diag(torch.tensor([4.0, 1.0])))
        >>> ConformalMetric(base).metric(torch.zeros(2))
        tensor([[0.2500, 0.0000],
                [0.0000, 0.2500]])
    """

    base: RiemannianMetric


class GridMetric(TableMetric, RiemannianMetric):
    r"""Any metric of dimension 1 to 3, tabulated on a box and interpolated by cubic splines (C^2).

    The table holds :math:`a, U` of :math:`G = U\, \mathrm{diag}(e^{2a})\, U^\top`, U unit lower triangular, so every
    interpolated G is positive definite. Values and first derivatives are closed form in the spline.
    The metric is deterministic and smooth: what NUTS and the geodesic solver need.

    Args:
        metric: the metric to tabulate, evaluated once at ``prod(resolution)`` nodes without gradients.
        low: lower corner of the box, a number or ``(d,)``.
        high: upper corner, likewise.
        resolution: nodes an axis, one number or d, each at least 4.
        outside: ``"metric"`` evaluates the true metric outside the box (and keeps it as the submodule
            ``base``), ``"nearest"`` takes the value at the nearest point of the box, for chains that now and then leap
            far out, where a decoder costs much and means little; ``"error"`` raises. Under ``torch.jit.trace``,
            ``torch.vmap`` and compilers, where no branch on data is possible, all three are ``"nearest"``.
        chunk_size: nodes evaluated at once.
        points: where the table will be used, such as codes or draws, ``(n, d)``: the error is judged there. Default:
            random points of the box, most of which nobody may ever visit.
        max_error: warn if the error exceeds this at more than 10 % of the ``points``; None never warns. Without
            ``points`` nothing says what the box is for, and no warning is given.

    Attributes:
        interpolation_error: relative error of G, :math:`\max_v |v^\top (\hat G - G) v| / v^\top G v`: that not
            exceeded at 90 % of the ``points`` or, without these, the largest in the box (a tensor;
            ``mean_interpolation_error`` is its mean). At any points: :meth:`interpolation_error_at`.

    Raises:
        ValueError: for a dimension above 3, an empty box, fewer than 4 nodes, a metric that is not finite
            and positive definite at a node, or ``points`` none of which lies in the box.

    Source: de Boor (1978), *A Practical Guide to Splines*; the parametrisation of G is that of Pourahmadi (1999),
    *Joint mean-covariance models with applications to longitudinal data*.

    Example:
        >>> from pyro_riemann import PullbackMetric
        >>> surface = PullbackMetric(lambda z: torch.cat([z, z[..., :1].sin()], -1), dim=2)
        >>> grid = GridMetric(surface, low=-2.0, high=2.0, resolution=40)
        >>> grid.metric(torch.zeros(2)).round(decimals=3)
        tensor([[2., 0.],
                [0., 1.]])
        >>> bool(grid.interpolation_error < 1e-3)
        True
    """

    base: RiemannianMetric | None
