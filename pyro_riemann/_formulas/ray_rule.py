r"""Tables of the ray rule: steps along geodesics, interpolation between them, directions and panels.

In geodesic polar coordinates about a centre, in an orthonormal frame, :math:`dM = r^{d-1} / V(r u)\,dr\,du`. A
geodesic that is integrated with its Jacobi fields passes through all radii of its direction u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from pyro_riemann._formulas import Array, Namespace
from pyro_riemann._formulas.tangent_rule import REPLICATES, sobol_normal

Table = NDArray[np.float64]

_BUDGET = 2.4e11  # multiplications, half a minute of one processor
_USUAL_STEPS = 40
_EFFICIENCY_BOUND = 0.02

SETTLED = 0.01
"""Error of a log mass above which more directions are tried."""
ERROR_BOUND = 0.1
"""Error of a log mass above which a warning is given."""
DIRECTIONS_BOUND = 8.0
"""Effective number of directions, or of draws in their place, below which a warning is given."""
MARGIN = 0.1
"""Of the log of the largest weight that rejection has seen, for those that it has not."""
LOST = 0.01
"""Share of the mass above the bound of rejection, from which on that is raised: tails have heavy points of no mass."""
MAX_ROUNDS = 1000
"""Of rejection."""
PANEL = 5
"""Gauss-Legendre nodes in each step of a ray."""
DROP = 26.0
"""Nats below the peak of the integrand at which a ray ends."""
MAX_STEPS = 200
"""Trial steps of one ray; what has not come to its end then is reported."""
LOOSER = 16.0
"""Ratio of the tolerances of the two integrations whose difference is the error of the steps."""

# the pair of orders 5 and 4 of Dormand & Prince (1980), whose last stage is the first of the next step
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def check_num_directions(num_directions: int | None, dim: int) -> int | None:
    """Number of directions of the ray rule, None for as many as it takes."""
    step = 2 * REPLICATES
    if num_directions is not None and (num_directions < step or num_directions % step):
        raise ValueError(f"`num_directions` must be a positive multiple of {step}, got {num_directions}.")
    return num_directions


def attempts(num_directions: int | None, dim: int, num_parameters: int = 0) -> tuple[int, ...]:
    """Numbers of directions that are tried until the error is small: one if it is given.

    At most as many as half a minute of one processor allows, a step of a ray taking ``6 (2 d - 1)`` Jacobians of a
    network with that many parameters; but at least eight.
    """
    if dim == 1:
        return (2,)
    if num_directions is not None:
        return (num_directions,)
    numbers, affordable = _numbers(dim), _affordable(dim, num_parameters)
    return tuple(n for n in numbers if n <= affordable) or (max(8, int(affordable) // 16 * 16),)


def are_dear(dim: int, num_parameters: int) -> bool:
    """Whether half a minute is not enough for the first number of directions."""
    return dim > 1 and _affordable(dim, num_parameters) < _numbers(dim)[0]


def complaint(error: float, num_effective: float, count: int) -> str | None:
    """What is to be said of a log mass from so many rays, or from what took their place; None of a good one."""
    if error <= ERROR_BOUND and (count <= 16 or num_effective >= DIRECTIONS_BOUND):
        return None
    return (
        f"A normalising constant has a stated error of {error:.2g} in its logarithm: of {count} rays, or of draws in "
        f"their place, {min(num_effective, count):.1f} have the mass. Use more (`num_directions`), a smaller "
        "spread, or a smoother metric."
    )


def complaint_of_efficiency(efficiency: float) -> str | None:
    """What is to be said of draws by rejection that accepts so few proposals; None of a good rate."""
    if efficiency >= _EFFICIENCY_BOUND:
        return None
    return (
        f"Only {efficiency:.1%} of what a RiemannianNormal proposes is accepted: few directions have all the mass, and "
        "draws are dear. Use a smaller `scale` or a smoother metric."
    )


def complaint_of_draws(num_effective: float, count: int) -> str | None:
    """What is to be said of draws by rejection from ``count`` proposals or more; None of good ones."""
    if count <= 8 or num_effective >= DIRECTIONS_BOUND:
        return None
    return (
        f"Of all that draws of a RiemannianNormal were chosen from, {num_effective:.1f} had the mass: others, that "
        "were not met, may have more. Use more `num_directions`, a smaller `scale`, or a smoother metric."
    )


def _numbers(dim: int) -> tuple[int, ...]:
    return (64, 256) if dim == 2 else (min(128, 16 * dim), 512)


def _affordable(dim: int, num_parameters: int) -> float:
    cost = _USUAL_STEPS * 6 * (2 * dim - 1) * dim * num_parameters
    return _BUDGET / cost if cost else math.inf


@lru_cache(maxsize=32)
def directions(dim: int, count: int) -> Table:
    """Unit vectors ``(count, d)``; in the plane equally spaced, else eight sets of equal size in a row.

    These are the axes of randomly rotated frames, both ways: for any one frame, quadratic functions of the direction,
    such as the leading order of log V, are integrated exactly. Fixed: the same at every call.
    """
    if dim == 1:
        return np.array([[1.0], [-1.0]])
    if dim == 2:
        angle = 2 * math.pi * (np.arange(count) + 0.25) / count
        return np.stack([np.cos(angle), np.sin(angle)], -1)
    generator = np.random.default_rng(dim)
    frames = [np.linalg.qr(generator.normal(size=(dim, dim)))[0] for _ in range(-(-count // (2 * dim)))]
    axes = np.concatenate(frames)[: count // 2]
    return np.asarray(np.stack([axes, -axes], 1).reshape(count, dim), np.float64)


def direction_variance(dim: int, share: Array) -> Array:
    """Variance of the mean over all directions, ``(*batch)``.

    In the plane two signs of it: the difference to every second direction, which may be small by chance, and how far
    directions are from the mean of their neighbours, which is not where few of them have all the mass.

    Args:
        dim: d.
        share: integrals over the rays in the order of :func:`directions`, relative to their mean, ``(N, *batch)``.
    """
    count = len(share)
    if dim == 1:
        return 0 * share[0]
    if dim == 2:
        at = np.arange(count)
        rough = share - 0.5 * (share[at - 1] + share[(at + 1) % count])
        return (share[::2].mean(0) - 1) ** 2 + (rough**2).sum(0) / 1.5 / count**2
    groups = share.reshape(REPLICATES, -1, *share.shape[1:]).mean(1)
    return ((groups - 1) ** 2).sum(0) / (REPLICATES * (REPLICATES - 1))


def log_sphere_area(dim: int) -> float:
    """Log area of the unit sphere of directions."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


