"""The Frechet distance against its closed form for Gaussians."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from pyro_riemann.evaluation import _frechet as module
from pyro_riemann.evaluation import fid, frechet_distance, inception_features, train_classifier


def closed_form(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    root = torch.as_tensor(sqrtm((cov_a @ cov_b).numpy()).real)
    return float((mean_a - mean_b).square().sum() + torch.trace(cov_a + cov_b - 2 * root))


def whitened(count: int, dim: int) -> Tensor:
    """Points whose empirical mean and covariance are 0 and I, to rounding."""
    x = torch.randn(count, dim, dtype=torch.float64)
    x = x - x.mean(0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T


def test_distance_of_gaussians() -> None:
    """Points with exactly the moments of two Gaussians give exactly their distance."""
    factors = torch.randn(2, 3, 3, dtype=torch.float64).tril() + 2 * torch.eye(3, dtype=torch.float64)
    means = torch.randn(2, 3, dtype=torch.float64)
    a, b = (whitened(500, 3) @ factor.T + mean for factor, mean in zip(factors, means, strict=True))
    covariances = factors @ factors.mT
    exact = closed_form(means[0], covariances[0], means[1], covariances[1])
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(exact, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_commuting_covariances() -> None:
    """Diagonal case by hand: sum of squared differences of means and of standard deviations."""
    a, b = whitened(300, 2), whitened(400, 2) * torch.tensor([2.0, 5.0]) + torch.tensor([1.0, -2.0])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 16, rel=1e-6)


def test_single_precision_features_lose_nothing() -> None:
    """Moments are taken in double precision: a large common offset does not drown the distance."""
    a = (whitened(500, 2) + 1000).float()
    assert frechet_distance(a, a + 1) == pytest.approx(2, rel=1e-3)


def test_fid_extracts_features_first() -> None:
    images = torch.rand(100, 16)
    shift = torch.tensor([0.5, 0.0, 0.0])

    def features(x: Tensor) -> Tensor:
        return x[:, :3] + shift * (x is not images)

    assert fid(images, images.clone(), (4, 4), features) == pytest.approx(0.25, rel=1e-4)


def test_missing_inception_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="torch-fidelity") as caught:
        inception_features((28, 28), weights=tmp_path / "none.pth")
    assert "weights=" in str(caught.value)
    assert "train_classifier" in str(caught.value)


def test_fid_without_inception_fails_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def __init__(self, **settings: object) -> None:
            raise OSError("no route to host")

    monkeypatch.setattr(module, "_torchmetrics", lambda: Absent)
    with pytest.raises(RuntimeError, match="no route to host"):
        fid(torch.rand(3, 16), torch.rand(3, 16), (4, 4))


def test_missing_torchmetrics_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: object) -> object:
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pyro-riemann\[vision\]"):
        frechet_distance(torch.rand(3, 2), torch.rand(3, 2))


def test_classifier_features_serve() -> None:
    images, labels = torch.rand(60, 16), torch.arange(60) % 2
    images[labels == 1] *= 0.1
    judge = train_classifier(images, labels, (4, 4))
    near = fid(images, images[torch.randperm(60)], (4, 4), judge.features)
    assert abs(near) < 1e-4 < fid(images[labels == 0], images[labels == 1], (4, 4), judge.features)


@pytest.mark.parametrize(
    "real, generated, message",
    [
        (torch.rand(3, 2), torch.rand(3, 4), "`real` has 2 features, `generated` 4"),
        (torch.rand(1, 2), torch.rand(3, 2), "`real` must be features"),
        (torch.rand(3, 2), torch.full((3, 2), torch.nan), "generated"),
    ],
)
def test_bad_features_are_named(real: Tensor, generated: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, generated)
