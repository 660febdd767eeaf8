"""Wrong arguments end at the door, in an error that names them; right ones never end in NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pyro_riemann import (
    ConformalMetric,
    ConstantMetric,
    EuclideanMetric,
    FlatTorus,
    GeodesicSolver,
    GridMetric,
    Hyperbolic,
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
    summary,
    to_arviz,
)
from pyro_riemann._checks import is_finite
from pyro_riemann.vae import VAE, Encoder, GaussianDecoder, TrainingConfig, make_vae

Pair = tuple[float, float]
NAN, INF = float("nan"), float("inf")
FLAT = EuclideanMetric(2)
ZERO = torch.zeros(2)
ONE = torch.tensor(1.0)
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])


class Saddle(RiemannianMetric):
    """Not a metric: negative along the second axis away from the origin."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack([torch.ones_like(z[..., 0]), 1 - z[..., 0].square()], -1))


def kernel(**changes: Any) -> KernelMetric:
    arguments: dict[str, Any] = {
        "centroids": torch.zeros(3, 2),
        "precisions": torch.ones(3, 2),
        "bandwidth": 1.0,
        "regularization": 0.1,
    }
    return KernelMetric(**(arguments | changes))


def posterior(**changes: Any) -> KernelMetric:
    arguments: dict[str, Any] = {"loc": torch.randn(20, 2), "scale": torch.ones(20, 2), "num_centroids": 5}
    return KernelMetric.from_posterior(**(arguments | changes))


def train_on(data: Any) -> None:
    make_vae(data_dim=4, num_centers=5, hidden=(8,)).encode(data)


