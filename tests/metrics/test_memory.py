"""Many points in pieces give what all points at once give, and hold no more than they may."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import KernelMetric, PullbackMetric, RiemannianMetric, brownian_motion
from pyro_riemann._memory import in_pieces
from pyro_riemann.geodesics import GeodesicSolver

DIM, ROUGH = 3, GeodesicSolver(3, 6, max_iterations=8, max_polish=3, on_failure="ignore")
POINTS = torch.randn(3, 7, 9, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Work = Callable[[RiemannianMetric, Tensor], Tensor]


class Waves(RiemannianMetric):
    """A metric of one's own."""

    dim = DIM

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed(1.5 + torch.sin(z.flip(-1)))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(DIM, 20), nn.Tanh(), nn.Linear(20, 30)).double()


class Counts(nn.Module):
    """A decoder to counts, whose metric is Fisher's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, z: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Poisson(self.body(z).exp())


def kernel(full: bool = False) -> KernelMetric:
    generator = torch.Generator().manual_seed(1)
    centroids = torch.randn(40, DIM, generator=generator, dtype=torch.float64)
    scales = 0.5 + torch.rand(40, DIM, generator=generator, dtype=torch.float64)
    return KernelMetric(centroids, torch.diag_embed(scales) if full else scales, 2.0, 0.1)


METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "own": Waves,
    "layers": lambda: PullbackMetric(network(), DIM),
    "closure": lambda: PullbackMetric(network().forward, DIM),
    "fisher": lambda: PullbackMetric(Counts(), DIM),
    "kernel": kernel,
    "full kernel": lambda: kernel(full=True),
    "conformal": lambda: kernel().conformal(),
}
WORKS: dict[str, Work] = {
    "metric": lambda m, z: m.metric(z),
    "logdet": lambda m, z: m.logdet(z),
    "norm": lambda m, z: m.norm(z, POINTS[1]),
    "inner, by name": lambda m, z: m.inner(z, v=POINTS[1], u=POINTS[2]),
    "one point, many vectors": lambda m, z: m.norm(z[0, 0], POINTS[1]),
    "logdet_gradient": lambda m, z: m.logdet_gradient(z),
    "metric_jacobian": lambda m, z: m.metric_jacobian(z)[1],
    "metric_derivatives": lambda m, z: m.metric_derivatives(z, POINTS[1])[2],
    "speed_hessian": lambda m, z: m.speed_hessian(z, POINTS[1]),
    "christoffel": lambda m, z: m.christoffel(z, POINTS[1]),
    "drift": lambda m, z: m.drift(z),
    "walk": lambda m, z: brownian_motion(m, z, 1e-4, noise=0.3 * POINTS),
    "squared_dist": lambda m, z: m.squared_dist(z[0, :3], POINTS[1, 0, :3]),
    "logmap": lambda m, z: m.logmap(z[0, :3], POINTS[1, 0, :3]),
    "log_van_vleck": lambda m, z: m.log_van_vleck(z[0, :3], POINTS[1, 0, :3]),
}


@pytest.mark.parametrize("name", METRICS)
def test_pieces_give_what_all_points_give(name: str) -> None:
    metric = METRICS[name]()
    metric.solver = ROUGH
    weights = [parameter for parameter in metric.parameters() if parameter.requires_grad]
    for work in WORKS:
        if name == "fisher" and work == "log_van_vleck":  # as the others, and slow
            continue
        z = POINTS[0].clone().requires_grad_()
        found = []
        for memory in (2**30, 8 * 40 * metric.footprint(0)):  # 63 points in two pieces, 3 curves in as many
            metric.max_memory = memory
            value = WORKS[work](metric, z)
            slopes = torch.autograd.grad(value.sin().sum(), [z, *weights], allow_unused=True)
            with torch.no_grad():
                torch.testing.assert_close(WORKS[work](metric, z), value, rtol=1e-12, atol=1e-12)
            found.append((value, slopes))
        (whole, whole_slopes), (parts, part_slopes) = found
        torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)
        for part, slope in zip(part_slopes, whole_slopes, strict=True):
            assert (part is None) == (slope is None)
            if slope is not None:
                torch.testing.assert_close(part, slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max()) + 1e-9)


def test_no_piece_is_larger_than_it_may_be() -> None:
    seen: list[int] = []

    def immersion(z: Tensor) -> Tensor:
        seen.append(len(z))
        return torch.cat([z, z.sin()], -1)

    metric = PullbackMetric(immersion, DIM)
    metric.max_memory = 10 * metric.footprint(0) * 8
    seen.clear()
    metric.metric(POINTS[0])
    assert max(seen) == 10
    assert sum(seen) >= 63
    seen.clear()
    metric.christoffel(POINTS[0, 0, :1].expand(7, 1, DIM), POINTS[1, :1])  # 7 x 9 pairs, 9 points in no argument
    assert 0 < max(seen) <= 10
    seen.clear()
    metric.norm(POINTS[0, 0, 0], POINTS[1])  # many vectors at one point take one evaluation
    assert sum(seen) <= DIM + 1


def test_a_footprint_holds_all_layers() -> None:
    metric = PullbackMetric(network(), DIM)
    assert metric.footprint(0) >= (20 + 30) * (DIM + 1)  # values and slopes of both layers
    assert metric.footprint(-1) < metric.footprint(0) < metric.footprint(1)


def test_what_a_graph_keeps_of_pieces_are_their_points() -> None:
    z, kept = torch.randn(100, 2, requires_grad=True), []

    def pack(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    def wide(rows: slice) -> Tensor:
        return (z[rows] @ torch.ones(2, 500)).sin().sum(-1)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        value = in_pieces(wide, 100, 30)
    assert sum(kept) < 1000
    (slope,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(slope, (500 * z.sum(-1, keepdim=True).cos()).expand(-1, 2))


def test_a_reverse_pass_within_a_piece() -> None:
    z = torch.randn(10, 2, requires_grad=True)

    def pulled(rows: slice) -> Tensor:
        value, pull = torch.func.vjp(torch.sin, z[rows])[:2]
        return pull(torch.ones_like(value))[0]

    torch.testing.assert_close(in_pieces(pulled, 10, 3), z.cos())
