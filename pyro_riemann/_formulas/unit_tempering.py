"""A small tempered sequence on the unit box, on the host: a second opinion of an integral."""

from __future__ import annotations

import math

import numpy as np

from pyro_riemann._formulas.climbs import Slopes, Vector
from pyro_riemann._formulas.unit_mixture import UnitMixture, log_mean

_ISLANDS, _PARTICLES = 8, 128
_MOVES, _LEAPS = 2, 5
_KEEP = 0.7  # effective sample size that a change of temperature may cost
_BUDGET = 2**17  # gradients


def tempered_log_integral(slopes: Slopes, start: UnitMixture, seed: int = 1) -> tuple[float, float]:
    """Log integral of a function's exponential over the unit box, and its standard error; infinite if cut short.

    Sequential Monte Carlo along ``start^(1 - b) f^b`` with Hamiltonian moves that bounce off the walls.

    Args:
        slopes: log f ``(n)`` and its gradient ``(n, d)`` at points ``(n, d)``.
        start: where the sequence starts.
        seed: of its random numbers.

    Source: Del Moral, Doucet & Jasra (2006), *Sequential Monte Carlo samplers*.
    """
    luck, dim, count = np.random.default_rng(seed), start.loc.shape[1], _ISLANDS * _PARTICLES
    groups = [_inside(start, luck, dim) for _ in range(_ISLANDS)]
    z = np.concatenate([points for points, _ in groups])
    log_mass = np.log([share for _, share in groups])
    heat, length, evaluations = 0.0, 0.5, 0
    while True:
        log_ratio = (slopes(z)[0] - start.log_prob(z)[0]).reshape(_ISLANDS, -1)
        cost = count * (1 + _MOVES * (_LEAPS + 1))
        short = evaluations + 2 * cost > _BUDGET  # no stage would fit after this one
        rise = 1 - heat if short else _rise(log_ratio, 1 - heat)
        heat = 1.0 if rise >= 1 - heat else heat + rise
        log_mass = log_mass + np.logaddexp.reduce(rise * log_ratio, axis=1) - math.log(_PARTICLES)
        if heat >= 1:
            value, error = log_mean(log_mass)
            return value, math.inf if short else error
        z = _resampled(z, rise * log_ratio, luck)

        def target(points: Vector, heat: float = heat) -> tuple[Vector, Vector]:
            (own, pull), (other, push) = slopes(points), start.log_prob(points)
            return heat * own + (1 - heat) * other, heat * pull + (1 - heat) * push

        scale = z.std(0)
        for _ in range(_MOVES):
            z, rate = _move(target, z, scale, length, luck)
            length *= 1.3 if rate > 0.9 else 0.6 if rate < 0.6 else 1.0
        evaluations += cost


def _inside(start: UnitMixture, luck: np.random.Generator, dim: int) -> tuple[Vector, float]:
    """Draws inside the box, and the share of the first draws that are."""
    kept: list[Vector] = []
    while sum(map(len, kept)) < _PARTICLES:
        z = start.place(luck.random((4 * _PARTICLES, dim + 1)), luck.standard_normal((4 * _PARTICLES, dim)))
        kept.append(z[((z >= 0) & (z <= 1)).all(-1)])
    return np.concatenate(kept)[:_PARTICLES], max(len(kept[0]), 1) / (4 * _PARTICLES)


def _rise(log_ratio: Vector, remaining: float) -> float:
    """Largest change of temperature that keeps the effective sample size of every island."""

    def keeps(rise: float) -> bool:
        weight = rise * log_ratio
        size = 2 * np.logaddexp.reduce(weight, axis=1) - np.logaddexp.reduce(2 * weight, axis=1)
        return bool((np.exp(size) >= _KEEP * log_ratio.shape[1]).all())

    if keeps(remaining):
        return remaining
    below, above = 0.0, remaining
    for _ in range(40):
        middle = 0.5 * (below + above)
        below, above = (middle, above) if keeps(middle) else (below, middle)
    return max(below, 1e-6)


def _resampled(z: Vector, log_weight: Vector, luck: np.random.Generator) -> Vector:
    """Systematic resampling within each island."""
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    edges = weight.cumsum(1) / weight.sum(1, keepdims=True)
    ticks = (np.arange(_PARTICLES) + luck.random((_ISLANDS, 1))) / _PARTICLES
    rows = [np.searchsorted(edge, tick).clip(max=_PARTICLES - 1) for edge, tick in zip(edges, ticks, strict=True)]
    return np.concatenate([group[row] for group, row in zip(z.reshape(_ISLANDS, _PARTICLES, -1), rows, strict=True)])


def _move(target: Slopes, z: Vector, scale: Vector, length: float, luck: np.random.Generator) -> tuple[Vector, float]:
    """One Hamiltonian move of every particle, and the acceptance rate."""
    momentum = np.asarray(luck.standard_normal(z.shape))
    stride = length * (1 - 0.4 * luck.random((len(z), 1)))
    value, slope = target(z)
    begin = value - 0.5 * np.square(momentum).sum(-1)
    point = z
    for _ in range(_LEAPS):
        momentum = momentum + 0.5 * stride * scale * slope
        phase = np.mod(point + stride * scale * momentum, 2)
        point, momentum = np.where(phase > 1, 2 - phase, phase), np.where(phase > 1, -momentum, momentum)
        value, slope = target(point)
        momentum = momentum + 0.5 * stride * scale * slope
    gain = np.nan_to_num(value - 0.5 * np.square(momentum).sum(-1) - begin, nan=-np.inf)
    taken = np.log(luck.random(len(z))) < gain
    return np.where(taken[:, None], point, z), float(np.exp(np.minimum(gain, 0)).mean())
