"""What of a metric's work is bounded in memory, on either face."""

from __future__ import annotations

MAX_MEMORY = 2**29
"""Bytes that a routine may hold at a time, results aside, where nobody says otherwise."""

ORDERS = {
    "embed": -1,
    **dict.fromkeys(("metric", "cholesky", "logdet", "inner", "norm", "diagonal", "on_floor", "embed_jacobian"), 0),
    **dict.fromkeys(("christoffel", "drift"), 0),
    **dict.fromkeys(("logdet_gradient", "metric_jacobian", "metric_derivatives"), 1),
    "speed_hessian": 2,
}
"""Methods of a metric that work point by point, and how many derivatives beyond G they take themselves."""


def footprint(dim: int, order: int) -> int:
    """Numbers that are held at a point of a metric of which no more is known: a few matrices and their derivatives."""
    return 4 * dim**2 * (dim + 1) ** max(order, 0)


def room(max_memory: int, numbers: int, size: int) -> int:
    """How many points may be in work at a time.

    Args:
        max_memory: bytes that may be held.
        numbers: that are held at a point.
        size: of one of them, in bytes.
    """
    return max(1, max_memory // (numbers * size))


def curves(point: int, dim: int, num_knots: int, num_nodes: int) -> int:
    """Numbers that are held of one curve in work.

    Args:
        point: numbers at a node.
        dim: of the metric.
        num_knots: intervals of the spline.
        num_nodes: nodes of the energy.
    """
    return max(point * num_nodes, 8 * (num_knots * dim) ** 2)
