"""Laws of the Riemannian uniform on the JAX side: cells, volumes, isolated bumps, chains by the thousand."""

from __future__ import annotations

import math
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import Array
from numpyro.infer import HMC, MCMC
from scipy import stats

from pyro_riemann._formulas.unit_laws import MixtureLaw, Rule
from pyro_riemann._formulas.unit_mixture import UnitMixture
from pyro_riemann._formulas.unit_moves import Moves
from pyro_riemann.numpyro import (
    EuclideanMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    RiemannianMetric,
    RiemannianUniform,
    WarpedMetric,
)
from pyro_riemann.numpyro.manifolds import FlatTorus, HalfSpace
from pyro_riemann.numpyro.sampling._law import _chained


class Exponential(RiemannianMetric):
    """G = diag(exp(2 a_i z_i)): the uniform law is a product of truncated exponentials."""

    pytree_data_fields = ("rates",)

    def __init__(self, rates: Array) -> None:
        self.dim, self.rates = rates.shape[0], rates

    def metric(self, z: Array) -> Array:
        return jnp.exp(2 * self.rates * z)[..., None] * jnp.eye(self.dim)

    def logdet(self, z: Array) -> Array:
        return 2 * z @ self.rates


def exact_log_volume(rates: Array, low: Array, high: Array) -> Array:
    return jnp.log((jnp.exp(rates * high) - jnp.exp(rates * low)) / rates).sum()


def isolated_bumps(dim: int, count: int = 20) -> KernelMetric:
    """Centroids so far apart, in units of the bandwidth, that the kernels do not overlap."""
    generator = np.random.default_rng(dim)
    centroids: list[np.ndarray] = []
    while len(centroids) < count:
        candidate = generator.uniform(0, 10, dim)
        if all(np.linalg.norm(candidate - c) > 0.9 for c in centroids):
            centroids.append(candidate)
    scale = generator.uniform(0.05, 0.1, (count, dim))
    return KernelMetric(jnp.asarray(np.stack(centroids)), jnp.asarray(scale**-2), 1.5, 1e-3)


def overlapping_bumps(dim: int) -> KernelMetric:
    generator = np.random.default_rng(1)
    centroids, scale = generator.normal(size=(12, dim)), generator.uniform(0.3, 0.7, (12, dim))
    return KernelMetric(jnp.asarray(centroids), jnp.asarray(scale**-2), 1.5, 1e-2)


def cell_masses(metric: RiemannianMetric, low: float, high: float, cells: int, fine: int) -> tuple[np.ndarray, float]:
    """Probabilities of the cells by the midpoint rule, a route of its own, and the log volume."""
    steps, dim = cells * fine, metric.dim
    axis = low + (high - low) * (np.arange(steps) + 0.5) / steps
    points = jnp.asarray(np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1))
    density = np.exp(0.5 * metric.logdet(points)).reshape((cells, fine) * dim).sum(tuple(range(1, 2 * dim, 2)))
    return density.ravel() / density.sum(), math.log(density.sum()) + dim * math.log((high - low) / steps)


def chi_square(draws: Array, low: float, high: float, mass: np.ndarray, cells: int) -> float:
    index = np.clip(((np.asarray(draws) - low) / (high - low) * cells).astype(int), 0, cells - 1)
    flat = np.ravel_multi_index(tuple(index.T), (cells,) * index.shape[1])
    counts, expected = np.bincount(flat, minlength=len(mass)), len(index) * mass
    rare = expected < 5  # these cells join into one
    observed = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], expected[rare].sum())
    keep = wanted > 0
    return float(stats.chisquare(observed[keep], wanted[keep] * observed[keep].sum() / wanted[keep].sum()).pvalue)


# -------------------------------------------------------------------- low dimensions


def test_constant_metric_is_the_uniform_law_of_the_box() -> None:
    low, high = jnp.array([-1.0, 0.0]), jnp.array([1.0, 3.0])
    law = RiemannianUniform(EuclideanMetric(2), low, high, validate_args=False)
    assert law.log_prob(jnp.array([0.5, 1.0])).item() == pytest.approx(-math.log(6), abs=1e-12)
    assert law.log_prob(jnp.array([0.5, 3.1])).item() == -math.inf
    np.testing.assert_allclose(law.mean, [0.0, 1.5], atol=1e-12)
    np.testing.assert_allclose(law.variance, [4 / 12, 9 / 12], rtol=1e-6)


