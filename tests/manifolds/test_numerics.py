"""Gradients, rounding, tracing, batching: what a closed form must survive inside Pyro."""

from __future__ import annotations

import copy
import math
import pickle

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyro_riemann import FlatTorus, Hyperbolic, RiemannianMetric, Sphere
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from tests.charts import all_charts, warped_sphere

CHARTS = all_charts()
charts = pytest.mark.parametrize("metric", CHARTS.values(), ids=CHARTS.keys())
FEW = ["sphere2", "warped sphere3", "ball3", "warped hyperbolic2", "warped torus2"]
few_charts = pytest.mark.parametrize("metric", [CHARTS[name] for name in FEW], ids=FEW)
DTYPE = torch.float64


def some_points(dim: int, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    z, y, v = torch.rand(3, batch, dim, dtype=DTYPE, generator=torch.Generator().manual_seed(0)) - 0.5
    return z, y, v


def everything(metric: RiemannianMetric, z: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    kernel = metric.log_heat_kernel(z, y, 0.3)  # type: ignore[operator]
    end, log_van_vleck = metric.expmap_log_van_vleck(z, v)
    return (
        *(metric.dist(z, y), metric.squared_dist(z, y), metric.logmap(z, y), metric.log_van_vleck(z, y), kernel),
        *(metric.expmap(z, v), end, log_van_vleck, metric.christoffel(z, v), metric.inner(z, v, y)),
        *(metric.metric(z), metric.cholesky(z), metric.logdet(z), metric.drift(z), metric.scalar_curvature(z)),
    )


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("gap", [1.0, 1e-3, 0.0], ids=["apart", "near", "same"])
@few_charts
def test_first_and_second_derivatives(metric: RiemannianMetric, gap: float) -> None:
    z, _, v = some_points(metric.dim, batch=2)
    y = (z + gap * v).requires_grad_()
    z.requires_grad_()

    def log_kernel(a: Tensor, b: Tensor) -> Tensor:
        value: Tensor = metric.log_heat_kernel(a, b, 0.3)  # type: ignore[operator]
        return value

    def shot(a: Tensor, b: Tensor) -> Tensor:
        return metric.expmap(a, b - a)

    for function in (metric.squared_dist, metric.logmap, shot, log_kernel):
        assert gradcheck(function, (z, y), atol=1e-7)
        assert gradgradcheck(function, (z, y), atol=1e-6)
    if metric.scalar_curvature(z).abs().max() > 0:
        assert gradcheck(metric.log_van_vleck, (z, y), atol=1e-7)
        assert gradgradcheck(metric.log_van_vleck, (z, y), atol=1e-6)


@charts
def test_coincident_points(metric: RiemannianMetric) -> None:
    """Squared distance is 0 with gradient 0 and Hessian 2 G; the distance has gradient 0, not NaN."""
    z = some_points(metric.dim)[0][0]
    y = z.clone().requires_grad_()
    for value in (metric.squared_dist(z, y), metric.dist(z, y), metric.log_van_vleck(z, y)):
        assert abs(value.item()) < 1e-15
        if value.requires_grad:
            assert torch.autograd.grad(value, y)[0].abs().max() < 1e-15
    hessian = torch.autograd.functional.hessian(lambda p: metric.squared_dist(z, p), z)
    torch.testing.assert_close(hessian, 2 * metric.metric(z))
    torch.testing.assert_close(metric.expmap(z, torch.zeros_like(z)), z)


@charts
def test_momentum_is_the_end_velocity_lowered(metric: RiemannianMetric) -> None:
    """The gradient of l^2 / 2 in y is the covector G(y) gamma'(1) = -G(y) logmap(y, z)."""
    z, y, _ = some_points(metric.dim)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(metric.squared_dist(z, y).sum() / 2, y)
    lowered = torch.einsum("...ij,...j->...i", metric.metric(y), -metric.logmap(y, z))
    torch.testing.assert_close(gradient, lowered)


# ---------------------------------------------------------------- rounding


def exact_distance(z: Tensor, y: Tensor, curvature: int) -> float:
    with mpmath.workdps(50):
        first, second = [mpmath.mpf(x.item()) for x in z], [mpmath.mpf(x.item()) for x in y]
        below = [1 + curvature * sum(x * x for x in point) for point in (first, second)]
        gap = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
        half = mpmath.sqrt(gap / below[0] / below[1])
        return float(2 * (mpmath.asin(half) if curvature > 0 else mpmath.asinh(half)))


@pytest.mark.parametrize("gap", [1e-14, 1e-9, 1e-4, 0.14, 0.15, 0.5])
@pytest.mark.parametrize("metric", [Sphere(3), Hyperbolic(3)], ids=["sphere", "ball"])
def test_short_distances_keep_all_digits(metric: Sphere | Hyperbolic, gap: float) -> None:
    z = torch.tensor([0.1, -0.2, 0.3], dtype=DTYPE)
    y = z + gap * torch.tensor([0.6, 0.0, -0.8], dtype=DTYPE)
    assert metric.dist(z, y).item() == pytest.approx(exact_distance(z, y, metric.curvature), rel=1e-15, abs=0)


@pytest.mark.parametrize("gap", [1e-12, 1e-8, 1e-4, 0.1])
def test_near_the_antipode(gap: float) -> None:
    """Distance to the last digit, a unit gradient, a logmap that arrives."""
    sphere, z = Sphere(3), torch.tensor([0.4, -1.2, 0.3], dtype=DTYPE)
    y = (-z / z.square().sum() + gap * torch.tensor([0.6, 0.1, -0.8], dtype=DTYPE)).requires_grad_()
    distance = sphere.dist(z, y)
    (slope,) = torch.autograd.grad(distance, y)
    assert distance.item() == pytest.approx(exact_distance(z, y, 1), rel=1e-15, abs=0)
    assert (slope.norm() * (1 + y.square().sum()) / 2).item() == pytest.approx(1, abs=1e-3 if gap < 1e-10 else 1e-6)
    velocity = sphere.logmap(z, y)
    assert sphere.norm(z, velocity).item() == pytest.approx(distance.item(), rel=1e-14)
    torch.testing.assert_close(sphere.expmap(z, velocity), y, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize(
    "metric", [Sphere(1), Sphere(2), Sphere(3), warped_sphere(2)], ids=["S1", "S2", "S3", "warped"]
)
def test_nothing_is_nan_at_the_antipode(metric: RiemannianMetric) -> None:
    z = torch.full((metric.dim,), 0.5, dtype=DTYPE)
    y = -z / z.square().sum()
    if not isinstance(metric, Sphere):
        z, y = metric.from_base(z), metric.from_base(y)  # type: ignore[operator]
    z.requires_grad_(), y.requires_grad_()
    v = metric.logmap(z.detach(), y.detach())
    values = everything(metric, z, y, v)
    assert all(torch.isfinite(value).all() for value in values)
    assert values[0].item() == pytest.approx(math.pi)
    assert metric.norm(z, v).item() == pytest.approx(math.pi)
    for value in values:
        gradients = (
            torch.autograd.grad(value.sum(), (z, y), allow_unused=True, retain_graph=True)
            if value.requires_grad
            else ()
        )
        assert all(g is None or torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "metric", [Hyperbolic(3), Hyperboloid(3), HalfSpace(3)], ids=["ball", "hyperboloid", "half-space"]
)
def test_far_points_stay_finite_and_in_the_chart(metric: RiemannianMetric, dtype: torch.dtype) -> None:
    v = 30 * torch.randn(200, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    y = metric.expmap(torch.zeros_like(v), v)
    back = metric.expmap(y, -metric.logmap(y, y.flip(0)))
    assert torch.isfinite(y).all()
    assert torch.isfinite(back).all()
    assert torch.isfinite(metric.dist(y, back)).all()
    assert torch.isfinite(metric.log_van_vleck(y, back)).all()


@pytest.mark.parametrize("length", [1.0, 5.0, 10.0, 15.0])
def test_hyperbolic_distances_lose_digits_only_as_the_coordinates_do(length: float) -> None:
    ball, z = Hyperbolic(2), torch.zeros(2, dtype=DTYPE)
    y = ball.expmap(z, torch.tensor([0.3, 0.4], dtype=DTYPE) * length)
    assert ball.dist(z, y).item() == pytest.approx(length, rel=4e-16 * math.exp(length))


# ---------------------------------------------------------------- tracing, vmap, shapes, dtypes


@charts
def test_traces(metric: RiemannianMetric) -> None:
    z, y, v = some_points(metric.dim)
    traced = torch.jit.trace(lambda a, b, c: everything(metric, a, b, c), (z, y, v), check_trace=False)
    for got, expected in zip(traced(0.8 * z, y, -v), everything(metric, 0.8 * z, y, -v), strict=True):
        torch.testing.assert_close(got, expected)


@charts
def test_vmap_and_unbatched_points(metric: RiemannianMetric) -> None:
    z, y, v = some_points(metric.dim)
    batched = everything(metric, z, y, v)
    mapped = torch.func.vmap(lambda a, b, c: everything(metric, a, b, c))(z, y, v)
    single = everything(metric, z[1], y[1], v[1])
    for values, per_point, one in zip(batched, mapped, single, strict=True):
        torch.testing.assert_close(per_point, values)
        torch.testing.assert_close(one, values[1])


@charts
def test_forward_mode_agrees_with_reverse(metric: RiemannianMetric) -> None:
    z, y, v = some_points(metric.dim)
    functions = (metric.squared_dist, metric.logmap, metric.log_van_vleck)
    for function in functions:
        forward = torch.func.jvp(lambda p, f=function: f(z, p), (y,), (v,))[1]
        point = y.clone().requires_grad_()
        value = function(z, point)
        if not value.requires_grad:  # a constant: flat metrics
            assert forward.abs().max() == 0
            continue
        jacobian = torch.autograd.functional.jacobian(lambda p, f=function: f(z, p).sum(0), y)
        reverse = torch.einsum("...bj,bj->b...", jacobian, v)
        torch.testing.assert_close(forward, reverse)


@charts
def test_batches_broadcast(metric: RiemannianMetric) -> None:
    z, y, _ = some_points(metric.dim)
    for function in (metric.dist, metric.log_van_vleck, metric.logmap):
        table = function(z[:, None], y)
        torch.testing.assert_close(table[2, 1], function(z[2], y[1]))


@charts
def test_float32_gives_float32(metric: RiemannianMetric) -> None:
    z, y, v = some_points(metric.dim)
    exact, single = everything(metric, z, y, v), everything(metric, z.float(), y.float(), v.float())
    for value, reference in zip(single, exact, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), reference, atol=2e-5, rtol=1e-4)


@charts
def test_copies_and_pickles(metric: RiemannianMetric) -> None:
    z, y, _ = some_points(metric.dim)
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        torch.testing.assert_close(twin.dist(z, y), metric.dist(z, y), atol=0, rtol=0)
        assert twin.state_dict().keys() == metric.state_dict().keys()


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize("point", [[1.0, 0.0], [0.9, 0.9], [math.nan, 0.0]])
def test_points_outside_the_ball_raise(point: list[float]) -> None:
    ball, inside, outside = Hyperbolic(2), torch.zeros(2), torch.tensor(point)
    calls = [
        lambda: ball.metric(outside),
        lambda: ball.logdet(outside),
        lambda: ball.drift(outside),
        lambda: ball.christoffel(outside, inside),
        lambda: ball.expmap(outside, inside),
        lambda: ball.dist(outside, inside),
        lambda: ball.dist(inside, outside),
        lambda: ball.logmap(inside, outside),
        lambda: ball.log_van_vleck(inside, outside),
        lambda: ball.log_heat_kernel(inside, outside, 0.1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="NaN" if math.isnan(point[0]) else r"open unit ball.*Hyperboloid"):
            call()


@pytest.mark.parametrize("space", [Sphere, Hyperbolic, FlatTorus])
def test_dimension_and_shapes_are_checked(space: type[Sphere] | type[Hyperbolic] | type[FlatTorus]) -> None:
    with pytest.raises(ValueError, match="`dim` must be at least 1"):
        space(0)
    metric = space(2)
    with pytest.raises(ValueError, match=r"shape \(\*batch, 2\)"):
        metric.dist(torch.zeros(3), torch.zeros(3))
    with pytest.raises(TypeError, match="floating dtype"):
        metric.dist(torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    "x, match", [(torch.ones(2), "shape"), (torch.ones(3), "unit length"), (torch.full((3,), math.nan), "unit")]
)
def test_from_ambient_wants_unit_vectors(x: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Sphere(2).from_ambient(x)


@pytest.mark.parametrize("space", [Hyperboloid, HalfSpace])
def test_global_charts_check_their_input(space: type[Hyperboloid] | type[HalfSpace]) -> None:
    with pytest.raises(ValueError, match="`dim` must be at least 1"):
        space(0)
    with pytest.raises(ValueError, match=r"shape \(\*batch, 2\)"):
        space(2).metric(torch.zeros(3))
    with pytest.raises(TypeError, match="floating dtype"):
        space(2).dist(torch.zeros(2, dtype=torch.long), torch.zeros(2))
