"""Steep metrics as users write them, and pairs of points whose distances are known without this package.

Every metric is a function of a namespace (torch or jax.numpy) and points ``(..., 2)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Metric = Callable[[Any, Any], Any]
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # ends (n, 2) and distances (n,)

SHORT = 0.4
"""Axis of the spheroid with the axes 1, 1 and this one."""


def spheroid(xp: Any, z: Any) -> Any:
    """The oblate spheroid, the image of the stereographic chart of a sphere: ways lead over either face."""
    a, b = z[..., 0], z[..., 1]
    s = 1 + a * a + b * b
    across, along = (2 / s - 4 * a * a / s**2, -4 * a * b / s**2), (-4 * a * b / s**2, 2 / s - 4 * b * b / s**2)
    upward = (4 * a / s**2, 4 * b / s**2)
    rows = [
        [across[i] * across[j] + along[i] * along[j] + SHORT**2 * upward[i] * upward[j] for j in (0, 1)] for i in (0, 1)
    ]
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


def spheroid_pairs(count: int, seed: int) -> Pairs:
    """Uniform starts, directions and arcs on the auxiliary sphere, lengths and longitudes by Bessel's integrals.

    On an oblate spheroid a geodesic is the shortest as long as its arc is below pi.

    Source: Karney (2013), *Algorithms for geodesics*, equations 5 to 8.
    """
    rng = np.random.default_rng(seed)
    latitude = np.arcsin(rng.uniform(-1, 1, count))  # reduced
    azimuth, arc = rng.uniform(-np.pi, np.pi, count), np.arccos(rng.uniform(-1, 1, count))
    at_equator = np.arctan2(
        np.sin(azimuth) * np.cos(latitude), np.hypot(np.cos(azimuth), np.sin(azimuth) * np.sin(latitude))
    )
    start = np.arctan2(np.sin(latitude), np.cos(azimuth) * np.cos(latitude))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    sigma = start[:, None] + arc[:, None] * (nodes + 1) / 2
    weight = arc[:, None] * weights / 2
    flattening = 1 - SHORT
    root = np.sqrt(1 + (1 / SHORT**2 - 1) * np.cos(at_equator)[:, None] ** 2 * np.sin(sigma) ** 2)
    length = SHORT * (weight * root).sum(-1)
    lag = (weight * (2 - flattening) / (1 + (1 - flattening) * root)).sum(-1)

    def turned(by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reduced latitude and spherical longitude on the great circle."""
        return np.arcsin(np.cos(at_equator) * np.sin(by)), np.arctan2(np.sin(at_equator) * np.sin(by), np.cos(by))

    (first, omega), (second, omega_end) = turned(start), turned(start + arc)
    omega = np.mod(np.sign(at_equator) * (omega_end - omega), 2 * np.pi) * np.sign(at_equator)  # 0 to pi, that way
    longitude = omega - flattening * np.sin(at_equator) * lag
    around = rng.uniform(-np.pi, np.pi, count)

    def chart(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        flat = np.cos(latitude) / (1 - np.sin(latitude))
        return flat[:, None] * np.stack([np.cos(longitude), np.sin(longitude)], -1)

    return chart(first, around), chart(second, around + longitude), length


def joukowski(xp: Any, z: Any) -> Any:
    """The flat metric of ``w = z + 1/z``: two planes, joined along a slit whose ends are cones of twice the angle."""
    a, b = z[..., 0], z[..., 1]
    factor = ((a * a - b * b - 1) ** 2 + 4 * a * a * b * b) / (a * a + b * b) ** 2
    return factor[..., None, None] * xp.eye(2, dtype=z.dtype)


def joukowski_pairs(count: int, seed: int) -> Pairs:
    """Uniform pairs of a square; the way is straight, or bends at an end of the slit."""
    z, y = np.random.default_rng(seed).uniform(-2, 2, (2, count, 2))
    u, v = z @ [1, 1j], y @ [1, 1j]
    w, x = u + 1 / u, v + 1 / v
    where = w.real + w.imag / (w.imag - x.imag) * (x.real - w.real)
    crosses = (w.imag * x.imag < 0) & (np.abs(where) < 2)
    straight = crosses != ((np.abs(u) > 1) == (np.abs(v) > 1))
    around = np.minimum(*(np.abs(w - end) + np.abs(x - end) for end in (2, -2)))
    return z, y, np.where(straight, np.abs(w - x), around)


CASES: dict[str, tuple[Metric, Callable[[int, int], Pairs]]] = {
    "spheroid": (spheroid, spheroid_pairs),
    "joukowski": (joukowski, joukowski_pairs),
}
