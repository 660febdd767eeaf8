"""What a solved curve is worth, judged at nodes that the energy which was minimised has never seen."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas import splines
from pyro_riemann._formulas.audit import (
    CLOSER,
    DENSE,
    bubble_saving,
    bubbles,
    chord_error,
    failure,
    gap,
    kinks,
    positive,
)
from pyro_riemann._warn import warn
from pyro_riemann.numpyro import _linalg
from pyro_riemann.numpyro._interface import Energy
from pyro_riemann.numpyro.geodesics import _spline
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy, QuadratureEnergy


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
        error = gap(jnp, value, length) + saving / (2 * positive(jnp, value))
        kinked = jnp.zeros_like(error, bool)
    error = jnp.where(value <= 0, 0.0, jnp.nan_to_num(error, nan=jnp.inf, posinf=jnp.inf))
    known = energy.metric.covers(QuadratureEnergy(energy.metric, energy.num_knots, finer).curve(control)[3])
    if known is not None:  # a table knows nothing of the way outside its box
        error = jnp.where(known.all(-1), error, jnp.inf)
    return Verdict(length, error, kinked)


def _by_chords(energy: ChordEnergy, control: Array, value: Array) -> tuple[Array, Array, Array]:
    """Length, error, and whether kinks are crossed."""
    metric, nodes, dense = energy.metric, energy.nodes(control), energy.num_segments == DENSE
    finer = energy.num_segments if dense else 2 * energy.num_segments + energy.num_knots
    curve, saving = QuadratureEnergy(metric, energy.num_knots, finer).curve(control), None
    speed = jax.jvp(metric.embed, (curve[3],), (curve[4],))[1]
    length = (jnp.sqrt(jnp.square(speed).sum(-1)) * curve[0]).sum(-1)
    if dense:
        images, pull_back = jax.vjp(metric.embed, nodes)
        force = pull_back(energy.image_force(images))[0][:, 1:]
        stride = energy.num_segments // bubbles(energy.num_knots, energy.num_segments)
        rates = jnp.broadcast_to(energy.rates_of(images), (len(control), energy.num_segments))
        middle = metric.metric(nodes[:, stride // 2 :: stride])
        saving = bubble_saving(jnp, _linalg.solve_vector, force, rates, middle)
    else:
        images = metric.embed(nodes)
    lacking, kinked = kinks(jnp, images, length)
    if not dense:

        def closer() -> Array:
            table = _spline.uniform_basis(energy.num_knots, CLOSER * energy.num_segments, control)
            finer = _spline.follow(table, control)
            return kinked & kinks(jnp, metric.embed(finer), length, CLOSER)[1]

        kinked = jax.lax.cond(kinked.any(), closer, lambda: kinked)
    return length, chord_error(jnp, value, length, energy.richardson, jnp.where(kinked, lacking, 0.0), saving), kinked


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
    message = failure(np.sum(~converged), np.size(converged))
    if on_failure == "raise":
        raise RuntimeError(message)
    warn(message)
