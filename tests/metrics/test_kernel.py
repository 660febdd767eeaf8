"""The kernel metric against its definition, and the cost of its fast path."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_riemann import KernelMetric
from tests.charts import OnlyMetric

NUM, DIM = 12, 3


def make(diagonal: bool = True, dtype: torch.dtype = torch.float64, dim: int = DIM) -> KernelMetric:
    generator = torch.Generator().manual_seed(1)
    centroids = torch.randn(NUM, dim, generator=generator, dtype=torch.float64)
    precisions = 0.5 + 3 * torch.rand(NUM, dim, generator=generator, dtype=torch.float64)
    if not diagonal:
        root = 0.5 * torch.randn(NUM, dim, dim, generator=generator, dtype=torch.float64)
        precisions = torch.diag_embed(precisions) + root @ root.mT
    return KernelMetric(centroids.to(dtype), precisions.to(dtype), 1.3, 0.05)


def definition(metric: KernelMetric, z: Tensor) -> Tensor:
    """Equation 7, kernel by kernel."""
    total = metric.regularization * torch.eye(metric.dim, dtype=z.dtype)
    for centroid, precision in zip(metric.centroids, metric.precisions, strict=True):
        matrix = torch.diag(precision) if precision.dim() == 1 else precision
        distance = torch.einsum("...i,ij,...j->...", z - centroid, matrix, z - centroid)
        total = total + matrix * torch.exp(-distance / metric.bandwidth**2)[..., None, None]
    return total


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_definition(batch: tuple[int, ...], diagonal: bool) -> None:
    metric = make(diagonal)
    z, u, v = torch.randn(3, *batch, DIM, dtype=torch.float64)
    expected = definition(metric, z)
    torch.testing.assert_close(metric.metric(z), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metric.diagonal(z), expected.diagonal(dim1=-2, dim2=-1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metric.logdet(z), torch.logdet(expected), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(metric.cholesky(z), torch.linalg.cholesky(expected), rtol=1e-10, atol=1e-12)
    inner = torch.einsum("...i,...ij,...j->...", u, expected, v)
    torch.testing.assert_close(metric.inner(z, u, v), inner, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("diagonal", [True, False])
def test_closed_derivatives_match_the_generic_ones(diagonal: bool) -> None:
    metric = make(diagonal)
    generic = OnlyMetric(metric)
    z, v = torch.randn(2, 2, 4, DIM, dtype=torch.float64)
    for name, arguments in (
        ("metric_jacobian", (z,)),
        ("metric_derivatives", (z, v)),
        ("christoffel", (z, v)),
        ("drift", (z,)),
        ("logdet_gradient", (z,)),
        ("scalar_curvature", (z,)),
    ):
        expected = getattr(generic, name)(*arguments)
        torch.testing.assert_close(getattr(metric, name)(*arguments), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("diagonal", [True, False])
def test_gradients_by_finite_differences(diagonal: bool) -> None:
    metric = make(diagonal, dim=2)
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
    metric = make(diagonal=True)
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
    metric = make(dtype=torch.float32)
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


# ---------------------------------------------------------------- from encoded data


def codes(num: int, dim: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=generator), 0.03 + 0.05 * torch.rand(num, dim, generator=generator)


def test_medoids_and_precisions_are_the_data() -> None:
    loc, scale = codes(300)
    metric = KernelMetric.from_posterior(loc, scale, num_centroids=10)
    found = (metric.centroids.unsqueeze(1) == loc).all(-1)
    assert found.sum(-1).tolist() == [1] * 10
    torch.testing.assert_close(metric.precisions, scale[found.long().argmax(-1)] ** -2)


@pytest.mark.parametrize("rule", ["mahalanobis", "euclidean"])
def test_bandwidth_rules(rule: str) -> None:
    metric = KernelMetric.from_posterior(*codes(200), num_centroids=8, bandwidth=rule)
    lengths = []
    for i, (centroid, precision) in enumerate(zip(metric.centroids, metric.precisions, strict=True)):
        weight = precision if rule == "mahalanobis" else torch.ones(2)
        squared = (weight * (metric.centroids - centroid) ** 2).sum(-1)
        lengths.append(torch.cat([squared[:i], squared[i + 1 :]]).min().sqrt().item())
    assert metric.bandwidth.item() == pytest.approx(max(lengths), rel=1e-5)


def test_coverage_tells_overlapping_kernels_from_bumps() -> None:
    loc, scale = codes(2000, dim=8)
    overlapping = KernelMetric.from_posterior(loc, scale, num_centroids=50)
    bumps = KernelMetric.from_posterior(loc, scale, num_centroids=50, bandwidth="euclidean")
    assert overlapping.coverage(loc).item() > 0.95
    assert bumps.coverage(loc).item() < 0.5
    assert bumps.coverage(bumps.centroids).item() == 1.0
    assert bumps.coverage(bumps.centroids + 100).item() == 0.0


def test_subsets_serve_all_codes() -> None:
    # twenty tight clusters: a search in subsets of a tenth must still put a medoid in each
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.randn(20, 2, generator=generator)
    loc = (centers.unsqueeze(1) + 0.01 * torch.randn(20, 100, 2, generator=generator)).reshape(-1, 2)
    metric = KernelMetric.from_posterior(loc, torch.ones_like(loc), num_centroids=20, max_codes=200)
    nearest = torch.cdist(centers, metric.centroids).min(-1).values
    assert nearest.max().item() < 0.1


def test_same_seed_same_metric_and_no_global_randomness() -> None:
    state = torch.get_rng_state()
    first, second = (KernelMetric.from_posterior(*codes(200), num_centroids=9, seed=3, max_codes=100) for _ in range(2))
    assert torch.equal(first.centroids, second.centroids)
    assert torch.equal(torch.get_rng_state(), state)


class Noisy(nn.Module):
    """An encoder whose codes are wrong in training mode."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.linear, self.noise = form, nn.Linear(5, 4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Any:
        loc, log_variance = self.noise(self.linear(x)).chunk(2, dim=-1)
        scale = (0.5 * log_variance).exp()
        if self.form == "pair":
            return loc, scale
        if self.form == "distribution":
            return torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
        if self.form == "mapping":
            return {"embedding": loc, "log_covariance": log_variance}
        return SimpleNamespace(embedding=loc, log_covariance=log_variance)


