"""What quasi-Newton iterations for geodesics are made of, on either face.

Source: Liu and Nocedal (1989), *On the limited memory BFGS method for large scale optimization*; Nielsen (1999),
*Damping parameter in Marquardt's method*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyro_riemann._formulas import Array, Namespace

PAIRS = 6  # steps that are remembered
MANY = 6  # dimensions of an immersion from which on a Jacobian costs much more than a reverse pass
_ROUNDING = 1e-4  # decrement, in energies, below which what a step gains tells nothing


def patience(dim: int) -> int:
    """Steps that one Hessian pays for: it costs as much as dim / 6 gradients and one."""
    return max(3, dim // 6)


def bend(count: int, dim: int) -> npt.NDArray[np.float64]:
    """By how much the ``count`` inner control points are moved off a start, ``(count, d)``, as a share of its length.

    A saddle of the energy, as a straight line across the top of a hill, holds curves that are exactly on it. Near the
    ends, where a metric's domain may be near its border, less.
    """
    times = np.linspace(0, 1, count + 2)[1:-1, None]
    return 0.04 * times * (1 - times) * np.random.default_rng(0).standard_normal((count, dim)) / dim**0.5


def told(xp: Namespace, step: Array, change: Array, believed: Array) -> tuple[Array, Array]:
    """Whether a step ``(P, n)`` told of the Hessian, and 1 / (step . change of the gradient), both ``(P,)``.

    It did where it is believed and the energy bends upward along it.
    """
    product, squares = (step * change).sum(-1), ((step**2).sum(-1), (change**2).sum(-1))
    mask = believed & (product > 1e-8 * xp.sqrt(squares[0]) * xp.sqrt(squares[1]))
    return mask, 1 / xp.where(mask, product, xp.ones_like(product))


def direction(solve: Callable[[Array], Array], steps: Array, changes: Array, weights: Array, gradient: Array) -> Array:
    """Inverse Hessian times gradient, ``(P, n)``, by the two loops of L-BFGS.

    Args:
        solve: the same of the Hessian that the pairs correct.
        steps: the last first, ``(P, PAIRS, n)``.
        changes: of the gradient.
        weights: 1 / (step . change), 0 where a pair tells nothing, ``(P, PAIRS)``.
        gradient: ``(P, n)``.
    """
    shares: list[Any] = []
    for turn in range(PAIRS):
        shares.append(weights[:, turn] * (steps[:, turn] * gradient).sum(-1))
        gradient = gradient - shares[-1][:, None] * changes[:, turn]
    moved = solve(gradient)
    for turn in reversed(range(PAIRS)):
        share = shares[turn] - weights[:, turn] * (changes[:, turn] * moved).sum(-1)
        moved = moved + steps[:, turn] * share[:, None]
    return moved


def damped(xp: Namespace, damping: Array, better: Array, fall: Array, decrement: Array, energy: Array) -> Array:
    """The next damping, ``(P,)``, by what the energy fell beside what the model had promised.

    Args:
        xp: array namespace.
        damping: of the step.
        better: whether the step lowered the energy.
        fall: by how much.
        decrement: twice what the model had promised.
        energy: of the curve.
    """
    kept = 2 * fall / xp.where(decrement > 0, decrement, xp.ones_like(decrement))
    kept = xp.where(decrement < _ROUNDING * energy, xp.ones_like(kept), kept.clip(0, 1))
    return xp.where(better, damping * (1 - (2 * kept - 1) ** 3).clip(0.2), (4 * damping).clip(1.0))
