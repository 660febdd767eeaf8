"""Effective draws a second of the Riemannian uniform, against pythae's sampler and Hamiltonian chains made right.

The peer is a checkout of benchmark_VAE (Chadebec, Vincent & Allassonniere 2022), which ``PYTHAE_SOURCE`` names. Its
metric is ours where all precisions are one multiple of the identity, so that both have the same target. The mean log
density of the draws, against that of many draws of ours, says whether a sampler has the right law: chains that have
not left the centroids where they start are too high by d / 2 = 8 nats.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_riemann import KernelMetric
from pyro_riemann._formulas.medoids import bandwidth_by_rule
from pyro_riemann.sampling import default_box, hmc, sample_uniform
from tests.benchmarks._measure import matmul_rate

DIM, DRAWS = 16, 1000
PEER = "(c) Riemannian uniform, d = 16, precisions 100 I, against pythae"
TARGET = "(d) 1,000 effective draws of the Riemannian uniform, d = 16, k = 5000"
PRECISION = 100.0
MISSING = (
    "the peer is missing: set PYTHAE_SOURCE to a checkout of benchmark_VAE (the folder with src/pythae); it needs "
    "imageio, cloudpickle and pydantic."
)


def isotropic(count: int, bandwidth: float) -> KernelMetric:
    """Standard normal centroids, all with the precision 100 I."""
    centroids = torch.randn(count, DIM, generator=torch.Generator().manual_seed(0))
    return KernelMetric(centroids, torch.full_like(centroids, PRECISION), bandwidth, 1e-3)


def posterior(rule: str) -> KernelMetric:
    """5,000 standard normal codes with standard deviations of 0.03 to 0.1, all of them centroids."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(5000, DIM, generator=generator)
    precisions = (0.03 + 0.07 * torch.rand(5000, DIM, generator=generator)) ** -2
    bandwidth = bandwidth_by_rule(codes.numpy(), precisions.numpy(), rule)
    return KernelMetric(codes, precisions, bandwidth, 1e-3)


def peer_sampler(metric: KernelMetric) -> Any:
    """Pythae's sampler with the arrays of ``metric``; everything else as it comes."""
    source = os.environ.get("PYTHAE_SOURCE")
    if not source or not (Path(source) / "src" / "pythae").is_dir():
        raise ModuleNotFoundError(MISSING)
    folder = str(Path(source) / "src")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    logging.disable(logging.WARNING)
    try:
        models, samplers = (importlib.import_module(f"pythae.{name}") for name in ("models", "samplers"))
        factories = importlib.import_module("pythae.models.rhvae.rhvae_utils")
    except ImportError as error:
        raise ModuleNotFoundError(f"{MISSING} ({error})") from error
    finally:
        logging.disable(logging.NOTSET)
    model = models.RHVAE(models.RHVAEConfig(input_dim=(1, 4, 4), latent_dim=DIM))
    model.centroids_tens = metric.centroids
    model.M_tens = PRECISION * torch.eye(DIM).expand(len(metric.centroids), DIM, DIM).contiguous()
    model.temperature = torch.nn.Parameter(metric.bandwidth / math.sqrt(PRECISION), requires_grad=False)
    model.lbd = torch.nn.Parameter(metric.regularization.clone(), requires_grad=False)
    model.G, model.G_inv = factories.create_metric(model), factories.create_inverse_metric(model)
    return samplers.RHVAESampler(model, samplers.RHVAESamplerConfig())