@pytest.mark.parametrize("form", ["pair", "distribution", "mapping", "attributes"])
@pytest.mark.parametrize("batches", ["tensors", "tuples", "mappings"])
def test_loader_and_encoder_give_the_metric_of_their_codes(form: str, batches: str) -> None:
    encoder = Noisy(form)
    encoder.linear.eval()
    data = torch.randn(90, 5)
    chunks: dict[str, Any] = {
        "tensors": data.split(40),
        "tuples": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data, torch.arange(90)), batch_size=40),
        "mappings": [{"data": piece, "labels": None} for piece in data.split(40)],
    }
    metric = KernelMetric.from_posterior(chunks[batches], encoder, num_centroids=8)
    assert (encoder.training, encoder.linear.training, encoder.noise.training) == (True, False, True)
    loc, log_variance = encoder.linear(data).detach().chunk(2, dim=-1)
    expected = KernelMetric.from_posterior(loc, (0.5 * log_variance).exp(), num_centroids=8)
    torch.testing.assert_close(metric.state_dict(), expected.state_dict())
    assert not any(value.requires_grad for value in metric.state_dict().values())


def test_one_scale_for_all_coordinates() -> None:
    loader = torch.randn(60, 2).split(20)
    metric = KernelMetric.from_posterior(loader, lambda x: (x, x.square().sum(-1, keepdim=True)), num_centroids=5)
    torch.testing.assert_close(metric.precisions, metric.centroids.square().sum(-1, keepdim=True).expand(5, 2) ** -2)


