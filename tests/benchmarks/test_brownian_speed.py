"""Time of 1,000 Brownian samples of 100 steps at d = 2 on K20's decoder: 784 means, 784 standard deviations.

The weights are random, with basis functions fitted to random codes: the cost does not depend on them. The floor counts
the decoder's matrix products, value and two tangents a step, and what a method evaluates beyond these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric, brownian_motion
from pyro_riemann.vae import GaussianDecoder
from tests.benchmarks._measure import cpu_seconds, matmul_rate

SAMPLES, STEPS, TIME = 1000, 100, 1.0
MEASURED = 20  # every step costs the same: these many are timed, more often, and scaled to STEPS
# decoder evaluations a step: value and d tangents, then what the correction needs
EVALUATIONS = {"driftless": 3, "second_order": 4, "retraction": 5}


def decoder(dtype: torch.dtype) -> GaussianDecoder:
    torch.manual_seed(0)
    network = GaussianDecoder(latent_dim=2, data_dim=784)
    network.std.fit(torch.randn(2000, 2), residuals=0.02 + 0.05 * torch.rand(2000, 784))
    return network.requires_grad_(False).to(dtype)


def dense_layer_walk(network: GaussianDecoder, start: Tensor, num_steps: int) -> Tensor:
    """The driftless walk of K20 eq. 3.15 with one Jacobian matrix a layer and sample, multiplied in a batch."""
    z, scale = start, (TIME / STEPS) ** 0.5
    precision = network.std
    for _ in range(num_steps):
        hidden, jacobian = z, None
        for layer in network.mean:
            if isinstance(layer, torch.nn.Linear):
                weight = layer.weight.expand(SAMPLES, -1, -1)
                jacobian = weight if jacobian is None else weight @ jacobian
                hidden = layer(hidden)
            else:
                value = layer(hidden)
                jacobian = torch.where(hidden > 0, torch.ones_like(value), value + 1)[..., None] * jacobian
                hidden = value
        offset = z[:, None] - precision.centers
        rate = 0.5 / precision.bandwidth.square()
        basis = torch.exp(-rate * offset.square().sum(-1))
        slope = -2 * rate[:, None] * basis[..., None] * offset
        weight = precision.log_weight.exp()
        beta = basis @ weight.mT + precision.floor
        inner = weight.expand(SAMPLES, -1, -1) @ slope
        deviation = (1 / beta + precision.min_scale**2).sqrt()
        spread = (-0.5 / (beta.square() * deviation))[..., None] * inner
        tensor = jacobian.mT @ jacobian + spread.mT @ spread
        law = torch.distributions.MultivariateNormal(z, scale**2 * torch.linalg.inv(tensor))
        z = law.sample()
    return z


def reverse_mode_step(network: GaussianDecoder, start: Tensor) -> Tensor:
    """One driftless step with the Jacobian row by row, by a backward pass for each of the 1,568 outputs."""
    z = start.clone().requires_grad_()
    outputs = torch.cat(network(z), -1)
    rows = [torch.autograd.grad(outputs[:, index].sum(), z, retain_graph=True)[0] for index in range(outputs.shape[-1])]
    jacobian = torch.stack(rows, 1)
    factor = torch.linalg.cholesky(jacobian.mT @ jacobian)
    step = torch.linalg.solve_triangular(factor.mT, torch.randn_like(start)[..., None], upper=True)
    return start + (TIME / STEPS) ** 0.5 * step[..., 0]


def run(dtype: torch.dtype = torch.float32, repeats: int = 5) -> list[dict[str, Any]]:
    """Rows of the table; every method in the same run, rounds interleaved, best of ``repeats``."""
    network = decoder(dtype)
    metric = PullbackMetric(network, 2)
    start = 0.5 * torch.randn(SAMPLES, 2, dtype=dtype)
    few = start[:20]

    def walk(method: str) -> Callable[[], Tensor]:
        return lambda: brownian_motion(metric, start, TIME * MEASURED / STEPS, MEASURED, method)

    timed: dict[str, Callable[[], Any]] = {method: walk(method) for method in EVALUATIONS}
    timed["peer: driftless, dense layer Jacobians (stochman's way)"] = lambda: dense_layer_walk(
        network, start, MEASURED
    )
    generic = PullbackMetric(lambda z: network(z), 2)
    timed["driftless, generic forward mode"] = lambda: brownian_motion(
        generic, start, TIME * MEASURED / STEPS, MEASURED, "driftless"
    )
    seconds = dict.fromkeys(timed, float("inf"))
    rate = matmul_rate(dtype)
    with torch.no_grad():
        brownian_motion(metric, start, TIME, 2)  # warm up
        for _ in range(repeats):
            for name, function in timed.items():
                seconds[name] = min(seconds[name], cpu_seconds(function, repeats=1) * STEPS / MEASURED)
            rate = max(rate, matmul_rate(dtype))
    name = f"peer: driftless, reverse mode (from {len(few)} samples, 1 step)"
    seconds[name] = cpu_seconds(lambda: reverse_mode_step(network, few), 1) * STEPS * SAMPLES / len(few)

    sizes = [layer.weight.numel() for layer in network.mean if isinstance(layer, torch.nn.Linear)]
    products = sum(sizes) + network.std.log_weight.numel() + network.std.centers.numel()
    rows = []
    for name, value in seconds.items():
        floor = 2 * products * EVALUATIONS.get(name, 3) * SAMPLES * STEPS / rate
        rows.append(
            {
                "benchmark": "(b) 1,000 Brownian samples of 100 steps, d = 2, 784 + 784 outputs",
                "case": str(dtype).removeprefix("torch."),
                "method": name,
                "seconds": value,
                "floor_seconds": floor,
                "ratio_to_floor": value / floor,
                "ratio_to_driftless": value / seconds["driftless"],
                "GFLOP/s": rate / 1e9,
            }
        )
    return rows


@pytest.mark.benchmark
def test_cost_of_the_drift_and_of_a_step() -> None:
    torch.set_num_threads(1)
    rows = {row["method"]: row for row in run()}
    assert rows["driftless"]["ratio_to_floor"] < 3
    assert rows["second_order"]["ratio_to_driftless"] < 1.6
