"""Chains become ArviZ data unchanged, and the table agrees with laws and with formulas written out here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import HMC, MCMC, NUTS
from scipy import stats
from torch import Tensor

from pyro_riemann import EuclideanMetric, GeodesicSolver, PullbackMetric, RiemannianMetric, summary, to_arviz


def autoregression(phi: float, chains: int, draws: int, seed: int) -> np.ndarray:
    """Stationary AR(1) chains with variance 1."""
    noise = np.random.default_rng(seed).standard_normal((chains, draws))
    path = noise.copy()
    for t in range(1, draws):
        path[:, t] = phi * path[:, t - 1] + np.sqrt(1 - phi**2) * noise[:, t]
    return path


def rank_normal(x: np.ndarray) -> np.ndarray:
    return stats.norm.ppf((stats.rankdata(x).reshape(x.shape) - 0.375) / (x.size + 0.25))


def split_r_hat(x: np.ndarray) -> float:
    """Vehtari et al. 2021: the larger of the rank-normalised split R-hat of x and of |x - median|."""
    halves = x.reshape(2 * x.shape[0], -1)

    def classical(y: np.ndarray) -> float:
        length = y.shape[1]
        within, between = y.var(1, ddof=1).mean(), length * y.mean(1).var(ddof=1)
        return float(np.sqrt((between / within + length - 1) / length))

    return max(classical(rank_normal(halves)), classical(rank_normal(np.abs(halves - np.median(halves)))))


# ------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_effective_size_of_an_autoregression(phi: float) -> None:
    x = autoregression(phi, chains=4, draws=20_000, seed=1)
    table = summary({"x": x})
    # variance of the mean of AR(1): ESS / N = (1 - phi) / (1 + phi); the estimator's own spread is about 4 % here
    assert table.loc["x", "ess_bulk"] / x.size == pytest.approx((1 - phi) / (1 + phi), rel=0.12)
    assert table.loc["x", "mcse_mean"] == pytest.approx(x.std() / np.sqrt(table.loc["x", "ess_bulk"]), rel=0.02)
    assert table.loc["x", "mean"] == pytest.approx(x.mean(), abs=1e-12)
    assert table.loc["x", "sd"] == pytest.approx(x.std(ddof=1), rel=1e-4)


@pytest.mark.parametrize("shift, spread", [(0.0, 1.0), (0.7, 1.0), (0.0, 4.0)])
def test_r_hat_is_the_rank_normalised_split_one(shift: float, spread: float) -> None:
    x = autoregression(0.3, chains=4, draws=500, seed=2)
    x[0] = shift + spread * x[0]
    expected = split_r_hat(x)
    table = summary({"x": x})
    assert table.loc["x", "r_hat"] == pytest.approx(expected, abs=1e-9)
    assert table.passed(min_ess=100) is (expected <= 1.01)
    assert (expected > 1.01) is ((shift, spread) != (0.0, 1.0)), "the example would not tell good from bad"


def test_one_row_for_every_scalar_and_the_columns_asked_for() -> None:
    table = summary({"z": torch.randn(4, 100, 2, 3), "t": torch.rand(4, 100)})
    assert len(table) == 7
    assert {"mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"} == set(table.columns)
    assert isinstance(table, pd.DataFrame)
    assert list(summary({"z": torch.randn(4, 50), "t": torch.rand(4, 50)}, var_names="t").index) == ["t"]


def test_print_shows_the_table_and_the_checks() -> None:
    diverging = np.zeros((4, 250), dtype=bool)
    diverging[1, 3:5] = True
    table = summary(to_arviz(torch.randn(4, 250, 2), {"diverging": diverging}), EuclideanMetric(2))
    text = str(table)
    assert "4 chains of 250 draws" in text
    assert "divergences: 2" in text
    assert "converged geodesics: 100.0%" in text
    assert all(f"{value:.4f}" in text for value in table["r_hat"])
    assert table.divergences == 2
    assert not table.passed(max_r_hat=2, min_ess=1)
    assert "not recorded" in str(summary({"x": torch.randn(2, 50)}))


def test_chains_that_never_move_do_not_pass() -> None:
    table = summary({"x": np.repeat([[0.0], [1.0]], 100, axis=1)})
    assert not table.passed(min_ess=0)


# ------------------------------------------------------------------------------------ geometric checks


class Island(RiemannianMetric):
    """Flat but for a unit disc around the origin, and geodesics that are declared good on x > 0."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.eye(2, dtype=z.dtype).expand(*z.shape, 2)

    def coverage(self, points: Tensor) -> float:
        return (points.norm(dim=-1) < 1).double().mean().item()

    def geodesic(self, z: Tensor, y: Tensor, init: str = "graph", **settings: Any) -> Any:
        curve = EuclideanMetric(2).to(z.dtype).geodesic(z, y)
        curve.converged = y[..., 0] > 0
        return curve


