"""Phase 2 of the R-VAE in K20's protocol, over that of the plain VAE, in one run: one thread, CPU time, MNIST.

The job as ``reproduce`` runs it, on the decoder that the reduced protocol's phase 1 leaves: batches of 100, a
wrapped-normal posterior, 350 centres, Adam, and what an epoch does once (table, snapshot, shortest paths). Blocks of
steps of the two models take turns, so that a busy machine slows both; the median block counts. Distances of training
are judged on the decoder itself, from the better of the straight line and a shortest path on a graph.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI
from safetensors.torch import load_file, save_file

from pyro_riemann import PullbackMetric
from pyro_riemann.experiments.kalatzis2020._protocol import PROTOCOLS
from pyro_riemann.experiments.kalatzis2020._work import _config, build, load_images
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE, train
from pyro_riemann.vae._frozen_laws import SecondOrderNormal, table_alone
from pyro_riemann.vae._training import TwoPhases
from tests.benchmarks._decoder import cache_folder

REDUCED = PROTOCOLS["reduced"]
BATCH, BLOCK, BLOCKS = REDUCED.batch_size, 5, 8
PAIRS = 60  # distances that are judged
LIMITS = {60_000: {2: 3.0, 5: 5.0, 10: 6.0}, 10_000: {2: 4.0, 5: 6.0, 10: 7.0}}
MOST_OFF = 0.05  # share of distances that may be off by more than 5 %


def phase_one(dim: int, images: torch.Tensor, vae: VAE) -> None:
    """Give the R-VAE the weights that the protocol's phase 1 and the start of its phase 2 leave, from the cache."""
    path = cache_folder() / f"kalatzis2020_reduced_d{dim}.safetensors"
    if path.exists():
        vae.load_state_dict(load_file(path))
        return
    train(vae, images, config=dataclasses.replace(_config(REDUCED, 0), epochs=0), progress=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.clone() for key, value in vae.state_dict().items()}, path)


class Stepper:
    """Steps of phase 2 of one model."""

    def __init__(self, vae: VAE, images: torch.Tensor) -> None:
        self.images, self.objective = images, TwoPhases(vae, _config(REDUCED, 0))
        self.objective.enter_phase(2)
        vae.train()
        self.svi: SVI = self.objective.svi(pyro.optim.Adam({"lr": 1e-4}))
        self.at = 0

    def block(self, steps: int = BLOCK) -> float:
        """CPU seconds a step."""
        start = time.process_time()
        for _ in range(steps):
            rows = self.images[self.at : self.at + BATCH]
            self.at = (self.at + BATCH) % (len(self.images) - BATCH)
            self.objective.step(self.svi, rows, len(self.images), 2, 0)
        return (time.process_time() - start) / steps

    def beginning(self) -> float:
        """CPU seconds of what an epoch does once, with its first step."""
        self.objective.begin_epoch(2, 1, self.images)  # encodes, once for all epochs
        start = time.process_time()
        self.objective.begin_epoch(2, 1, self.images)
        return time.process_time() - start + self.block(1)


def distance_errors(vae: VAE, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative errors of training's distances from the prior's centre to draws of posteriors; of the draws, in sqrt t.

    The draws' are against the exponential map by 16 Runge-Kutta steps on the decoder.
    """
    decoder = PullbackMetric(vae.decoder.distance_immersion(), vae.latent_dim)
    metric = table_alone(vae.metric) if isinstance(vae.metric, GridMetric) else vae.metric
    accurate = GeodesicSolver(num_knots=16, num_segments=64, tolerance=1e-8, init="graph")
    with torch.no_grad():
        posterior: Any = vae.posterior(images)
        law = SecondOrderNormal(posterior.loc, posterior.time, vae.metric)
        torch.manual_seed(0)
        z = law.sample()
        torch.manual_seed(0)
        noise = torch.randn_like(z)
        factor = decoder.cholesky(posterior.loc).mT
        v = torch.linalg.solve_triangular(factor, noise.unsqueeze(-1), upper=True).squeeze(-1)
        decoder.flow_steps = 16
        exact = decoder.expmap(posterior.loc, posterior.time.sqrt().unsqueeze(-1) * v)
        gap = decoder.norm(posterior.loc, z - exact) / posterior.time.sqrt()
        loc = vae.prior.loc.expand_as(z)
        length = accurate.solve(decoder, loc, z).length
        return (metric.dist(loc, z) / length - 1).abs(), gap


def run() -> list[dict[str, Any]]:
    data = load_images("mnist", REDUCED, "cpu")
    rows: list[dict[str, Any]] = []
    for dim in (2, 5, 10):
        vaes = {name: build(name, data, dim, REDUCED, 0) for name in ("vae", "rvae")}
        phase_one(dim, data.train, vaes["rvae"])
        vaes["vae"].decoder.load_state_dict(vaes["rvae"].decoder.state_dict())
        with pyro.get_param_store().scope():
            plain, riemannian = (Stepper(vae, data.train) for vae in vaes.values())
            plain.block(3)
            first = riemannian.beginning()
            blocks = [(plain.block(), riemannian.block()) for _ in range(BLOCKS)]
        step, own = (statistics.median(block[k] for block in blocks) for k in range(2))
        errors, gaps = distance_errors(vaes["rvae"], data.test[:PAIRS])
        for images, limits in LIMITS.items():
            count = images // BATCH
            seconds = {"VAE": count * step, "R-VAE": count * own + max(0.0, first - own)}
            for name, value in seconds.items():
                row: dict[str, Any] = {
                    "benchmark": "phase_two",
                    "case": f"d = {dim}, {images:,} images",
                    "method": name,
                }
                row |= {"seconds": value, "floor_seconds": None, "ratio_to_floor": None}
                row |= {"plain_epochs": value / seconds["VAE"]}
                if name == "R-VAE":
                    row |= {"limit": limits[dim], "once_an_epoch_seconds": max(0.0, first - own)}
                    row |= {"median_distance_error": float(errors.median())}
                    row |= {"share_above_5_percent": float((errors > 0.05).float().mean())}
                    row |= {"median_draw_error": float(gaps.median())}
                rows.append(row)
    return rows


@pytest.mark.benchmark
def test_phase_two():
    for row in run():
        if row["method"] == "R-VAE":
            assert row["plain_epochs"] <= row["limit"], row["case"]
            assert row["share_above_5_percent"] <= MOST_OFF, row["case"]
