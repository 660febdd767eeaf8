"""Simulation-based calibration of every law: a draw, a datum, its posterior by many chains at once, a rank.

Prior draws are the law's own, data are they with Gaussian noise, posterior draws come from Hamiltonian Monte Carlo on
the law's density: ranks are uniform if draws and density belong together (Talts et al. 2018). Besides the coordinates
the densities of prior and datum are ranked, which see what single coordinates do not (Modrak et al. 2023). The bands
for the distribution function of ranks are simultaneous (Saeilynoja, Buerkner & Vehtari 2022), by ArviZ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann.numpyro.sampling import HamiltonianKernel as TwinKernel
from pyro_riemann.sampling import HamiltonianKernel
from tests.infer import models
from tests.numpyro.infer import models as twin_models

REPLICATES, KEPT, THIN, WARM_UP = 1000, 63, 3, 40
NOISE, TIME, REACH = 0.4, 0.15, 4.0
QUANTITIES = ("z_1", "z_2", "log prior", "log likelihood")
CENTRE = (0.2, -0.1)
MOVE: dict[str, Any] = {"step_size": 0.12, "num_leapfrog": 6}

# ---------------------------------------------------------------- the laws, on curved spaces


def _components(face: Any, loc: Any, stack: Callable[[Any], Any]) -> Any:
    return face.RiemannianWrappedNormal(stack([loc, loc + 0.4]), TIME, face.Sphere(2))


HERE: dict[str, Callable[[Any], Any]] = {
    "RiemannianHeatKernel": lambda loc: here.RiemannianHeatKernel(loc, TIME, here.Sphere(2), "van_vleck_curvature"),
    "RiemannianWrappedNormal": lambda loc: here.RiemannianWrappedNormal(loc, TIME, here.Sphere(2)),
    "RiemannianNormal": lambda loc: here.RiemannianNormal(loc, TIME**0.5, here.Sphere(2)),
    "RiemannianUniform": lambda loc: here.RiemannianUniform(models.kernel(), loc - 1, loc + 1),
    "VampPrior": lambda loc: here.VampPrior(_components(here, loc, torch.stack)),
}
TWIN: dict[str, Callable[[Any], Any]] = {
    "RiemannianHeatKernel": lambda loc: twin.RiemannianHeatKernel(loc, TIME, twin.Sphere(2), "van_vleck_curvature"),
    "RiemannianWrappedNormal": lambda loc: twin.RiemannianWrappedNormal(loc, TIME, twin.Sphere(2)),
    "RiemannianNormal": lambda loc: twin.RiemannianNormal(loc, TIME**0.5, twin.Sphere(2)),
    "RiemannianUniform": lambda loc: twin.RiemannianUniform(twin_models.kernel(), loc - 1, loc + 1),
    "VampPrior": lambda loc: twin.VampPrior(_components(twin, loc, jnp.stack)),
}


class NarrowDraws(here.RiemannianNormal):
    """Wrong: draws are those of another scale than the density's."""

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return here.RiemannianNormal(self.loc, 0.8 * self.scale, self.metric).sample(sample_shape)


WRONG: dict[str, Callable[[Any], Any]] = {"NarrowDraws": lambda loc: NarrowDraws(loc, TIME**0.5, here.Sphere(2))}
"""What calibration must refuse."""


def _box(law: Any, loc: Any) -> tuple[Any, Any]:
    """Where the chains live: the support of a uniform law, else nearly all of the sphere."""
    return (law.low, law.high) if hasattr(law, "low") else (loc - REACH, loc + REACH)


# ---------------------------------------------------------------- ranks by either face


