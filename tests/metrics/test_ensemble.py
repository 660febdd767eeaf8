"""The expected metric of several decoders: the stacked immersion, its limit, its laws, and the spread of distances."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, distributions, nn

from pyro_riemann import (
    ConstantMetric,
    EnsembleMetric,
    KernelMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    brownian_motion,
)

F64 = torch.float64
Z = torch.tensor([[0.3, -0.4], [-1.1, 0.2], [0.8, 0.9]], dtype=F64)
Y = torch.tensor([[-0.9, 0.5], [0.7, -0.6], [-0.4, 0.1]], dtype=F64)


def network(seed: int, outputs: int = 6) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, outputs)).double().requires_grad_(False)


MEMBERS = [PullbackMetric(network(seed), 2, jitter=1e-3) for seed in range(4)]
SURFACE = EnsembleMetric(MEMBERS)
MIXED = EnsembleMetric(
    [
        MEMBERS[0],
        KernelMetric(Z, torch.ones_like(Z), 1.5, 0.5),
        PullbackMetric(lambda z: distributions.Normal(network(1)(z), network(2)(z).exp()), 2),
    ]
)


def mean(name: str, metric: EnsembleMetric, *points: Tensor) -> Tensor:
    return torch.stack([getattr(member, name)(*points) for member in metric.members]).mean(0)


@pytest.mark.parametrize("metric", [SURFACE, MIXED], ids=["surfaces", "mixed"])
def test_the_mean_of_its_members(metric: EnsembleMetric) -> None:
    torch.testing.assert_close(metric.metric(Z), mean("metric", metric, Z))
    torch.testing.assert_close(metric.inner(Z, Y, Y + Z), torch.einsum("ni,nij,nj->n", Y, metric.metric(Z), Y + Z))

    class Plain(RiemannianMetric):
        """Nothing but its tensor."""

        dim = 2

        def metric(self, z: Tensor) -> Tensor:
            return mean("metric", metric, z)

    plain = Plain()
    for name, points in (("christoffel", (Z, Y)), ("drift", (Z,)), ("speed_hessian", (Z, Y)), ("logdet", (Z,))):
        torch.testing.assert_close(getattr(metric, name)(*points), getattr(plain, name)(*points), rtol=1e-6, atol=1e-8)
    if metric is MIXED:
        return  # curves through derivatives of derivatives of all kinds are slow
    torch.testing.assert_close(metric.dist(Z[:1], Y[:1]), plain.dist(Z[:1], Y[:1]), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(metric.scalar_curvature(Z[0]), plain.scalar_curvature(Z[0]), rtol=1e-5, atol=1e-6)


def test_the_stacked_immersion() -> None:
    def stacked(z: Tensor) -> Tensor:
        return torch.cat([member.embed(z) for member in MEMBERS], -1) / 2

    one = PullbackMetric(stacked, 2, jitter=0.0)
    assert SURFACE.immersed() is SURFACE
    torch.testing.assert_close(SURFACE.embed(Z), stacked(Z))
    torch.testing.assert_close(SURFACE.metric(Z), one.metric(Z))
    torch.testing.assert_close(SURFACE.dist(Z, Y), one.dist(Z, Y), rtol=1e-9, atol=0.0)
    assert MIXED.immersed() is None
    with pytest.raises(ValueError, match="no surface"):
        MIXED.embed(Z)


def test_energies_have_a_limit() -> None:
    """That of one member a node grows with the square of their number instead."""
    lines = [(Z[0] + torch.linspace(0, 1, count + 1, dtype=F64)[:, None] * (Y[0] - Z[0])) for count in (32, 128, 512)]
    expected = [(len(line) - 1) * SURFACE.embed(line).diff(dim=0).square().sum() for line in lines]
    torch.testing.assert_close(expected[1], expected[2], rtol=1e-4, atol=0.0)
    velocity = (Y[0] - Z[0]).expand_as(lines[-1])
    torch.testing.assert_close(SURFACE.inner(lines[-1], velocity, velocity).mean(), expected[-1], rtol=5e-3, atol=0.0)
    drawn = []
    for line in lines:
        chosen = torch.arange(len(line)) % len(MEMBERS)
        images = torch.stack([MEMBERS[k].embed(point) for k, point in zip(chosen.tolist(), line, strict=True)])
        drawn.append((len(line) - 1) * images.diff(dim=0).square().sum())
    assert drawn[1] > 12 * drawn[0]
    assert drawn[2] > 12 * drawn[1]


def test_samples_of_a_distance() -> None:
    samples = SURFACE.dist_samples(Z, Y)
    assert samples.shape == (4, 3)
    for row, member in zip(samples, MEMBERS, strict=True):
        torch.testing.assert_close(row, member.dist(Z, Y))
    # a curve is at least as long, in the root of the mean square, as the members' shortest ones
    assert bool((SURFACE.squared_dist(Z, Y) >= samples.square().mean(0)).all())


def test_every_law_on_it() -> None:
    constant = EnsembleMetric([ConstantMetric(s * torch.eye(2, dtype=F64)) for s in (1.0, 3.0)])
    expected = distributions.MultivariateNormal(Z[0], 0.3 / 2 * torch.eye(2, dtype=F64)).log_prob(Y)
    time = torch.tensor(0.3, dtype=F64)
    for law in (
        RiemannianHeatKernel(Z[0], time, constant),
        RiemannianWrappedNormal(Z[0], time, constant),
        RiemannianNormal(Z[0], time.sqrt(), constant),
    ):
        torch.testing.assert_close(law.log_prob(Y), expected, rtol=1e-5, atol=1e-5)
        assert law.sample((5,)).shape == (5, 2)
    box = RiemannianUniform(SURFACE, -1.0, 1.0)
    density = 0.5 * SURFACE.logdet(0.5 * Z)
    torch.testing.assert_close(box.log_prob(0.5 * Z).diff(), density.diff())
    assert brownian_motion(SURFACE, Z, 0.1, num_steps=4).shape == Z.shape
    assert brownian_motion(MIXED, Z, 0.1, num_steps=4).shape == Z.shape
    table = SURFACE.tabulate(-1.5, 1.5, 24)
    torch.testing.assert_close(table.metric(0.8 * Z), SURFACE.metric(0.8 * Z), rtol=1e-2, atol=1e-3)


def test_weights_floors_and_errors() -> None:
    assert len(SURFACE) == 4
    copied = copy.deepcopy(SURFACE)
    copied.load_state_dict(SURFACE.state_dict())
    assert len(list(SURFACE.parameters())) == 4 * 4
    floor = SURFACE.on_floor(torch.cat([Z, 1e3 * Z]))
    assert floor is not None
    assert floor.tolist() == [False] * 3 + [True] * 3
    with pytest.raises(ValueError, match="empty"):
        EnsembleMetric([])
    with pytest.raises(ValueError, match=r"one dimension, got \[2, 3\]"):
        EnsembleMetric([MEMBERS[0], ConstantMetric(torch.eye(3))])
