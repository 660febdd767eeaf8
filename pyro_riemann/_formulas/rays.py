"""Rays from a point: quasi-random directions, and how far along them a Gaussian has mass."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from pyro_riemann._formulas.tangent_rule import sobol_normal


def directions(dim: int, count: int) -> NDArray[np.float64]:
    """Unit vectors ``(count, d)`` that fill the sphere evenly; both of them for d = 1; fixed."""
    if dim == 1:
        return np.array([[1.0], [-1.0]])
    if dim == 2:
        angle = 2 * np.pi * (np.arange(count) + 0.5) / count
        return np.stack([np.cos(angle), np.sin(angle)], -1)
    points = sobol_normal(dim, count, seed=0)
    return np.asarray(points / np.linalg.norm(points, axis=-1, keepdims=True))


def reach(dim: int, tail: float = 1e-5) -> float:
    """The radius beyond which a standard normal of ``dim`` dimensions has the mass ``tail``."""
    return float(np.sqrt(scipy.special.chdtri(dim, tail)))
