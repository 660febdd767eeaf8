"""Which points are near which centres: by a tree on the sphere, else by all distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from pyro_riemann.manifolds import Sphere
from pyro_riemann.metrics import RiemannianMetric

_PAIRS = 1 << 21  # distances at a time


def pairs_within(z: Tensor, centres: Tensor, squared: Tensor, metric: RiemannianMetric) -> tuple[Tensor, Tensor]:
    """Indices of points ``z (m, d)`` and of ``centres (n, d)`` no further apart than the root of ``squared (n,)``.

    A few pairs just beyond may come along.
    """
    if isinstance(metric, Sphere):
        angle = (squared.sqrt() / metric.radius).clamp(max=math.pi)
        chord = metric.radius * (2 * torch.sin(angle / 2) * (1 + 1e-9) + 1e-12)
        found = _tree(z, metric).query_ball_point(_ambient(centres, metric), _numpy(chord), return_sorted=False)
        sizes = np.fromiter(map(len, found), int, len(found))
        lists = [np.zeros(0, int), *(np.asarray(part, int) for part in found)]
        near = torch.from_numpy(np.concatenate(lists)), torch.from_numpy(np.repeat(np.arange(len(found)), sizes))
        return near[0].to(z.device), near[1].to(z.device)
    points, indices = [], []
    for start, part in _parts(z, len(centres)):
        point, centre = (metric.squared_dist(part[:, None], centres) <= squared).nonzero(as_tuple=True)
        points.append(point + start)
        indices.append(centre)
    return torch.cat(points), torch.cat(indices)


def nearest(z: Tensor, centres: Tensor, metric: RiemannianMetric, k: int = 1) -> Tensor:
    """Index of the k-th nearest of ``centres (n, d)`` to each of ``z (m, d)``, ``(m,)``."""
    if isinstance(metric, Sphere):
        index = _tree(centres, metric).query(_ambient(z, metric), k=[k])[1][:, 0]
        return torch.from_numpy(index).to(z.device)
    rows = (metric.squared_dist(part[:, None], centres) for _, part in _parts(z, len(centres)))
    return torch.cat([row.kthvalue(k).indices for row in rows])


def _parts(z: Tensor, width: int) -> Any:
    size = max(1, _PAIRS // width)
    return ((start, z[start : start + size]) for start in range(0, len(z), size))


def _tree(z: Tensor, metric: Sphere) -> Any:
    return scipy.spatial.cKDTree(_ambient(z, metric))


def _ambient(z: Tensor, metric: Sphere) -> Any:
    return _numpy(metric.to_ambient(z.detach().double()))


def _numpy(x: Tensor) -> Any:
    return x.detach().cpu().double().numpy()
