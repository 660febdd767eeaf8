"""What any Pyro distribution owes its user, for all four laws on three metrics in two precisions."""

from __future__ import annotations

import copy
import pickle
from functools import lru_cache

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import (
    GeodesicSolver,
    KernelMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
)
from pyro_riemann.distributions._base import RiemannianDistribution
from tests.charts import warped_sphere

LAWS = ("heat kernel", "wrapped normal", "normal", "uniform")
METRICS = ("sphere", "kernel", "decoder")
#: Both precisions of one metric, one of each other; the rest with `-m slow`.
CASES = [
    ("sphere", torch.float32),
    ("sphere", torch.float64),
    ("kernel", torch.float64),
    ("decoder", torch.float32),
    pytest.param(("kernel", torch.float32), marks=pytest.mark.slow),
    pytest.param(("decoder", torch.float64), marks=pytest.mark.slow),
]
TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-8}
LOC, TIME, REACH = (0.2, -0.1), 0.02, 0.4


def decoder() -> nn.Sequential:
    """A small smooth decoder with fixed weights."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))
    for parameter in layers.parameters():
        parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator)
    return layers.requires_grad_(False)


#: Coarse: these tests are of what a law does with distances, not of how good they are.
SOLVER = GeodesicSolver(num_knots=3, num_segments=12, max_polish=0, on_failure="ignore")


@lru_cache
def metric_of(name: str, dtype: torch.dtype) -> RiemannianMetric:
    metric = _metric_of(name, dtype)
    metric.solver = SOLVER
    return metric


def _metric_of(name: str, dtype: torch.dtype) -> RiemannianMetric:
    if name == "sphere":
        return warped_sphere(2).to(dtype)
    if name == "decoder":
        return PullbackMetric(decoder().to(dtype), 2)
    centroids, precisions = torch.tensor([[0.0, 0.0], [1.0, 0.5]]), torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    return KernelMetric(centroids.to(dtype), precisions.to(dtype), 2.0, 0.5)


def build(law: str, metric: RiemannianMetric, loc: Tensor, time: Tensor, **settings: object) -> RiemannianDistribution:
    """A law centred at ``loc (*batch, d)``, of variance ``time (*batch)`` or on a box about it."""
    if law == "heat kernel":
        return RiemannianHeatKernel(loc, time, metric, num_steps=4, **settings)
    if law == "wrapped normal":
        return RiemannianWrappedNormal(loc, time, metric, **settings)
    if law == "normal":
        return RiemannianNormal(loc, time.sqrt(), metric, num_directions=16, **settings)
    return RiemannianUniform(metric, loc - REACH, loc + REACH, **settings)


@lru_cache
def single(law: str, metric: str, dtype: torch.dtype) -> RiemannianDistribution:
    return build(law, metric_of(metric, dtype), torch.tensor(LOC, dtype=dtype), torch.tensor(TIME, dtype=dtype))


def points(dtype: torch.dtype) -> Tensor:
    offsets = torch.tensor([[0.0, 0.0], [0.1, 0.05], [-0.15, 0.2]], dtype=dtype)
    return torch.tensor(LOC, dtype=dtype) + offsets


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=CASES, ids="{0[0]}-{0[1]}".format)
def case(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    """A metric and a precision."""
    return request.param


@pytest.fixture(params=LAWS)
def law(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> str:
    return request.param


# -------------------------------------------------------------------- shapes


def test_shapes_dtype_and_support(law, case):
    metric, dtype = case
    d = single(law, metric, dtype)
    assert (d.batch_shape, d.event_shape) == ((), (2,))
    draws = d.sample((3, 2))
    assert draws.shape == (3, 2, 2)
    assert draws.dtype == dtype
    assert not draws.requires_grad
    assert d.support.event_dim == 1
    assert not d.support.is_discrete
    assert d.support.check(draws).shape == (3, 2)
    assert d.support.check(draws).all()
    assert d.sample((0, 2)).shape == (0, 2, 2)
    assert d.log_prob(draws[:0]).shape == (0, 2)
    value = d.log_prob(points(dtype))
    assert value.shape == (3,)
    assert value.dtype == dtype
    assert torch.isfinite(value).all()


def test_batch_is_one_by_one(law, case):
    """A batch of parameters and values gives what each pair gives alone."""
    metric, dtype = case
    m, z = metric_of(metric, dtype), points(dtype)
    loc = torch.tensor([[0.2, -0.1], [0.1, 0.0], [0.0, 0.1]], dtype=dtype)
    time = torch.tensor([0.02, 0.03, 0.025], dtype=dtype)
    batch = build(law, m, loc, time)
    assert batch.batch_shape == (3,)
    assert batch.sample((2,)).shape == (2, 3, 2)
    alone = torch.stack([build(law, m, loc[i], time[i]).log_prob(z[i]) for i in range(3)])
    assert torch.allclose(batch.log_prob(z), alone, atol=TOLERANCE[dtype] * 10)
    assert batch.log_prob(z[:, None]).shape == (3, 3)


def test_expand_carries_everything(law, case):
    metric, dtype = case
    d = single(law, metric, dtype)
    large = d.expand((4, 3))
    assert type(large) is type(d)
    assert large.metric is d.metric
    assert large.batch_shape == (4, 3)
    assert large.sample().shape == (4, 3, 2)
    z = points(dtype)
    assert torch.allclose(large.log_prob(z), d.log_prob(z).expand(4, 3), atol=TOLERANCE[dtype])
    assert d.expand_by((2,)).batch_shape == (2,)
    with pytest.raises((RuntimeError, ValueError)):
        large.expand((5, 3))


def test_wrappers_of_pyro(law, dtype):
    d = single(law, "sphere", dtype)
    z = points(dtype)
    event = d.expand((3,)).to_event(1)
    assert event.event_shape == (3, 2)
    assert torch.allclose(event.log_prob(z), d.log_prob(z).sum(), atol=10 * TOLERANCE[dtype])
    masked = d.expand((3,)).mask(torch.tensor([True, False, True]))
    assert masked.log_prob(z)[1] == 0
    assert torch.allclose(masked.log_prob(z)[::2], d.log_prob(z)[::2], atol=TOLERANCE[dtype])


def test_infer_shapes(law, dtype):
    d = single(law, "sphere", dtype).expand((4, 3))
    shapes = {name: getattr(d, name).shape for name in d.arg_constraints}
    assert type(d).infer_shapes(metric=(), **shapes) == ((4, 3), (2,))


# -------------------------------------------------------------------- values


def test_copies_have_the_same_density(law, case):
    """Through pickle, deepcopy and the metric's state dict."""
    metric, dtype = case
    d, z = single(law, metric, dtype), points(dtype)
    value = d.log_prob(z)
    twins = [copy.deepcopy(d), pickle.loads(pickle.dumps(d))]
    fresh = copy.deepcopy(d.metric)
    for tensor in (*fresh.parameters(), *fresh.buffers()):
        tensor.data.zero_()
    fresh.load_state_dict(d.metric.state_dict())
    twins.append(build(law, fresh, torch.tensor(LOC, dtype=dtype), torch.tensor(TIME, dtype=dtype)))
    for twin in twins:
        assert twin.metric is not d.metric
        assert torch.allclose(twin.log_prob(z), value, atol=TOLERANCE[dtype])


