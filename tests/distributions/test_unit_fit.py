"""What both faces share to find volume in the unit box: climbs, mixtures, a tempered sequence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pyro_riemann._formulas import climbs, unit_fit, unit_groups, unit_mixture
from pyro_riemann._formulas.runtime import HOST
from pyro_riemann._formulas.unit_cells import finest_error
from pyro_riemann._formulas.unit_fit import Landscape
from pyro_riemann._formulas.unit_groups import Groups
from pyro_riemann._formulas.unit_laws import steps_to_forget
from pyro_riemann._formulas.unit_mixture import effective_share, log_mean, mixture
from pyro_riemann._formulas.unit_tempering import systematic, tempered_log_integral

Vector = np.ndarray[Any, Any]
EPSILON = float(np.finfo(float).eps)


class Hills:
    """log(1 + a sum of Gaussians), whose exponential has a known integral over the unit box."""

    def __init__(self, loc: Vector, scale: Vector, log_mass: Vector) -> None:
        self.loc, self.scale, self.log_mass = loc, scale, log_mass

    def __call__(self, unit: Vector) -> tuple[Vector, Vector]:
        away = (unit[:, None] - self.loc) / self.scale
        top = self.log_mass - np.log(self.scale).sum(-1) - 0.5 * unit.shape[1] * math.log(2 * math.pi)
        terms = top - 0.5 * np.square(away).sum(-1)
        value = np.logaddexp(np.logaddexp.reduce(terms, axis=1), 0)
        return value, -np.einsum("nm,nmd->nd", np.exp(terms - value[:, None]), away / self.scale)

    def exact(self) -> float:
        return float(np.logaddexp(0, np.logaddexp.reduce(self.log_mass)))


def hills(seed: int) -> Hills:
    luck = np.random.default_rng(seed)
    dim, count = (2, 3, 5, 8)[seed % 4], 1 + seed % 3
    scale = 0.01 * 10 ** (0.06 * dim + 0.3 * luck.random()) * luck.uniform(0.7, 1.3, (count, dim))
    return Hills(luck.uniform(0.25, 0.75, (count, dim)), scale, luck.uniform(-1.5, 1.5, count))


def test_climbs_end_on_top_with_the_curvature_there() -> None:
    hill = Hills(np.array([[0.3, 0.6, 0.5]]), np.array([[0.004, 0.02, 0.01]]), np.zeros(1))
    start = np.array([[0.35, 0.55, 0.45], [0.28, 0.7, 0.52]])
    ends = climbs.climb(hill, start, *hill(start), EPSILON)
    bumps = climbs.bumps(hill, ends, 8)
    assert len(bumps.loc) == 1
    np.testing.assert_allclose(bumps.loc, hill.loc, atol=1e-5)
    np.testing.assert_allclose(bumps.covariance[0], np.diag(hill.scale[0] ** 2), rtol=1e-2, atol=1e-8)
    assert abs(float(bumps.log_mass[0])) < 1e-2


def test_bump_cut_by_walls_is_an_exponential_law() -> None:
    rate = np.array([30.0, -20.0])

    def slopes(unit: Vector) -> tuple[Vector, Vector]:
        return unit @ rate, np.broadcast_to(rate, unit.shape).copy()

    start = np.full((1, 2), 0.4)
    bumps = climbs.bumps(slopes, climbs.climb(slopes, start, *slopes(start), EPSILON), 8)
    np.testing.assert_allclose(bumps.unit, [[1.0, 0.0]])
    np.testing.assert_allclose(bumps.loc[0], [1 - 1 / 30, 1 / 20])
    np.testing.assert_allclose(bumps.covariance[0], np.diag([1 / 900, 1 / 400]))
    assert bumps.log_mass[0] == pytest.approx(30 - math.log(600))


def test_unseen_mass_is_that_of_good() -> None:
    """Of five climbs two ended alone: one more would end elsewhere with probability 2 / 5, or so."""
    loc = np.array([[0.2, 0.2], [0.5, 0.5], [0.8, 0.8]])
    flat = climbs.Bumps(loc, np.zeros(3), loc, np.tile(1e-4 * np.eye(2), (3, 1, 1)), np.log([1.0, 2.0, 3.0]))
    assert math.exp(climbs.unseen(flat, loc[[0, 1, 2, 2, 2]])) == pytest.approx(6.0 * 2 / (5 + 1 - 2))
    assert climbs.unseen(flat, loc[[0, 0, 1, 1, 2, 2]]) == -math.inf


def test_a_climb_that_leaps_over_a_needle_comes_back() -> None:
    """From the flat ground on one side to that on the other both slopes are next to nothing, and it is no top."""
    luck = np.random.default_rng(0)
    needle = Hills(np.full((1, 5), 0.5), np.full((1, 5), 0.003), np.zeros(1))
    directions = luck.normal(size=(50, 5))
    start = 0.5 + 0.003 * luck.uniform(8, 35, (50, 1)) * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    ends = climbs.climb(needle, start, *needle(start), EPSILON)
    assert (np.linalg.norm(ends.unit - 0.5, axis=1) < 0.003).all()


@pytest.mark.parametrize("full", [False, True])
def test_mixture_is_the_density_of_its_draws(full: bool) -> None:
    luck = np.random.default_rng(0)
    covariance = np.array([[[0.01, 0.004], [0.004, 0.02]]]) if full else np.array([[0.01, 0.02]])
    proposal = mixture(np, np.array([[0.4, 0.5]]), covariance, np.log([0.7, 0.3]))
    z = proposal.place(HOST, luck.random((40_000, 3)))
    axis = (np.arange(200) + 0.5) / 200
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = proposal.log_prob(HOST, grid)
    inside = z[((z >= 0) & (z <= 1)).all(-1)]
    mass = np.exp(density).mean()
    assert abs(len(inside) / 40_000 - mass) < 4 * math.sqrt(mass * (1 - mass) / 40_000)
    mean = np.exp(density) @ grid / len(grid) / mass
    assert (np.abs(inside.mean(0) - mean) < 4 * inside.std(0) / math.sqrt(len(inside))).all()
    law = stats.multivariate_normal([0.4, 0.5], covariance[0] if full else np.diag(covariance[0]))
    np.testing.assert_allclose(density, np.log(0.7 * law.pdf(grid) + 0.3), atol=1e-10)
    value, slope = proposal.slopes(HOST, grid[:50])
    np.testing.assert_allclose(value, density[:50])
    for axis_number, step in enumerate(1e-6 * np.eye(2)):
        ahead, behind = (proposal.log_prob(HOST, grid[:50] + sign * step) for sign in (1, -1))
        np.testing.assert_allclose(slope[:, axis_number], (ahead - behind) / 2e-6, atol=1e-5)


def test_start_of_a_sequence_is_half_uniform_and_wider() -> None:
    """Variances half as large again, shares in the ratio of the roots of those that were, 4 : 1; and a length scale."""
    loc, variance = np.array([[0.4, 0.5], [0.6, 0.3]]), np.array([[4e-4, 9e-4], [1e-4, 1e-4]])
    proposal = mixture(np, loc, variance, np.log([0.72, 0.18, 0.1]))
    grid = np.random.default_rng(0).random((200, 2)) * 0.1 + loc[0] - 0.05
    parts = [
        stats.multivariate_normal(mean, np.diag(1.5 * part)).pdf(grid) for mean, part in zip(loc, variance, strict=True)
    ]
    density = proposal.widened().log_prob(HOST, grid)
    np.testing.assert_allclose(density, np.log(0.5 + parts[0] / 3 + parts[1] / 6), atol=1e-10)
    np.testing.assert_allclose(proposal.scale(HOST), np.sqrt(0.8 * variance[0] + 0.2 * variance[1]))


def test_means_and_effective_numbers_of_weights_by_hand() -> None:
    """1, 2 and 3 have the mean 2 and the variance 1; 36 / 14 of them are effective, and as many with a fourth of 0."""
    weights = np.log([1.0, 2.0, 3.0])
    assert log_mean(HOST, weights) == pytest.approx((math.log(2), 1 / 3**0.5 / 2))
    share = effective_share(HOST, np.stack([[*weights, -math.inf], np.full(4, -math.inf), np.full(4, 700.0)]))
    np.testing.assert_allclose(share, [36 / 14 / 4, 0, 1])


def test_error_of_the_finest_of_three_values() -> None:
    """The last difference shrinks on as it has shrunk, by 64 at the most; the first one, shrunk twice, is a bound."""
    assert finest_error(8.0, 4.0, 3.0) == pytest.approx(1 / 4)
    assert finest_error(64.0, 1.0, 0.0) == pytest.approx(1 / 63)
    assert finest_error(2.0, 1.0, 4.0) == pytest.approx(3)
    assert finest_error(128.0, 0.0, 0.0) == pytest.approx(128 / 64**2)


def test_density_keeps_its_digits_where_a_part_is_narrow() -> None:
    """Squares are not expanded there: at a millionth of the box that would leave one digit."""
    width = 1e-6
    proposal = mixture(np, np.full((1, 3), 0.7), np.full((1, 3), width**2), np.log([0.5, 0.5]))
    away = width * np.random.default_rng(0).normal(size=(20, 3))
    exact = math.log(0.5) + stats.norm(0, width).logpdf(away).sum(-1)
    np.testing.assert_allclose(proposal.log_prob(HOST, 0.7 + away), exact, atol=1e-6)


def test_adaptation_raises_the_efficiency() -> None:
    """Population Monte Carlo on parts that are in the wrong place and too wide."""
    hill = Hills(np.array([[0.4, 0.5, 0.6], [0.6, 0.5, 0.4]]), np.full((2, 3), 0.03), np.full(2, 2.0))
    parts = np.tile(0.1**2 * np.eye(3), (2, 1, 1))
    groups = Groups.of_bumps([climbs.Bumps(hill.loc, np.zeros(2), hill.loc + 0.05, parts, np.zeros(2))], 0.0)
    luck, shares = np.random.default_rng(0), []
    for _ in range(5):
        whole = groups.mixture(3)
        z = whole.place(HOST, luck.random((4000, 4)))
        log_weight = np.where(((z >= 0) & (z <= 1)).all(-1), hill(z)[0] - whole.log_prob(HOST, z), -math.inf)
        shares.append(float(effective_share(HOST, log_weight)))
        groups = groups.adapted(whole, z, np.exp(log_weight - np.logaddexp.reduce(log_weight)))
    assert shares[0] < 0.3
    assert shares[-1] > 0.6
    assert groups.mixture(3).log_share.size == 3
    assert np.exp(groups.mixture(3).log_share).sum() == pytest.approx(1)


def test_adaptation_leaves_the_other_groups_where_they_are() -> None:
    """They change their share only, to what the draws give each."""
    here, there = np.array([[0.3, 0.3]]), np.array([[0.7, 0.7]])
    shape, zero = 0.05**2 * np.eye(2)[None], np.zeros(1)
    one, other = (climbs.Bumps(loc, zero, loc, shape, zero) for loc in (here, there))
    groups = Groups.of_bumps([one, other], 0.0)
    luck, whole = np.random.default_rng(0), groups.mixture(2)
    z = whole.place(HOST, luck.random((4000, 3)))
    late = (z.sum(-1) > 1) & (z > 0.5).all(-1)
    weights = np.where(late, 3.0, 1.0)
    groups = groups.adapted(whole, z, weights / weights.sum())
    assert len(groups.parts) == 2
    np.testing.assert_array_equal(groups.parts[1][0], there)
    np.testing.assert_array_equal(groups.parts[1][1], shape)
    assert groups.shares.sum() == pytest.approx(1)
    assert groups.shares[1] > 2 * groups.shares[0]


def test_bumps_along_the_axes_mix_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variances stand for diagonal matrices, in mixtures and in their adaptation, in one piece or in many."""
    luck, zero = np.random.default_rng(0), np.zeros(40)
    loc, variance = luck.random((40, 3)), 0.01 + 0.02 * luck.random((40, 3))
    tilted = 0.02 * np.eye(3) + 0.01
    first = climbs.Bumps(loc[:5], zero[:5], loc[:5], np.broadcast_to(tilted, (5, 3, 3)).copy(), zero[:5])
    short, long = (climbs.Bumps(loc, zero, loc, shape, zero) for shape in (variance, variance[:, :, None] * np.eye(3)))
    z, weights = luck.random((500, 3)), luck.random(500)
    found = []
    for other in (short, long):
        groups = Groups.of_bumps([first, other], 0.0)
        whole = groups.mixture(3)
        assert whole.precision.ndim == 3
        found.append((whole, groups.adapted(whole, z, weights / weights.sum())))
    for mine, its in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(mine, its)
    np.testing.assert_allclose(found[0][1].parts[0][1], found[1][1].parts[0][1])
    np.testing.assert_allclose(found[0][1].shares, found[1][1].shares)
    with monkeypatch.context() as patch:
        patch.setattr(unit_mixture, "_ENTRIES", 0)  # 64 points at a time
        pieces = Groups.of_bumps([first, short], 0.0).adapted(found[0][0], z, weights / weights.sum())
    np.testing.assert_allclose(pieces.shares, found[0][1].shares)
    np.testing.assert_allclose(pieces.parts[0][0], found[0][1].parts[0][0])
    monkeypatch.setattr(unit_groups, "_MATRICES", 100)  # more than can be held: their diagonals are
    cut = Groups.of_bumps([first, short], 0.0).mixture(3)
    np.testing.assert_allclose(1 / cut.precision, np.concatenate([np.full((5, 3), 0.03), variance]))


