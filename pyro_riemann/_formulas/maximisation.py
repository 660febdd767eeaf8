"""Expectation maximisation whose steps are halved until the likelihood does not fall."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyro_riemann._formulas import Array

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