def test_draws_from_two_boxes_of_a_batch_are_independent() -> None:
    low, high = np.array([[-1.0], [4.0]]), np.array([[1.0], [7.0]])
    law = RiemannianUniform(EuclideanMetric(1), low, high)
    first, second = ((np.asarray(law.sample(jax.random.key(0), (2000,))) - low) / (high - low))[..., 0].T
    for unit in (first, second):
        assert stats.kstest(unit, stats.uniform.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 2000**0.5


def test_independence_chains_end_in_the_law_that_weights_their_proposals() -> None:
    """Uniform proposals on the unit interval, and a density that falls exponentially."""
    none, one = jnp.zeros((0, 1)), jnp.ones(())
    proposal = UnitMixture(none, none, none, jnp.zeros(1), jnp.zeros(0))
    rule = Rule(jnp.zeros(()), jnp.zeros(()), jnp.full((1, 1), 0.5), jnp.zeros(1))
    moves = Moves.in_unit_box(jnp, jnp.ones(1))
    law = MixtureLaw(rule, one, one, jnp.array(40), proposal, moves)
    draws = _chained(law, lambda z: -4 * z[:, 0], jax.random.key(0), 4000)
    assert stats.kstest(np.asarray(draws[:, 0]), stats.truncexpon(4, scale=0.25).cdf).pvalue > 1e-3


def test_half_plane_against_its_exact_law() -> None:
    """x is uniform and the log height h a truncated exponential of rate -1."""
    law = RiemannianUniform(HalfSpace(2), -1.0, jnp.array([1.0, 2.0]))
    exact = math.log(2) + math.log(math.e - math.exp(-2))
    assert law.log_volume().value.item() == pytest.approx(exact, abs=1e-9)
    draws = np.asarray(law.sample(jax.random.key(0), (20_000,)))
    assert stats.kstest(draws[:, 0], "uniform", args=(-1, 2)).pvalue > 1e-3
    assert stats.kstest(draws[:, 1], lambda h: (math.e - np.exp(-h)) / (math.e - math.exp(-2))).pvalue > 1e-3


def test_kernel_metric_in_the_plane_by_draws_and_by_a_thousand_chains() -> None:
    metric = overlapping_bumps(2)
    mass, volume = cell_masses(metric, -3.0, 3.0, cells=8, fine=40)
    law = RiemannianUniform(metric, -3.0, 3.0)
    assert law.log_volume().value.item() == pytest.approx(volume, abs=1e-4)
    one_each = jax.vmap(lambda key: law.sample(key))(jax.random.split(jax.random.key(1), 20_000))
    assert chi_square(one_each, -3.0, 3.0, mass, 8) > 1e-3

    def model() -> None:
        numpyro.sample("z", RiemannianUniform(metric, -3.0, 3.0))

    # chains start in the law and must stay in it: one sample of each, independent of all others
    mcmc = MCMC(
        HMC(model, step_size=0.4, num_steps=5, adapt_step_size=False, adapt_mass_matrix=False),
        num_warmup=0,
        num_samples=20,
        thinning=20,
        num_chains=1000,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = numpyro.distributions.biject_to(law.support).inv(one_each[:1000])
    mcmc.run(jax.random.key(2), init_params={"z": start})
    assert chi_square(mcmc.get_samples()["z"], -3.0, 3.0, mass, 8) > 1e-3


# -------------------------------------------------------------------- higher dimensions


def test_isolated_bumps_are_gaussians_of_equal_mass() -> None:
    dim, metric = 8, isolated_bumps(8)
    law = RiemannianUniform(metric, -1.0, 11.0)
    bump = math.log(20) + 0.5 * dim * math.log(2 * math.pi * 1.5**2 / dim)
    floor = 0.5 * dim * math.log(1e-3) + dim * math.log(12.0)
    volume = law.log_volume()
    assert volume.value.item() == pytest.approx(np.logaddexp(bump, floor), abs=1e-2)
    assert volume.standard_error < 5e-3
    assert law.efficiency > 0.9
    draws = law.sample(jax.random.key(0), (4000,))
    on_bump = metric.logdet(draws) > dim * math.log(1e-3) + 1e-2
    squared = (jnp.square(draws[:, None] - metric.centroids) * metric.precisions).sum(-1)[on_bump]
    statistic = np.asarray(dim * squared.min(1) / 1.5**2)
    assert stats.kstest(statistic, "chi2", args=(dim,)).pvalue > 1e-3
    assert abs(statistic.mean() - dim) < 3 * statistic.std() / math.sqrt(len(statistic))
    assert stats.chisquare(np.bincount(squared.argmin(1), minlength=20)).pvalue > 1e-3
    assert law.share_on_floor(draws) < 0.05


@pytest.mark.slow
def test_three_dimensions_agree_with_quadrature() -> None:
    metric = overlapping_bumps(3)
    law = RiemannianUniform(metric, -4.0, 4.0)
    mass, volume = cell_masses(metric, -4.0, 4.0, cells=4, fine=20)
    estimate = law.log_volume()
    assert abs(estimate.value.item() - volume) < 4 * estimate.standard_error + 1e-4
    assert chi_square(law.sample(jax.random.key(0), (20_000,)), -4.0, 4.0, mass, 4) > 1e-3


@pytest.mark.slow
def test_a_metric_without_a_mixture_goes_through_a_tempered_sequence() -> None:
    rates = jnp.full(12, 4.0)  # rates of 2 in four dimensions are fitted
    law = RiemannianUniform(Exponential(rates), -1.0, 1.0)
    assert RiemannianUniform(Exponential(jnp.full(4, 2.0)), -1.0, 1.0).reports[0].method == "mixture"
    assert law.reports[0].method == "tempered"
    volume = law.log_volume()
    assert volume.standard_error < 0.2
    assert abs(volume.value - exact_log_volume(rates, -1.0, 1.0)) < 4 * volume.standard_error
    draws = law.sample(jax.random.key(0), (3000,))
    # particles of the sequence are shared by the draws: twice the error of independent ones
    assert (jnp.abs(draws.mean(0) - (1 / math.tanh(4) - 0.25)) < 2 * 3 * draws.std(0) / math.sqrt(3000)).all()


# -------------------------------------------------------------------- transformations


def test_gradient_of_the_volume_in_metric_and_bounds() -> None:
    def ours(rates: Array, low: Array, high: Array) -> Array:
        return RiemannianUniform(Exponential(rates), low, high, validate_args=False).log_volume().value

    arguments = jnp.array([0.4, 0.7]), jnp.array([-1.0, -0.5]), jnp.array([0.5, 0.8])
    slopes = jax.jit(jax.grad(ours, argnums=(0, 1, 2)))(*arguments)
    for slope, exact in zip(slopes, jax.grad(exact_log_volume, argnums=(0, 1, 2))(*arguments), strict=True):
        np.testing.assert_allclose(slope, exact, atol=1e-6)


def test_volume_of_a_traced_metric() -> None:
    """Far bumps in space are Gaussians of equal mass; the proposal that a trace makes of them is nearly the law."""
    generator = np.random.default_rng(0)
    centroids, precisions = 8 * generator.random((6, 3)), 40 * 10 ** generator.random((6, 3))

    @jax.jit
    def numbers(metric: KernelMetric) -> tuple[Any, Array, Array]:
        law = RiemannianUniform(metric, -1.0, 9.0)
        return law.log_volume(), law.efficiency, law.mean

    volume, efficiency, mean = numbers(KernelMetric(jnp.asarray(centroids), jnp.asarray(precisions), 1.2, 1e-4))
    exact = np.logaddexp(
        math.log(6) + 1.5 * math.log(2 * math.pi * 1.2**2 / 3), 1.5 * math.log(1e-4) + 3 * math.log(10)
    )
    assert abs(float(volume.value) - exact) < 4 * float(volume.standard_error) + 1e-4
    assert 1e-5 < volume.standard_error < 0.01
    assert efficiency > 0.8
    np.testing.assert_allclose(mean, centroids.mean(0), atol=0.1)


def test_error_of_a_traced_table_bounds_its_error() -> None:
    """Where the volume element grows by e^4 from cell to cell, a table is off, and less than a coarser one."""
    rates = jnp.array([128.0, 0.5])
    value, error = jax.jit(lambda rates: RiemannianUniform(Exponential(rates), -1.0, 1.0).log_volume())(rates)
    off = abs(float(value - exact_log_volume(rates, -1.0, 1.0)))
    assert 1e-5 < off < error < 1e3 * off


def test_law_is_kept_for_the_metric_and_follows_changed_arrays() -> None:
    metric = Exponential(jnp.array([0.5, 0.2]))
    law = RiemannianUniform(metric, -1.0, 1.0)
    first = law.log_volume().value
    assert RiemannianUniform(metric, -1.0, 1.0)._laws()[0][0]._setup is law._laws()[0][0]._setup
    doubled = jax.tree.map(lambda leaf: 2 * leaf, metric)
    changed = RiemannianUniform(doubled, -1.0, 1.0).log_volume().value
    assert changed.item() == pytest.approx(exact_log_volume(doubled.rates, -1.0, 1.0).item(), abs=1e-6)
    metric.rates = doubled.rates
    assert law.log_volume().value == changed
    assert changed != first


def test_survives_pickling_jit_and_expansion() -> None:
    law = RiemannianUniform(Exponential(jnp.array([0.5, 0.2])), jnp.array([[-1.0, -1.0], [0.0, -2.0]]), 1.0)
    z = jnp.array([[0.2, 0.3], [0.4, -1.5]])
    expected = law.log_prob(z)
    assert expected.shape == law.batch_shape == (2,)
    exact = [exact_log_volume(law.metric.rates, low, 1.0) for low in law.low]
    np.testing.assert_allclose(expected, z @ law.metric.rates - jnp.stack(exact), atol=1e-6)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(law)).log_prob(z), expected)
    np.testing.assert_allclose(jax.jit(lambda law, z: law.log_prob(z))(law, z), expected, atol=1e-6)
    assert law.expand((3, 2)).sample(jax.random.key(0), (5,)).shape == (5, 3, 2, 2)
    draws = law.sample(jax.random.key(0), (200,))
    assert law.support(draws).all()


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "low, high, match",
    [
        (None, 1.0, "`low` is missing"),
        (-1.0, None, "`high` is missing"),
        (-math.inf, 1.0, "`low` is infinite"),
        (np.array([math.nan, 0.0]), 1.0, "`low` has 1 NaN"),
        (1.0, -1.0, "strictly below"),
        (np.zeros(3), 1.0, "`low` must be a number or have shape"),
    ],
)
def test_bad_bounds_are_named(low: Any, high: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RiemannianUniform(EuclideanMetric(2), low, high)


def test_bad_types_and_boxes_are_named() -> None:
    with pytest.raises(TypeError, match="`metric`"):
        RiemannianUniform(jnp.eye(2), -1.0, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`low`"):
        RiemannianUniform(EuclideanMetric(2), "left", 1.0)
    with pytest.raises(ValueError, match=r"open unit ball|within the chart"):
        RiemannianUniform(Hyperbolic(2), -1.0, 1.0).log_volume()
    with pytest.raises(TypeError, match="KernelMetric"):
        RiemannianUniform(EuclideanMetric(2), -1.0, 1.0).share_on_floor(jnp.zeros((3, 2)))


# -------------------------------------------------------------------- volumes that are hard to find


class Bump(RiemannianMetric):
    """sqrt(det G) = 1 + a Gaussian with the mass of the box: half of the volume is in the bump."""

    pytree_data_fields = ("loc", "scale")

    def __init__(self, loc: Array, scale: float, box: float) -> None:
        self.dim, self.loc, self.scale = len(loc), loc, jnp.asarray(scale)
        self.log_box = math.log(box)

    def logdet(self, z: Array) -> Array:
        top = self.log_box - self.dim * (jnp.log(self.scale) + 0.5 * math.log(2 * math.pi))
        return 2 * jnp.logaddexp(top - 0.5 * jnp.square((z - self.loc) / self.scale).sum(-1), 0.0)

    def metric(self, z: Array) -> Array:
        return jnp.exp(self.logdet(z) / self.dim)[..., None, None] * jnp.eye(self.dim)


@pytest.mark.parametrize("dim, width", [(2, 0.006), pytest.param(4, 0.05, marks=pytest.mark.slow)])
def test_narrow_bump_is_found(dim: int, width: float) -> None:
    place = jnp.asarray(np.random.default_rng(dim).uniform(-1, 1, dim))
    law = RiemannianUniform(Bump(place, width, 4.0**dim), -2.0, jnp.full(dim, 2.0))
    volume = law.log_volume()
    assert abs(volume.value - math.log(2) - dim * math.log(4)) < 4 * volume.standard_error
    assert 0 < volume.standard_error < 0.02
    draws = law.sample(jax.random.key(0), (2000,))
    near = (jnp.square((draws - place) / width).sum(-1) < stats.chi2(dim).ppf(0.9999)).mean()
    assert abs(float(near) - 0.5) < 5 * math.sqrt(0.25 / 2000)


def test_kernel_metric_has_one_volume_in_every_chart() -> None:
    metric = isolated_bumps(4)
    warped = WarpedMetric(metric, (lambda w: 2 * w + 0.1 * w[..., ::-1], _back))
    known = warped.peaks()
    np.testing.assert_allclose(2 * known.loc + 0.1 * known.loc[..., ::-1], metric.centroids, atol=1e-9)
    wide = RiemannianUniform(warped, -1.2, 6.4).log_volume()
    bump = math.log(20) + 2 * math.log(2 * math.pi * 1.5**2 / 4)
    floor = 2 * math.log(1e-3) + math.log(abs(np.linalg.det(2 * np.eye(4) + 0.1 * np.eye(4)[::-1]))) + 4 * math.log(7.6)
    assert wide.value.item() == pytest.approx(np.logaddexp(bump, floor), abs=2e-2)
    assert wide.standard_error < 1e-2
    assert warped.on_floor(known.loc[:2]).tolist() == [False, False]


def _back(z: Array) -> Array:
    return (2 * z - 0.1 * z[..., ::-1]) / (4 - 0.01)


def test_share_of_points_on_the_jitter_of_a_saturated_decoder() -> None:
    """G is diagonal, sech^4 + jitter: on the floor is where neither axis is above ten times the jitter."""
    law = RiemannianUniform(PullbackMetric(jnp.tanh, 2, jitter=1e-3), -4.0, 4.0)
    axis = np.linspace(-4.0, 4.0, 201)
    below = (np.cosh(axis) ** -4 + 1e-3 < 1e-2).mean()
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1))
    assert float(law.share_on_floor(grid)) == pytest.approx(below**2, abs=1e-6)
    assert 0.1 < below**2 < 0.4


