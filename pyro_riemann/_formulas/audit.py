"""What is looked at to judge a solved curve, beside the energy that was minimised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyro_riemann._formulas import Array, Namespace, table

# a distance is promised to 0.1 %; where a spline is too coarse to follow the geodesic, what the audit can see of the
# error is a third to a quarter of it (measured on spheres in the stereographic chart)
TOLERANCE = 1e-3 / 4
CLOSER = 4  # times as many chords, for a second look
DENSE = 1024  # chords that measure a curve across the kinks of a decoder: to 0.02 % on a convolutional one with ReLU
_SMOOTH, _SMOOTH_TWICE = 3.5, 12  # least ratio of what chords of a smooth immersion gain, with each doubling, with two


def positive(xp: Namespace, value: Array) -> Array:
    """The value, 1 where it is not positive."""
    return xp.where(value > 0, value, xp.ones_like(value))


def gap(xp: Namespace, value: Array, length: Array) -> Array:
    """Relative difference between the length that an energy ``value`` stands for and that of the curve, ``(P,)``."""
    return abs(xp.sqrt(2 * xp.where(value > 0, value, xp.zeros_like(value))) / positive(xp, length) - 1)


def chord_error(
    xp: Namespace, value: Array, length: Array, richardson: bool, lacking: Array, saving: Array | None
) -> Array:
    """Estimated relative error of lengths from chords, ``(P,)``.

    Args:
        xp: array namespace.
        value: energies.
        length: by Gauss nodes.
        richardson: whether the energies are extrapolated.
        lacking: what chords across kinks lack, see :func:`kinks`, and 0 elsewhere.
        saving: energy that bubbles could save, where chords are :data:`DENSE`.
    """
    # bubbles need a pass of their own. The speed tells a part of the error: on a sphere and on a
    # decoder that was 1.4 to 2.6 times as large in the median and 7 times at the most, and below 0.03 % where a curve
    # passes. The bias of plain chords is seen in full
    error = gap(xp, value, length) * (2 if richardson else 1)
    error = xp.where(lacking > error, lacking, error)
    if saving is None:
        return error
    # all of that error is seen, of fine detours a fifth or more, across steep folds less
    return error / 4 + saving / (2 * positive(xp, value))


def kinks(xp: Namespace, images: Array, length: Array, finer: int = 1) -> tuple[Array, Array]:
    """What half as many chords lack, relative to the length, and whether these run across kinks, both ``(P,)``.

    What twice as many chords add falls to a quarter each time, and to a half across kinks, where they lack as much
    again and nodes of any rule are as wrong. (Measured with 32 chords: 3.7 to 4.0 with tanh, 1.6 to 3.4 with ReLU.)
    Chords that are too few for a steep but smooth immersion look as if they ran across kinks. Of :data:`CLOSER` times
    as many, two doublings decide: of curves with ReLU they let go 0 to 3 in a hundred, with ELU 97 and more.

    Args:
        xp: array namespace.
        images: at the ends of the chords, ``(P, N + 1, D)``.
        length: of the curve.
        finer: how many times as many chords these are as those that are judged, 1 or :data:`CLOSER`.
    """
    last = images.shape[1] - 1

    def chords(step: int) -> Array:
        nodes = images[:, ::step]
        whole = xp.sqrt(((nodes[:, 1:] - nodes[:, :-1]) ** 2).sum(-1)).sum(-1)
        return whole + xp.sqrt(((images[:, last] - nodes[:, -1]) ** 2).sum(-1)) if last % step else whole

    half, (step, least) = chords(2), (2, _SMOOTH) if finer == 1 else (4, _SMOOTH_TWICE)
    added, before = chords(1) - half, (half if step == 2 else chords(step)) - chords(2 * step)
    lacking = added / positive(xp, length)
    return lacking, (before < least * added) & (lacking > TOLERANCE / (8 * finer))


def bubbles(num_knots: int, num_segments: int) -> int:
    """Number of the smallest bubbles: four on every knot interval, by powers of two."""
    return min(4 << (num_knots - 1).bit_length(), num_segments // 4)


def bubble_saving(
    xp: Namespace,
    solve: Callable[[Array, Array], Array],
    force: Array,
    rates: Array,
    metric: Array,
) -> Array:
    """Energy that bubbles of three sizes could save, ``(P,)``, by one Newton step of each.

    They are as long as the knot intervals of a spline and shorter: what longer ones could save, Newton's method tells,
    and more truly, since the kinks that these cross resist, too.

    Args:
        xp: array namespace.
        solve: ``matrix^{-1} vector`` for ``(*batch, d, d)`` and ``(*batch, d)``.
        force: derivative of the energy in the nodes ``1, ..., N``, ``(P, N, d)``.
        rates: 1 / (time between two nodes), ``(P, N)``.
        metric: G in the middle of each of the smallest bubbles, ``(P, M, d, d)``.
    """
    finest, savings = metric.shape[1], []

    def grouped(terms: Array, count: int) -> Array:
        return terms.reshape(len(terms), count, terms.shape[1] // count, *terms.shape[2:])

    for count in (finest // 4, finest // 2, finest):
        times = np.linspace(0, 1, force.shape[1] // count + 1)
        shape = (times * (1 - times)) ** 2
        weights, stiff = (table(xp, part, force) for part in (shape[1:], np.diff(shape) ** 2))
        pull = xp.einsum("pcnd,n->pcd", grouped(force, count), weights)
        stiffness = xp.einsum("pcn,n->pc", grouped(rates, count), stiff)[..., None, None]
        savings.append(0.5 * (pull * solve(stiffness * grouped(metric, count).mean(2), pull)).sum(-1).sum(-1))
    return sum(savings[1:], savings[0])


def failure(count: int, total: int) -> str:
    """What is said where so many pairs of points have no geodesic that passed."""
    return (
        f"{count} of {total} pairs of points have no converged geodesic, also with finer settings: their "
        "distances may be wrong by more than 0.1 %, in either direction. `metric.geodesic(z, y).converged` tells "
        'which; more `num_knots` and `num_segments`, or `init="graph"`, in `metric.solver` may help. '
        'GeodesicSolver(on_failure="ignore") is for distances that are meant to be rough.'
    )
