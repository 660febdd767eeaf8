"""What a solved curve is worth, judged at nodes that the energy which was minimised has never seen."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro._interface import Energy
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy, QuadratureEnergy

# a distance is promised to 0.1 %; where a spline is too coarse to follow the geodesic, what the audit can see of the
# error is a third to a quarter of it (measured on spheres in the stereographic chart)
TOLERANCE = 1e-3 / 4
DENSE = 1024  # chords that measure a curve across the kinks of a decoder: to 0.02 % on a convolutional one with ReLU
_SMOOTH = 3.5  # least ratio of what chords of a smooth immersion gain, with each doubling
_INSIDE = tuple(str(Path(file).parent) for file in (Path(__file__).parents[1], jax.__file__))


class Verdict(NamedTuple):
    """Lengths of curves and the estimated relative error of their least energies as distances."""

    length: Array  # (P,)
    error: Array  # (P,)
    kinked: Array  # (P,) bool: the chords approach the length as slowly as across kinks


def audit(energy: Energy, control: Array) -> Verdict:
    r"""Length and relative error of solved curves, ``(P,)``, from Gauss nodes twice as dense as the energy's.

    The error has two parts. The discrete energy must be that of the curve: ``sqrt(2 E)`` is compared with the length
    :math:`\int |\gamma'|_G\,dt`, which tells chords that jumped a wall, nodes that missed one, and a speed that is
    not constant. And the spline must be able to follow the geodesic: the energy that a bubble on every knot
    interval, which no spline contains, could still save is added. (For chords, whose bubbles need a pass of their own,
    only where they are :data:`DENSE`.)
    """
    finer, value = 2 * energy.num_segments + energy.num_knots, energy.value(control)
    if isinstance(energy, ChordEnergy):
        length, error, kinked = _by_chords(energy, control, value)
    else:
        guide = energy.guide if isinstance(energy, QuadratureEnergy) else None
        length, saving = _by_quadrature(QuadratureEnergy(energy.metric, energy.num_knots, finer, guide), control)
        error, kinked = _gap(value, length) + saving / (2 * _positive(value)), jnp.zeros_like(value, bool)
    error = jnp.where(value <= 0, 0.0, jnp.nan_to_num(error, nan=jnp.inf, posinf=jnp.inf))
    known = energy.metric.covers(QuadratureEnergy(energy.metric, energy.num_knots, finer).curve(control)[3])
    if known is not None:  # a table knows nothing of the way outside its box
        error = jnp.where(known.all(-1), error, jnp.inf)
    return Verdict(length, error, kinked)


def _by_chords(energy: ChordEnergy, control: Array, value: Array) -> tuple[Array, Array, Array]:
    """Length, error, and whether kinks are crossed."""
    dense = energy.num_segments >= DENSE
    finer = energy.num_segments if dense else 2 * energy.num_segments + energy.num_knots
    curve = QuadratureEnergy(energy.metric, energy.num_knots, finer).curve(control)
    speed = jax.jvp(energy.metric.embed, (curve[3],), (curve[4],))[1]
    length = (jnp.sqrt(jnp.square(speed).sum(-1)) * curve[0]).sum(-1)
    # bubbles would need another pass. The speed tells a part of the error: on a sphere and on a
    # decoder that was 1.4 to 2.6 times as large in the median and 7 times at the most, and below 0.03 % where a curve
    # passes. The bias of plain chords is seen in full
    error = _gap(value, length) * (2 if energy.richardson else 1)
    # what twice as many chords add falls to a quarter each time, and to a half across kinks, where they lack as much
    # again and nodes of any rule are as wrong. (Measured: 3.7 to 4.0 with tanh, 1.6 to 3.4 with ReLU)
    images = energy.metric.embed(energy.nodes(control))
    whole, half, quarter = (
        jnp.sqrt(jnp.square(jnp.diff(images[:, ::step], axis=1)).sum(-1)).sum(-1) for step in (1, 2, 4)
    )
    lacking = (whole - half) / _positive(length)
    kinked = (half - quarter < _SMOOTH * (whole - half)) & (lacking > TOLERANCE / 8)
    error = jnp.where(kinked, jnp.maximum(error, lacking), error)
    if dense:  # all of that error is seen, and of what bubbles save, a third or more was seen on a decoder with ReLU
        error = error / 4 + _saving(energy, control) / (2 * _positive(value))
    return length, error, kinked


def _gap(value: Array, length: Array) -> Array:
    """Relative difference of the length that an energy stands for and that of the curve."""
    return jnp.abs(jnp.sqrt(2 * jnp.maximum(value, 0.0)) / _positive(length) - 1)


def _positive(value: Array) -> Array:
    return jnp.where(value > 0, value, 1.0)


def _saving(energy: ChordEnergy, control: Array) -> Array:
    """Energy that bubbles could save, ``(P,)``: as many as there are knots, twice and four times that many."""
    segments, count = energy.num_segments, 1 << (energy.num_knots - 1).bit_length()
    finest = min(4 * count, segments // 4)
    nodes, stride = energy.nodes(control), segments // finest
    images, pull_back = jax.vjp(energy.metric.embed, nodes)
    force = pull_back(energy.image_force(images))[0][:, 1:]
    rates = jnp.broadcast_to(energy.rates_of(control), (control.shape[0], segments))
    middle = energy.metric.metric(nodes[:, stride // 2 :: stride])
    saving = jnp.zeros_like(control[:, 0, 0])
    for bubbles in (finest // 4, finest // 2, finest):

        def each(terms: Array, bubbles: int = bubbles) -> Array:
            return terms.reshape(terms.shape[0], bubbles, -1, *terms.shape[2:])

        times = jnp.linspace(0, 1, segments // bubbles + 1, dtype=control.dtype)
        shape = jnp.square(times * (1 - times))
        pull = (each(force) * shape[1:, None]).sum(2)
        rate = (each(rates) * jnp.square(jnp.diff(shape))).sum(2)
        stiffness = rate[..., None, None] * each(middle).mean(2)
        saving = saving + 0.5 * (pull * _linalg.solve_vector(stiffness, pull)).sum((-1, -2))
    return saving


def _by_quadrature(fine: QuadratureEnergy, control: Array) -> tuple[Array, Array]:
    """Length and what the bubbles could save of the energy, both ``(P,)``."""
    weights, _, _, points, velocity = fine.curve(control)
    even, *bubble = splines.bubbles(fine.num_knots, fine.num_segments)
    value, slope = (jnp.asarray(numbers, control.dtype)[:, None] for numbers in bubble)
    metric, derivative, _ = fine.metric.metric_derivatives(points, velocity)
    momentum = jnp.einsum("pqij,pqj->pqi", metric, velocity)
    force = 0.5 * jnp.einsum("pqji,pqj->pqi", derivative, velocity)
    speed = jnp.sqrt(jnp.maximum((momentum * velocity).sum(-1), 0.0))
    length = (speed * jnp.asarray(even, control.dtype)).sum(-1)

    def an_interval(terms: Array) -> Array:
        return terms.reshape(terms.shape[0], fine.num_knots, -1, *terms.shape[2:]).sum(2)

    weight = weights[..., None]
    gradient = an_interval(weight * (slope * momentum + value * force))
    stiffness = an_interval((weight * jnp.square(slope))[..., None] * metric)
    return length, 0.5 * (gradient * _linalg.solve_vector(stiffness, gradient)).sum((-1, -2))


def report(converged: np.ndarray, on_failure: str) -> None:
    """Warn or raise where a pair of points has no geodesic that passed."""
    if on_failure == "ignore" or np.all(converged):
        return
    message = (
        f"{np.sum(~converged)} of {np.size(converged)} pairs of points have no converged geodesic, also with finer "
        "settings: their distances may be wrong by more than 0.1 %, in either direction. "
        "`metric.geodesic(z, y).converged` tells which; more `num_knots` and `num_segments`, or "
        '`init="graph"`, in `metric.solver` may help. GeodesicSolver(on_failure="ignore") is for distances that are '
        "meant to be rough."
    )
    if on_failure == "raise":
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=_outside())


def _outside() -> int:
    """Levels from the caller of this function up to the first frame that is neither of this package nor of JAX."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    return level