def test_share_of_the_mass_on_the_jitter_of_a_saturated_decoder() -> None:
    """In one dimension, by a sum over the box of sqrt(sech^4 + jitter) where that is below ten times the jitter."""
    law = RiemannianUniform(PullbackMetric(jnp.tanh, 1, jitter=1e-3), -4.0, 4.0)
    (report,) = law.reports
    tensor = np.cosh(np.linspace(-4.0, 4.0, 80_001)) ** -4 + 1e-3
    below = np.sqrt(tensor)[tensor < 1e-2].sum() / np.sqrt(tensor).sum()
    assert report.method == "table"
    assert report.on_floor == pytest.approx(below, abs=1e-3)
    assert 0.05 < below < 0.2


def test_constant_metric_is_exact_and_a_void_is_reported() -> None:
    law = RiemannianUniform(FlatTorus(3), jnp.zeros(3), jnp.array([1.0, 2.0, 3.0]))
    assert law.log_volume().value.item() == pytest.approx(math.log(6), abs=1e-12)
    assert law.log_volume().standard_error == 0
    assert law.reports[0].method == "exact"
    void = RiemannianUniform(PullbackMetric(jnp.tanh, 2, jitter=1e-3), -400.0, 400.0)
    with pytest.warns(UserWarning, match="of the draws lie where `metric` is only the constant"):
        reports = void.reports
    length = np.cosh(np.linspace(-400, 400, 800_001)) ** -4 + 1e-3
    below = (np.sqrt(length) * (length < 1e-2)).sum() / np.sqrt(length).sum()
    assert abs(reports[0].on_floor - below**2) < 2e-3
