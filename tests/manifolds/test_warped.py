"""Other coordinates: transforms, pairs of maps, modules; any base metric."""

from __future__ import annotations

import copy
import pickle

import pyro.distributions.transforms as pyro_transforms
import pytest
import torch
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform, ComposeTransform, ExpTransform, TanhTransform

from pyro_riemann import (
    ConstantMetric,
    EuclideanMetric,
    GridMetric,
    Hyperbolic,
    KernelMetric,
    PullbackMetric,
    Sphere,
    WarpedMetric,
)
from tests.charts import cylinder, shear, unshear, warped_sphere

DTYPE = torch.float64


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.log_factor = nn.Parameter(torch.tensor(factor, dtype=DTYPE).log())

    def forward(self, z: Tensor) -> Tensor:
        return z * self.log_factor.exp()


class Shrink(nn.Module):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * (-self.scale.log_factor).exp()


@pytest.mark.parametrize(
    "transform",
    [
        AffineTransform(0.3, 2.0),
        ExpTransform(),
        TanhTransform(),
        ComposeTransform([AffineTransform(0.1, 0.5), TanhTransform()]),
        pyro_transforms.LowerCholeskyAffine(
            torch.zeros(2, dtype=DTYPE), torch.tensor([[1.0, 0.0], [0.7, 0.5]], dtype=DTYPE)
        ),
    ],
    ids=["affine", "exp", "tanh", "compose", "lower-cholesky"],
)
def test_accepts_transforms(transform: torch.distributions.Transform) -> None:
    metric = WarpedMetric(EuclideanMetric(2), transform)
    z, y = torch.tensor([[0.1, 0.2]], dtype=DTYPE), torch.tensor([[-0.3, 0.5]], dtype=DTYPE)
    torch.testing.assert_close(metric.dist(z, y), (transform(z) - transform(y)).norm(dim=-1))
    torch.testing.assert_close(metric.expmap(z, metric.logmap(z, y)), y)
    jacobian = torch.func.jacrev(transform)(z[0])
    torch.testing.assert_close(metric.metric(z[0]), jacobian.mT @ jacobian)
    log_jacobian = transform.log_abs_det_jacobian(z, transform(z))
    if transform.domain.event_dim == 0:
        log_jacobian = log_jacobian.sum(-1)
    torch.testing.assert_close(metric.logdet(z), 2 * log_jacobian)


def test_poincare_ball_by_tanh_is_inside_everywhere() -> None:
    """A chart of the unit disk that is all of R: tanh on the one-dimensional ball."""
    metric = WarpedMetric(Hyperbolic(1), TanhTransform())
    z = torch.tensor([[3.0], [-2.0]], dtype=DTYPE)
    torch.testing.assert_close(metric.dist(z[0], z[1]).item(), 10.0)  # the metric is 4 dz^2
    torch.testing.assert_close(metric.metric(z).flatten(), torch.full((2,), 4.0, dtype=DTYPE))


def test_learned_coordinates_get_gradients_and_move_with_the_module() -> None:
    scale = Scale(2.0)
    metric = WarpedMetric(Sphere(2), (scale, Shrink(scale)))
    assert [name for name, _ in metric.named_parameters()] == ["_to.log_factor"]
    z, y = torch.tensor([0.1, 0.2], dtype=DTYPE), torch.tensor([-0.3, 0.5], dtype=DTYPE)
    (gradient,) = torch.autograd.grad(metric.squared_dist(z, y), scale.log_factor)
    step = 1e-6
    values = []
    for sign in (1, -1):
        factor = 2.0 * torch.tensor(sign * step, dtype=DTYPE).exp()
        values.append(Sphere(2).squared_dist(factor * z, factor * y))
    torch.testing.assert_close(gradient, (values[0] - values[1]) / (2 * step), atol=1e-8, rtol=1e-8)


