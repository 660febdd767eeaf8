"""Evaluation on the GPU: the scores of images that lie there are those of the processor.

``PYRO_RIEMANN_TEST_DEVICE=cpu`` checks these tests themselves.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric
from pyro_riemann.autoencoders import inverse_multiquadric_mmd
from pyro_riemann.evaluation import (
    AugmentationTask,
    ClassifierConfig,
    authenticity,
    classification_scores,
    compare_samplers,
    fid,
    frechet_distance,
    identifiability_report,
    nearest,
    nearest_images,
    prd,
    prd_of_histograms,
    precision_recall,
    stack_classes,
    train_classifier,
)

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("PYRO_RIEMANN_TEST_DEVICE", "cuda"))


def sets(dim: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    real = torch.rand(200, dim, generator=generator)
    return real, 0.8 * torch.rand(200, dim, generator=generator)


def test_distances_of_feature_sets() -> None:
    real, generated = sets()
    here = real.to(DEVICE), generated.to(DEVICE)
    assert frechet_distance(*here) == pytest.approx(frechet_distance(real, generated), rel=1e-3)
    assert fid(*here, (2, 2), features=lambda x: x[:, :3]) == pytest.approx(
        fid(real, generated, (2, 2), features=lambda x: x[:, :3]), rel=1e-3
    )
    assert precision_recall(*here) == pytest.approx(precision_recall(real, generated), abs=0.02)
    assert prd(*here, num_clusters=5).f8 == pytest.approx(prd(real, generated, num_clusters=5).f8, abs=0.05)
    torch.testing.assert_close(
        inverse_multiquadric_mmd(*here).cpu(), inverse_multiquadric_mmd(real, generated), rtol=1e-3, atol=1e-5
    )


def test_curve_of_two_histograms() -> None:
    first, second = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    curve = prd_of_histograms(first.to(DEVICE), second.to(DEVICE))
    for value, expected in zip(curve, prd_of_histograms(first, second), strict=True):
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-6)


def test_nearest_images() -> None:
    real, generated = sets()
    found, expected = nearest(generated.to(DEVICE), real.to(DEVICE)), nearest(generated, real)
    assert found.rows.device.type == DEVICE.type
    torch.testing.assert_close(found.distance.cpu(), expected.distance, rtol=1e-4, atol=1e-5)
    assert authenticity(generated.to(DEVICE), real.to(DEVICE)) == authenticity(generated, real)
    shown = nearest_images(generated[:3].to(DEVICE), real.to(DEVICE), lambda rows: 0.5 * rows)
    torch.testing.assert_close(
        shown.train_distance.cpu(), nearest_images(generated[:3], real, lambda rows: 0.5 * rows).train_distance
    )


def test_classifier() -> None:
    images, labels = stack_classes([torch.zeros(40, 16, device=DEVICE), torch.ones(40, 16, device=DEVICE)])
    assert images.device.type == labels.device.type == DEVICE.type
    config = ClassifierConfig(epochs=20, batch_size=40)
    judge = train_classifier(images, labels, (4, 4), config=config)
    predictions = judge.predict(images)
    assert predictions.device.type == DEVICE.type
    assert classification_scores(labels, predictions).balanced_accuracy == 1.0
    task = AugmentationTask((images, labels), (images, labels), (images, labels), (4, 4))
    assert task.score(images, labels, config).balanced_accuracy == 1.0
    resampled, _ = task.resampled()
    assert resampled.device.type == DEVICE.type


def test_identifiability() -> None:
    def surface(scale: float) -> PullbackMetric:
        return PullbackMetric(lambda z: torch.cat([z / scale, (z / scale).sin()], -1), 2)

    metrics = [surface(1.0), surface(2.0)]
    codes = torch.tensor([1.0, 2.0], device=DEVICE)[:, None, None] * sets(2)[0][:6].to(DEVICE)
    report = identifiability_report(metrics, (codes[:, :5], codes[:, 1:]))
    assert report.geodesic.device.type == DEVICE.type
    assert float(report.geodesic_variation.max()) < 1e-3
    assert report.p_value < 0.05


def test_table_of_samplers() -> None:
    codes = torch.randn(60, 2, device=DEVICE)
    posterior = (codes, torch.full_like(codes, 0.3))
    table = compare_samplers(posterior, posterior, num_samples=50, num_centroids=10, num_components=2)
    assert bool((table.novelty["N(0, I)"] > 0) & (table.frechet["aggregate posterior"] >= 0))
