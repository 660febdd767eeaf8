"""Joint-distribution tests (Geweke 2004): a sampler that alternates with the simulator of data keeps the joint law.

Chains start at exact draws of the joint law, as Gandy & Scott (2020) propose: after any number of turns they are
independent exact draws again, so that a Kolmogorov-Smirnov test needs no correction for their memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from pyro_riemann import RiemannianNormal, Sphere, brownian_motion
from pyro_riemann._formulas import kernels, unit_moves
from pyro_riemann.numpyro.sampling import HamiltonianKernel as TwinKernel
from pyro_riemann.sampling import HamiltonianKernel, TemperedKernel
from tests.precision import enable_x64

F64 = torch.float64
CHAINS, TURNS, NOISE = 4000, 6, 0.5
LEAST = 1e-4  # of the smallest of a handful of p-values
LOW, HIGH = torch.zeros(2, dtype=F64), torch.tensor([1.0, 2.0], dtype=F64)
SETTINGS: dict[str, Any] = {"step_size": 0.25, "num_leapfrog": 4}


def smallest(first: Any, second: Any) -> float:
    """Least p-value over coordinates and their product."""
    a, b = (np.concatenate([z, z.prod(-1, keepdims=True)], -1) for z in map(np.asarray, (first, second)))
    return min(ks_2samp(one, other).pvalue for one, other in zip(a.T, b.T, strict=True))


def prior(z: Any) -> Any:
    """Log density on the box, not normalised: the first coordinate leans to the right."""
    return 2 * z[..., 0]


def prior_draws(generator: torch.Generator) -> Tensor:
    """Exact draws by inversion."""
    u, v = torch.rand(2, CHAINS, generator=generator, dtype=F64)
    return torch.stack([(1 + u * (np.exp(2) - 1)).log() / 2, 2 * v], -1)


def hamiltonian(seed: int = 0) -> float:
    """Of the joint law of z and x ~ N(z, NOISE^2), by the kernel and by simulation."""
    generator = torch.Generator().manual_seed(seed)
    z, reference = prior_draws(generator), prior_draws(generator)
    for _ in range(TURNS):
        x = z + NOISE * torch.randn(z.shape, generator=generator, dtype=F64)

        def joint(at: Tensor, x: Tensor = x) -> Tensor:
            return prior(at) - 0.5 * ((x - at) / NOISE).square().sum(-1)

        kernel = HamiltonianKernel(joint, LOW, HIGH, **SETTINGS)
        z = kernel.step(generator, kernel.init(z))[0].position
    return smallest(z, reference)


def twin(seed: int = 0) -> float:
    """The same by JAX, compiled."""
    generator = torch.Generator().manual_seed(seed)
    start, reference = (jnp.asarray(prior_draws(generator).numpy()) for _ in range(2))

    @jax.jit
    def turn(z: Any, key: Any) -> Any:
        first, second = jax.random.split(key)
        x = z + NOISE * jax.random.normal(first, z.shape)
        kernel = TwinKernel(lambda at: prior(at) - 0.5 * jnp.square((x - at) / NOISE).sum(-1), *corners, **SETTINGS)
        return kernel.step(second, kernel.init(z))[0].position

    corners = jnp.asarray(LOW.numpy()), jnp.asarray(HIGH.numpy())
    z = start
    for key in jax.random.split(jax.random.key(seed), TURNS):
        z = turn(z, key)
    return smallest(z, reference)


def damaged(old: str, new: str) -> Callable[..., Any]:
    """The move with one piece of its source exchanged."""
    source = inspect.getsource(unit_moves.move)
    assert source.count(old) == 1
    space = dict(vars(unit_moves))
    exec(compile(source.replace(old, new), "damaged", "exec"), space)
    found: Callable[..., Any] = space["move"]
    return found


def test_the_hamiltonian_kernel_keeps_the_joint_law() -> None:
    assert hamiltonian() > LEAST


def test_the_twin_of_the_hamiltonian_kernel_keeps_the_joint_law() -> None:
    with enable_x64(True):
        assert twin() > LEAST
    jax.clear_caches()


@pytest.mark.parametrize(
    "old, new",
    [
        ("< gain", "< -gain"),  # the sign of the acceptance
        ("- 0.5 * (speed**2", "+ 0.5 * (speed**2"),  # of the kinetic energy
    ],
)
def test_a_wrong_move_is_found_out(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setattr(kernels, "move", damaged(old, new))
    assert hamiltonian() < LEAST


def test_the_tempered_kernel_keeps_the_joint_law() -> None:
    """One island for each datum; a particle of it is the draw."""
    generator = torch.Generator().manual_seed(0)
    islands, particles = 400, 200
    width = HIGH - LOW
    z, reference = prior_draws(generator)[:islands], prior_draws(generator)
    constant = float(width.log().sum())
    for _ in range(2):
        x = z + NOISE * torch.randn(z.shape, generator=generator, dtype=F64)

        of_each = x.repeat_interleave(particles, 0)

        def joint(at: Tensor, x: Tensor = of_each) -> Tensor:
            return prior(at) - 0.5 * ((x - at) / NOISE).square().sum(-1)

        kernel = TemperedKernel(lambda at: 0 * at[:, 0] - constant, joint, LOW, HIGH)
        state = kernel.init(LOW + width * torch.rand(islands, particles, 2, generator=generator, dtype=F64))
        while state.temperature < 1:
            state, _ = kernel.step(generator, state)
        pick = torch.randint(particles, (islands,), generator=generator)
        z = state.particles[torch.arange(islands), pick]
    assert smallest(z, reference) > LEAST


# ---------------------------------------------------------------- laws on the sphere, where both conditionals are one


def sphere_draws() -> Tensor:
    """Uniform on the sphere."""
    v = torch.randn(CHAINS, 3, dtype=F64)
    return Sphere(2).from_ambient(v / v.norm(dim=-1, keepdim=True))


def alternated(step: Callable[[Tensor], Tensor], turns: int = 4) -> float:
    """Points and centres in turn: their joint law, proportional to a function of their distance, is symmetric."""
    torch.manual_seed(0)
    z = sphere_draws()
    for _ in range(turns):
        z = step(z)
    return smallest(Sphere(2).to_ambient(z), Sphere(2).to_ambient(sphere_draws()))


def test_the_sampler_of_the_normal_keeps_the_joint_law() -> None:
    assert alternated(lambda z: RiemannianNormal(z, 0.6, Sphere(2)).sample()) > LEAST


def test_brownian_motion_keeps_the_joint_law() -> None:
    assert alternated(lambda z: brownian_motion(Sphere(2), z, 0.3, 16)) > LEAST


def test_brownian_motion_without_its_drift_is_found_out() -> None:
    """In a chart where there is one."""
    sphere = Sphere(2)
    assert alternated(lambda z: sphere.expmap(z, 0.5 * torch.randn_like(z))) < LEAST  # of one length in the chart
