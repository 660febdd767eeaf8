"""The Fisher metric of decoders that return distributions, against expectations of the score and closed distances."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.distributions import GammaPoisson, ZeroInflatedNegativeBinomial
from torch import Tensor, distributions, nn
from torch.distributions import Independent
from torch.func import jacfwd

from pyro_riemann import GeodesicSolver, Hyperbolic, PullbackMetric, Sphere, register_immersion

F64 = torch.float64
COUNTS = torch.arange(400.0, dtype=F64), torch.ones((), dtype=F64)


def line(
    low: float, high: float, warp: Callable[[Tensor], Tensor] = lambda t: t, count: int = 6000
) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the trapezoidal rule, in another variable."""
    t = torch.linspace(low, high, count + 1, dtype=F64)
    weights = torch.func.vmap(torch.func.grad(warp))(t) * (high - low) / count
    weights[0], weights[-1] = weights[0] / 2, weights[-1] / 2
    return warp(t), weights


REAL, POSITIVE = line(-40.0, 40.0), line(-40.0, 8.0, torch.exp)
HEAVY, CIRCLE = line(-12.0, 12.0, torch.sinh), line(-math.pi, math.pi)
FRACTION = line(-30.0, 30.0, torch.sigmoid)


def network(outputs: int, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


A, B = network(4), network(4, seed=1)
Z = torch.tensor([[0.3, -0.4], [-1.1, 0.2], [0.8, 0.9]], dtype=F64)
LAWS: dict[str, tuple[Callable[[Tensor], Any], tuple[Tensor, Tensor]]] = {
    "Bernoulli": (lambda z: distributions.Bernoulli(logits=A(z)), (COUNTS[0][:2], COUNTS[1])),
    "Bernoulli, probs": (lambda z: distributions.Bernoulli(A(z).sigmoid()), (COUNTS[0][:2], COUNTS[1])),
    "categorical": (lambda z: distributions.Categorical(logits=A(z)), (COUNTS[0][:4], COUNTS[1])),
    "one-hot": (lambda z: distributions.OneHotCategorical(A(z).softmax(-1)), (torch.eye(4, dtype=F64), COUNTS[1])),
    "Poisson": (lambda z: distributions.Poisson(A(z).exp()), COUNTS),
    "negative binomial": (lambda z: distributions.NegativeBinomial(2.5, logits=A(z)), COUNTS),
    "negative binomial, probs": (lambda z: distributions.NegativeBinomial(2.5, A(z).sigmoid()), COUNTS),
    "gamma-Poisson": (lambda z: GammaPoisson(2.5, A(z).exp()), COUNTS),
    "normal": (lambda z: distributions.Normal(A(z), 0.7), REAL),
    "log-normal": (lambda z: distributions.LogNormal(A(z), 0.7), POSITIVE),
    "Laplace": (lambda z: distributions.Laplace(A(z), 0.7), line(-20.0, 20.0, count=100_000)),
    "Student": (lambda z: distributions.StudentT(3.0, A(z), 0.7), HEAVY),
    "exponential": (lambda z: distributions.Exponential(A(z).exp()), POSITIVE),
    "gamma": (lambda z: distributions.Gamma(2.5, A(z).exp()), POSITIVE),
    "von Mises": (lambda z: distributions.VonMises(A(z), torch.tensor(1.7, dtype=F64)), CIRCLE),
    "zero-inflated counts": (
        lambda z: ZeroInflatedNegativeBinomial(2.5, logits=A(z), gate_logits=B(z), validate_args=False),
        COUNTS,
    ),
    "zero-inflated counts, probs": (
        lambda z: ZeroInflatedNegativeBinomial(2.5, probs=A(z).sigmoid(), gate=B(z).sigmoid(), validate_args=False),
        COUNTS,
    ),
    "own scale": (lambda z: distributions.Normal(A(z), B(z).exp()), REAL),
    "own scale, log-normal": (lambda z: distributions.LogNormal(A(z), B(z).exp()), line(-40.0, 40.0, torch.exp)),
    "own shape": (lambda z: distributions.Gamma(A(z).exp(), B(z).exp()), line(-60.0, 8.0, torch.exp)),
    "beta": (lambda z: distributions.Beta(1 + A(z).exp(), 1 + B(z).exp()), FRACTION),
    "geometric": (lambda z: distributions.Geometric(logits=A(z)), COUNTS),
    "Gumbel": (lambda z: distributions.Gumbel(A(z), B(z).exp()), line(-12.0, 90.0)),
}


def by_scores(law: Callable[[Tensor], Any], z: Tensor, rule: tuple[Tensor, Tensor]) -> Tensor:
    """E[score score^T] in z, summed over independent entries, ``(d, d)``."""
    values, weights = rule

    def log_prob(z: Tensor) -> Tensor:
        at = law(z.unsqueeze(0))
        nodes = values.reshape(len(values), *(1,) * len(at.batch_shape), *values.shape[1:])
        result: Tensor = at.log_prob(nodes).reshape(len(values), -1)
        return result

    mass = log_prob(z).exp() * weights.expand(len(values))[:, None]
    torch.testing.assert_close(mass.sum(0), torch.ones_like(mass[0]), rtol=1e-7, atol=1e-7)
    score = jacfwd(log_prob)(z)
    return torch.einsum("qa,qai,qaj->ij", mass, score, score)


@pytest.mark.parametrize("name", LAWS)
def test_expectation_of_the_score(name: str) -> None:
    law, rule = LAWS[name]
    metric = PullbackMetric(law, 2, jitter=0.0)
    for z, found in zip(Z, metric.metric(Z), strict=True):
        torch.testing.assert_close(found, by_scores(law, z, rule), rtol=1e-5, atol=1e-7)


def test_products_and_correlated_normals() -> None:
    parts = [LAWS[name][0] for name in ("Poisson", "own scale", "beta")]
    sum_of_parts = sum(PullbackMetric(part, 2, jitter=0.0).metric(Z) for part in parts)
    for product in (
        lambda z: tuple(part(z) for part in parts),
        lambda z: {str(index): Independent(part(z), 1) for index, part in enumerate(parts)},
    ):
        torch.testing.assert_close(PullbackMetric(product, 2, jitter=0.0).metric(Z), sum_of_parts)
    root = torch.eye(4, dtype=F64) + 0.3 * torch.ones(4, 4, dtype=F64).tril()
    metric = PullbackMetric(lambda z: distributions.MultivariateNormal(A(z), scale_tril=root), 2, jitter=0.0)
    jacobian = torch.func.vmap(jacfwd(A))(Z)
    torch.testing.assert_close(metric.metric(Z), jacobian.mT @ torch.cholesky_solve(jacobian, root))


Y = torch.tensor([[-0.9, 0.5], [0.7, -0.6], [-0.4, 0.1]], dtype=F64)
CLOSED: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any, Any], Tensor]]] = {
    "normal, hyperbolic": (
        lambda z: distributions.Normal(2 * z[:, :1], z[:, 1:].exp()),
        lambda p, q: (
            2**0.5 * (1 + ((p.loc - q.loc) ** 2 / 2 + (p.scale - q.scale) ** 2) / (2 * p.scale * q.scale)).acosh()
        ),
    ),
    "categorical, spherical": (
        lambda z: distributions.Categorical(logits=torch.nn.functional.pad(z, (0, 1))),
        lambda p, q: 2 * (p.probs * q.probs).sqrt().sum(-1, keepdim=True).acos(),
    ),
    "Poisson": (lambda z: distributions.Poisson(z.exp()), lambda p, q: 2 * (p.rate.sqrt() - q.rate.sqrt())),
    "Bernoulli": (
        lambda z: distributions.Bernoulli(logits=z),
        lambda p, q: 2 * (p.probs.sqrt().asin() - q.probs.sqrt().asin()),
    ),
    "negative binomial": (
        lambda z: distributions.NegativeBinomial(3.0, logits=z),
        lambda p, q: 2 * 3**0.5 * ((p.mean / 3).sqrt().asinh() - (q.mean / 3).sqrt().asinh()),
    ),
    "exponential": (lambda z: distributions.Exponential((3 * z).exp()), lambda p, q: (p.rate / q.rate).log()),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_fisher_rao_distances(name: str) -> None:
    law, distance = CLOSED[name]
    metric = PullbackMetric(law, 2, jitter=0.0)
    expected = distance(law(Z), law(Y)).norm(dim=-1)
    torch.testing.assert_close(metric.dist(Z, Y), expected, rtol=1e-5, atol=0.0)
    curve = metric.geodesic(Z, Y, init="line")
    assert bool(curve.converged.all())
    torch.testing.assert_close(curve.length, expected, rtol=1e-5, atol=0.0)
    velocity = metric.logmap(Z, Y)
    torch.testing.assert_close(metric.norm(Z, velocity), expected, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(metric.expmap(Z, velocity), Y, rtol=1e-3, atol=1e-3)


def test_zero_inflated_counts_without_added_zeros_are_negative_binomial() -> None:
    def counts(z: Tensor) -> Any:
        return distributions.NegativeBinomial(3.0, logits=A(z))

    def inflated(z: Tensor) -> Any:
        return ZeroInflatedNegativeBinomial(3.0, logits=A(z), gate_logits=-25 + 0 * z[:, :1], validate_args=False)

    few, none = PullbackMetric(inflated, 2), PullbackMetric(counts, 2)
    torch.testing.assert_close(few.metric(Z), none.metric(Z), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(few.dist(Z, Y), none.dist(Z, Y), rtol=1e-4, atol=0.0)
    moving = PullbackMetric(LAWS["zero-inflated counts"][0], 2)
    curve = moving.geodesic(Z, Y, init="line")
    assert bool(curve.converged.all())
    ends = moving.expmap(Z, moving.logmap(Z, Y))  # by another route, Runge-Kutta steps
    torch.testing.assert_close(ends, Y, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="Fisher metric is not known"):
        PullbackMetric(
            lambda z: ZeroInflatedNegativeBinomial(A(z).exp(), logits=A(z), gate_logits=B(z), validate_args=False), 2
        )


def test_divergences_stand_for_distances() -> None:
    """A gamma law of which one parameter is used is an exponential one, in a family known by its divergence alone."""
    metric = PullbackMetric(lambda z: distributions.Gamma(1 + 1e-3 * z, z.exp()), 2, jitter=0.0)
    metric.solver = GeodesicSolver()
    assert metric.immersed() is None
    assert metric.energy(metric.solver).value(torch.zeros(1, 11, 2, dtype=F64)) == 0
    start = Z[0].clone().requires_grad_()
    distance = metric.dist(start, Y[0])
    torch.testing.assert_close(distance, (Z[0] - Y[0]).norm(), rtol=3e-3, atol=0.0)
    (gradient,) = torch.autograd.grad(distance, start)
    torch.testing.assert_close(gradient @ torch.linalg.solve(metric.metric(Z[0]), gradient), torch.ones((), dtype=F64))


def test_ambient_metrics() -> None:
    """Through a chart of the sphere the metric is that of the sphere, and so are its distances; so of the ball."""

    def bend(z: Tensor) -> Tensor:
        return torch.stack([0.3 * z[:, 0], 0.3 * z[:, 1] + 0.1 * z[:, 0].sin()], -1)

    for space in (Sphere(2), Hyperbolic(2)):
        metric = PullbackMetric(bend, 2, jitter=0.0, ambient=space)
        jacobian = torch.func.vmap(jacfwd(lambda z: bend(z[None])[0]))(Z)
        torch.testing.assert_close(metric.metric(Z), jacobian.mT @ space.double().metric(bend(Z)) @ jacobian)
        torch.testing.assert_close(metric.dist(Z, Y), space.dist(bend(Z), bend(Y)), rtol=1e-5, atol=0.0)
    with pytest.raises(ValueError, match="4 outputs for an ambient metric of dimension 2"):
        PullbackMetric(A, 2, ambient=Sphere(2))
    with pytest.raises(ValueError, match="`ambient` must be"):
        PullbackMetric(A, 2, ambient="normal")
    with pytest.raises(ValueError, match="leave out `ambient`"):
        PullbackMetric(LAWS["normal"][0], 2, ambient=Sphere(4))


def test_a_pair_of_tensors_as_normals() -> None:
    own = PullbackMetric(LAWS["own scale"][0], 2)
    pair = PullbackMetric(lambda z: (A(z), B(z).exp()), 2, ambient="fisher")
    torch.testing.assert_close(pair.metric(Z), own.metric(Z))
    assert PullbackMetric(lambda z: (A(z), B(z).exp()), 2).immersed() is not None  # of Kalatzis et al.
    fixed = PullbackMetric(LAWS["normal"][0], 2)
    assert fixed.immersed() is fixed
    torch.testing.assert_close(PullbackMetric(LAWS["normal"][0], 2, ambient="fisher").metric(Z), fixed.metric(Z))
    with pytest.raises(ValueError, match=r"`scale` is -.*log-variance"):
        PullbackMetric(lambda z: (A(z), B(z) - 3), 2, ambient="fisher")


def test_what_is_fixed_is_checked() -> None:
    def late(z: Tensor) -> distributions.Normal:
        return distributions.Normal(A(z), 1 + (z[:, :1] - 1).relu().square())

    metric, far = PullbackMetric(late, 2), torch.tensor([3.0, 0.0], dtype=F64)
    assert metric.dist(Z[0], Z[1]) > 0
    for use in (lambda: metric.metric(far), lambda: metric.dist(Z[0], far)):
        with pytest.raises(ValueError, match=r'`scale` is the same.*ambient="fisher"'):
            use()
    assert PullbackMetric(late, 2, ambient="fisher").dist(Z[0], far) > 0
    with pytest.raises(ValueError, match=r"`total_count` depends on z.*register_immersion"):
        PullbackMetric(lambda z: distributions.NegativeBinomial(A(z).exp(), logits=B(z)), 2)


def test_kinks_of_a_divergence_are_refused() -> None:
    """The divergence of Laplace laws has its second derivative where torch's is 0."""
    with pytest.raises(ValueError, match=r"not smooth.*register_immersion"):
        PullbackMetric(lambda z: distributions.Laplace(A(z), B(z).exp()), 2)


@pytest.mark.parametrize(
    "law",
    [
        lambda z: distributions.Bernoulli(z.clamp(0, 1)),
        lambda z: distributions.Bernoulli(logits=20 * z),
        lambda z: distributions.Poisson(z.relu()),
        lambda z: distributions.Categorical(z.clamp(0, 1) + torch.tensor([0.0, 0.1])),
        lambda z: distributions.NegativeBinomial(2.0, z.clamp(0, 0.9)),
        lambda z: distributions.NegativeBinomial(2.0, logits=20 * z),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_edges_of_families(law: Any, dtype: torch.dtype) -> None:
    metric = PullbackMetric(lambda z: law(z.to(dtype)), 2)
    z = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [2e4, -2e4], [1e-12, 1.0]], dtype=dtype)
    assert bool(metric.metric(z).isfinite().all())
    assert bool(metric.christoffel(z, torch.ones_like(z)).isfinite().all())
    assert bool(torch.func.grad(lambda z: metric.embed(z).square().sum())(z).isfinite().all())


def test_registered_immersions() -> None:
    class Scaled(distributions.HalfNormal):
        pass

    def law(z: Tensor) -> Scaled:
        return Scaled(A(z).exp())

    metric = PullbackMetric(law, 2, jitter=0.0)  # by its divergence
    assert metric.immersed() is None
    register_immersion(Scaled, lambda law: 2**0.5 * law.scale.log())
    known = PullbackMetric(law, 2, jitter=0.0)
    assert known.immersed() is known
    torch.testing.assert_close(known.metric(Z), metric.metric(Z))
    for wrong in (lambda: register_immersion(Tensor, lambda x: x), lambda: register_immersion(Scaled, 3)):  # type: ignore[type-var, arg-type]
        with pytest.raises(TypeError, match=r"`(family|immersion)` must be"):
            wrong()


class Decoder(nn.Module):
    """A module, with a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(8)

    def forward(self, z: Tensor) -> distributions.Distribution:
        loc, raw = self.body(z).chunk(2, -1)
        return Independent(distributions.Normal(loc, raw.exp()), 1)


def test_copies_weights_and_precision() -> None:
    metric = PullbackMetric(Decoder(), 2)
    expected, distance = metric.metric(Z), metric.dist(Z, Y).detach()
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        torch.testing.assert_close(twin.metric(Z), expected)
    (gradient,) = torch.autograd.grad(metric.dist(Z, Y).sum(), metric.immersion.body[0].bias)  # type: ignore[union-attr, index, operator]
    step = 1e-5 * gradient / gradient.norm()
    ends = []
    for sign in (1, -1):
        other = copy.deepcopy(metric)
        with torch.no_grad():
            other.immersion.body[0].bias += sign * step  # type: ignore[union-attr, index, operator]
            ends.append(other.dist(Z, Y).sum())
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, gradient.norm(), rtol=1e-4, atol=0.0)
    torch.testing.assert_close(metric.float().dist(Z.float(), Y.float()), distance.float(), rtol=1e-3, atol=0.0)
