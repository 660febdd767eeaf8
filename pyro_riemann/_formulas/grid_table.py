"""Building the table of a metric: its nodes, its fields, its error. On the host, in double precision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from pyro_riemann._formulas import Array, log_cholesky

_NUM_PROBES = 512


def check_sizes(resolution: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """Nodes along each axis."""
    sizes = (resolution,) * dim if isinstance(resolution, int) else tuple(int(r) for r in resolution)
    if len(sizes) != dim or min(sizes) < 4:
        raise ValueError(f"`resolution` must be {dim} whole numbers of at least 4, got {resolution}.")
    return sizes


def check_dimension(dim: int) -> int:
    """Refuse a dimension that has no table."""
    if not 1 <= dim <= 3:
        raise ValueError(f"`metric` has dimension {dim}; a table needs a dimension of 1 to 3.")
    return dim


def check_corners(corners: Array) -> None:
    """Refuse an empty box; ``corners`` is ``(2, d)``."""
    if not (corners[0] < corners[1]).all():
        given = f"{corners[0].tolist()} and {corners[1].tolist()}"
        raise ValueError(f"`low` must lie below `high` on every axis, got {given}.")


def nodes(corners: Array, sizes: tuple[int, ...]) -> Array:
    """Nodes of the regular grid, row by row, ``(prod(sizes), d)``, in the corners' dtype."""
    axes = [np.linspace(*span) for span in zip(*corners.tolist(), sizes, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sizes)).astype(corners.dtype)


def probes(corners: Array) -> Array:
    """Random points of the box, always the same, ``(512, d)``."""
    low, high = corners
    unit = np.random.default_rng(0).random((_NUM_PROBES, len(low)))
    return (low + (high - low) * unit).astype(corners.dtype)


def chosen(points: Array, corners: Array) -> Array:
    """At most 512 of the given ``points`` ``(n, d)``, evenly spaced rows, of those that lie in the box."""
    if points.ndim != 2 or points.shape[1] != corners.shape[1]:
        raise ValueError(f"`points` must have shape (n, {corners.shape[1]}), got {points.shape}.")
    inside = points[((points >= corners[0]) & (points <= corners[1])).all(-1)]
    if not len(inside):
        raise ValueError(
            f"none of the {len(points)} `points` lies in the box {corners[0].tolist()} to {corners[1].tolist()}: they "
            "say where the table will be used."
        )
    return inside[:: -(-len(inside) // _NUM_PROBES)].astype(corners.dtype)


def judge(errors: Array, max_error: float | None, given: bool) -> tuple[float, float]:
    """Error to report and mean of the relative errors ``(n,)``: the 90 % quantile at given points, else the largest.

    Warns above ``max_error`` at given points; the corners of a box, where nobody goes, say little.
    """
    reported = float(np.quantile(errors, 0.9)) if given else float(errors.max())
    if given and max_error is not None and reported > max_error:
        warnings.warn(
            f"the table is off by up to {reported:.2g} of the metric on 90 % of the given points (bound: `max_error` = "
            f"{max_error:g}): distances and volumes from it are as wrong. Raise `resolution`, or shrink the box.",
            UserWarning,
            stacklevel=3,
        )
    return reported, float(errors.mean())


def fields(tensors: Array, points: Array) -> Array:
    """Fields ``(n, d (d + 1) / 2)`` of metrics ``(n, d, d)`` at ``points`` ``(n, d)``."""
    bad = ~np.isfinite(tensors).all((-2, -1))
    safe = np.where(bad[:, None, None], np.eye(tensors.shape[-1]), tensors).astype(np.float64)
    spectrum = np.linalg.eigvalsh(safe)
    bad |= spectrum[:, 0] <= np.finfo(np.float64).eps * spectrum[:, -1]
    if bad.any():
        raise ValueError(
            f"`metric` is not finite and positive definite at {int(bad.sum())} of {len(points)} nodes, "
            f"for instance z = {points[bad][0].tolist()}. Shrink the box, or regularise the metric."
        )
    return log_cholesky.fields_of(np.linalg.cholesky(safe))


def relative_error(estimate: Array, exact: Array) -> Array:
    """``max_v |v^T (estimate - exact) v| / v^T exact v`` at each point, ``(n,)``."""
    root = np.linalg.cholesky(exact.astype(np.float64))
    error = np.linalg.solve(root, estimate.astype(np.float64) - exact.astype(np.float64))
    error = np.linalg.solve(root, np.swapaxes(error, -1, -2))
    return np.asarray(np.linalg.norm(error, 2, axis=(-2, -1)))
