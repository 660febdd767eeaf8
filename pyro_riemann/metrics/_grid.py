"""A metric tabulated on a box, so that its evaluation costs no decoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_one_of, check_point, holds
from pyro_riemann._formulas import grid_table, log_cholesky
from pyro_riemann._formulas.peaks import Peaks
from pyro_riemann.geodesics import PathTable
from pyro_riemann.metrics._generic import Corner, GenericMetric
from pyro_riemann.metrics._spline_table import DistanceField, SplineTable

_NEIGHBOURS = 1024  # nodes evaluated at once on a processor


class TableMetric(grid_table.TableAlgebra[Tensor, DistanceField], GenericMetric):
    """What :class:`GridMetric` does, but for what every public metric offers."""

    _path_table, _field = PathTable, DistanceField
    base: GenericMetric | None
    table: SplineTable
    paths: PathTable | None = None
    interpolation_error: Tensor
    mean_interpolation_error: Tensor
    _peak_loc: Tensor | None
    _peak_covariance: Tensor | None
    _floor: Tensor | None

    def __init__(
        self,
        metric: GenericMetric,
        low: Corner,
        high: Corner,
        resolution: int | Sequence[int],
        outside: str = "metric",
        chunk_size: int = 4096,
        points: Tensor | None = None,
        max_error: float | None = 0.1,
    ) -> None:
        super().__init__()
        self.dim, self.solver = grid_table.check_dimension(metric.dim), metric.solver
        self.outside = check_one_of("outside", outside, grid_table.OUTSIDE)
        self.chunk_size = chunk_size
        corners = self._corners(metric, low, high)
        sizes, ends = grid_table.check_sizes(resolution, self.dim), corners.cpu().numpy()
        nodes = grid_table.nodes(ends, sizes)
        fields = torch.from_numpy(grid_table.fields(self._evaluate(metric, nodes, corners), nodes))
        self.table = SplineTable(fields.to(corners).reshape(*sizes, -1), *corners)
        self.base = metric if outside == "metric" else None
        self.register_buffer("_floor", None if outside == "metric" else self._floor_at_nodes(metric))
        known = metric.peaks()
        inside = None if known is None else self.table.contains(known.loc.to(corners))
        for name, value in zip(Peaks._fields, known or (None, None), strict=True):
            self.register_buffer(f"_peak_{name}", None if value is None else value[inside].to(corners))
        if points is None:
            probes = torch.from_numpy(grid_table.probes(ends)).to(corners)
        else:
            given = check_finite("points", points.detach()).cpu().numpy()
            probes = torch.from_numpy(grid_table.chosen(given, ends)).to(corners)
        error = self._error(metric, probes).cpu().numpy()
        reported, mean = grid_table.judge(error, max_error, points is not None)
        self.register_buffer("interpolation_error", corners.new_tensor(reported))
        self.register_buffer("mean_interpolation_error", corners.new_tensor(mean))

    def _corners(self, metric: GenericMetric, low: object, high: object) -> Tensor:
        """Both corners, ``(2, d)``, in the metric's dtype and on its device."""
        tensors = [*metric.parameters(), *metric.buffers(), low, high]
        floating = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
        like = floating[0].detach() if floating else torch.zeros(())
        values = [torch.as_tensor(corner, dtype=like.dtype, device=like.device) for corner in (low, high)]
        corners = torch.stack([check_finite("low and high", value.detach()).expand(self.dim) for value in values])
        grid_table.check_corners(corners.cpu().numpy())
        return corners

    @torch.no_grad()
    def _evaluate(self, metric: GenericMetric, points: np.ndarray, like: Tensor) -> np.ndarray:
        """The true metric at ``points``, ``(n, d, d)``, in chunks of neighbours: few kernels have a say in each."""
        order = grid_table.z_order(points)
        size = min(self.chunk_size, _NEIGHBOURS) if like.device.type == "cpu" else self.chunk_size
        chunks = torch.from_numpy(points[order]).to(like).split(size)
        found = torch.cat([metric.metric(chunk) for chunk in chunks]).double().cpu().numpy()
        tensors = np.empty_like(found)
        tensors[order] = found
        return tensors

    @torch.no_grad()
    def _floor_at_nodes(self, original: GenericMetric) -> Tensor | None:
        low = self.table.low
        nodes = grid_table.nodes(torch.stack([low, self.table.high]).cpu().numpy(), self.table.resolution)
        chunks = [original.on_floor(chunk) for chunk in torch.from_numpy(nodes).to(low).split(self.chunk_size)]
        known = [chunk for chunk in chunks if chunk is not None]
        return torch.cat(known).reshape(self.table.resolution) if known else None

    # ---------------------------------------------------------------- where the volume is

    @torch.no_grad()
    def peaks(self) -> Peaks | None:
        if self._peak_loc is None or self._peak_covariance is None:
            return None
        inner = Peaks(self._peak_loc, self._peak_covariance)
        outer = None if self.base is None else self.base.peaks()
        if outer is None:
            return inner
        beyond = ~self.table.contains(outer.loc)
        return Peaks(*(torch.cat([mine, other[beyond]]) for mine, other in zip(inner, outer, strict=True)))

    @torch.no_grad()
    def _error(self, metric: GenericMetric, z: Tensor) -> Tensor:
        """Relative error of the table against the ``metric`` at ``z`` ``(n, d)`` in the box, ``(n,)``."""
        estimate = self._assemble(self.table(z))[0].cpu().numpy()
        return torch.from_numpy(grid_table.relative_error(estimate, self._evaluate(metric, z.cpu().numpy(), z))).to(z)

    def _checked(self, name: str, z: Tensor) -> Tensor:
        return check_finite(name, check_point(name, z, self.dim))

    def _error_at(self, z: Tensor, original: GenericMetric) -> Tensor:
        flat = z.detach().reshape(-1, self.dim).to(self.table.low)
        inside = self.table.contains(flat)
        error = flat.new_zeros(len(flat))
        error[inside] = self._error(original, flat[inside])
        return error.reshape(z.shape[:-1])

    # ---------------------------------------------------------------- evaluation

    def _assemble(self, fields: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
        """G ``(*batch, d, d)`` from the fields and, given their derivatives, ``dG`` ``(*batch, d, d, d)``."""
        return log_cholesky.metric(torch, fields, self.dim, slope)

    def _beyond(self, z: Tensor) -> Tensor | None:
        """Points outside the box, ``(*batch)`` bool, or None if there are none (or where none can be read)."""
        check_point("z", z, self.dim)
        if self.outside == "nearest" or holds(inside := self.table.contains(z)):
            return None
        beyond = ~inside
        if self.outside == "error":
            self._refuse_beyond(z.detach().cpu().numpy(), beyond.cpu().numpy())
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

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        beyond = self._beyond(z)
        if beyond is not None and z.dim() == 1:
            return self.christoffel(z.unsqueeze(0), v.unsqueeze(0)).squeeze(0)
        contraction: Tensor = log_cholesky.christoffel(torch, *self.table.with_jacobian(z), v)
        if beyond is None or self.base is None:
            return contraction
        return contraction.index_put((beyond,), self.base.christoffel(z[beyond], v[beyond]))

    def speed_hessian(self, z: Tensor, v: Tensor) -> Tensor:
        beyond = self._beyond(z)
        fields, slope, curve = self.table.with_hessian(z)
        total: Tensor = log_cholesky.speed_hessian(torch, fields, slope, curve, v)
        if beyond is None or self.base is None:
            return total
        return total.index_put((beyond,), self.base.speed_hessian(z[beyond], v[beyond]))

    def _copied(self) -> Self:
        other = copy.copy(self)
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        return other

    def _floor_near(self, z: Tensor, floor: Tensor) -> Tensor:
        sizes = torch.tensor(floor.shape, dtype=z.dtype, device=z.device)
        low, high = self.table.low.to(z), self.table.high.to(z)
        node = ((z.clamp(low, high) - low) / (high - low) * (sizes - 1)).round().long()
        return floor[node.unbind(-1)]

    def extra_repr(self) -> str:
        low, high = ([round(x, 4) for x in c.tolist()] for c in (self.table.low, self.table.high))
        return (
            f"dim={self.dim}, low={low}, high={high}, resolution={self.table.resolution}, outside={self.outside!r}, "
            f"interpolation_error={self.interpolation_error.item():.1e}"
        )
