"""Kernel metrics that are made from posteriors, encoders and loaders, or come back from disk."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import KernelMetric
from pyro_riemann._store import write_bundle
from pyro_riemann.metrics import k_medoids, kernel_bandwidth, posterior_moments
from pyro_riemann.metrics._kernel import METRIC
from tests.metrics._kernels import kernels


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
    overlapping = KernelMetric.from_posterior(loc, scale, num_centroids=50, bandwidth="mahalanobis")
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
        ([torch.randn(9, 2)], lambda x: {"loc": x, "noise": x}, TypeError, "got dict with .'loc', 'noise'."),
        ([torch.randn(9, 2)], lambda x: (x, -1 - x.abs()), ValueError, "log-variance, return"),
        ([torch.randn(9, 2)], lambda x: torch.ones(7, 9, 2), ValueError, "num_draws >= 2"),
        ([torch.randn(9, 2)], lambda x: (x[0], x.abs()), ValueError, "`encoder` must map a batch of 9"),
        ([torch.randn(9, 2)], lambda x: (x, x[:, :0]), ValueError, "scales need the same shape"),
    ],
)
def test_bad_loaders_and_encoders(loader: Any, encoder: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        KernelMetric.from_posterior(loader, encoder, num_centroids=2)


@pytest.mark.parametrize("diagonal", [True, False])
def test_metric_comes_back_from_disk(diagonal: bool, tmp_path: Path) -> None:
    base = kernels(diagonal)
    metric = KernelMetric(nn.Parameter(base.centroids), base.precisions, nn.Parameter(base.bandwidth), 0.05)
    kernels(diagonal, dtype=torch.float32).save(tmp_path / "metric")  # replaced by the next line
    metric.save(tmp_path / "metric")
    assert sorted(path.suffix for path in (tmp_path / "metric").iterdir()) == [".json", ".safetensors"]
    other = KernelMetric.load(tmp_path / "metric")
    assert {name for name, _ in other.named_parameters()} == {"centroids", "bandwidth"}
    for name, value in metric.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert other.is_diagonal == diagonal


def test_what_is_no_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no metric in"):
        KernelMetric.load(tmp_path)
    (tmp_path / "metric.json").write_text("{}")
    with pytest.raises(ValueError, match="does not say that it is one"):
        KernelMetric.load(tmp_path)
    write_bundle(tmp_path, METRIC, {"centroids": torch.zeros(3, 2)}, {"class": "PullbackMetric", "trainable": []})
    with pytest.raises(ValueError, match="describes a 'PullbackMetric'"):
        KernelMetric.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "trainable", "match"),
    [
        ({"precisions": -torch.ones(4, 2)}, [], "strictly positive"),
        ({"precisions": torch.ones(3, 2)}, [], "to match `centroids`"),
        ({"precisions": torch.ones(4, 2).double()}, [], "dtypes"),
        ({"bandwidth": torch.zeros(())}, [], "strictly positive"),
        ({"more": torch.ones(1)}, [], "its arrays are"),
        ({}, ["forward"], "cannot be trainable"),
    ],
)
def test_arrays_of_no_metric_are_refused(
    changes: dict[str, Any], trainable: list[str], match: str, tmp_path: Path
) -> None:
    """Under checksums that are right: a stranger can write these as well."""
    arrays = {name: torch.ones(4, 2) for name in ("centroids", "precisions")}
    arrays |= {name: torch.ones(()) for name in ("bandwidth", "regularization")}
    write_bundle(tmp_path, METRIC, arrays | changes, {"class": "KernelMetric", "trainable": trainable})
    with pytest.raises(ValueError, match=match) as refused:
        KernelMetric.load(tmp_path)
    assert "save it anew" in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": torch.ones(20, 3)}, "`loc` and `scale`"),
        ({"scale": torch.zeros(20, 2)}, "`scale`"),
        ({"num_centroids": 21}, "`num_centroids` must be between 1 and"),
        ({"bandwidth": "maximum"}, "`bandwidth` must be a number or one of"),
        ({"bandwidth": -1.0}, "`bandwidth`"),
        ({"scale": -torch.ones(20, 2)}, "log-variances"),
        ({"scale": torch.ones(20, 2, 2)}, "lower triangular"),
        ({"factor": 0.0}, "`bandwidth`"),
        ({"num_centroids": 1, "bandwidth": "mahalanobis"}, "at least 2 centroids"),
        ({"loc": torch.zeros(20, 2), "bandwidth": "mahalanobis"}, "duplicates"),
    ],
)
def test_bad_posteriors(changes: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {"loc": torch.randn(20, 2), "scale": torch.ones(20, 2), "num_centroids": 5}
    with pytest.raises(ValueError, match=match):
        KernelMetric.from_posterior(**(arguments | changes))


def test_default_bumps_are_the_posteriors() -> None:
    """Far apart, the volume element is the equally weighted mixture of the posteriors, whatever their widths."""
    generator = torch.Generator().manual_seed(0)
    loc = 100 * torch.eye(4, dtype=torch.float64)
    scale = 0.2 + torch.rand(4, 4, generator=generator, dtype=torch.float64)
    metric = KernelMetric.from_posterior(loc, scale, num_centroids=4, regularization=1e-9)
    assert metric.bump_scale == pytest.approx(1.0)
    points = loc + scale * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    density = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1).log_prob(points)
    torch.testing.assert_close(0.5 * metric.logdet(points) - density, torch.full((4,), 2 * torch.pi).double().log() * 2)


def triangular(num: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(num, dim, dim, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT + torch.eye(dim, dtype=torch.float64)
    return torch.randn(num, dim, generator=generator, dtype=torch.float64), torch.linalg.cholesky(covariance)


@pytest.mark.parametrize("rule", ["posterior", "mahalanobis", "euclidean"])
def test_full_covariances(rule: str) -> None:
    loc, tril = triangular(40, 3)
    metric = KernelMetric.from_posterior(loc, tril, 7, bandwidth=rule, factor=1.5)
    rows = k_medoids(loc, 7)
    assert torch.equal(metric.centroids, loc[rows])
    torch.testing.assert_close(metric.precisions @ tril[rows] @ tril[rows].mT, torch.eye(3).double().expand(7, 3, 3))
    bandwidth = metric.bandwidth.item() / 1.5
    assert bandwidth == pytest.approx(kernel_bandwidth(metric.centroids, metric.precisions, rule))
    if rule == "mahalanobis":
        apart = metric.centroids[:, None] - metric.centroids
        lengths = torch.einsum("ija,iab,ijb->ij", apart, metric.precisions, apart).fill_diagonal_(torch.inf)
        assert bandwidth == pytest.approx(lengths.amin(-1).sqrt().max().item())


LAWS = torch.distributions


class Flow(LAWS.TransformedDistribution):
    """An affine flow that correlates coordinates and knows no moments."""

    def __init__(self, loc: Tensor, tril: Tensor) -> None:
        base = LAWS.Independent(LAWS.Normal(torch.zeros_like(loc), torch.ones_like(loc)), 1)
        super().__init__(base, [_Affine(loc, tril)])


class _Affine(LAWS.Transform):
    domain = codomain = LAWS.constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, tril: Tensor) -> None:
        super().__init__()
        self.loc, self.tril = loc, tril

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + (self.tril @ x.unsqueeze(-1)).squeeze(-1)


def test_a_flow_counts_by_the_moments_of_its_draws() -> None:
    loc, tril = triangular(8, 3)
    state = torch.get_rng_state()
    found = KernelMetric.from_posterior([torch.zeros(8, 1)], lambda x: Flow(loc, tril), num_centroids=8)
    assert torch.equal(state, torch.get_rng_state())
    # 256 draws: means to 1 / 16 of a standard deviation, variances to a share of sqrt(2 / 255)
    apart = torch.linalg.solve_triangular(tril, (found.centroids - loc).unsqueeze(-1), upper=False)
    assert apart.abs().max().item() < 4.5 / 16
    white = tril.mT @ found.precisions @ tril
    assert (white - torch.eye(3)).abs().max().item() < 4.5 * (2 / 255) ** 0.5


@pytest.mark.parametrize(
    "encoder",
    [
        lambda loc, tril: LAWS.MultivariateNormal(loc, scale_tril=tril),
        lambda loc, tril: {"mu": loc, "covariance": tril @ tril.mT},
        lambda loc, tril: SimpleNamespace(law=LAWS.MultivariateNormal(loc, scale_tril=tril), noise=None),
        lambda loc, tril: (loc, tril),
    ],
)
def test_encoders_with_correlations(encoder: Any) -> None:
    loc, tril = triangular(8, 3)
    found = KernelMetric.from_posterior([torch.zeros(8, 1)], lambda x: encoder(loc, tril), num_centroids=8)
    torch.testing.assert_close(found.precisions, torch.linalg.inv(tril @ tril.mT))


Named = namedtuple("Named", ["z_mean", "z_log_var"])


@pytest.mark.parametrize(
    "encoder",
    [
        lambda x: Named(x, 2 * (0.1 + x.square()).log()),
        lambda x: {"mean": x, "logvar": 2 * (0.1 + x.square()).log(), "z": x},
        lambda x: SimpleNamespace(latent_dist=SimpleNamespace(mean=x, std=0.1 + x.square(), logvar=x * torch.nan)),
        lambda x: {"loc": x, "variance": (0.1 + x.square()) ** 2},
        lambda x: {"qz": LAWS.Normal(x, 0.1 + x.square()), "library": x.sum(-1)},
        lambda x: LAWS.Laplace(x, (0.1 + x.square()) / 2**0.5),
    ],
)
def test_spreads_are_known_by_their_names(encoder: Any) -> None:
    x = torch.randn(12, 2, dtype=torch.float64)
    found = KernelMetric.from_posterior([x], encoder, num_centroids=12)
    torch.testing.assert_close(found.precisions, (0.1 + x.square()) ** -2)


@pytest.mark.parametrize("select", ["image", dict, lambda batch: {"image": batch["image"]}])
def test_batches_and_encoders_with_names(select: Any) -> None:
    x = torch.randn(12, 2, dtype=torch.float64)
    batches = [{"label": torch.arange(4), "image": part} for part in x.split(4)]

    def encoder(batch: Any) -> tuple[Tensor, Tensor]:
        image = batch if isinstance(batch, Tensor) else batch["image"]
        return image, torch.ones_like(image)

    assert torch.equal(KernelMetric.from_posterior(batches, encoder, 12, select=select).centroids, x)
    with pytest.raises(ValueError, match="`select` names"):
        KernelMetric.from_posterior(batches, encoder, 12, select="picture")


def test_moments_of_draws_agree_with_numpy() -> None:
    draws = torch.randn(30, 4, 3, dtype=torch.float64)
    loc, tril = posterior_moments(draws)
    torch.testing.assert_close(loc, draws.mean(0))
    for row in range(4):
        torch.testing.assert_close(tril[row] @ tril[row].mT, draws[:, row].mT.cov())


def test_bumps_that_lift_each_other_are_narrowed() -> None:
    """Codes on a line, all in each other's reach: the heights of the volume element at the centroids must be alike."""
    loc = torch.cat([torch.linspace(0.8, 3, 12).cumsum(0).unsqueeze(-1), torch.zeros(12, 15)], -1).double()
    scale = torch.full_like(loc, 0.5)
    for spread in (scale, torch.diag_embed(scale)):
        metric = KernelMetric.from_posterior(loc, spread, 12, regularization=1e-9)
        wide = KernelMetric(loc, metric.precisions, 16**0.5, 1e-9)
        effective = []
        for each in (metric, wide):
            height = (0.5 * each.logdet(loc)).softmax(0)
            effective.append(1 / height.square().sum().item())
        assert effective[0] >= 0.95 * 12
        assert effective[1] < 6
        assert 0.05 < metric.bump_scale < 1