def test_shares_of_draws_on_the_floor_and_of_converged_geodesics() -> None:
    angle = torch.linspace(0, 2 * torch.pi, 401, dtype=torch.float64)[:-1].reshape(4, 100)
    radius = torch.where(torch.arange(100) < 25, 0.5, 2.0).expand(4, 100)
    z = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    table = summary({"z": z, "other": z[..., 0]}, Island(), loc=torch.zeros(2), num_geodesics=400)
    assert table.floor_share == pytest.approx(0.75)
    assert table.converged_share == pytest.approx((z[..., 0] > 0).double().mean().item())


def test_geodesics_are_judged_by_accurate_settings_not_by_the_metrics_own() -> None:
    metric = PullbackMetric(lambda z: torch.cat([z, z.sin()], -1), 2)
    metric.solver = GeodesicSolver(num_knots=1, num_segments=2, max_iterations=0, max_polish=0, on_failure="ignore")
    z = torch.randn(4, 20, 2, dtype=torch.float64)
    assert not metric.geodesic(z[0], z[1], init="line").converged.any()
    assert summary({"z": z}, metric, num_geodesics=10).converged_share == 1.0


def test_geodesics_are_judged_as_users_get_them_with_all_attempts() -> None:
    metric = PullbackMetric(lambda z: torch.cat([z, 0.6 * (3 * z).sin()], -1), 2)
    z = torch.randn(4, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first_attempts = metric.geodesic(z[:2], z[2:], num_knots=16, num_segments=64, init="graph", on_failure="ignore")
    assert not first_attempts.converged.all()
    assert summary({"z": z}, metric, num_geodesics=20).converged_share == 1.0


def test_metric_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="dimension 3"):
        summary({"z": torch.randn(4, 50, 2)}, EuclideanMetric(3))


# ------------------------------------------------------------------------------------ sources of chains


def normal_model() -> None:
    pyro.sample("z", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
    pyro.sample("scale", dist.Gamma(torch.tensor(3.0), torch.tensor(1.0)))


def funnel_model() -> None:
    """A cliff: flat, then a fall of 1e6 nats, which any leapfrog step over it reports as a divergence."""
    x = pyro.sample("x", dist.Normal(torch.tensor(0.0), torch.tensor(1.0)))
    pyro.factor("cliff", torch.where(x > 0.5, -1e6 * (x - 0.5), torch.zeros(())))


def test_pyro_draws_and_acceptance_are_kept() -> None:
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(normal_model), num_samples=60, warmup_steps=40, disable_progbar=True)
    mcmc.run()
    data = to_arviz(mcmc)
    samples = mcmc.get_samples(group_by_chain=True)
    for name in ("z", "scale"):
        np.testing.assert_array_equal(data["posterior"][name].values, samples[name].numpy())
    assert data["sample_stats"]["diverging"].shape == (1, 60)
    assert data["sample_stats"].attrs["mean_acceptance_rate"] == [mcmc.diagnostics()["acceptance rate"]["chain 0"]]
    assert summary(mcmc).divergences == 0


def test_pyro_divergences_are_counted_at_their_draws() -> None:
    pyro.set_rng_seed(0)
    kernel = HMC(funnel_model, step_size=0.5, num_steps=4, adapt_step_size=False)
    mcmc = MCMC(kernel, num_samples=80, warmup_steps=0, initial_params={"x": torch.tensor(0.0)}, disable_progbar=True)
    mcmc.run()
    expected = mcmc.diagnostics()["divergences"]["chain 0"]
    assert len(expected) > 3
    diverging = to_arviz(mcmc)["sample_stats"]["diverging"].values
    assert np.flatnonzero(diverging[0]).tolist() == expected
    assert summary(mcmc).divergences == len(expected)


