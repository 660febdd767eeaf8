"""The flat torus: R^d with ``z`` and ``z + period`` the same point."""

from __future__ import annotations

from pyro_riemann._formulas import Array, Namespace


def wrap(xp: Namespace, z: Array, periods: Array) -> Array:
    """The image of ``z`` in ``[-period / 2, period / 2)``, axis by axis; an infinite period leaves its axis alone."""
    finite = xp.isfinite(periods)
    turns = xp.where(finite, xp.floor(z / periods + 0.5), xp.zeros_like(z))
    return z - xp.where(finite, periods, xp.ones_like(periods)) * turns