# id: (call, exception, what the message must contain)
CASES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # metrics
    "euclidean: dim 0": (lambda: EuclideanMetric(0), ValueError, "`dim`"),
    "constant: a vector": (lambda: ConstantMetric(torch.ones(2)), ValueError, "`matrix`"),
    "constant: not square": (lambda: ConstantMetric(torch.ones(2, 3)), ValueError, "`matrix`"),
    "constant: asymmetric": (lambda: ConstantMetric(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), ValueError, "symmetric"),
    "constant: indefinite": (lambda: ConstantMetric(INDEFINITE), ValueError, "`matrix`.*positive definite"),
    "constant: NaN": (lambda: ConstantMetric(torch.full((2, 2), NAN)), ValueError, "`matrix`.*NaN"),
    "pullback: dim 0": (lambda: PullbackMetric(nn.Linear(2, 3), 0), ValueError, "`dim`"),
    "pullback: negative jitter": (lambda: PullbackMetric(nn.Linear(2, 3), 2, jitter=-1.0), ValueError, "`jitter`"),
    "pullback: d larger than the data": (lambda: PullbackMetric(nn.Linear(5, 3), 5), ValueError, "`immersion`.*3 out"),
    "pullback: independent of z": (
        lambda: PullbackMetric(lambda z: torch.ones(*z.shape[:-1], 3), 2),
        ValueError,
        "`immersion` does not depend on z",
    ),
    "pullback: batch lost": (
        lambda: PullbackMetric(lambda z: z.sum(0).repeat(3, 1), 2),
        ValueError,
        "`immersion`.*batch",
    ),
    "pullback: NaN": (lambda: PullbackMetric(lambda z: z * NAN, 2), ValueError, "`immersion`.*NaN"),
    "pullback: wrong width": (lambda: PullbackMetric(nn.Linear(2, 3), 2).metric(torch.zeros(3)), ValueError, "`z`"),
    "pullback: integers": (
        lambda: PullbackMetric(nn.Linear(2, 3), 2).metric(torch.zeros(2, dtype=torch.long)),
        TypeError,
        "`z`",
    ),
    "pullback: a list": (lambda: PullbackMetric(nn.Linear(2, 3), 2).metric([0.0, 0.0]), TypeError, "`z`"),  # type: ignore[arg-type]
    "kernel: centroids a vector": (lambda: kernel(centroids=torch.zeros(3)), ValueError, "`centroids`"),
    "kernel: other number of precisions": (lambda: kernel(precisions=torch.ones(4, 2)), ValueError, "`precisions`"),
    "kernel: negative precision": (lambda: kernel(precisions=-torch.ones(3, 2)), ValueError, "`precisions`"),
    "kernel: indefinite precision": (lambda: kernel(precisions=INDEFINITE.expand(3, 2, 2)), ValueError, "`precisions`"),
    "kernel: NaN": (lambda: kernel(centroids=torch.full((3, 2), NAN)), ValueError, "`centroids`"),
    "kernel: bandwidth 0": (lambda: kernel(bandwidth=0.0), ValueError, "`bandwidth`"),
    "kernel: regularization 0": (lambda: kernel(regularization=0.0), ValueError, "`regularization`"),
    "kernel: wrong width": (lambda: kernel().metric(torch.zeros(4, 3)), ValueError, "`z`"),
    "from_posterior: shapes": (lambda: posterior(scale=torch.ones(19, 2)), ValueError, "`scale`"),
    "from_posterior: negative scale": (lambda: posterior(scale=-torch.ones(20, 2)), ValueError, "`scale`"),
    "from_posterior: too many centroids": (lambda: posterior(num_centroids=21), ValueError, "`num_centroids`"),
    "from_posterior: unknown rule": (lambda: posterior(bandwidth="manhattan"), ValueError, "`bandwidth`"),
    "conformal: infinite scale": (lambda: ConformalMetric(FLAT, log_scale=INF), ValueError, "`log_scale`"),
    "grid: four dimensions": (lambda: GridMetric(EuclideanMetric(4), 0.0, 1.0, 4), ValueError, "`metric`"),
    "grid: empty box": (lambda: GridMetric(FLAT, 1.0, 0.0, 8), ValueError, "`low`"),
    "grid: infinite box": (lambda: GridMetric(FLAT, -INF, 0.0, 8), ValueError, "low"),
    "grid: too coarse": (lambda: GridMetric(FLAT, 0.0, 1.0, 2), ValueError, "`resolution`"),
    "grid: not a metric there": (lambda: GridMetric(Saddle(), -3.0, 3.0, 8), ValueError, "`metric`.*positive definite"),
    "grid: unknown rule outside": (lambda: GridMetric(FLAT, 0.0, 1.0, 8, outside="wrap"), ValueError, "`outside`"),
    "grid: point outside": (
        lambda: GridMetric(FLAT, 0.0, 1.0, 8, outside="error").metric(torch.full((2,), 2.0)),
        ValueError,
        "outside the box.*z =",
    ),
    "own metric: indefinite": (lambda: Saddle().logdet(torch.tensor([2.0, 0.0])), ValueError, "not positive definite"),
    "own metric: not implemented": (lambda: RiemannianMetric().metric(ZERO), NotImplementedError, "`metric"),
    # manifolds
    "sphere: dim 0": (lambda: Sphere(0), ValueError, "`dim`"),
    "sphere: wrong width": (lambda: Sphere(3).logdet(ZERO), ValueError, "`z`"),
    "hyperbolic: outside the ball": (lambda: Hyperbolic(2).dist(ZERO, torch.ones(2)), ValueError, "`y`.*unit ball"),
    "hyperbolic: NaN": (lambda: Hyperbolic(2).metric(torch.full((2,), NAN)), ValueError, "`z`"),
    "torus: wrong number of periods": (lambda: FlatTorus(2, [1.0]), ValueError, "`periods`"),
    "torus: period 0": (lambda: FlatTorus(2, 0.0), ValueError, "`periods`"),
    "warped: no metric": (lambda: WarpedMetric(nn.Linear(2, 2), (torch.exp, torch.log)), TypeError, "`base`"),  # type: ignore[arg-type]
    "warped: no inverse": (lambda: WarpedMetric(FLAT, torch.exp), TypeError, "`diffeomorphism`"),  # type: ignore[arg-type]
    "warped: wrong inverse": (lambda: WarpedMetric(FLAT, (torch.exp, torch.exp)), ValueError, "`diffeomorphism`"),
    # geodesics
    "solver: unknown init": (lambda: GeodesicSolver(init="random"), ValueError, "`init`"),
    "solver: no knots": (lambda: GeodesicSolver(num_knots=0), ValueError, "`num_knots`"),
    "solver: tolerance 0": (lambda: GeodesicSolver(tolerance=0.0), ValueError, "`tolerance`"),
    "geodesic: unknown init": (lambda: kernel().geodesic(ZERO, ZERO, init="tree"), ValueError, "`init`"),
    "dist: wrong width": (lambda: kernel().dist(ZERO, torch.zeros(3)), ValueError, "`y`"),
    "dist: NaN": (lambda: kernel().dist(torch.full((2,), NAN), ZERO), ValueError, "`z`"),
    "dist: shapes": (lambda: kernel().dist(torch.zeros(3, 2), torch.zeros(4, 2)), ValueError, "`z`.*`y`.*broadcast"),
    "geodesic: time outside [0, 1]": (lambda: FLAT.geodesic(ZERO, torch.ones(2))(1.5), ValueError, "`t`"),
    # Brownian motion
    "brownian: time 0": (lambda: brownian_motion(FLAT, ZERO, 0.0, 4), ValueError, "`time`"),
    "brownian: negative time": (lambda: brownian_motion(FLAT, ZERO, torch.tensor(-1.0), 4), ValueError, "`time`"),
    "brownian: no steps": (lambda: brownian_motion(FLAT, ZERO, 1.0, 0), ValueError, "`num_steps`"),
    "brownian: unknown method": (lambda: brownian_motion(FLAT, ZERO, 1.0, 4, method="heun"), ValueError, "`method`"),
    "brownian: retraction without immersion": (
        lambda: brownian_motion(FLAT, ZERO, 1.0, 4, method="retraction"),
        ValueError,
        "retraction.*immersion",
    ),
    "brownian: wrong width": (lambda: brownian_motion(FLAT, torch.zeros(3), 1.0, 4), ValueError, "`start`"),
    "brownian: NaN": (lambda: brownian_motion(FLAT, torch.full((2,), NAN), 1.0, 4), ValueError, "`start`"),
    "brownian: noise of the wrong shape": (
        lambda: brownian_motion(FLAT, ZERO, 1.0, 4, noise=torch.zeros(3, 2)),
        ValueError,
        "`noise`",
    ),
    # distributions
    "heat kernel: time 0": (lambda: RiemannianHeatKernel(ZERO, 0 * ONE, FLAT), ValueError, "time"),
    "heat kernel: negative time": (lambda: RiemannianHeatKernel(ZERO, -ONE, FLAT), ValueError, "time"),
    "heat kernel: NaN time": (lambda: RiemannianHeatKernel(ZERO, NAN * ONE, FLAT), ValueError, "time"),
    "heat kernel: infinite time": (lambda: RiemannianHeatKernel(ZERO, INF * ONE, FLAT), ValueError, "time"),
    "heat kernel: NaN loc": (lambda: RiemannianHeatKernel(NAN * ZERO, ONE, FLAT), ValueError, "loc"),
    "heat kernel: wrong width": (lambda: RiemannianHeatKernel(torch.zeros(3), ONE, FLAT), ValueError, "`loc`"),
    "heat kernel: time a vector": (
        lambda: RiemannianHeatKernel(torch.zeros(4, 2), torch.ones(3), FLAT),
        ValueError,
        "`time`",
    ),
    "heat kernel: no metric": (lambda: RiemannianHeatKernel(ZERO, ONE, torch.eye(2)), TypeError, "`metric`"),  # type: ignore[arg-type]
    "heat kernel: loc a list": (lambda: RiemannianHeatKernel([0.0, 0.0], ONE, FLAT), TypeError, "`loc`"),  # type: ignore[arg-type]
    "heat kernel: integer loc": (lambda: RiemannianHeatKernel(torch.zeros(2).long(), ONE, FLAT), TypeError, "`loc`"),
    "heat kernel: two dtypes": (lambda: RiemannianHeatKernel(ZERO.double(), ONE, FLAT), TypeError, "`time`"),
    "heat kernel: unknown correction": (
        lambda: RiemannianHeatKernel(ZERO, ONE, FLAT, correction="morette"),
        ValueError,
        "`correction`",
    ),
    "heat kernel: no steps": (lambda: RiemannianHeatKernel(ZERO, ONE, FLAT, num_steps=0), ValueError, "`num_steps`"),
    "heat kernel: value of the wrong width": (
        lambda: RiemannianHeatKernel(ZERO, ONE, FLAT).log_prob(torch.zeros(5, 3)),
        ValueError,
        "value|event",
    ),
    "heat kernel: NaN value": (
        lambda: RiemannianHeatKernel(ZERO, ONE, FLAT).log_prob(torch.full((2,), NAN)),
        ValueError,
        "value",
    ),
    "wrapped normal: negative time": (lambda: RiemannianWrappedNormal(ZERO, -ONE, FLAT), ValueError, "time"),
    "wrapped normal: value two dtypes": (
        lambda: RiemannianWrappedNormal(ZERO, ONE, FLAT).log_prob(ZERO.double()),
        TypeError,
        "`value`",
    ),
    "wrapped normal: centre outside the ball": (
        lambda: RiemannianWrappedNormal(torch.ones(2), ONE, Hyperbolic(2)).sample(),
        ValueError,
        "unit ball",
    ),
    "normal: negative scale": (lambda: RiemannianNormal(ZERO, -ONE, FLAT), ValueError, "scale"),
    "normal: no rays": (lambda: RiemannianNormal(ZERO, ONE, FLAT, num_directions=0), ValueError, "`num_directions`"),
    "normal: scale a string": (lambda: RiemannianNormal(ZERO, "1", FLAT), TypeError, "`scale`"),  # type: ignore[arg-type]
    "uniform: infinite bound": (lambda: RiemannianUniform(FLAT, -INF, 1.0), ValueError, "`low`.*infinite"),
    "uniform: no bound": (lambda: RiemannianUniform(FLAT, None, None), ValueError, "`low`.*missing"),  # type: ignore[arg-type]
    "uniform: bounds exchanged": (lambda: RiemannianUniform(FLAT, 1.0, -1.0), ValueError, "`low`"),
    "uniform: wrong width": (lambda: RiemannianUniform(FLAT, torch.zeros(3), 1.0), ValueError, "`low`"),
    "uniform: NaN bound": (lambda: RiemannianUniform(FLAT, NAN, 1.0), ValueError, "low"),
    "uniform: point outside": (
        lambda: RiemannianUniform(FLAT, 0.0, 1.0, validate_args=True).log_prob(torch.full((2,), 2.0)),
        ValueError,
        "value|support",
    ),
    "uniform: metric fails in the box": (
        lambda: RiemannianUniform(Saddle(), -3.0, 3.0).log_volume(),
        ValueError,
        "positive definite",
    ),
    # models
    "vae: unknown prior": (lambda: make_vae(data_dim=4, prior="cauchy"), ValueError, "`prior`"),
    "vae: unknown posterior": (lambda: make_vae(data_dim=4, posterior="cauchy"), ValueError, "`posterior`"),
    "vae: unknown metric": (lambda: make_vae(data_dim=4, metric="cosine", num_centers=5), ValueError, "`metric`"),
    "vae: two latent dimensions": (
        lambda: VAE(Encoder(4, 2, scale_dim=1), GaussianDecoder(3, 4, num_centers=5)),
        ValueError,
        "`encoder`.*`decoder`",
    ),
    "vae: d larger than the data": (
        lambda: make_vae(data_dim=4, latent_dim=9, num_centers=5).metric,
        ValueError,
        "latent dimension",
    ),
    "vae: images not flattened": (lambda: train_on(torch.zeros(3, 2, 2)), ValueError, "`x`"),
    "vae: NaN in the data": (lambda: train_on(torch.full((3, 4), NAN)), ValueError, "`x`"),
    "vae: data a list": (lambda: train_on([[0.0] * 4]), TypeError, "`x`"),
    "training: negative epochs": (lambda: TrainingConfig(epochs=-1), ValueError, "`epochs`"),
    # diagnostics
    "to_arviz: a string": (lambda: to_arviz("chains"), TypeError, "`result`"),
    "to_arviz: no chain axis": (lambda: to_arviz({"z": torch.zeros(5)}), ValueError, "`z`"),
    "to_arviz: different chains": (
        lambda: to_arviz({"z": torch.zeros(2, 5), "y": torch.zeros(3, 5)}),
        ValueError,
        "`y`.*`z`",
    ),
    "summary: unknown variable": (
        lambda: summary({"z": torch.randn(2, 10)}, var_names=["y"]),
        ValueError,
        "`var_names`",
    ),
    "summary: metric of another dimension": (
        lambda: summary({"z": torch.randn(2, 10, 3)}, FLAT),
        ValueError,
        "`metric`",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error_names_the_argument(case: str) -> None:
    call, exception, match = CASES[case]
    with pytest.raises(exception, match=f"(?s){match}"):
        call()


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40


# ---------------------------------------------------------------- the stated regularisation


def flat_spot(z: Tensor) -> Tensor:
    """The map (z_1^3, z_2, z_2), whose Jacobian drops rank on the axis z_1 = 0."""
    return torch.stack([z[..., 0] ** 3, z[..., 1], z[..., 1]], -1)


def test_rank_deficient_jacobian_is_regularised_by_the_jitter() -> None:
    metric = PullbackMetric(flat_spot, dim=2, jitter=1e-4)
    point = torch.zeros(2, dtype=torch.float64)
    expected = torch.diag(torch.tensor([1e-4, 2 + 1e-4], dtype=torch.float64))
    torch.testing.assert_close(metric.metric(point), expected)
    other = torch.tensor([0.3, -0.2], dtype=torch.float64)
    for value in (metric.dist(point, other), metric.expmap(point, other), brownian_motion(metric, point, 1e-6, 8)):
        assert bool(torch.isfinite(value).all())


def test_rank_deficient_jacobian_without_jitter_is_an_error() -> None:
    metric = PullbackMetric(flat_spot, dim=2, jitter=0.0)
    with pytest.raises(ValueError, match=r"not positive definite.*`jitter`"):
        metric.logdet(torch.zeros(2, dtype=torch.float64))


def test_a_path_that_blows_up_is_reported() -> None:
    class Runaway(RiemannianMetric):
        dim = 1

        def metric(self, z: Tensor) -> Tensor:
            return (-(z**2)).exp().unsqueeze(-1)

    with pytest.raises(ValueError, match=r"positive definite|left the reals"):
        brownian_motion(Runaway(), torch.full((50, 1), 5.0), 100.0, 20, method="driftless")


# ---------------------------------------------------------------- valid input gives no NaN

SURFACE = PullbackMetric(lambda z: torch.cat([z, z.square().sum(-1, keepdim=True), z.sin()], -1), dim=2)
METRICS: dict[str, RiemannianMetric] = {
    "flat": ConstantMetric(torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)),
    "sphere": Sphere(2),
    "hyperbolic": Hyperbolic(2),
    "torus": FlatTorus(2),
    "surface": SURFACE,
    "kernel": KernelMetric(
        torch.tensor([[0.0, 0.0], [0.6, 0.2], [-0.4, 0.5]], dtype=torch.float64),
        torch.tensor([[4.0, 2.0], [2.0, 6.0], [3.0, 3.0]], dtype=torch.float64),
        0.8,
        0.1,
    ),
}
coordinate = st.floats(-0.5, 0.5, width=32)
point = st.tuples(coordinate, coordinate)
positive = st.floats(2**-10, 1.0, width=32)
dtypes = st.sampled_from([torch.float32, torch.float64])
names = st.sampled_from(sorted(METRICS))
few = settings(max_examples=20, deadline=None, derandomize=True)