def test_systematic_resampling_keeps_expected_counts() -> None:
    luck = np.random.default_rng(0)
    weights = luck.random((3, 50))
    chosen = systematic(np, weights, 200, luck.random((3, 1)))
    assert (np.diff(chosen, axis=1) >= 0).all()
    for row, weight in zip(chosen, weights / weights.sum(1, keepdims=True), strict=True):
        assert (np.abs(np.bincount(row, minlength=50) - 200 * weight) < 1).all()


def test_steps_to_forget() -> None:
    """The heaviest of four states, of weight 1.6, forgets at the rate 1 - 1 / 1.6 a step: 0.4 of it at 8 are 2e-4."""
    log_weight = np.log(4 * np.array([0.1, 0.2, 0.3, 0.4]))
    assert steps_to_forget(HOST, log_weight, bias=1e-3, most=64) == 8
    assert steps_to_forget(HOST, log_weight, bias=1e-30, most=64) == 64


@pytest.mark.parametrize("dim", [3, 12])
def test_tempered_integral_scatters_as_it_says(dim: int) -> None:
    luck = np.random.default_rng(dim)
    hill = Hills(luck.uniform(0.3, 0.7, (3, dim)), np.full((3, dim), 0.05), np.array([0.0, 1.0, 2.0]))
    covariance = np.tile(0.05**2 * np.eye(dim), (3, 1, 1))
    bumps = climbs.Bumps(hill.loc, np.zeros(3), hill.loc, covariance, np.zeros(3))
    start = Groups.of_bumps([bumps], 0.0).mixture(dim).widened()
    runs = [tempered_log_integral(hill, start, seed) for seed in range(12)]
    scores = np.array([(value - hill.exact()) / error for value, error in runs])
    assert all(error < 0.2 for _, error in runs)
    assert 0.4 < scores.std() < 2.0  # of Student's t
    assert abs(scores.mean()) < 1.0


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_fit_finds_narrow_hills_and_its_integrals_agree(count: int) -> None:
    scores = []
    for seed in range(count):
        hill = hills(seed)
        fitted = unit_fit.fit(Landscape(hill, hill.loc.shape[1], EPSILON))
        error, doubt = fitted.checked(hill, *fitted.weighed, weighed=True)
        assert not doubt
        scores.append((fitted.weighed[0] - hill.exact()) / error)
    assert np.abs(scores).max() < 5
    assert np.std(scores) < 1.5


def test_a_route_that_is_off_becomes_the_error() -> None:
    assert unit_fit.reconciled(1.0, 0.01, 1.03, 0.02) == (0.01, "")
    stated, doubt = unit_fit.reconciled(1.0, 0.01, 1.5, 0.02)
    assert stated == 0.5
    assert "two routes to it differ by 0.5" in doubt
    assert "no second route" in unit_fit.reconciled(1.0, 0.01, 1.0, math.inf)[1]
