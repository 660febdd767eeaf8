"""The kernel metric against its definition, the cost of its fast path, and its life as a module."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_riemann import KernelMetric
from pyro_riemann._autodiff import directional
from pyro_riemann._formulas import kernel
from tests.charts import OnlyMetric
from tests.metrics._kernels import DIM, NUM, definition, kernels


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_definition(batch: tuple[int, ...], diagonal: bool) -> None:
    metric = kernels(diagonal)
    z, u, v = torch.randn(3, *batch, DIM, dtype=torch.float64)
    expected = definition(metric, z)
    torch.testing.assert_close(metric.metric(z), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metric.diagonal(z), expected.diagonal(dim1=-2, dim2=-1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metric.logdet(z), torch.logdet(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metric.cholesky(z), torch.linalg.cholesky(expected), rtol=1e-10, atol=1e-12)
    inner = torch.einsum("...i,...ij,...j->...", u, expected, v)
    torch.testing.assert_close(metric.inner(z, u, v), inner, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
def test_kernels_in_parts_sum_to_the_whole(
    batch: tuple[int, ...], diagonal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyro_riemann.metrics import _kernel_sum

    monkeypatch.setattr(_kernel_sum, "_FEWEST", 3)
    monkeypatch.setattr(_kernel_sum, "_CACHED", 1)
    metric = kernels(diagonal)
    z = torch.randn(*batch, DIM, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(metric.metric(z), definition(metric, z), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pairs", [kernel.PAIRS, 20])  # 20: two centroids at a time
@pytest.mark.parametrize("diagonal", [True, False])
def test_closed_derivatives_match_the_generic_ones(diagonal: bool, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "PAIRS", pairs)
    metric = kernels(diagonal)
    generic = OnlyMetric(metric)
    z, v = torch.randn(2, 2, 4, DIM, dtype=torch.float64)
    for name, arguments in (
        ("metric_jacobian", (z,)),
        ("metric_derivatives", (z, v)),
        ("speed_hessian", (z, v)),
        ("christoffel", (z, v)),
        ("drift", (z,)),
        ("logdet_gradient", (z,)),
        ("scalar_curvature", (z,)),
    ):
        expected = getattr(generic, name)(*arguments)
        torch.testing.assert_close(getattr(metric, name)(*arguments), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("diagonal", [True, False])
def test_gradients_by_finite_differences(diagonal: bool) -> None:
    metric = kernels(diagonal, dim=2)
    centroids, precisions = (t.clone().requires_grad_() for t in (metric.centroids, metric.precisions))
    bandwidth, floor = (t.clone().requires_grad_() for t in (metric.bandwidth, metric.regularization))
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def logdet(z: Tensor, centroids: Tensor, precisions: Tensor, bandwidth: Tensor, floor: Tensor) -> Tensor:
        symmetric = precisions if diagonal else 0.5 * (precisions + precisions.mT)  # perturbed entry by entry
        return KernelMetric(centroids, symmetric, bandwidth, floor).logdet(z)

    arguments = (z, centroids, precisions, bandwidth, floor)
    assert torch.autograd.gradcheck(logdet, arguments, rtol=1e-5, atol=1e-7, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda p: metric.logdet(p), (z,))


def test_two_rotated_charts_agree() -> None:
    # z = R x: a diagonal metric becomes one with full precisions, its tensor R^T G R
    metric = kernels(diagonal=True)
    rotation = torch.linalg.qr(torch.randn(DIM, DIM, dtype=torch.float64)).Q
    turned = KernelMetric(
        metric.centroids @ rotation, rotation.T @ torch.diag_embed(metric.precisions) @ rotation, 1.3, 0.05
    )
    z, v = torch.randn(2, 6, DIM, dtype=torch.float64)
    torch.testing.assert_close(turned.logdet(z @ rotation), metric.logdet(z))
    torch.testing.assert_close(turned.norm(z @ rotation, v @ rotation), metric.norm(z, v))
    torch.testing.assert_close(turned.drift(z @ rotation), metric.drift(z) @ rotation)
    torch.testing.assert_close(turned.scalar_curvature(z @ rotation), metric.scalar_curvature(z))


@pytest.mark.parametrize("dim", [1, 2])
def test_volume_of_an_isolated_bump(dim: int) -> None:
    # sqrt(det G) of one kernel without floor is (2 pi rho^2 / d)^(d/2) times the density N(c, rho^2 Sigma / d)
    rho = 0.7
    precision = torch.tensor([[9.0, 2.0]], dtype=torch.float64)[:, :dim]
    centroid = torch.tensor([[0.3, -0.2]], dtype=torch.float64)[:, :dim]
    metric = KernelMetric(centroid, precision, rho, 1e-30)
    unit = torch.linspace(-8, 8, 801, dtype=torch.float64)
    axes = [c + unit * rho / p.sqrt() for c, p in zip(centroid[0], precision[0], strict=True)]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    cell = math.prod((axis[1] - axis[0]).item() for axis in axes)
    density = (0.5 * metric.logdet(nodes)).exp()
    mass = (2 * torch.pi * rho**2 / dim) ** (dim / 2)
    assert density.sum().item() * cell == pytest.approx(mass, rel=1e-8)
    scale = rho / (dim * precision[0]).sqrt()
    law = torch.distributions.Normal(centroid[0], scale).log_prob(nodes).sum(-1).exp()
    torch.testing.assert_close(density, mass * law, rtol=1e-9, atol=1e-14)


class Largest(TorchDispatchMode):
    """Records the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize("method", ["diagonal", "logdet", "logdet_gradient", "drift", "christoffel", "inner"])
