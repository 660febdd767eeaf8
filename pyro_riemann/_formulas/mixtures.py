"""Mixtures: expectation maximisation, and kernels of several times on every point with the weights of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from pyro_riemann._formulas import Array, Namespace, places


class Kernels(NamedTuple):
    """The kernels on n points, K each, and the columns of weights that they share.

    Attributes:
        time: of each kernel, ``(n, K)``.
        column: of each kernel, ``(n, K)``: a group of points and a time, or the background, which is the last.
        share: log of its part of the column's weight, ``(n, K)``.
    """

    time: Array
    column: Array
    share: Array


def check_settings(num_groups: int, num_neighbours: int, num_folds: int) -> None:
    """Refuse counts that are too small."""
    if num_groups < 1 or num_neighbours < 1 or num_folds < 2:
        raise ValueError(
            f"`num_groups` and `num_neighbours` must be at least 1 and `num_folds` at least 2, got {num_groups}, "
            f"{num_neighbours} and {num_folds}."
        )


def check_points(shape: tuple[int, ...], dim: int, num_groups: int, num_neighbours: int, num_folds: int) -> None:
    """Refuse points of this shape that are too few for the folds."""
    if len(shape) != 2 or shape[0] * (num_folds - 1) // num_folds < 2 * max(num_groups, num_neighbours):
        raise ValueError(
            f"`points` must have shape (n, {dim}) with two points for every group and neighbour, got {shape} for "
            f"{num_groups} groups and {num_neighbours} neighbours."
        )


def kernels(
    xp: Namespace, squared: Array, times: Array, multiples: Array, background: float | None, num_groups: int
) -> Kernels:
    """Groups of equal size from the crowded to the lonely, and the times of their points.

    Args:
        xp: the array namespace.
        squared: distance of each point to its neighbour, squared, ``(n,)``.
        times: that all points share, ``(K,)``.
        multiples: of the squared distance, further times of each point's own, ``(M,)``.
        background: time of one more kernel, at the first point.
        num_groups: number of groups.
    """
    count = len(squared)
    group = squared.argsort().argsort() * num_groups // count
    own = xp.maximum(squared[:, None] * multiples, times.min())
    time = xp.concatenate([xp.broadcast_to(times, (count, len(times))), own], 1)
    column = group[:, None] * time.shape[1] + places(xp, np.arange(time.shape[1]), squared)
    size = (group[:, None] == places(xp, np.arange(num_groups), squared)).sum(0)[group][:, None]
    share = -xp.log(size * xp.ones_like(time))
    if background is not None:
        last = xp.full_like(column[:, :1], num_groups * time.shape[1])
        time = xp.concatenate([time, xp.full_like(time[:, :1], background)], 1)
        column = xp.concatenate([column, last], 1)
        first = places(xp, np.arange(count), squared)[:, None] == 0
        share = xp.concatenate([share, xp.where(first, 0.0, xp.full_like(share[:, :1], -np.inf))], 1)
    return Kernels(time, column, share)


def concave_maximum(xp: Namespace, table: Array, num_steps: int = 500, tolerance: float = 1e-7) -> Array:
    """Weights of the columns of ``table`` ``(n, C)`` that maximise the mean log of their mixture, by EM."""
    weights = xp.full_like(table[0], 1 / table.shape[1])
    table = table[(table > 0).any(1)]  # a row that no column reaches is the same for all weights
    for _ in range(num_steps):
        # an upper bound of what any weights could gain: the largest mean ratio of a column to the mixture
        ratio = (table / (table @ weights)[:, None]).mean(0)
        weights = weights * ratio
        if ratio.max() < 1 + tolerance:
            break
    return weights / weights.sum()


Law = TypeVar("Law")
Step = TypeVar("Step")

SHORTEST = 1e-3  # of a full step


def maximise(
    law: Law,
    expect: Callable[[Law], tuple[Array, Step]],
    move: Callable[[Law, Step, float], Law],
    *,
    num_steps: int,
    tolerance: float,
) -> tuple[Law, list[Array], bool]:
    """The law after at most ``num_steps`` steps, its mean log likelihoods, which never fall, and whether it converged.

    Args:
        law: where to begin.
        expect: the mean log likelihood of a law, a scalar, and the step that it suggests.
        move: the law after a step of that length, 1 for all of it.
        num_steps: most steps.
        tolerance: converged where a step gains less.
    """
    value, step = expect(law)
    history, converged = [value], False
    for _ in range(num_steps):
        length = 1.0
        while True:
            moved = move(law, step, length)
            value, next_step = expect(moved)
            if value >= history[-1] or length < SHORTEST:
                break
            length /= 2
        converged = bool(value - history[-1] < tolerance)
        if not value >= history[-1]:
            converged = bool(history[-1] - value < tolerance)  # rounding at the top, or no way up
            break
        law, step = moved, next_step
        history.append(value)
        if converged:
            break
    return law, history, converged