def test_single_precision_agrees_with_double(law, metric):
    low = single(law, metric, torch.float32).log_prob(points(torch.float32))
    high = single(law, metric, torch.float64).log_prob(points(torch.float64))
    assert torch.allclose(low.double(), high, atol=2e-2)


@pytest.mark.parametrize("name", LAWS)
def test_density_is_traced(name, dtype):
    assert_traced(name, "sphere", dtype)


def test_density_of_the_uniform_is_traced(metric, dtype):
    assert_traced("uniform", metric, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["kernel", "decoder"])
@pytest.mark.parametrize("name", ["heat kernel", "wrapped normal", "normal"])
def test_density_with_a_solved_distance_is_traced(name, metric, dtype):
    """The recorded graph unrolls every iteration of the geodesic solver: a quarter of a minute each."""
    assert_traced(name, metric, dtype)


def assert_traced(law: str, metric: str, dtype: torch.dtype) -> None:
    """The recorded graph gives the density at points that it has not seen."""
    d, z = single(law, metric, dtype), points(dtype)
    traced = torch.jit.trace(d.log_prob, z, check_trace=False)
    assert torch.allclose(traced(z + 0.03), d.log_prob(z + 0.03), atol=10 * TOLERANCE[dtype])


def test_gradient_of_the_density(law, metric):
    """Against central differences in the point."""
    d = single(law, metric, torch.float64)
    z = points(torch.float64)[1].requires_grad_()
    (slope,) = torch.autograd.grad(d.log_prob(z), z)
    step = 1e-4 * torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        difference = (d.log_prob(z + step) - d.log_prob(z - step)) / 2e-4
    assert torch.allclose(slope, difference, atol=1e-3)


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_moments_of_the_density(name):
    """Sampler against the density on a grid: two routes, four standard errors."""
    torch.manual_seed(0)
    d = single(name, "sphere", torch.float64)
    axis = (torch.arange(120, dtype=torch.float64) + 0.5) / 120 * 2 - 1
    reach = REACH if name == "uniform" else 0.9
    z = torch.tensor(LOC, dtype=torch.float64) + reach * torch.cartesian_prod(axis, axis)
    weights = d.log_prob(z).softmax(0)
    mean = weights @ z
    variance = weights @ (z - mean).square()
    draws = d.sample((4000,))
    assert ((draws.mean(0) - mean).abs() < 4 * (variance / 4000).sqrt()).all()
    assert ((draws.mean(0) - d.mean).abs() < 4 * (variance / 4000).sqrt()).all()
    assert torch.allclose(d.variance, variance, rtol=0.05)
    kurtosis = weights @ (z - mean).pow(4) - variance.square()
    assert ((draws.var(0) - variance).abs() < 4 * (kurtosis / 4000).sqrt()).all()