def test_constant_base_and_linear_map_give_a_constant_metric() -> None:
    matrix = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=DTYPE)
    linear = torch.tensor([[1.0, 0.5], [-0.2, 0.8]], dtype=DTYPE)
    metric = WarpedMetric(ConstantMetric(matrix), (lambda z: z @ linear.mT, lambda x: x @ torch.linalg.inv(linear).mT))
    constant = ConstantMetric(linear.mT @ matrix @ linear)
    z, y, v = torch.randn(3, 4, 2, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(metric.metric(z), constant.metric(z))
    torch.testing.assert_close(metric.dist(z, y), constant.dist(z, y))
    torch.testing.assert_close(metric.drift(z), torch.zeros_like(z), atol=1e-14, rtol=0)
    torch.testing.assert_close(metric.christoffel(z, v), torch.zeros_like(z), atol=1e-14, rtol=0)
    with pytest.raises(NotImplementedError, match="ConstantMetric"):
        metric.log_heat_kernel(z, y, 0.1)


def test_warping_twice_is_warping_by_the_composition() -> None:
    twice = WarpedMetric(warped_sphere(3), (shear, unshear))
    once = WarpedMetric(Sphere(3), (lambda z: shear(shear(z)), lambda x: unshear(unshear(x))))
    z, y, v = 0.5 * torch.randn(3, 4, 3, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(twice.metric(z), once.metric(z))
    torch.testing.assert_close(twice.drift(z), once.drift(z))
    torch.testing.assert_close(twice.christoffel(z, v), once.christoffel(z, v))
    torch.testing.assert_close(twice.logmap(z, y), once.logmap(z, y))


def test_a_warped_pullback_is_a_pullback() -> None:
    base = cylinder()
    metric = WarpedMetric(base, (shear, unshear))
    z = torch.tensor([[0.1, 0.2], [0.4, -0.3]], dtype=DTYPE)
    value, jacobian = metric.embed_jacobian(z)
    torch.testing.assert_close(value, base.embed(shear(z)))
    torch.testing.assert_close(jacobian.mT @ jacobian, metric.metric(z))
    assert warped_sphere().immersed() is None
    with pytest.raises(TypeError, match="Sphere is no pullback"):
        warped_sphere().embed(z)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert twin.immersed() is twin
        torch.testing.assert_close(twin.embed(z), value)


def test_solver_settings_act_on_the_base() -> None:
    base = PullbackMetric(lambda z: torch.cat([z, z.square()], -1), 2)
    metric = WarpedMetric(base, (shear, unshear))
    metric.solver = base.solver.replace(num_segments=64)
    assert base.solver.num_segments == 64
    assert metric.solver is base.solver


def test_geodesic_of_a_numerical_base_is_carried_over() -> None:
    base = cylinder()
    metric = WarpedMetric(base, (shear, unshear))
    x, w = torch.tensor([[0.1, 0.2]], dtype=DTYPE), torch.tensor([[1.0, -0.5]], dtype=DTYPE)
    z, y = unshear(x), unshear(w)
    torch.testing.assert_close(metric.dist(z, y), (x - w).norm(dim=-1), atol=1e-5, rtol=1e-5)
    curve = metric.geodesic(z, y)
    torch.testing.assert_close(curve.points[0], z)
    torch.testing.assert_close(curve.points[-1], y)
    torch.testing.assert_close(shear(curve(0.5)), (x + w) / 2, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- wrong input


def test_base_must_be_a_metric() -> None:
    with pytest.raises(TypeError, match="`base` must be a RiemannianMetric"):
        WarpedMetric("sphere", ExpTransform())  # type: ignore[arg-type]


@pytest.mark.parametrize("diffeomorphism", [shear, (shear,), (shear, 3), None])
def test_diffeomorphism_must_have_an_inverse(diffeomorphism: object) -> None:
    with pytest.raises(TypeError, match=r"`diffeomorphism` must be a torch.distributions Transform or a pair"):
        WarpedMetric(Sphere(2), diffeomorphism)  # type: ignore[arg-type]


def test_a_wrong_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="does not undo it"):
        WarpedMetric(Sphere(2), (shear, shear))


def test_a_map_that_changes_the_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="must keep the shape"):
        WarpedMetric(Sphere(2), (lambda z: z[..., :1], lambda x: x))


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(\*batch, 2\)"):
        warped_sphere(2).metric(torch.zeros(3))


def test_rewritten_metrics_know_the_floor_of_their_base() -> None:
    kernel = KernelMetric(torch.zeros(1, 2).double(), torch.ones(1, 2).double(), 1.0, 1e-3)
    z = torch.tensor([[0.2, 0.1], [3.0, 0.4]], dtype=torch.float64)  # w = 0.95 and 1e-4, against a floor of 1e-3
    warped = WarpedMetric(kernel, (shear, unshear))
    for metric, points in (
        (kernel, z),
        (warped, unshear(z)),
        (kernel.conformal(), z),
        (kernel.tabulate(-4.0, 4.0, 5), z),
        (WarpedMetric(kernel.conformal(), (shear, unshear)), unshear(z)),
    ):
        assert metric.on_floor(points).tolist() == [False, True]
    assert kernel.coverage(z) == 0.5
    assert Sphere(2).on_floor(z) is None
    assert warped_sphere(2).on_floor(z) is None
    alone = GridMetric(kernel, -4.0, 4.0, 65, outside="error")
    for metric, points in ((alone, z), (WarpedMetric(alone, (shear, unshear)), unshear(z)), (alone.conformal(), z)):
        assert metric.on_floor(points).tolist() == [False, True]
        assert metric.on_floor(points[1]).shape == ()
    assert GridMetric(Sphere(2), -1.0, 1.0, 5, outside="error").on_floor(z) is None


def test_a_table_on_its_own_knows_where_it_knows_the_metric() -> None:
    kernel = KernelMetric(torch.zeros(1, 2).double(), torch.ones(1, 2).double(), 1.0, 1e-3)
    alone, z = GridMetric(kernel, -1.0, 2.0, 8, outside="error"), torch.tensor([[0.2, 0.1], [3.0, 0.4]]).double()
    for metric, points in (
        (alone, z),
        (WarpedMetric(alone, (shear, unshear)), unshear(z)),
        (alone.conformal(), z),
        (GridMetric(alone, -0.5, 1.0, 8), z),
    ):
        assert metric.covers(points).tolist() == [True, False]
    assert kernel.covers(z) is None
    assert kernel.tabulate(-1.0, 2.0, 8).covers(z) is None


def test_what_a_metric_knows_is_passed_on_in_the_wrappers_own_coordinates() -> None:
    centroids = torch.tensor([[0.1, 0.2], [-0.4, 0.3]], dtype=DTYPE)
    kernel = KernelMetric(centroids, torch.ones_like(centroids), 0.5, 0.1)
    warped = WarpedMetric(kernel, (shear, unshear))
    assert warped.landmarks is not None
    torch.testing.assert_close(shear(warped.landmarks), centroids)
    for metric in (warped.conformal(), warped.tabulate(-2.0, 2.0, 5)):
        torch.testing.assert_close(metric.landmarks, warped.landmarks)
    assert WarpedMetric(Sphere(2), (shear, unshear)).landmarks is None
    # both kinds of energy are those of the base on the image of the curve; a linear map keeps splines splines
    control = torch.randn(7, 11, 2, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor([[1.0, 0.3], [-0.5, 2.0]], dtype=DTYPE)
    for base in (cylinder(), Sphere(2)):
        mapped = WarpedMetric(base, (lambda z: z @ matrix.mT, lambda x: x @ torch.linalg.inv(matrix).mT))
        own, expected = mapped.energy(base.solver), base.energy(base.solver)
        assert type(own) is type(expected)
        torch.testing.assert_close(own.value(control), expected.value(control @ matrix.mT))
