"""A step of the classical Runge-Kutta method along a geodesic, for torch and JAX alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def step(christoffel: Callable[[Any, Any], Any], z: Any, v: Any, length: Any) -> tuple[Any, Any]:
    """Position and velocity ``(*batch, d)`` after time ``length``, which broadcasts against them.

    Source: Hairer, Norsett & Wanner (1993), *Solving Ordinary Differential Equations I*, section II.1.
    """
    v2 = v - 0.5 * length * (a1 := christoffel(z, v))
    v3 = v - 0.5 * length * (a2 := christoffel(z + 0.5 * length * v, v2))
    v4 = v - length * (a3 := christoffel(z + 0.5 * length * v2, v3))
    a4 = christoffel(z + length * v3, v4)
    return z + length / 6 * (v + 2 * v2 + 2 * v3 + v4), v - length / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