def test_memory_is_linear_in_points_and_centroids(method: str) -> None:
    points, centroids, dim = 300, 200, 16
    metric = KernelMetric(torch.randn(centroids, dim), torch.rand(centroids, dim) + 0.5, 3.0, 0.1)
    z = torch.randn(points, dim, requires_grad=True)
    arguments = {"christoffel": (z, torch.randn(points, dim)), "inner": (z, z.detach(), z.detach())}.get(method, (z,))
    with Largest() as largest:
        getattr(metric, method)(*arguments).sum().backward()
    assert largest.elements <= max(points * centroids, 2 * points * dim)


@pytest.mark.parametrize("scale", [0.03, 1.0])
def test_float32_keeps_its_digits(scale: float) -> None:
    # posterior standard deviations of 0.03 a few units from the origin: squares cancel five digits
    centroids = torch.randn(50, 2, dtype=torch.float64) + 4
    exact = KernelMetric(centroids, torch.full_like(centroids, scale**-2), 0.5 / scale, 1e-3)
    coarse = copy.deepcopy(exact).float()
    exact = copy.deepcopy(coarse).double()  # the same rounded centroids
    z = (centroids + 0.3 * torch.randn_like(centroids)).float()
    torch.testing.assert_close(coarse.logdet(z).double(), exact.logdet(z.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(coarse.drift(z).double(), exact.drift(z.double()), rtol=1e-4, atol=1e-6)
    assert coarse.metric(z).dtype == coarse.logdet(z).dtype == torch.float32


def test_far_away_only_the_floor_remains() -> None:
    metric = kernels(dtype=torch.float32)
    z = torch.tensor([1e4, -1e6, 1e12], requires_grad=True)
    log_volume = metric.logdet(z)
    assert log_volume.item() == pytest.approx(3 * math.log(0.05), rel=1e-6)
    log_volume.backward()
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 0.0, 0.0]
    assert metric.drift(z.detach()).tolist() == [0.0, 0.0, 0.0]


def test_high_dimension_does_not_overflow() -> None:
    metric = KernelMetric(torch.zeros(2, 512), torch.full((2, 512), 1e4), 10.0, 1e-3)
    assert metric.logdet(torch.zeros(512)).item() == pytest.approx(512 * math.log(2e4), rel=1e-6)


@pytest.mark.parametrize("diagonal", [True, False])
def test_pickle_state_and_dtype(diagonal: bool) -> None:
    metric = kernels(diagonal)
    z = torch.randn(4, DIM, dtype=torch.float64)
    for twin in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        torch.testing.assert_close(twin.metric(z), metric.metric(z))
    other = KernelMetric(
        torch.zeros_like(metric.centroids),
        torch.ones_like(metric.precisions)
        if diagonal
        else torch.eye(DIM, dtype=torch.float64).expand(NUM, DIM, DIM).clone(),
        1.0,
        1.0,
    )
    other.load_state_dict(metric.state_dict())
    torch.testing.assert_close(other.metric(z), metric.metric(z))
    assert set(metric.state_dict()) == {"centroids", "precisions", "bandwidth", "regularization"}
    assert copy.deepcopy(metric).float().metric(z.float()).dtype == torch.float32
    assert "num_centroids=12" in repr(metric)


def test_parameters_stay_trainable() -> None:
    metric = KernelMetric(nn.Parameter(torch.randn(4, 2)), torch.ones(4, 2), nn.Parameter(torch.tensor(1.0)), 0.1)
    assert {name for name, _ in metric.named_parameters()} == {"centroids", "bandwidth"}
    metric.logdet(torch.randn(5, 2)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in metric.parameters())


@pytest.mark.parametrize("name", ["metric", "logdet", "drift", "logdet_gradient", "metric_jacobian"])
@pytest.mark.parametrize("diagonal", [True, False])
def test_traces(diagonal: bool, name: str) -> None:
    metric = kernels(diagonal)
    z = torch.randn(4, DIM, dtype=torch.float64)
    traced = torch.jit.trace(lambda p: getattr(metric, name)(p), (z,))
    torch.testing.assert_close(traced(0.5 * z), getattr(metric, name)(0.5 * z))


@pytest.mark.parametrize("diagonal", [True, False])
def test_derivatives_in_forward_mode_trace(diagonal: bool) -> None:
    """As the solver of a compiled density asks for them; shapes are tensors there."""
    metric = kernels(diagonal)

    def slope(z: Tensor) -> Tensor:
        return directional(lambda p: metric.metric_jacobian(p)[1], z, torch.ones_like(z))[1]

    z = torch.randn(4, DIM, dtype=torch.float64)
    torch.testing.assert_close(torch.jit.trace(slope, (z,))(0.5 * z), slope(0.5 * z))


INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).expand(3, 2, 2)
GOOD: dict[str, Any] = {
    "centroids": torch.zeros(3, 2),
    "precisions": torch.ones(3, 2),
    "bandwidth": 1.0,
    "regularization": 0.1,
}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"centroids": torch.zeros(2)}, r"`centroids` must have shape \(k, d\)"),
        ({"centroids": torch.zeros(0, 2)}, "`centroids`"),
        ({"centroids": torch.full((3, 2), torch.nan)}, "`centroids` has 6 NaN"),
        ({"precisions": torch.ones(4, 2)}, r"`precisions` must have shape \(3, 2\)"),
        ({"precisions": -torch.ones(3, 2)}, "`precisions` must be finite and strictly positive"),
        ({"precisions": torch.full((3, 2), torch.inf)}, "`precisions`"),
        ({"precisions": INDEFINITE}, "3 matrices that are not positive definite"),
        ({"precisions": torch.tensor([[1.0, 0.5], [0.0, 1.0]]).expand(3, 2, 2)}, "`precisions` must be symmetric"),
        ({"bandwidth": 0.0}, "`bandwidth`"),
        ({"bandwidth": torch.ones(3)}, "`bandwidth` must be a number"),
        ({"regularization": 0.0}, "`regularization`"),
        ({"regularization": float("nan")}, "`regularization`"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        KernelMetric(**(GOOD | changes))


def test_wrong_points() -> None:
    with pytest.raises(ValueError, match=r"`z` must have shape \(\*batch, 3\)"):
        kernels().logdet(torch.zeros(2))
    with pytest.raises(TypeError, match="`z`"):
        kernels().metric([0.0, 0.0, 0.0])  # type: ignore[arg-type]
