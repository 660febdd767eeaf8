"""Nodes and weights for a standard normal in the tangent space.

NumPy tables, in double precision and fixed: the same at every call on either side, so that a normaliser is a smooth
deterministic function of its arguments.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

Table = NDArray[np.float64]

MAX_PRODUCT_DIM = 3
"""Largest dimension of a product rule; above, its nodes would be too many."""
REPLICATES = 8
"""Independent scramblings of the quasi-random points, from which their error is estimated."""


def tangent_rule(dim: int, num_nodes: int) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    """Nodes ``(n, d)`` and log weights ``(n,)`` in groups whose spread gives the error.

    Up to three dimensions a product Gauss-Hermite rule of ``num_nodes`` an axis and one of two nodes fewer; above,
    eight scrambled Sobol sets of ``num_nodes`` points.
    """
    return _gauss_hermite(dim, num_nodes) if dim <= MAX_PRODUCT_DIM else _quasi_random(dim, num_nodes)


def joined_rule(dim: int, num_nodes: int) -> tuple[Table, Table]:
    """Nodes ``(n, d)`` and log weights ``(n,)`` of the finest single rule: all replicates where there are several."""
    nodes, log_weights = tangent_rule(dim, num_nodes)
    if dim <= MAX_PRODUCT_DIM:
        return nodes[0], log_weights[0]
    return np.concatenate(nodes), np.concatenate(log_weights)


def sobol_normal(dim: int, num_points: int, seed: int) -> Table:
    """Scrambled quasi-random standard normal points ``(num_points, d)``; leaves global generators alone."""
    engine: Any = scipy.stats.qmc.Sobol(dim, scramble=True, seed=np.random.default_rng(seed))
    uniform = engine.random_base2((num_points - 1).bit_length())[:num_points]  # other numbers of points warn
    points: Table = scipy.special.ndtri(np.clip(uniform, 1e-12, 1 - 1e-12))
    return points


def check_num_nodes(num_nodes: int | None, dim: int) -> int:
    """Nodes an axis (d <= 3) or points a scrambling (above); a default for None."""
    if num_nodes is None:
        return 9 if dim <= MAX_PRODUCT_DIM else 128
    if num_nodes < 3:
        raise ValueError(f"`num_nodes` must be at least 3, got {num_nodes}.")
    return num_nodes


@lru_cache(maxsize=32)
def _gauss_hermite(dim: int, num_nodes: int) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    grids, log_weights = [], []
    for order in (num_nodes, max(num_nodes - 2, 1)):
        x, w = np.polynomial.hermite_e.hermegauss(order)
        grids.append(np.stack(np.meshgrid(*[x] * dim, indexing="ij"), -1).reshape(-1, dim))
        products = np.stack(np.meshgrid(*[np.log(w / w.sum())] * dim, indexing="ij"), -1).reshape(-1, dim)
        log_weights.append(products.sum(-1))
    return tuple(grids), tuple(log_weights)


@lru_cache(maxsize=32)
def _quasi_random(dim: int, num_points: int) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    nodes = tuple(sobol_normal(dim, num_points, seed) for seed in range(REPLICATES))
    return nodes, (np.full(num_points, -np.log(num_points)),) * REPLICATES
