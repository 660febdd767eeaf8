"""What a model says of draws, as ArviZ groups: against a conjugate Gaussian, on both faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_riemann import EuclideanMetric, RiemannianNormal
from pyro_riemann import numpyro as twin
from pyro_riemann.diagnostics import to_arviz
from pyro_riemann.numpyro.diagnostics import to_arviz as to_arviz_twin

ROWS, SPREAD, NOISE = 12, 1.5, 0.8
DATA = np.random.default_rng(0).normal(0.7, 1.0, size=(ROWS, 2))


def model(x: Tensor) -> None:
    """A normal prior about 0, of a metric that makes it the textbook's, and rows about its draw."""
    metric = EuclideanMetric(2)
    z = pyro.sample("z", RiemannianNormal(torch.zeros(2, dtype=x.dtype), SPREAD, metric))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)


def model_twin(x: jax.Array) -> None:
    z = numpyro.sample("z", twin.RiemannianNormal(jnp.zeros(2), SPREAD, twin.EuclideanMetric(2)))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", ndist.Normal(z, NOISE).to_event(1), obs=x)


def posterior(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean and standard deviation, the same on both axes."""
    precision = SPREAD**-2 + len(rows) * NOISE**-2
    return rows.sum(0) * NOISE**-2 / precision, precision**-0.5


def exact_draws() -> np.ndarray:
    mean, scale = posterior(DATA)
    return np.random.default_rng(1).normal(mean, scale, size=(4, 500, 2))


def torch_groups() -> Any:
    pyro.set_rng_seed(0)
    return to_arviz({"z": exact_draws()}, model=model, model_args=(torch.from_numpy(DATA),), num_prior_samples=4000)


def jax_groups() -> Any:
    draws = {"z": jnp.asarray(exact_draws())}
    key = jax.random.key(0)
    return to_arviz_twin(draws, model=model_twin, model_args=(jnp.asarray(DATA),), num_prior_samples=4000, key=key)


@pytest.fixture(scope="module", params=[torch_groups, jax_groups], ids=["torch", "jax"])
def data(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_likelihoods_are_those_of_the_rows(data: Any) -> None:
    found = data["log_likelihood"]["x"].values
    draws = exact_draws()[:, :, None]
    assert found == pytest.approx(stats.norm.logpdf(DATA, draws, NOISE).sum(-1), abs=1e-4)
    assert data["observed_data"]["x"].values == pytest.approx(DATA, abs=1e-6)


def test_leave_one_out_is_that_of_the_conjugate_posterior(data: Any) -> None:
    """By Pareto-smoothed importance sampling from the draws, against each row under the posterior of the others."""
    import arviz

    exact = 0.0
    for row in range(ROWS):
        mean, scale = posterior(np.delete(DATA, row, 0))
        exact += stats.norm.logpdf(DATA[row], mean, np.hypot(scale, NOISE)).sum()
    loo = arviz.loo(data)
    assert float(getattr(loo, "elpd_loo", getattr(loo, "elpd", None))) == pytest.approx(exact, abs=0.15)


def test_predictive_draws_have_the_moments_of_the_model(data: Any) -> None:
    mean, scale = posterior(DATA)
    after = data["posterior_predictive"]["x"].values
    assert after.shape == (4, 500, ROWS, 2)
    assert after.mean((0, 1, 2)) == pytest.approx(mean, abs=5 * scale / 2000**0.5 + 5 * NOISE / (2000 * ROWS) ** 0.5)
    assert after.std() ** 2 == pytest.approx(scale**2 + NOISE**2 + np.var(mean), rel=0.05)
    before, rows = data["prior"]["z"].values, data["prior_predictive"]["x"].values
    assert before.shape == (1, 4000, 2)
    assert rows.shape == (1, 4000, ROWS, 2)
    assert before.std() == pytest.approx(SPREAD, rel=0.05)
    assert (rows - before[:, :, None]).std() == pytest.approx(NOISE, rel=0.05)


def test_a_model_for_one_draw_at_a_time_says_the_same() -> None:
    """One whose shapes do not broadcast is run draw by draw."""

    def plain(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), SPREAD).to_event(1))
        assert z.shape == (2,)
        for index in range(len(x)):
            pyro.sample(f"x{index}", dist.Normal(z, NOISE).to_event(1), obs=x[index])

    few = {"z": exact_draws()[:, :5]}
    found = to_arviz(few, model=plain, model_args=(torch.from_numpy(DATA),), num_prior_samples=3)["log_likelihood"]
    together = to_arviz(few, model=model, model_args=(torch.from_numpy(DATA),), num_prior_samples=3)["log_likelihood"]
    for index in range(ROWS):
        assert found[f"x{index}"].values == pytest.approx(together["x"].values[..., index])


def nothing_observed(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def subsampled(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
    with pyro.plate("rows", len(x), subsample_size=4) as rows:
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[rows])


@pytest.mark.parametrize(
    "wrong, names, match",
    [
        (nothing_observed, "z", "observes nothing"),
        (subsampled, "z", "subsamples its data in the plate 'rows'"),
        (model, "y", r"latent sites \['z'\], but `result` has draws of \['y'\]"),
    ],
)
def test_bad_models_are_named(wrong: Callable[..., None], names: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        to_arviz({names: exact_draws()}, model=wrong, model_args=(torch.from_numpy(DATA),))


def test_the_twin_wants_a_key_and_data() -> None:
    with pytest.raises(ValueError, match="no `key`"):
        to_arviz_twin({"z": exact_draws()}, model=model_twin, model_args=(jnp.asarray(DATA),))

    def subsampled(x: jax.Array) -> None:
        z = numpyro.sample("z", ndist.Normal(jnp.zeros(2), 1.0).to_event(1))
        with numpyro.plate("rows", len(x), subsample_size=4) as rows:
            numpyro.sample("x", ndist.Normal(z, 1.0).to_event(1), obs=x[rows])

    key = jax.random.key(0)
    with pytest.raises(ValueError, match="subsamples its data"):
        to_arviz_twin({"z": exact_draws()}, model=subsampled, model_args=(jnp.asarray(DATA),), key=key)
    with pytest.raises(ValueError, match="draws of \\['y'\\]"):
        to_arviz_twin({"y": exact_draws()}, model=model_twin, model_args=(jnp.asarray(DATA),), key=key)


def test_images_of_a_variational_autoencoder_have_a_likelihood_each() -> None:
    """Codes of a plate of images, one draw of each at a time: what PSIS-LOO needs of an R-VAE."""
    from pyro_riemann.vae import make_vae

    pyro.set_rng_seed(0)
    images = torch.rand(5, 16)
    vae = make_vae(16, 2, prior="heat_kernel", posterior="wrapped_normal", seed=0).eval()
    codes = torch.randn(2, 60, 5, 2)
    data = to_arviz({"z": codes}, model=vae.model, model_args=(images,), num_prior_samples=4)
    found = data["log_likelihood"]["x"].values
    assert found.shape == (2, 60, 5)
    trace = pyro.poutine.trace(pyro.condition(vae.model, data={"z": codes[1, 7]})).get_trace(images)
    assert found[1, 7] == pytest.approx(trace.nodes["x"]["fn"].log_prob(images).detach().numpy(), rel=1e-4)
    assert data["posterior_predictive"]["x"].shape == (2, 60, 5, 16)
