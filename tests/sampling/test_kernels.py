"""The kernels on log densities that are no metric's: laws that are known, errors that are errors."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_riemann.sampling import HamiltonianKernel, TemperedKernel

DTYPE = torch.float64
LOW, HIGH = torch.tensor([-1.0, 0.0, -2.0], dtype=DTYPE), torch.tensor([2.0, 1.0, 2.0], dtype=DTYPE)
MEAN, SCALE = torch.tensor([0.5, 1.2, -1.0], dtype=DTYPE), torch.tensor([0.3, 0.4, 0.8], dtype=DTYPE)


def log_density(z: Tensor) -> Tensor:
    """A Gaussian that the walls cut, not normalised."""
    return 3 - 0.5 * ((z - MEAN) / SCALE).square().sum(-1)


def truncated(axis: int) -> stats.rv_continuous:
    ends = ((float(end[axis]) - float(MEAN[axis])) / float(SCALE[axis]) for end in (LOW, HIGH))
    return stats.truncnorm(*ends, float(MEAN[axis]), float(SCALE[axis]))


def inside(*shape: int, generator: torch.Generator) -> Tensor:
    return LOW + (HIGH - LOW) * torch.rand(*shape, 3, generator=generator, dtype=DTYPE)


def log_start(z: Tensor) -> Tensor:
    return 0 * z[:, 0] - (HIGH - LOW).log().sum()


def test_hamiltonian_moves_leave_a_cut_law_as_it_is() -> None:
    """Started in the law, chains stay in it; started elsewhere, they come to it."""
    generator = torch.Generator().manual_seed(0)
    kernel = HamiltonianKernel(log_density, LOW, HIGH, SCALE, step_size=0.4, num_leapfrog=6)
    exact = torch.stack([torch.from_numpy(truncated(k).rvs(3000, random_state=k)) for k in range(3)], -1)
    for start, count in ((exact, 3), (inside(3000, generator=generator), 30)):
        state = kernel.init(start)
        for _ in range(count):
            state, info = kernel.step(generator, state)
        for axis in range(3):
            assert stats.kstest(state.position[:, axis].numpy(), truncated(axis).cdf).pvalue > 1e-3
        torch.testing.assert_close(state.log_density, log_density(state.position))
        torch.testing.assert_close(state.gradient, (MEAN - state.position) / SCALE**2)
        assert 0.6 < float(info.acceptance.mean()) <= 1
        assert abs(float(info.accepted.double().mean() - info.acceptance.mean())) < 4 * (0.25 / 3000) ** 0.5


def test_tempered_populations_reach_the_law_and_its_integral() -> None:
    """The scores of twelve integrals are those of their errors; the particles have the cut law."""
    kernel = TemperedKernel(log_start, log_density, LOW, HIGH)
    exact = 3 + float((SCALE * math.sqrt(2 * math.pi)).log().sum())
    for axis in range(3):
        ends = (float((end[axis] - MEAN[axis]) / SCALE[axis]) for end in (HIGH, LOW))
        exact += math.log(stats.norm.cdf(next(ends)) - stats.norm.cdf(next(ends)))
    scores, particles = [], []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        state = kernel.init(inside(8, 200, generator=generator))
        with pytest.raises(ValueError, match="step on until it is 1"):
            kernel.log_integral(state)
        while state.temperature < 1:
            state, info = kernel.step(generator, state)
            assert info.ancestors.shape == (8, 200)
        value, error = kernel.log_integral(state)
        scores.append((float(value) - exact) / float(error))
        particles.append(state.particles.flatten(0, 1)[::8])
    assert stats.chi2(12).ppf(1e-4) < sum(s**2 for s in scores) < 1.5 * stats.chi2(12).ppf(1 - 1e-4)
    for axis in range(3):
        assert stats.kstest(torch.cat(particles)[:, axis].numpy(), truncated(axis).cdf).pvalue > 1e-3


def test_a_population_arrives_at_the_target_and_not_at_the_start() -> None:
    """From an exponential law on the unit square to one that falls as fast as the other rises."""
    generator = torch.Generator().manual_seed(0)
    low, high, rate = torch.zeros(2, dtype=DTYPE), torch.ones(2, dtype=DTYPE), 3.0
    mass = math.expm1(rate) / rate
    kernel = TemperedKernel(lambda z: (rate * z - math.log(mass)).sum(-1), lambda z: -rate * z.sum(-1), low, high)
    uniform = torch.rand(8, 256, 2, generator=generator, dtype=DTYPE)
    state = kernel.init((uniform * math.expm1(rate)).log1p() / rate)
    while state.temperature < 1:
        state, _ = kernel.step(generator, state)
    value, error = kernel.log_integral(state)
    assert abs(float(value) - 2 * math.log(-math.expm1(-rate) / rate)) < 4 * float(error) < 0.5
    mean, spread = 1 / rate - 1 / math.expm1(rate), float(state.particles.std())
    assert abs(float(state.particles.mean()) - mean) < 6 * spread / (2 * 8 * 256) ** 0.5


def test_a_rise_of_the_temperature_by_hand() -> None:
    """Particles that refuse the one move stay at their ancestors; 70 % of the least effective island are effective."""
    asked = 0

    def counted(z: Tensor) -> Tensor:
        nonlocal asked
        asked += len(z)
        return log_density(z)

    kernel, generator = TemperedKernel(log_start, counted, LOW, HIGH, num_moves=1), torch.Generator().manual_seed(0)
    before = kernel.init(inside(8, 500, generator=generator))
    asked = 0
    after, info = kernel.step(generator, before)
    parents = before.particles.gather(1, info.ancestors.unsqueeze(-1).expand(-1, -1, 3))
    stays = float((after.particles == parents).all(-1).double().mean())
    assert abs(float(info.acceptance) - (1 - stays)) < 4 * (0.25 / 4000) ** 0.5
    assert abs(stays - 0.5) > 0.1
    assert after.acceptance == info.acceptance
    assert (after.stage, after.evaluations) == (1, asked)
    z = before.particles.flatten(0, 1)
    weight = (after.temperature * (log_density(z) - log_start(z))).exp().reshape(8, 500)
    least = float((weight.sum(-1).square() / weight.square().sum(-1)).amin()) / 500
    assert 0.7 <= least < 0.8
    torch.testing.assert_close(after.log_mass, weight.mean(-1).log())


def test_a_seed_decides() -> None:
    kernel = HamiltonianKernel(log_density, LOW, HIGH)
    state = kernel.init(inside(5, generator=torch.Generator().manual_seed(0)))
    ends = [kernel.step(torch.Generator().manual_seed(seed), state)[0].position for seed in (1, 1, 2)]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="`low` strictly below `high`"):
        HamiltonianKernel(log_density, HIGH, LOW)
    with pytest.raises(TypeError, match="`high` has dtype"):
        TemperedKernel(log_start, log_density, LOW, HIGH.float())
    kernel, tempered = HamiltonianKernel(log_density, LOW, HIGH), TemperedKernel(log_start, log_density, LOW, HIGH)
    with pytest.raises(ValueError, match="`position` has 1 points outside"):
        kernel.init(torch.stack([LOW, HIGH + 1]))
    with pytest.raises(ValueError, match=r"`position` must have shape \(n, 3\)"):
        kernel.init(LOW)
    with pytest.raises(ValueError, match=r"`particles` must have shape \(num_islands, n, 3\)"):
        tempered.init(LOW[None])
    with pytest.raises(ValueError, match="one island"):
        tempered.init(LOW[None, None])