@pytest.mark.parametrize(
    ("loader", "encoder", "error", "match"),
    [
        (torch.randn(9, 2), lambda x: x, TypeError, "`loc` and `scale` must both be tensors"),
        ([torch.randn(9, 2)], torch.ones(9, 2), TypeError, "`loc` and `scale` must both be tensors"),
        ([torch.randn(9, 2)], None, TypeError, "a data loader and an encoder"),
        ([], lambda x: (x, x), ValueError, "no batch"),
        (["text"], lambda x: (x, x), TypeError, "loader must give tensors"),
        ([torch.randn(9, 2)], lambda x: x, TypeError, "`encoder` must return"),
        ([torch.randn(9, 2)], lambda x: (x[0], x), ValueError, "`encoder` must map a batch of 9"),
        ([torch.randn(9, 2)], lambda x: (x, x[:, :0]), ValueError, "scales need the same shape"),
        (
            [torch.randn(9, 2)],
            lambda x: torch.distributions.MultivariateNormal(x, torch.eye(2)),
            TypeError,
            "coordinates are correlated",
        ),
    ],
)
def test_bad_loaders_and_encoders(loader: Any, encoder: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        KernelMetric.from_posterior(loader, encoder, num_centroids=2)


@pytest.mark.parametrize("diagonal", [True, False])
def test_metric_comes_back_from_disk(diagonal: bool, tmp_path: Path) -> None:
    base = make(diagonal)
    metric = KernelMetric(nn.Parameter(base.centroids), base.precisions, nn.Parameter(base.bandwidth), 0.05)
    make(diagonal, dtype=torch.float32).save(tmp_path / "metric")  # replaced by the next line
    metric.save(tmp_path / "metric")
    assert sorted(path.name for path in (tmp_path / "metric").iterdir()) == ["metric.json", "metric.safetensors"]
    other = KernelMetric.load(tmp_path / "metric")
    assert {name for name, _ in other.named_parameters()} == {"centroids", "bandwidth"}
    for name, value in metric.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert other.is_diagonal == diagonal


def test_what_is_no_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no metric in"):
        KernelMetric.load(tmp_path)
    (tmp_path / "metric.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe a metric"):
        KernelMetric.load(tmp_path)
    (tmp_path / "metric.json").write_text('{"kind": "PullbackMetric", "version": 1, "trainable": []}')
    with pytest.raises(ValueError, match="describes a PullbackMetric"):
        KernelMetric.load(tmp_path)


# ---------------------------------------------------------------- as a module


@pytest.mark.parametrize("diagonal", [True, False])
def test_pickle_state_and_dtype(diagonal: bool) -> None:
    metric = make(diagonal)
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
    metric = make(diagonal)
    z = torch.randn(4, DIM, dtype=torch.float64)
    traced = torch.jit.trace(lambda p: getattr(metric, name)(p), (z,))
    torch.testing.assert_close(traced(0.5 * z), getattr(metric, name)(0.5 * z))


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


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": torch.ones(20, 3)}, "`loc` and `scale`"),
        ({"scale": torch.zeros(20, 2)}, "`scale`"),
        ({"num_centroids": 21}, "`num_centroids` must be between 1 and"),
        ({"bandwidth": "maximum"}, "`bandwidth` must be one of"),
        ({"bandwidth": -1.0}, "`bandwidth`"),
        ({"num_centroids": 1}, "at least 2 centroids"),
        ({"loc": torch.zeros(20, 2)}, "duplicates"),
    ],
)
def test_bad_posteriors(changes: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {"loc": torch.randn(20, 2), "scale": torch.ones(20, 2), "num_centroids": 5}
    with pytest.raises(ValueError, match=match):
        KernelMetric.from_posterior(**(arguments | changes))


def test_wrong_points() -> None:
    with pytest.raises(ValueError, match=r"`z` must have shape \(\*batch, 3\)"):
        make().logdet(torch.zeros(2))
    with pytest.raises(TypeError, match="`z`"):
        make().metric([0.0, 0.0, 0.0])  # type: ignore[arg-type]