def metric_of(name: str, dtype: torch.dtype) -> RiemannianMetric:
    return METRICS[name].to(dtype)


def tensor(values: Pair, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def all_finite(*values: Tensor) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values)


@few
@given(names, dtypes, point, point)
def test_geometry_is_finite(name: str, dtype: torch.dtype, first: Pair, second: Pair) -> None:
    metric, z, y = metric_of(name, dtype), tensor(first, dtype).requires_grad_(), tensor(second, dtype)
    squared = metric.squared_dist(z, y)
    (gradient,) = torch.autograd.grad(squared, z)
    velocity = metric.logmap(z, y).detach()
    assert squared.dtype == dtype
    assert bool(squared >= 0)
    assert all_finite(squared, gradient, velocity, metric.dist(z, y), metric.logdet(z), metric.drift(z))
    assert all_finite(metric.expmap(z, velocity), metric.log_van_vleck(z, y), metric.scalar_curvature(z))


@few
@given(names, dtypes, point)
def test_coincident_points_are_finite(name: str, dtype: torch.dtype, first: Pair) -> None:
    metric, z = metric_of(name, dtype), tensor(first, dtype)
    start, end = z.clone().requires_grad_(), z.clone().requires_grad_()
    distance = metric.dist(start, end)
    assert distance.item() == 0.0
    for gradient in torch.autograd.grad(distance, (start, end)):
        assert gradient.abs().max().item() == 0.0


