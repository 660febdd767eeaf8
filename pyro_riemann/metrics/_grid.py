"""A metric tabulated on a box, so that its evaluation costs no decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_one_of, check_point, holds
from pyro_riemann.geodesics import PathTable
from pyro_riemann.metrics._base import RiemannianMetric
from pyro_riemann.metrics._grid_field import DistanceField
from pyro_riemann.metrics._spline_table import SplineTable

_NUM_PROBES = 512


class GridMetric(RiemannianMetric):
    r"""Any metric of dimension 1 to 3, tabulated on a box and interpolated by cubic splines (C^2).

    The table holds :math:`a, U` of :math:`G = U\, \mathrm{diag}(e^{2a})\, U^\top`, U unit lower triangular, so every
    interpolated G is positive definite. Values and first derivatives are closed form in the spline.
    The metric is deterministic and smooth: what NUTS and the geodesic solver need.

    Args:
        metric: the metric to tabulate, evaluated once at ``prod(resolution)`` nodes without gradients.
        low: lower corner of the box, a number or ``(d,)``.
        high: upper corner.
        resolution: nodes an axis, one number or d, each at least 4.
        outside: ``"metric"`` evaluates the true metric outside the box (and keeps it as the submodule
            ``base``), ``"error"`` raises. Under ``torch.jit.trace`` and ``torch.vmap``, where no branch
            on data is possible, the value at the nearest point of the box is used instead.
        chunk_size: nodes evaluated at once.

    Attributes:
        interpolation_error: largest relative error of G, :math:`\max_v |v^\top (\hat G - G) v| / v^\top G v`, over
            random points of the box (a tensor; ``mean_interpolation_error`` is its mean).

    Raises:
        ValueError: for a dimension above 3, an empty box, fewer than 4 nodes, or a metric that is not finite
            and positive definite at a node.

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

    interpolation_error: Tensor
    mean_interpolation_error: Tensor

    def __init__(
        self,
        metric: RiemannianMetric,
        low: float | Sequence[float] | Tensor,
        high: float | Sequence[float] | Tensor,
        resolution: int | Sequence[int],
        outside: str = "metric",
        chunk_size: int = 4096,
    ) -> None:
        super().__init__()
        if not 1 <= metric.dim <= 3:
            raise ValueError(f"`metric` has dimension {metric.dim}; a table needs a dimension of 1 to 3.")
        self.dim, self.solver = metric.dim, metric.solver
        self.outside = check_one_of("outside", outside, ("metric", "error"))
        self.chunk_size = chunk_size
        corners = self._corners(metric, low, high)
        sizes = self._sizes(resolution)
        self._below = [(i, j) for i in range(self.dim) for j in range(i)]  # entries of U in the table
        self.register_buffer("interpolation_error", corners.new_zeros(()))
        self.register_buffer("mean_interpolation_error", corners.new_zeros(()))
        spans = zip(*corners.tolist(), sizes, strict=True)
        axes = [torch.linspace(*span, dtype=torch.float64).to(corners) for span in spans]
        for axis, a, b in zip(axes, *corners, strict=True):  # rounding may miss the ends
            axis[0], axis[-1] = a, b
        values = self._tabulate(metric, torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1))
        self.table = SplineTable(values, *corners)
        self.base = metric if outside == "metric" else None
        self._measure_error(metric)

    def _sizes(self, resolution: int | Sequence[int]) -> tuple[int, ...]:
        sizes = (resolution,) * self.dim if isinstance(resolution, int) else tuple(int(r) for r in resolution)
        if len(sizes) != self.dim or min(sizes) < 4:
            raise ValueError(f"`resolution` must be {self.dim} whole numbers of at least 4, got {resolution}.")
        return sizes

    def _corners(self, metric: RiemannianMetric, low: object, high: object) -> Tensor:
        """Both corners, ``(2, d)``, in the metric's dtype and on its device."""
        tensors = [*metric.parameters(), *metric.buffers(), low, high]
        floating = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
        like = floating[0].detach() if floating else torch.zeros(())
        values = [torch.as_tensor(corner, dtype=like.dtype, device=like.device) for corner in (low, high)]
        corners = torch.stack([check_finite("low and high", value).expand(self.dim) for value in values])
        if not bool((corners[0] < corners[1]).all()):
            given = f"{corners[0].tolist()} and {corners[1].tolist()}"
            raise ValueError(f"`low` must lie below `high` on every axis, got {given}.")
        return corners

    @torch.no_grad()
    def _tabulate(self, metric: RiemannianMetric, nodes: Tensor) -> Tensor:
        """Fields ``(*R, d (d + 1) / 2)``: log-diagonals, then the entries of U below the diagonal."""
        flat = nodes.reshape(-1, self.dim)
        tensors = torch.cat([metric.metric(chunk).double() for chunk in flat.split(self.chunk_size)])
        factor, info = torch.linalg.cholesky_ex(tensors)
        bad = (info != 0) | ~torch.isfinite(factor).flatten(1).all(-1)
        if bool(bad.any()):
            raise ValueError(
                f"`metric` is not finite and positive definite at {int(bad.sum())} of {len(flat)} nodes, "
                f"for instance z = {flat[bad][0].tolist()}. Shrink the box, or regularise the metric."
            )
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        rows, columns = torch.tril_indices(self.dim, self.dim, -1)
        unit = factor / diagonal.unsqueeze(-2)
        fields = torch.cat([diagonal.log(), unit[:, rows, columns]], dim=-1)
        return fields.to(nodes).reshape(*nodes.shape[:-1], -1)

    @torch.no_grad()
    def _measure_error(self, metric: RiemannianMetric) -> None:
        generator = torch.Generator().manual_seed(0)  # own generator: the same probes every time
        unit = torch.rand(_NUM_PROBES, self.dim, generator=generator, dtype=torch.float64).to(self.table.low)
        points = self.table.low + (self.table.high - self.table.low) * unit
        exact = torch.cat([metric.metric(chunk) for chunk in points.split(self.chunk_size)]).double()
        root = torch.linalg.cholesky(exact)
        error = self._assemble(self.table(points))[0].double() - exact
        error = torch.linalg.solve_triangular(root, error, upper=False)
        error = torch.linalg.solve_triangular(root, error.mT, upper=False)
        relative = torch.linalg.matrix_norm(error, 2)
        self.interpolation_error.copy_(relative.max())
        self.mean_interpolation_error.copy_(relative.mean())

    # ---------------------------------------------------------------- evaluation

    def _assemble(self, fields: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """G ``(*batch, d, d)`` from the fields and, given their derivatives, ``dG`` ``(*batch, d, d, d)``.

        Written out entry by entry: batched products of 2 x 2 matrices cost ten times as much.
        """
        square = (2 * fields[..., : self.dim]).exp()
        index = {(i, j): k for k, (i, j) in enumerate(self._below, start=self.dim)}
        entries: dict[tuple[int, int], Tensor] = {}
        slopes: dict[tuple[int, int], Tensor] = {}
        for i in range(self.dim):
            for j in range(i + 1):
                for m in range(j + 1):
                    # U_im U_jm exp(2 a_m), with U_mm = 1
                    factors = [index[row, m] for row in (i, j) if row != m]
                    term = square[..., m]
                    for k in factors:
                        term = term * fields[..., k]
                    entries[i, j] = entries[i, j] + term if m else term
                    if slope is None:
                        continue
                    rate = 2 * term.unsqueeze(-1) * slope[..., m, :]
                    for position, k in enumerate(factors):
                        others = square[..., m]
                        for other in factors[:position] + factors[position + 1 :]:
                            others = others * fields[..., other]
                        rate = rate + others.unsqueeze(-1) * slope[..., k, :]
                    slopes[i, j] = slopes[i, j] + rate if m else rate
        order = [(max(i, j), min(i, j)) for i in range(self.dim) for j in range(self.dim)]
        shape = (self.dim, self.dim)
        metric = torch.stack([entries[pair] for pair in order], dim=-1).unflatten(-1, shape)
        if slope is None:
            return (metric,)
        return metric, torch.stack([slopes[pair] for pair in order], dim=-2).unflatten(-2, shape)

    def _beyond(self, z: Tensor) -> Tensor | None:
        """Points outside the box, ``(*batch)`` bool, or None if there are none (or where none can be read)."""
        check_point("z", z, self.dim)
        inside = self.table.contains(z)
        if holds(inside):
            return None
        beyond = ~inside
        if self.outside == "error":
            raise ValueError(
                f"{int(beyond.sum())} of {beyond.numel()} points lie outside the box {self.table.low.tolist()} to "
                f"{self.table.high.tolist()} of the table, for instance z = {z[beyond][0].tolist()}. "
                'Tabulate a larger box, or use `outside="metric"`.'
            )
        return beyond

    def metric(self, z: Tensor) -> Tensor:
        beyond = self._beyond(z)
        if beyond is not None and z.dim() == 1:  # one point: a mask without axes would add one
            return self.metric(z.unsqueeze(0)).squeeze(0)
        (metric,) = self._assemble(self.table(z))
        if beyond is None or self.base is None:
            return metric
        return metric.index_put((beyond,), self.base.metric(z[beyond]))

    def logdet(self, z: Tensor) -> Tensor:
        if self._beyond(z) is not None:
            return super().logdet(z)
        return 2 * self.table(z)[..., : self.dim].sum(-1)  # the table holds the log-diagonal

    def logdet_gradient(self, z: Tensor) -> Tensor:
        if self._beyond(z) is not None:
            return super().logdet_gradient(z)
        return 2 * self.table.with_jacobian(z)[1][..., : self.dim, :].sum(-2)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        beyond = self._beyond(z)
        if beyond is not None and z.dim() == 1:
            metric, jacobian = self.metric_jacobian(z.unsqueeze(0))
            return metric.squeeze(0), jacobian.squeeze(0)
        fields, slope = self.table.with_jacobian(z)
        metric, jacobian = self._assemble(fields, slope)
        if beyond is None or self.base is None:
            return metric, jacobian
        outer_metric, outer_jacobian = self.base.metric_jacobian(z[beyond])
        return metric.index_put((beyond,), outer_metric), jacobian.index_put((beyond,), outer_jacobian)

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        beyond = self._beyond(z)
        fields, slope, curve = self.table.with_hessian(z)
        total = torch.zeros_like(curve[..., 0, :, :])
        for m in range(self.dim):
            # v^T G v is the sum over m of r^2, r = exp(a_m) (v_m + sum_i U_im v_i)
            root = fields[..., m].exp()[..., None, None]
            da, dda = slope[..., m, :], curve[..., m, :, :]
            p, dp, ddp = v[..., m], torch.zeros_like(da), torch.zeros_like(dda)
            for k, (i, j) in enumerate(self._below, start=self.dim):
                if j == m:
                    p = p + fields[..., k] * v[..., i]
                    dp = dp + slope[..., k, :] * v[..., i, None]
                    ddp = ddp + curve[..., k, :, :] * v[..., i, None, None]
            dr = p.unsqueeze(-1) * da + dp
            cross = da.unsqueeze(-1) * dp.unsqueeze(-2)
            ddr = p[..., None, None] * (da.unsqueeze(-1) * da.unsqueeze(-2) + dda) + cross + cross.mT + ddp
            total = total + root * root * (dr.unsqueeze(-1) * dr.unsqueeze(-2) + p[..., None, None] * ddr)
        if beyond is None or self.base is None:
            return total
        return total.index_put((beyond,), self.base.speed_hessian(z[beyond], v[beyond]))

    def prepare_paths(self, resolution: int = 64) -> GridMetric:
        """Tabulate shortest paths as well, so that ``init="graph"`` starts from a look-up; returns the metric.

        Worth about a thousand calls for single pairs. Call it again after the table has changed.

        Args:
            resolution: nodes per axis (d = 2) of the graph.
        """
        self.paths = PathTable(self, resolution)
        return self

    def distance_field(
        self, loc: Tensor, resolution: int | Sequence[int] | None = None, max_sweeps: int = 200, tolerance: float = 1e-6
    ) -> DistanceField:
        """Distances from ``loc`` to every point of the box at once.

        Shortest paths on a grid (Dijkstra, many neighbours), refined to high order along the
        characteristics of the eikonal equation, then interpolated.

        Args:
            loc: the centre, ``(d,)``, inside the box.
            resolution: nodes an axis; the table's own by default, at most 100 (d = 2) or 20 (d = 3).
            max_sweeps: limit of the refinement.
            tolerance: it stops once no value moves by more than this share of the largest.

        Raises:
            ValueError: if ``loc`` is not one point inside the box.
        """
        check_finite("loc", check_point("loc", loc, self.dim))
        if loc.dim() != 1 or not bool(self.table.contains(loc)):
            raise ValueError(f"`loc` must be one point ({self.dim},) inside the box, got {loc.tolist()}.")
        limit = {1: 1000, 2: 100, 3: 20}[self.dim]
        given = tuple(min(limit, r) for r in self.table.resolution) if resolution is None else resolution
        return DistanceField(self, loc.to(self.table.low), self._sizes(given), max_sweeps, tolerance)

    def extra_repr(self) -> str:
        low, high = ([round(x, 4) for x in c.tolist()] for c in (self.table.low, self.table.high))
        return (
            f"dim={self.dim}, low={low}, high={high}, resolution={self.table.resolution}, outside={self.outside!r}, "
            f"interpolation_error={self.interpolation_error.item():.1e}"
        )
