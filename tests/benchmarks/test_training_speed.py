"""Benchmark (c): an epoch of the R-VAE over an epoch of the plain VAE, on MNIST, one thread, CPU time.

Networks, batch size and two phases are those of K20, appendix C. Phase 1 is the same for both models; the epochs
compared are those of phase 2, in which the R-VAE solves for distances, and, as K20's table 6 does, the mean over
the schedule of one part phase 1 and two parts phase 2.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI

from pyro_riemann import PullbackMetric
from pyro_riemann.datasets import load_dataset
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.vae import VAE, FrozenPosteriorELBO, encode_all, make_vae, set_phase
from tests.benchmarks._decoder import mnist_vae
from tests.benchmarks._measure import matmul_rate

BATCH, EPOCH = 100, 60_000
CASES: list[tuple[int, str, str, dict[str, Any]]] = [
    (2, "wrapped_normal", "grid", {}),
    (2, "heat_kernel", "grid", {}),
    (2, "normal", "grid", {}),
    (10, "wrapped_normal", "fixed", {"flow_steps": 1}),
    (10, "heat_kernel", "fixed", {"posterior_steps": 1}),
    (10, "normal", "fixed", {}),
]
LIMIT = {2: 5.0, 10: 20.0}
# measured, not claimed: a draw takes the geodesic flow, four decoder jets a Runge-Kutta step
UNCLAIMED = {(10, "wrapped_normal")}


def model(dim: int, data: torch.Tensor, prior: str, posterior: str, metric: str, **settings: Any) -> tuple[VAE, float]:
    """A VAE with the trained weights, in phase 2, and the CPU time of what an epoch does besides its steps."""
    trained, _ = mnist_vae(dim)
    vae = make_vae(784, dim, prior, posterior, metric, seed=0, **settings)
    state, own = dict(trained.state_dict()), vae.state_dict()
    for part in ("weight", "bias"):  # one time in place of d scales
        key = f"encoder.spread.4.{part}"
        if state[key].shape != own[key].shape:
            state[key] = state[key].mean(0, keepdim=True)
    vae.load_state_dict({**own, **{key: value for key, value in state.items() if key in own}})
    set_phase(vae, 2)
    extra = 0.0
    if vae.needs_metric:
        codes = encode_all(vae, data)  # once: phase 2 leaves the encoder as it is
        start = time.process_time()
        vae.refresh_metric(codes)
        _ = vae.metric
        extra = time.process_time() - start
        vae.prior.initialize(vae.metric, codes)
    return vae.train(), extra


def epoch_seconds(vae: VAE, data: torch.Tensor, phase: int, steps: int, extra: float = 0.0) -> float:
    """CPU time of an epoch, from ``steps`` of its 600 steps and what it does once."""
    set_phase(vae, phase)
    with pyro.get_param_store().scope():
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-5}), FrozenPosteriorELBO())
        batches = data[: (steps + 2) * BATCH].split(BATCH)
        for x in batches[:2]:
            svi.step(x, size=EPOCH)
        start = time.process_time()
        for x in batches[2:]:
            svi.step(x, size=EPOCH)
        return (time.process_time() - start) / steps * EPOCH / BATCH + extra


def distance_errors(vae: VAE, held_out: torch.Tensor) -> torch.Tensor:
    """Relative errors of the distances of training, prior centre to draws of held-out posteriors.

    The judge shares nothing with them but the decoder: it measures on the decoder itself, not on a table of it, with
    accurate settings, from the better of the straight line and a shortest path on a graph.
    """
    vae.eval()
    decoder = PullbackMetric(vae.decoder, vae.latent_dim)
    accurate = GeodesicSolver(num_knots=16, num_segments=64, tolerance=1e-8, init="graph")
    with torch.no_grad():
        z, loc = vae.posterior(held_out).sample(), vae.prior.loc
        quick = vae.metric.dist(loc, z)
        exact = decoder.geodesic(loc.expand_as(z), z, **dataclasses.asdict(accurate)).length
    return (quick / exact - 1).abs()


def network_operations(vae: VAE) -> dict[str, float]:
    """Floating-point operations of one forward pass for one datum, or of one code through the reduced decoder."""

    def weights(module: torch.nn.Module) -> int:
        return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, torch.nn.Linear))

    encoder, mean = weights(vae.encoder), weights(vae.decoder.mean)
    precision = vae.decoder.std.log_weight.numel()
    reduced = weights(vae.decoder.distance_immersion().mean)
    return {"encoder": 2.0 * encoder, "mean": 2.0 * mean, "precision": 2.0 * precision, "reduced": 2.0 * reduced}


def run() -> list[dict[str, Any]]:
    data = load_dataset("mnist")
    rate, rows = matmul_rate(), []
    plain: dict[int, tuple[float, float]] = {}
    for dim in (2, 10):
        vae, _ = model(dim, data.train, "normal", "normal", "fixed")
        plain[dim] = (epoch_seconds(vae, data.train, 1, 60), epoch_seconds(vae, data.train, 2, 60))
        ops = network_operations(vae)
        # forward through everything; backward twice that, in phase 2 through the precision's weights alone
        first = 3 * (ops["encoder"] + ops["mean"])
        second = ops["encoder"] + ops["mean"] + 2 * ops["precision"]
        for phase, seconds, operations in ((1, plain[dim][0], first), (2, plain[dim][1], second)):
            floor = operations * EPOCH / rate
            rows.append(_row(f"d = {dim}", f"VAE, phase {phase}", seconds, floor))
    for dim, posterior, metric, settings in CASES:
        vae, extra = model(dim, data.train, "heat_kernel", posterior, metric, **settings)
        seconds = epoch_seconds(vae, data.train, 2, 20, extra)
        errors = distance_errors(vae, data.test[:BATCH])
        ops = network_operations(vae)
        evaluation = ops["reduced"] + ops["precision"]
        operations = (ops["encoder"] + ops["mean"] + 2 * ops["precision"]) * EPOCH
        if metric == "grid":  # the table: a value and d derivatives a node
            operations += int(vae.latent_metric.resolution) ** dim * (1 + dim) * evaluation
        else:  # three energies on 7 nodes, two of them with their gradient, and G half way and at the draw
            nodes = vae.metric.solver.num_segments + 1
            operations += EPOCH * evaluation * (7 * nodes + 2 * (1 + dim))
        mixed = (plain[dim][0] + 2 * seconds) / (plain[dim][0] + 2 * plain[dim][1])
        rows.append(
            _row(
                f"d = {dim}",
                f"R-VAE, {posterior} posterior, {metric} metric, phase 2",
                seconds,
                operations / rate,
                ratio_to_plain_phase_2=seconds / plain[dim][1],
                ratio_to_plain_phase_1=seconds / plain[dim][0],
                ratio_over_schedule=mixed,
                limit=None if (dim, posterior) in UNCLAIMED else LIMIT[dim],
                median_distance_error=float(errors.median()),
                share_above_1_percent=float((errors > 0.01).float().mean()),
            )
        )
    return rows


def _row(case: str, method: str, seconds: float, floor: float, **more: Any) -> dict[str, Any]:
    row = {"benchmark": "training_speed", "case": case, "method": method, "seconds": seconds, "floor_seconds": floor}
    return {**row, "ratio_to_floor": seconds / floor, **more}


@pytest.mark.benchmark
def test_training_speed():
    rows = [row for row in run() if "limit" in row]
    for row in rows:
        # phase 2 over phase 2; distances within 1 % of converged but for one in twenty
        assert row["limit"] is None or row["ratio_to_plain_phase_2"] <= row["limit"], row["method"]
        assert row["share_above_1_percent"] <= 0.05, row["method"]