@pytest.mark.parametrize("metric", ["sphere", "kernel", pytest.param("decoder", marks=pytest.mark.slow)])
def test_has_rsample_is_true_where_it_is_true(law, metric):
    """Pathwise derivative in the centre against central differences under the same noise; refusal elsewhere."""
    m, time = metric_of(metric, torch.float64), torch.tensor(TIME, dtype=torch.float64)
    loc = torch.tensor(LOC, dtype=torch.float64, requires_grad=True)
    d = build(law, m, loc, time)
    assert d.has_rsample == (law in ("heat kernel", "wrapped normal"))
    if not d.has_rsample:
        with pytest.raises(NotImplementedError):
            d.rsample()
        return

    def draw(centre: Tensor) -> Tensor:
        torch.manual_seed(0)
        return build(law, m, centre, time).rsample().sum()

    (slope,) = torch.autograd.grad(draw(loc), loc)
    difference = [
        float(draw((loc + h).detach()) - draw((loc - h).detach())) / 2e-4 for h in 1e-4 * torch.eye(2).double()
    ]
    assert torch.allclose(slope, torch.tensor(difference, dtype=torch.float64), atol=1e-5)


# -------------------------------------------------------------------- refusals


def test_wrong_values_are_refused(law, dtype):
    d = build(
        law,
        metric_of("sphere", dtype),
        torch.zeros(3, 2, dtype=dtype),
        torch.full((3,), TIME, dtype=dtype),
        validate_args=True,
    )
    for shape in ((3, 2, 1), (4, 2), (3, 3)):
        with pytest.raises((ValueError, RuntimeError)):
            d.log_prob(torch.zeros(shape, dtype=dtype))
    with pytest.raises(ValueError):
        d.log_prob(torch.full((3, 2), torch.nan, dtype=dtype))
    with pytest.raises((TypeError, ValueError, AttributeError)):
        d.log_prob("here")
    with pytest.raises(NotImplementedError):
        d.enumerate_support()
    with pytest.raises(NotImplementedError):
        d.cdf(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    "law, spread",
    [(RiemannianHeatKernel, "time"), (RiemannianWrappedNormal, "time"), (RiemannianNormal, "scale")],
)
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_bad_spread_is_named(law, spread, bad):
    with pytest.raises(ValueError, match=spread):
        law(torch.zeros(2), torch.tensor(bad), Sphere(2), validate_args=True)


@pytest.mark.parametrize("law", [RiemannianHeatKernel, RiemannianWrappedNormal, RiemannianNormal])
def test_bad_centre_or_metric_is_named(law):
    with pytest.raises(ValueError, match="`loc`"):
        law(torch.zeros(3), 0.1, Sphere(2))
    with pytest.raises(ValueError, match="loc"):
        law(torch.tensor([0.0, torch.nan]), 0.1, Sphere(2), validate_args=True)
    with pytest.raises(TypeError, match="`metric`"):
        law(torch.zeros(2), 0.1, torch.eye(2))


def test_all_are_distributions_of_pyro(law):
    d = single(law, "kernel", torch.float64)
    assert isinstance(d, dist.TorchDistribution)
    assert "metric" not in d.arg_constraints
