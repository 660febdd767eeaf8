"""Benchmark (g): a step of SVI with a prior of one's own over a step with N(0, I), on MNIST, one thread, CPU time.

The model is what the documentation shows: a decoder that was trained before, its pullback, a heat-kernel prior whose
centre and time are learned, and an amortised Gaussian guide; batches of 100.
"""

from __future__ import annotations

import time
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from pyro_riemann import PullbackMetric, RiemannianHeatKernel, RiemannianMetric
from pyro_riemann.datasets import load_dataset
from pyro_riemann.geodesics import GeodesicSolver, training_solver
from pyro_riemann.vae import VAE
from tests.benchmarks._decoder import mnist_vae

BATCH, DIMS = 100, (2, 8, 32, 64)
STEPS = {"plain": 40, "volume": 12, "training": 12, "table": 12, "default": 2}
METHODS = {"training": "training solver", "table": "training solver on a table", "default": "default solver"}


def step_seconds(
    vae: VAE, images: Tensor, metric: RiemannianMetric | None, steps: int, volume_alone: bool = False
) -> float:
    """CPU time of a step of SVI; of the metric its volume alone may be in the model, beside a normal prior."""
    loc = torch.zeros(vae.latent_dim)

    def model(x: Tensor) -> None:
        pyro.module("decoder", vae.decoder)
        centre, log_time = pyro.param("centre", loc.clone()), pyro.param("log_time", torch.tensor(0.0))
        with pyro.plate("images", len(x)):
            if metric is None or volume_alone:
                prior = dist.Normal(centre, (0.5 * log_time).exp()).to_event(1)
            else:
                prior = RiemannianHeatKernel(centre, log_time.exp(), metric)
            z = pyro.sample("z", prior)
            if metric is not None and volume_alone:
                pyro.factor("volume", 0.5 * metric.logdet(z))
            mean, scale = vae.decoder(z)
            pyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", vae.encoder)
        with pyro.plate("images", len(x)):
            mean, spread = vae.encoder(x)
            pyro.sample("z", dist.Normal(mean, spread).to_event(1))

    with pyro.get_param_store().scope():
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-5}), Trace_ELBO())
        svi.step(images[:BATCH])
        start = time.process_time()
        for part in images[BATCH : (steps + 1) * BATCH].split(BATCH):
            svi.step(part)
        return (time.process_time() - start) / steps


def long_distances(vae: VAE, metric: RiemannianMetric, images: Tensor) -> Tensor:
    """Relative errors of distances from the mean of codes to codes, against polished curves from graph starts."""
    decoder = PullbackMetric(vae.decoder, vae.latent_dim)
    with torch.no_grad():
        codes = vae.encoder(images)[0]
        centre = codes.mean(0).expand_as(codes)
        rough = metric.dist(centre, codes)
        exact = GeodesicSolver(num_knots=16, num_segments=64, init="graph", on_failure="ignore")
        return rough / exact.solve(decoder, centre, codes).length - 1


def run() -> list[dict[str, Any]]:
    data, rows = load_dataset("mnist"), []
    for dim in DIMS:
        vae, codes = mnist_vae(dim)
        vae.warm_up = False
        plain = step_seconds(vae, data.train, None, STEPS["plain"])
        rows.append(_row(dim, "N(loc, time I)", plain, plain))
        volume = step_seconds(vae, data.train, PullbackMetric(vae.decoder, dim), STEPS["volume"], volume_alone=True)
        rows.append(_row(dim, "N(loc, time I) and the volume of the metric", volume, plain))
        for name in ("training", "table", "default") if dim <= 3 else ("training", "default"):
            metric: RiemannianMetric = PullbackMetric(vae.decoder, dim)
            extra: dict[str, float] = {}
            if name == "table":  # of the decoder as it is: to be made again as it changes
                reach = 1.2 * codes.abs().amax(0).detach()
                metric = metric.tabulate(-reach, reach, 200)
            if name == "default":
                metric.solver = GeodesicSolver()
            else:
                metric.solver = training_solver(dim)
                error = long_distances(vae, metric, data.test[:200])
                extra["median_error"] = error.abs().median().item()
                extra["share_above_5_percent"] = (error.abs() > 0.05).double().mean().item()
            seconds = step_seconds(vae, data.train, metric, STEPS[name])
            rows.append(_row(dim, f"heat kernel, {METHODS[name]}", seconds, plain, **extra))
    return rows


def _row(dim: int, method: str, seconds: float, plain: float, **extra: float) -> dict[str, Any]:
    return {
        "benchmark": "own_prior",
        "case": f"d = {dim}",
        "method": method,
        "seconds": seconds,
        "floor_seconds": None,
        "ratio_to_floor": None,
        "threads": torch.get_num_threads(),
        "steps_of_the_plain_model": seconds / plain,
        **extra,
    }


@pytest.mark.benchmark
def test_the_training_solver_is_cheap() -> None:
    rows = {(row["case"], row["method"]): row for row in run()}
    for dim in DIMS:
        quick, default = (rows[f"d = {dim}", f"heat kernel, {name} solver"] for name in ("training", "default"))
        assert quick["steps_of_the_plain_model"] < 0.2 * default["steps_of_the_plain_model"]
        assert quick["median_error"] < 0.02