def numpyro_model() -> None:
    x = numpyro.sample("x", numpyro_dist.Normal(0.0, 1.0))
    numpyro.factor("cliff", jax.numpy.where(x > 0.5, -1e6 * (x - 0.5), 0.0))


def test_numpyro_draws_divergences_and_fields_are_kept() -> None:
    kernel = numpyro.infer.NUTS(numpyro_model, step_size=1.0, adapt_step_size=False)
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=0, num_samples=100, num_chains=2, chain_method="vectorized", progress_bar=False
    )
    start = {"x": jax.numpy.zeros(2)}
    mcmc.run(
        jax.random.PRNGKey(0), init_params=start, extra_fields=("accept_prob", "num_steps", "adapt_state.step_size")
    )
    fields = mcmc.get_extra_fields(group_by_chain=True)
    data = to_arviz(mcmc)
    np.testing.assert_array_equal(data["posterior"]["x"].values, mcmc.get_samples(group_by_chain=True)["x"])
    recorded = data["sample_stats"]
    np.testing.assert_array_equal(recorded["acceptance_rate"].values, fields["accept_prob"])
    np.testing.assert_array_equal(recorded["n_steps"].values, fields["num_steps"])
    np.testing.assert_array_equal(recorded["step_size"].values, fields["adapt_state.step_size"])
    count = int(fields["diverging"].sum())
    assert count > 3
    assert summary(mcmc).divergences == count


def test_own_draws_with_statistics() -> None:
    draws, rate = torch.randn(3, 40, 2, requires_grad=True), torch.rand(3, 40)
    data = to_arviz({"z": draws}, {"acceptance_rate": rate})
    np.testing.assert_array_equal(data["posterior"]["z"].values, draws.detach().numpy())
    np.testing.assert_array_equal(data["sample_stats"]["acceptance_rate"].values, rate.numpy())
    assert to_arviz(data) is data
    assert summary(data).divergences is None
    np.testing.assert_array_equal(to_arviz(draws.detach())["posterior"]["z"].values, draws.detach().numpy())


def test_runs_in_a_list_become_chains() -> None:
    runs = []
    for seed in range(3):
        pyro.set_rng_seed(seed)
        runs.append(MCMC(NUTS(normal_model), num_samples=40, warmup_steps=20, disable_progbar=True))
        runs[-1].run()
    data = to_arviz(runs)
    for chain, run in enumerate(runs):
        np.testing.assert_array_equal(data["posterior"]["z"].values[chain], run.get_samples()["z"].numpy())
    assert data["sample_stats"]["diverging"].shape == (3, 40)
    assert len(data["sample_stats"].attrs["mean_acceptance_rate"]) == 3


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "build, error, match",
    [
        (lambda: MCMC(NUTS(normal_model), num_samples=2, disable_progbar=True), ValueError, r"run\(\.\.\.\)` first"),
        (
            lambda: numpyro.infer.MCMC(numpyro.infer.NUTS(numpyro_model), num_warmup=1, num_samples=1),
            ValueError,
            r"run\(\.\.\.\)` first",
        ),
        (lambda: {"z": torch.randn(100)}, ValueError, r"shape \(chains, draws, \*event\)"),
        (lambda: {"z": torch.randn(4, 100), "y": torch.randn(4, 99)}, ValueError, r"`y` has \(chains, draws\)"),
        (dict, ValueError, "no variables"),
        (lambda: [torch.randn(1, 9), torch.randn(1, 8)], ValueError, "same variables and number of draws"),
        (list, ValueError, "no chains"),
        (lambda: "chains.nc", TypeError, "got str"),
    ],
)
def test_bad_input_is_named(build: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        to_arviz(build())


def test_unknown_variable_is_named() -> None:
    with pytest.raises(ValueError, match=r"\['w'\], but the chains have \['z'\]"):
        summary({"z": torch.randn(4, 50)}, var_names=["w"])
