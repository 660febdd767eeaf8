"""Kernel metrics that are made from posteriors, encoders and loaders, or come back from disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_riemann import KernelMetric
from pyro_riemann._store import write_bundle
from pyro_riemann.metrics._kernel_store import METRIC
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
