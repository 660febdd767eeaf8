"""Public routines in other modes than plain evaluation: autocast, half precision, no data, NaN, vmap, compilers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    GeodesicSolver,
    GridMetric,
    KernelMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    WarpedMetric,
    brownian_motion,
)
from pyro_riemann.distributions import monte_carlo_kl
from pyro_riemann.manifolds import SPD
from pyro_riemann.sampling import interpolate, sample_uniform
from tests.metrics_zoo import Waves

F64 = torch.float64
TIME = torch.tensor(0.002, dtype=F64)  # short enough for the wrapped normal to say nothing of folds
LOW, HIGH = torch.full((2,), -0.4, dtype=F64), torch.full((2,), 0.4, dtype=F64)
Z, Y = 0.7 * torch.rand(2, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) - 0.35


def kernel() -> KernelMetric:
    return KernelMetric(torch.tensor([[0.0, 0.0], [0.6, 0.2]]), torch.tensor([[4.0, 2.0], [2.0, 6.0]]), 0.8, 0.1)


def decoder() -> PullbackMetric:
    torch.manual_seed(3)
    return PullbackMetric(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)), 2)


METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "decoder": decoder,
    "kernel": kernel,
    "grid": lambda: GridMetric(kernel(), -1.0, 1.0, 12),
    "conformal": lambda: kernel().conformal(),
    "user's own": Waves,
    "sphere": lambda: Sphere(2),
    "torus": lambda: FlatTorus(2),
    "euclidean": lambda: EuclideanMetric(2),
    "warped": lambda: WarpedMetric(Sphere(2), (lambda z: 2 * z, lambda x: x / 2)),
}
NUMERIC = ["decoder", "kernel", "user's own"]


def coarse(name: str) -> RiemannianMetric:
    """With a coarse solver: these tests are of what modes change, not of how good a distance is."""
    metric = METRICS[name]()
    metric.solver = GeodesicSolver(num_knots=3, num_segments=12, max_polish=0, on_failure="ignore")
    return metric


# ---------------------------------------------------------------- autocast

ROUTINES: dict[str, Callable[[RiemannianMetric], Any]] = {
    "metric": lambda metric: metric.metric(Z),
    "drift": lambda metric: metric.drift(Z),
    "distance": lambda metric: metric.dist(Z, Y),
    "curve": lambda metric: metric.geodesic(Z, Y)(0.5),
    "exponential": lambda metric: metric.expmap(Z, 0.1 * Y),
    "paths": lambda metric: brownian_motion(metric, Z, 0.05, 3),
    "interpolation": lambda metric: interpolate(metric, Z[0], Y[0], num_frames=3).points,
    "wrapped normal": lambda metric: RiemannianWrappedNormal(Z, TIME, metric).log_prob(Y),
    "heat kernel": lambda metric: RiemannianHeatKernel(Z, TIME, metric, num_steps=3).log_prob(Y),
    "draws": lambda metric: RiemannianWrappedNormal(Z, TIME, metric).rsample(),
    "uniform": lambda metric: RiemannianUniform(metric, LOW, HIGH).sample((3,)),
    "sampler": lambda metric: sample_uniform(metric, 4, LOW, HIGH, "table", seed=0, verbose=False).draws,
    "divergence": lambda metric: (
        monte_carlo_kl(RiemannianWrappedNormal(Z, TIME, metric), RiemannianWrappedNormal(Y, TIME, metric), 3).value
    ),
}


@pytest.mark.parametrize("routine", ROUTINES)
@pytest.mark.parametrize("name", ["decoder", "kernel"])
def test_autocast_changes_nothing(name: str, routine: str) -> None:
    """Not even the dtype: bfloat16 has 8 bits."""
    metric = coarse(name).float()
    single = {key: value.float() for key, value in globals().items() if isinstance(value, Tensor)}
    function = ROUTINES[routine]
    values = []
    for enabled in (False, True):
        pyro.set_rng_seed(0)
        with replaced(single), torch.autocast("cpu", enabled=enabled):
            values.append(function(metric))
    assert values[0].dtype == torch.float32
    torch.testing.assert_close(*values, rtol=0, atol=0)


@contextmanager
def replaced(tensors: dict[str, Tensor]) -> Iterator[None]:
    """The arguments above in another dtype."""
    before = {name: globals()[name] for name in tensors}
    globals().update(tensors)
    try:
        yield
    finally:
        globals().update(before)


# ---------------------------------------------------------------- dtypes and values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    low = Z.to(dtype)
    for refused in (
        lambda: RiemannianWrappedNormal(low, 0.1, Sphere(2)),
        lambda: RiemannianHeatKernel(low, 0.1, Sphere(2)),
        lambda: RiemannianNormal(low, 0.1, Sphere(2)),
        lambda: RiemannianUniform(Sphere(2), LOW.to(dtype), HIGH.to(dtype)),
        lambda: ConstantMetric(torch.eye(2, dtype=dtype)),
        lambda: KernelMetric(low, low.abs() + 1, 1.0),
        lambda: Sphere(2).dist(low, low),
        lambda: kernel().metric(low),
    ):
        with pytest.raises(TypeError, match="geometry in float32"):
            refused()


RANDOM = {"paths", "draws", "uniform", "sampler"}


@pytest.mark.filterwarnings("ignore:.* of 3 Brownian paths end where the ConformalMetric is only its floor:UserWarning")
@pytest.mark.parametrize("points, weights", [(F64, torch.float32), (torch.float32, F64)])
@pytest.mark.parametrize("name", METRICS)
def test_points_of_another_dtype_give_their_own_or_are_refused(
    name: str, points: torch.dtype, weights: torch.dtype
) -> None:
    metric, exact = coarse(name).to(weights), coarse(name).double()
    given = {key: value.to(points) for key, value in globals().items() if isinstance(value, Tensor)}
    for routine in ROUTINES.keys() - {"sampler", "divergence"}:
        with replaced(given):
            if name == "decoder":
                with pytest.raises(TypeError, match=f"dtype {points}, the immersion computes in {weights}"):
                    ROUTINES[routine](metric)
                continue
            value = ROUTINES[routine](metric)
        assert value.dtype == points, routine
        assert bool(torch.isfinite(value).all()), routine
        if routine not in RANDOM:
            torch.testing.assert_close(value.double(), ROUTINES[routine](exact), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", METRICS)
def test_points_and_vectors_of_two_dtypes_meet_in_the_wider(name: str) -> None:
    metric = coarse(name).double()
    single = 0.1 * Y.float()
    for function in (metric.dist, metric.logmap, metric.expmap, metric.christoffel, metric.norm, metric.log_van_vleck):
        expected = function(Z, single.double())
        assert torch.equal(function(Z, single), expected), function.__name__
        assert torch.equal(function(single, Z), function(single.double(), Z)), function.__name__
    assert torch.equal(metric.inner(Z, single, Z), metric.inner(Z, single.double(), Z))
    assert torch.equal(metric.geodesic(Z, single)(0.5), metric.geodesic(Z, single.double())(0.5))


def test_an_immersion_that_converts_its_argument_is_believed() -> None:
    network = nn.Linear(2, 3)
    metric = PullbackMetric(lambda z: network(z.float()).tanh(), 2)
    torch.testing.assert_close(metric.metric(Z).float(), metric.metric(Z.float()))


@pytest.mark.parametrize("name", METRICS)
def test_a_nan_is_no_point(name: str) -> None:
    metric, point = coarse(name).double(), torch.tensor([[0.1, float("nan")]], dtype=F64)
    for method in (metric.metric, metric.logdet):
        with pytest.raises(ValueError, match="`z` has 1 NaN entries out of 2"):
            method(point)
    with pyro.validation_enabled(False):
        metric.metric(point)


# ---------------------------------------------------------------- no data


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@pytest.mark.parametrize("name", METRICS)
def test_no_points_give_no_results(name: str, shape: tuple[int, ...]) -> None:
    metric, none = coarse(name).double(), torch.zeros(*shape, 2, dtype=F64)
    assert metric.metric(none).shape == (*shape, 2, 2)
    for numbers in (metric.logdet(none), metric.dist(none, none), metric.log_van_vleck(none, none)):
        assert numbers.shape == shape
    ends = (metric.drift(none), metric.logmap(none, none), metric.expmap(none, none), metric.geodesic(none, none)(0.5))
    for vectors in (*ends, brownian_motion(metric, none, 0.1)):
        assert vectors.shape == none.shape
    box = RiemannianUniform(metric, none - 0.3, none + 0.3)
    laws = [family(none, TIME, metric) for family in (RiemannianWrappedNormal, RiemannianHeatKernel, RiemannianNormal)]
    for law in (*laws, box):
        assert law.sample().shape == none.shape
        assert law.log_prob(none).shape == shape
    one = RiemannianWrappedNormal(Z[0], TIME, metric)
    assert one.sample((0,)).shape == (0, 2)
    assert one.log_prob(none).shape == shape


# ---------------------------------------------------------------- vmap and compilers


@pytest.mark.parametrize("axes", [(0, 0), (None, 0)])
@pytest.mark.parametrize("name", [*NUMERIC, "sphere", "torus"])
def test_vmap_is_the_batch(name: str, axes: tuple[int | None, int | None]) -> None:
    metric = coarse(name).double()
    uniform = RiemannianUniform(metric, LOW, HIGH)
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        metric.dist,
        metric.logmap,
        metric.log_van_vleck,
        lambda z, v: metric.expmap(z, 0.1 * v),
        lambda z, y: RiemannianWrappedNormal(z, TIME, metric).log_prob(y),
        lambda z, y: RiemannianHeatKernel(z, TIME, metric, num_steps=3).log_prob(y),
        lambda z, y: uniform.log_prob(y) + 0 * z.sum(-1),
    ]
    z, y = (points if axis == 0 else points[0] for points, axis in zip((Z, Y), axes, strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*")  # torch's advice on its own rules
        for function in functions:
            torch.testing.assert_close(vmap(function, axes)(z, y), function(z, y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NUMERIC)
def test_derivative_of_a_vmap(name: str) -> None:
    metric = coarse(name).double()
    slope = grad(lambda ends: vmap(lambda end: metric.squared_dist(Z[0], end))(ends).sum())(Y)
    torch.testing.assert_close(slope, -2 * lowered(metric, Y, metric.logmap(Y, Z[:1])), rtol=1e-3, atol=1e-4)


def lowered(metric: RiemannianMetric, z: Tensor, v: Tensor) -> Tensor:
    """The gradient of half the squared distance is minus the logarithm, as a covector."""
    return (metric.metric(z) @ v.unsqueeze(-1)).squeeze(-1)


class Both(nn.Module):
    """A metric and its volume, as a module."""

    def __init__(self, metric: RiemannianMetric) -> None:
        super().__init__()
        self.inner = metric

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.metric(z), self.inner.logdet(z)


@pytest.mark.parametrize("name", ["decoder", "kernel", "grid", "sphere"])
def test_compilers_take_a_metric(name: str) -> None:
    both = Both(coarse(name).double())
    expected = both(Y)
    compiled = torch.compile(both, backend="eager", fullgraph=True)
    exported = torch.export.export(both, (Z,)).module()
    traced = torch.jit.trace(both, (Z,))  # the decoder's parameters require gradients
    for made in (compiled, exported, traced):
        for value, other in zip(made(Y), expected, strict=True):
            torch.testing.assert_close(value, other)


def test_checks_outlive_a_compiler() -> None:
    """torch.compile turns the validation of all distributions off, and whatever was wrong was returned in silence."""
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
    metric, near, far = SPD(2), torch.zeros(3, dtype=F64), torch.tensor([1e12, 20.0, -20.0], dtype=F64)
    with pytest.raises(ValueError, match=r"SPD\.dist is NaN or infinite"):
        metric.dist(near, far)
    with pytest.raises(ValueError, match="`z` has 1 NaN entries"):
        coarse("decoder").double().metric(torch.tensor([0.1, float("nan")], dtype=F64))
    law = RiemannianWrappedNormal(near, TIME, metric)
    for one in (law, law.expand((2,))):
        with pytest.warns(UserWarning, match="log_prob is NaN in"):
            one.log_prob(far)
        with pytest.raises(ValueError, match="found invalid values"):
            one.log_prob(far * float("nan"))
    with pytest.raises(ValueError, match="parameter time"):
        RiemannianWrappedNormal(near, -TIME, metric)


@pytest.mark.filterwarnings("error")
def test_checks_are_off_where_they_are_not_wanted() -> None:
    law = RiemannianWrappedNormal(torch.zeros(2, dtype=F64), TIME, EuclideanMetric(2))
    bad = torch.full((2,), float("nan"), dtype=F64)
    quiet = RiemannianWrappedNormal(law.loc, TIME, law.metric, validate_args=False)
    assert quiet.log_prob(bad).isnan()
    assert quiet.expand((3,)).log_prob(bad).isnan().all()
    with pyro.validation_enabled(False):
        assert law.expand((3,)).log_prob(bad).isnan().all()
        assert law.log_prob(bad).isnan()