@pytest.mark.filterwarnings("ignore:[^%]*% of a RiemannianWrappedNormal:UserWarning")  # honest at large times
@settings(few, max_examples=10)
@given(names, dtypes, point, point, positive)
def test_densities_are_finite(name: str, dtype: torch.dtype, first: Pair, second: Pair, spread: float) -> None:
    metric, loc, z = metric_of(name, dtype), tensor(first, dtype), tensor(second, dtype)
    width = torch.tensor(spread, dtype=dtype)
    laws = [
        RiemannianHeatKernel(loc, width, metric),
        RiemannianHeatKernel(loc, width, metric, correction="van_vleck"),
        RiemannianWrappedNormal(loc, width, metric),
        RiemannianUniform(metric, torch.full_like(z, -0.65), torch.full_like(z, 0.65)),
    ]
    for law in laws:
        value = law.log_prob(z)
        assert value.dtype == dtype
        assert all_finite(value)


@few
@given(names, dtypes, point, positive, st.integers(0, 2**31))
def test_brownian_paths_are_finite(name: str, dtype: torch.dtype, start: Pair, time: float, seed: int) -> None:
    torch.manual_seed(seed)
    metric = metric_of(name, dtype)
    path = brownian_motion(metric, tensor(start, dtype).expand(8, 2), 0.3 * time, 16, return_path=True)
    assert path.shape == (17, 8, 2)
    assert path.dtype == dtype
    assert all_finite(path)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("count", [10, 2**20 + 3])
def test_one_number_that_is_none_is_found_among_many(count: int, bad: float) -> None:
    values = torch.zeros(count)
    assert is_finite(values)
    values[count // 2] = bad
    assert not is_finite(values)
