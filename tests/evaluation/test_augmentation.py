"""Classifier, scores and the augmentation test on a task with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_riemann.datasets import disks_and_rings
from pyro_riemann.evaluation import (
    AugmentationTask,
    ClassifierConfig,
    classification_scores,
    stack_classes,
    train_classifier,
)

CONFIG = ClassifierConfig(epochs=6, batch_size=20, num_features=16, channels=(4, 8))


def task(minority: int = 8, majority: int = 80) -> AugmentationTask:
    """Disks, few, against rings."""

    def images(disks: int, rings: int, seed: int) -> tuple[Tensor, Tensor]:
        drawn, labels = disks_and_rings(2 * max(disks, rings), 12, seed)
        return stack_classes([drawn[labels == 0][:disks], drawn[labels == 1][:rings]])

    return AugmentationTask(images(minority, majority, 0), images(20, 20, 1), images(100, 100, 2), (12, 12))


def test_scores_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    predictions = torch.tensor([0, 0, 0, 1, 1, 0])
    scores = classification_scores(labels, predictions)
    assert scores.recall == (0.75, 0.5)
    assert scores.precision == (0.75, 0.5)
    assert scores.f1 == (0.75, 0.5)
    assert scores.balanced_accuracy == 0.625


def test_a_class_never_predicted_scores_zero_without_a_warning() -> None:
    scores = classification_scores(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert scores.f1[0] == pytest.approx(2 / 3)
    assert scores.f1[1] == 0.0
    assert scores.balanced_accuracy == 0.5


def test_resampling_balances_by_copies() -> None:
    problem = task()
    images, labels = problem.resampled(seed=3)
    assert torch.bincount(labels).tolist() == [80, 80]
    originals = problem.train[0][problem.train[1] == 0]
    assert bool((torch.cdist(images[labels == 0], originals).amin(-1) == 0).all())
    kept = torch.cdist(originals, images[labels == 0]).amin(-1)
    assert bool((kept == 0).all()), "every original stays"


def test_more_true_images_help_and_exchanged_classes_mislead() -> None:
    """The oracle of the test: fresh draws of the true law beat the small set; with the labels exchanged they fail."""
    problem = task()
    small = problem.score(*problem.train, config=CONFIG).balanced_accuracy
    drawn, labels = disks_and_rings(800, 12, seed=9)
    oracle = problem.score(drawn, labels, config=CONFIG).balanced_accuracy
    exchanged = problem.score(drawn, 1 - labels, config=CONFIG)
    assert oracle > 0.95
    assert oracle > small
    assert exchanged.balanced_accuracy < 0.5


def test_training_depends_on_its_seed_alone() -> None:
    images, labels = task().train
    torch.manual_seed(1)
    first = train_classifier(images, labels, (12, 12), config=CONFIG)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = train_classifier(images, labels, (12, 12), config=CONFIG)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.features(images), second.features(images))


def test_best_epoch_on_the_validation_set_is_kept() -> None:
    """With validation labels turned round the best epoch is the one that learned least."""
    problem = task(200, 200)
    images, labels = problem.train
    turned = (problem.validation[0], 1 - problem.validation[1])
    right = train_classifier(images, labels, (12, 12), config=CONFIG, validation=problem.validation)
    wrong = train_classifier(images, labels, (12, 12), config=CONFIG, validation=turned)

    def accuracy(model) -> float:
        return classification_scores(problem.validation[1], model.predict(problem.validation[0])).balanced_accuracy

    assert accuracy(wrong) < accuracy(right)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: train_classifier(torch.rand(5, 16), torch.zeros(4), (4, 4)), "do not match"),
        (lambda: classification_scores(torch.zeros(3), torch.zeros(4)), "do not match"),
        (lambda: ClassifierConfig(epochs=0), "positive"),
        (lambda: train_classifier(torch.rand(5, 16), torch.arange(5) % 2, (4, 4)).features(torch.rand(2, 9)), "shape"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
