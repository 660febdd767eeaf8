"""NUTS in NumPyro against NUTS in Pyro: effective samples a CPU second, on the same models.

Each side runs four chains from the same starts with the same settings, warm-up and draws; Pyro with its faster setting,
``jit_compile=True``. Pyro's chains run one after the other; NumPyro's so, or side by side in one program. *seconds* is
CPU time of warm-up and draws. What comes before is *compile seconds*: XLA's compilation, and Pyro's trace of the
potential with the search for a first step size. Effective samples are ArviZ's bulk ESS, of the worst coordinate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor
from torch.distributions import biject_to

from pyro_riemann import GridMetric, KernelMetric, PullbackMetric, RiemannianHeatKernel, RiemannianUniform, summary
from pyro_riemann import numpyro as twin
from pyro_riemann.datasets import load_dataset
from pyro_riemann.experiments._latent import tabulated_prior
from pyro_riemann.experiments.quickstart import configure, make_model, training_config
from pyro_riemann.vae import VAE, HeatKernelPrior, encode_all, train
from tests.benchmarks._decoder import mnist_vae
from tests.benchmarks._measure import cpu_seconds

CHAINS, WARMUP, DRAWS = 4, 200, 500
Model = Callable[[], Any]


class Centred(twin.RiemannianMetric):
    """The twin of ``pyro_riemann.experiments._latent.CentredMetric``: distances from one centre looked up."""

    dim = 2
    pytree_data_fields = ("grid", "field")

    def __init__(self, grid: twin.GridMetric, loc: jax.Array, resolution: int) -> None:
        self.grid, self.field = grid, grid.distance_field(loc, resolution)

    def metric(self, z: jax.Array) -> jax.Array:
        return self.grid.metric(z)

    def logdet(self, z: jax.Array) -> jax.Array:
        return self.grid.logdet(z)

    def squared_dist(self, z: jax.Array, y: jax.Array) -> jax.Array:
        return self.field.squared_dist(y)


class TimedNUTS(pyro.infer.NUTS):
    """NUTS that knows what its set-up cost: the trace of the potential, and the first step size."""

    setup_seconds = 0.0

    def setup(self, *args: Any, **kwargs: Any) -> None:
        start = time.process_time()
        super().setup(*args, **kwargs)
        self.setup_seconds = time.process_time() - start


def in_pyro(model: Model, starts: Tensor, settings: dict[str, Any]) -> tuple[np.ndarray, float, float]:
    """Draws ``(chains, draws, d)``, CPU seconds of the chains, and those of setting them up."""
    draws, seconds, setup = [], 0.0, 0.0
    for seed, start in enumerate(starts):
        pyro.set_rng_seed(seed)
        kernel = TimedNUTS(model, jit_compile=True, ignore_jit_warnings=True, **settings)
        chain = pyro.infer.MCMC(
            kernel, num_samples=DRAWS, warmup_steps=WARMUP, initial_params={"z": start}, disable_progbar=True
        )
        begun = time.process_time()
        chain.run()
        seconds += time.process_time() - begun - kernel.setup_seconds
        setup += kernel.setup_seconds
        draws.append(chain.get_samples()["z"].numpy())
    return np.stack(draws), seconds, setup


def in_numpyro(
    model: Model, starts: Tensor, settings: dict[str, Any], chain_method: str
) -> tuple[np.ndarray, float, float]:
    """The same, the whole run as one compiled program."""
    renamed = {{"full_mass": "dense_mass"}.get(key, key): value for key, value in settings.items()}

    def run(key: jax.Array, start: jax.Array) -> jax.Array:
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(model, **renamed),
            num_warmup=WARMUP,
            num_samples=DRAWS,
            num_chains=CHAINS,
            chain_method=chain_method,
            progress_bar=False,
        )
        mcmc.run(key, init_params={"z": start})
        draws: jax.Array = mcmc.get_samples(group_by_chain=True)["z"]
        return draws

    arguments = jax.random.PRNGKey(0), jnp.asarray(starts.numpy())
    begun = time.process_time()
    program = jax.jit(run).lower(*arguments).compile()
    compiled = time.process_time()
    draws = np.asarray(jax.block_until_ready(program(*arguments)))
    return draws, time.process_time() - compiled, compiled - begun


def uniform(dim: int) -> tuple[Model, Model, Tensor, dict[str, Any]]:
    """RiemannianUniform on a kernel metric with 1,000 centroids of made-up codes; bumps overlap."""
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(2000, dim, generator=generator)
    scale = (0.1 if dim == 2 else 0.3) * torch.exp(0.3 * torch.randn(2000, dim, generator=generator))
    prior = RiemannianUniform(KernelMetric.from_posterior(loc, scale, 1000, "mahalanobis", 0.01), -4.0, 4.0)
    prior.log_volume()  # kept: not part of a chain
    torch.manual_seed(1)
    starts = biject_to(prior.support).inv(prior.sample((CHAINS,)))
    moved = twin.to_numpyro(prior)
    return lambda: pyro.sample("z", prior), lambda: numpyro.sample("z", moved), starts, {}


def digits_vae() -> tuple[VAE, Tensor]:
    """The quickstart's R-VAE of scikit-learn's digits, trained as there, and its test codes."""
    data, settings = load_dataset("digits"), configure("digits")
    vae = make_model(settings, 64, "rvae")
    train(vae, data.train, config=training_config(settings), progress=False)
    return vae.eval(), encode_all(vae, data.test)


def latent_posterior(
    trained: Callable[[], tuple[VAE, Tensor]], tabulated: bool
) -> tuple[Model, Model, Tensor, dict[str, Any]]:
    """Code of one image that the decoder made; heat-kernel prior on the decoder's metric, or on a table of it.

    The prior of an R-VAE is its own; on the decoder of a plain VAE its time is that of maximum likelihood.
    """
    vae, codes = trained()
    decoder = vae.decoder.requires_grad_(False)
    metric = PullbackMetric(decoder, 2)
    low, high = codes.amin(0) - 0.5, codes.amax(0) + 0.5
    grid = GridMetric(metric, low, high, 200, outside="error")
    if isinstance(vae.prior, HeatKernelPrior):
        loc, spread = vae.prior.loc.detach(), vae.prior.time.detach()
    else:
        loc = codes.median(0).values
        spread = grid.distance_field(loc, 200).squared_dist(codes).mean() / 2
    if tabulated:
        prior = tabulated_prior(grid, loc, spread, 200)
        centre = jnp.asarray(loc.numpy())
        moved = twin.RiemannianHeatKernel(centre, spread.item(), Centred(twin.to_numpyro(grid), centre, 200))
    else:
        prior = RiemannianHeatKernel(loc, spread, metric)
        moved = twin.to_numpyro(prior)
    code = codes[:1]
    torch.manual_seed(2)
    image = decoder.observation(code[0]).sample().detach()
    starts = code + 0.02 * torch.randn(CHAINS, 2)
    decode, pixels = twin.to_numpyro(decoder), jnp.asarray(image.numpy())

    def torch_model() -> None:
        z = pyro.sample("z", prior)
        pyro.sample("x", decoder.observation(z), obs=image)

    def jax_model() -> None:
        z = numpyro.sample("z", moved)
        numpyro.sample("x", numpyro.distributions.Normal(*decode(z)).to_event(1), obs=pixels)

    return torch_model, jax_model, starts, {"full_mass": True, "target_accept_prob": 0.95}


CASES = {
    "uniform, kernel metric, k = 1000, d = 2": partial(uniform, 2),
    "uniform, kernel metric, k = 1000, d = 16": partial(uniform, 16),
    "latent posterior of an R-VAE, digits, tabulated metric": partial(latent_posterior, digits_vae, True),
    "latent posterior on the MNIST decoder, tabulated metric": partial(latent_posterior, mnist_vae, True),
}


def row(case: str, method: str, seconds: float, **measured: Any) -> dict[str, Any]:
    head = {"benchmark": "NUTS, NumPyro against Pyro", "case": case, "method": method, "seconds": seconds}
    return head | {"floor_seconds": None, "ratio_to_floor": None} | measured


def gradients() -> list[dict[str, Any]]:
    """One gradient of the potential where every distance is solved for on the decoder itself."""
    torch_model, jax_model, starts, _ = latent_posterior(mnist_vae, tabulated=False)
    _, potential, _, _ = initialize_model(torch_model)
    point = jnp.asarray(starts[0].numpy())
    information = numpyro.infer.util.initialize_model(jax.random.PRNGKey(0), jax_model)

    def in_torch() -> None:
        z = starts[0].clone().requires_grad_()
        torch.autograd.grad(potential({"z": z}), z)

    begun = time.process_time()
    program = jax.jit(jax.value_and_grad(information.potential_fn)).lower({"z": point}).compile()
    compiling = time.process_time() - begun
    peer = cpu_seconds(in_torch, 5)
    ours = cpu_seconds(lambda: jax.block_until_ready(program({"z": point})), 10)
    case = "one gradient of the MNIST posterior, geodesics on the decoder itself"
    return [
        row(case, "Pyro", peer, ratio_over_pyro=1.0),
        row(case, "NumPyro", ours, compile_seconds=compiling, ratio_over_pyro=peer / ours),
    ]


def run() -> list[dict[str, Any]]:
    rows = []
    for case, build in CASES.items():
        torch_model, jax_model, starts, settings = build()
        runs: dict[str, Callable[[], tuple[np.ndarray, float, float]]] = {
            "Pyro, compiled": partial(in_pyro, torch_model, starts, settings),
            "NumPyro, sequential": partial(in_numpyro, jax_model, starts, settings, "sequential"),
            "NumPyro, vectorized": partial(in_numpyro, jax_model, starts, settings, "vectorized"),
        }
        peer = None
        for method, work in runs.items():
            draws, seconds, compiling = work()
            table = summary(draws)
            rate = float(table["ess_bulk"].min()) / seconds
            peer = peer or rate
            rows.append(
                row(
                    case,
                    method,
                    seconds,
                    compile_seconds=compiling,
                    ess_bulk=float(table["ess_bulk"].min()),
                    r_hat=float(table["r_hat"].max()),
                    ess_per_second=rate,
                    ratio_over_pyro=rate / peer,
                )
            )
    return rows + gradients()


@pytest.mark.benchmark
def test_numpyro_is_twenty_times_faster() -> None:
    torch.set_num_threads(1)
    rows = run()
    for case in CASES:
        ratios = [entry["ratio_over_pyro"] for entry in rows if entry["case"] == case]
        # a gradient of the MNIST decoder takes 0.1 ms to stream its weights, in whatever library
        assert max(ratios) >= (5 if "MNIST" in case else 20)
    assert all(entry["r_hat"] < 1.05 for entry in rows if "r_hat" in entry)