def timed(function: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = function(*arguments, **settings)
    return time.process_time() - start, result


def level(metric: KernelMetric, draws: Tensor) -> Tensor:
    """Log of the unnormalised density, ``(n)``."""
    return torch.cat([0.5 * metric.logdet(piece) for piece in draws.split(256)])


class Case:
    """One target: rows of the table, with the mean log density as a test of each sampler's law."""

    def __init__(self, benchmark: str, name: str, metric: KernelMetric, rate: float) -> None:
        self.benchmark, self.name, self.metric, self.rate = benchmark, name, metric, rate
        self.box = default_box(metric)
        self.exact = level(metric, sample_uniform(metric, 8000, *self.box, seed=99).draws)

    def row(self, method: str, seconds: float, effective: float, **more: Any) -> dict[str, Any]:
        # the least that draws can cost: the two matrix products of one metric evaluation each
        floor = effective * 2 * len(self.metric.centroids) * (3 * DIM + 1) / self.rate
        return {
            "benchmark": self.benchmark,
            "case": self.name,
            "method": method,
            "seconds": seconds,
            "floor_seconds": floor,
            "ratio_to_floor": seconds / floor,
            "effective_draws": effective,
            "effective_per_second": effective / seconds,
            **more,
        }

    def judged(self, method: str, seconds: float, draws: Tensor, effective: float, **more: Any) -> dict[str, Any]:
        found, exact = level(self.metric, draws), self.exact
        error = math.hypot(float(found.std()) / effective**0.5, float(exact.std()) / len(exact) ** 0.5)
        gap = {"gap_of_mean_log_density": float(found.mean() - exact.mean()), "gap_standard_error": error}
        return self.row(method, seconds, effective, **gap, **more)


def against_pythae(rate: float) -> list[dict[str, Any]]:
    rows = []
    for count, name, bandwidth in ((100, "isolated", 4.0), (100, "overlapping", 15.0), (5000, "overlapping", 15.0)):
        metric = isotropic(count, bandwidth)
        case = Case(PEER, f"k = {count}, {name}", metric, rate)
        metric = isotropic(count, bandwidth)  # anew: nothing is remembered of its set-up
        seconds, ours = timed(sample_uniform, metric, DRAWS, *case.box, seed=0)
        effective = min(float(ours.ess_bulk.min()), DRAWS)
        method = f"ours, {ours.method}, set-up included"
        rows.append(case.judged(method, seconds, ours.draws, effective, r_hat=float(ours.r_hat.max())))
        # every chain is independent of the others: each end counts as one effective draw, whatever its law
        chains = 1000 if count == 100 else 50
        seconds, right = timed(hmc, metric, chains, *case.box, num_steps=100, step_size=None, seed=0)
        method = "batched HMC, 100 tuned steps a chain"
        rows.append(case.judged(method, seconds, right.draws, chains, r_hat=float(right.r_hat.max())))
        sampler = peer_sampler(metric)
        torch.manual_seed(0)
        if count == 100:
            for step in (0.03, 0.005):
                sampler.eps_lf = torch.tensor([step])
                seconds, ends = timed(sampler.hmc_sampling, 40)
                method = f"peer: pythae RHVAESampler, eps_lf = {step}{' (its default)' if step == 0.03 else ''}"
                rows.append(case.judged(method, seconds, ends.detach(), 40))
        else:
            sampler.mcmc_steps_nbr = 1
            seconds, _ = timed(sampler.hmc_sampling, 2)
            rows.append(case.row("peer: pythae RHVAESampler (from one step of 100)", 100 * seconds, 2))
    return rows


def target_times(rate: float) -> list[dict[str, Any]]:
    rows = []
    for rule, name in (("euclidean", "C22's bandwidth"), ("mahalanobis", "overlapping bandwidth")):
        case = Case(TARGET, name, posterior(rule), rate)
        count, effective = DRAWS, 0.0
        while effective < DRAWS:
            count = math.ceil(1.15 * count * (DRAWS / effective if effective else 1))
            metric = posterior(rule)  # anew: nothing is remembered of its set-up
            seconds, result = timed(sample_uniform, metric, count, *case.box, seed=0)
            effective = min(float(result.ess_bulk.min()), count)
        more = {"r_hat": float(result.r_hat.max()), "efficiency": result.efficiency}
        method = f"ours, {result.method}, set-up included"
        rows.append(case.judged(method, seconds, result.draws, effective, **more))
    return rows


def run() -> list[dict[str, Any]]:
    """Rows of both tables; the peer in the same run."""
    peer_sampler(isotropic(2, 1.0))  # fails now, not after minutes
    sample_uniform(isotropic(10, 4.0), 100, seed=0).table  # loads ArviZ  # noqa: B018
    rate = matmul_rate(torch.float64)
    return [*against_pythae(rate), *target_times(rate)]


@pytest.mark.benchmark
def test_a_thousand_effective_draws_in_seconds() -> None:
    torch.set_num_threads(1)
    seconds = {row["case"]: row["seconds"] for row in target_times(matmul_rate(torch.float64))}
    assert seconds["C22's bandwidth"] < 2
    assert seconds["overlapping bandwidth"] < 30


@pytest.mark.benchmark
def test_more_effective_draws_a_second_than_the_peer_and_the_right_law() -> None:
    torch.set_num_threads(1)
    try:
        peer_sampler(isotropic(2, 1.0))
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    rows = against_pythae(matmul_rate(torch.float64))
    for case in dict.fromkeys(row["case"] for row in rows):
        ours, *others = (row for row in rows if row["case"] == case)
        for row in others:
            least = 50 if "pythae" in row["method"] else 1.5
            assert ours["effective_per_second"] > least * row["effective_per_second"]
        assert abs(ours["gap_of_mean_log_density"]) < 4 * ours["gap_standard_error"]
