"""The heat kernel of S^d at small times and away from the antipode, from a table of what is smooth in it.

The logarithm less its short-time form ``-l^2 / 2t - d/2 log(2 pi t) + 1/2 log V`` is a smooth function of
``s = sin(l/2)^2`` and of t, which starts as t times a power series in s: a polynomial in both to all digits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._formulas import densities, heat_kernel
from pyro_riemann._formulas import smooth as formulas

_LARGEST_S = 0.8  # l = 2.21; the singularity at the antipode, s = 1, sets the rate of convergence
_DEGREES = 28, 10
_ROWS = 1 << 16  # pairs at a time: the table of their polynomials stays in the cache


def _longest_time(dim: int) -> float:
    return min(0.25, 0.5 / dim)


def outside(s: Tensor, time: Tensor, dim: int) -> Tensor:
    """Where the table does not reach."""
    return (s > _LARGEST_S) | (time > _longest_time(dim))


def log_kernel(s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
    """Log heat kernel at ``s``, ``c = 1 - s`` and ``time``, each ``(n,)``; meaningless :func:`outside` the table."""
    table = torch.as_tensor(_table(dim), dtype=s.dtype, device=s.device)
    parts = zip(s.split(_ROWS), c.split(_ROWS), time.split(_ROWS), strict=True)
    return torch.cat([_rows(*part, table, dim) for part in parts])


def _rows(s: Tensor, c: Tensor, time: Tensor, table: Tensor, dim: int) -> Tensor:
    s, time = s.clamp(max=_LARGEST_S), time.clamp(max=_longest_time(dim))
    c = c.clamp(min=1 - _LARGEST_S)
    across = _chebyshev(2 * s / _LARGEST_S - 1, table.shape[0]) @ table
    smooth = (across * _chebyshev(2 * time / _longest_time(dim) - 1, table.shape[1])).sum(-1)
    return smooth + _short_time(s, c, time, dim)


def _short_time(s: Tensor, c: Tensor, time: Tensor, dim: int) -> Tensor:
    squared = formulas.squared_dist(torch, s, c, 1)
    return densities.short_time(torch, dim, time, squared, formulas.log_van_vleck(torch, s, c, 1, dim))


def _chebyshev(x: Tensor, count: int) -> Tensor:
    """The first polynomials at ``x (n,)``, ``(n, count)``."""
    columns = [torch.ones_like(x), x]
    while len(columns) < count:
        columns.append(2 * x * columns[-1] - columns[-2])
    return torch.stack(columns, -1)


@cache
def _table(dim: int) -> np.ndarray[Any, Any]:
    """Coefficients by interpolation of the contour integral at Chebyshev's nodes."""
    across, along = (np.cos((np.arange(count) + 0.5) * np.pi / count) for count in _DEGREES)
    s = torch.from_numpy((across + 1) / 2 * _LARGEST_S)[:, None].repeat(1, len(along))
    time = torch.from_numpy((along + 1) / 2 * _longest_time(dim)).repeat(len(across), 1)
    with torch.no_grad():
        smooth = heat_kernel.sphere(torch, s, 1 - s, time, dim) - _short_time(s, 1 - s, time, dim)
    left, right = (np.polynomial.chebyshev.chebvander(nodes, len(nodes) - 1) for nodes in (across, along))
    return np.linalg.solve(left, np.linalg.solve(right, smooth.numpy().T).T)