def ranks(name: str, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Ranks ``(replicates, 4)`` of the true quantities among ``KEPT`` posterior draws, by torch."""
    loc = torch.tensor(CENTRE, dtype=torch.float64)
    law = {**HERE, **WRONG}[name](loc)
    low, high = _box(law, loc)
    torch.manual_seed(seed)
    with torch.no_grad():
        truth = law.sample((replicates,))
    data = truth + NOISE * torch.randn(truth.shape, dtype=truth.dtype)

    def parts(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return law.log_prob(z), -0.5 * ((z - data) / NOISE).square().sum(-1)

    kernel = HamiltonianKernel(lambda z: sum(parts(z)), low, high, scale=torch.ones_like(low), **MOVE)  # type: ignore[arg-type,return-value]

    def seen(z: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([z, torch.stack(parts(z), -1)], -1)

    own, below = seen(truth), torch.zeros(replicates, 4, dtype=torch.long)
    state = kernel.init(torch.clamp(data, low + 1e-3, high - 1e-3))
    for step in range(WARM_UP + KEPT * THIN):
        state, _ = kernel.step(None, state)
        if step >= WARM_UP and (step - WARM_UP) % THIN == THIN - 1:
            below += seen(state.position) < own
    return below.numpy()


def twin_ranks(name: str, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """The same by JAX, each replicate's density by ``vmap``, all of it one compiled program."""
    loc = jnp.asarray(CENTRE)
    law = TWIN[name](loc)
    low, high = _box(law, loc)
    first, second, third = jax.random.split(jax.random.key(seed), 3)
    truth = law.sample(first, (replicates,))
    data = truth + NOISE * jax.random.normal(second, truth.shape)

    @jax.vmap
    def parts(z: Any, x: Any) -> tuple[Any, Any]:
        return law.log_prob(z), -0.5 * jnp.square((z - x) / NOISE).sum(-1)

    kernel = TwinKernel(lambda z: sum(parts(z, data)), low, high, scale=jnp.ones_like(low), **MOVE)  # type: ignore[arg-type,return-value]

    def seen(z: Any) -> Any:
        return jnp.concat([z, jnp.stack(parts(z, data), -1)], axis=-1)

    def moved(state: Any, keys: Any) -> Any:
        return jax.lax.scan(lambda now, key: (kernel.step(key, now)[0], None), state, keys)[0]

    @jax.jit
    def run(key: Any) -> Any:
        own, keys = seen(truth), jax.random.split(key, WARM_UP + KEPT * THIN)
        state = moved(kernel.init(jnp.clip(data, low + 1e-3, high - 1e-3)), keys[:WARM_UP])

        def turn(now: Any, some: Any) -> Any:
            after = moved(now[0], some)
            return (after, now[1] + (seen(after.position) < own)), None

        start = state, jnp.zeros(own.shape, int)
        return jax.lax.scan(turn, start, keys[WARM_UP:].reshape(KEPT, THIN))[0][1]

    return np.asarray(run(third))


# ---------------------------------------------------------------- bands


def shares() -> np.ndarray:
    """Distribution function of uniform ranks at 0, ..., KEPT - 1."""
    return np.arange(1, KEPT + 1) / (KEPT + 1)


@lru_cache
def band(replicates: int, probability: float) -> tuple[np.ndarray, np.ndarray]:
    """Simultaneous band for the distribution function of ranks at 0, ..., KEPT - 1; by ArviZ 0.x, which 1.x is not."""
    from arviz.stats.ecdf_utils import ecdf_confidence_band

    points = shares()
    low, high = ecdf_confidence_band(replicates, points, points, prob=probability, method="optimized")
    return low, high


def ecdf(rank: np.ndarray) -> np.ndarray:
    """Distribution function ``(KEPT)`` of ranks ``(n)``."""
    return (rank[:, None] <= np.arange(KEPT)).mean(0)


def outside(rank: np.ndarray, probability: float) -> list[str]:
    """The quantities whose ranks leave the band somewhere."""
    low, high = band(len(rank), probability)
    curves = {name: ecdf(column) for name, column in zip(QUANTITIES, rank.T, strict=True)}
    return [name for name, curve in curves.items() if bool(((curve < low) | (curve > high)).any())]