@lru_cache(maxsize=1)
def panel() -> tuple[Table, Table, Table]:
    """Nodes and weights of Gauss-Legendre on [0, 1], and the matrix that integrates from 0 up to each node."""
    nodes, weights = np.polynomial.legendre.leggauss(PANEL)
    nodes = (nodes + 1) / 2
    powers = np.arange(1, PANEL + 1)
    running = (nodes[:, None] ** powers / powers) @ np.linalg.inv(nodes[:, None] ** (powers - 1))
    return nodes, weights / 2, running


@lru_cache(maxsize=1)
def from_every_second() -> Table:
    """The matrix ``(nodes, 3)`` that interpolates from the first, middle and last node of a panel to all."""
    nodes = panel()[0]
    matrix: Table = nodes[:, None] ** np.arange(3) @ np.linalg.inv(nodes[::2, None] ** np.arange(3))
    return matrix


@lru_cache(maxsize=1)
def panel_polynomials() -> Table:
    """Coefficients ``(nodes, powers)``, from the constant up, of Lagrange's polynomials of a panel's nodes."""
    inverse = np.linalg.inv(panel()[0][:, None] ** np.arange(PANEL)).T
    return np.asarray(inverse, np.float64)


def quintic(x: Array) -> tuple[Array, ...]:
    """Hermite's basis on [0, 1]: factors of value, slope and curvature at 0, then at 1 (slopes times the width)."""
    y = 1 - x
    return (
        y**3 * (1 + 3 * x + 6 * x**2),
        y**3 * x * (1 + 3 * x),
        0.5 * y**3 * x**2,
        x**3 * (1 + 3 * y + 6 * y**2),
        -(x**3) * y * (1 + 3 * y),
        0.5 * x**3 * y**2,
    )


def quintic_slope(x: Array) -> tuple[Array, ...]:
    """Derivatives of :func:`quintic`."""
    y = 1 - x
    return (
        -30 * x**2 * y**2,
        y**2 * (1 - 3 * x) * (1 + 5 * x),
        0.5 * x * y**2 * (2 - 5 * x),
        30 * x**2 * y**2,
        x**2 * (1 - 3 * y) * (1 + 5 * y),
        -0.5 * y * x**2 * (2 - 5 * y),
    )


def next_step(xp: Namespace, step: Array, error: Array) -> Array:
    """The length of the next step, from the error of this one relative to its tolerance."""
    sane = xp.where(error == error, error, xp.full_like(error, 1e10))  # NaN: far too long
    return step * xp.clip(0.9 * xp.clip(sane, min=1e-10) ** -0.2, min=0.2, max=4.0)


def even_directions(dim: int, count: int) -> Table:
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


def runge_kutta(christoffel: Callable[[Array, Array], Array], z: Array, v: Array, length: Array) -> tuple[Array, Array]:
    """Position and velocity ``(*batch, d)`` after one step along a geodesic; its ``length`` broadcasts against them.

    Source: Hairer, Norsett & Wanner (1993), *Solving Ordinary Differential Equations I*, section II.1.
    """
    v2 = v - 0.5 * length * (a1 := christoffel(z, v))
    v3 = v - 0.5 * length * (a2 := christoffel(z + 0.5 * length * v, v2))
    v4 = v - length * (a3 := christoffel(z + 0.5 * length * v2, v3))
    a4 = christoffel(z + length * v3, v4)
    return z + length / 6 * (v + 2 * v2 + 2 * v3 + v4), v - length / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
