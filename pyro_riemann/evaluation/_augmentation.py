"""The augmentation test: does a classifier learn a real task from generated images? (C22, section 5.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.evaluation._classifier import (
    ClassifierConfig,
    Scores,
    classification_scores,
    train_classifier,
)


@dataclasses.dataclass(frozen=True)
class AugmentationTask:
    """Real images of a small, imbalanced task.

    Attributes:
        train: images, ``(n, D)`` or ``(n, *shape)``, and labels ``(n,)``.
        validation: the same, held out to choose the classifier's best epoch.
        test: the same, to judge.
        shape: ``(height, width)`` or ``(channels, height, width)``.

    Example:
        >>> images, labels = torch.rand(10, 16), torch.arange(10) % 2
        >>> AugmentationTask((images, labels), (images, labels), (images, labels), (4, 4)).num_classes
        2
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    shape: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """Largest label and one."""
        return int(self.train[1].max()) + 1

    def score(self, images: Tensor, labels: Tensor, config: ClassifierConfig | None = None) -> Scores:
        """Scores on the test set of a classifier trained on the given images.

        Args:
            images: ``(n, D)`` or ``(n, *shape)``.
            labels: ``(n,)``.
            config: settings of the classifier.

        Raises:
            TypeError, ValueError: if images are no tensor, or images and labels do not match.
        """
        judge = train_classifier(images, labels, self.shape, self.num_classes, config, validation=self.validation)
        return classification_scores(self.test[1], judge.predict(self.test[0]))

    def resampled(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The training set with every class drawn, with replacement, to the size of the largest.

        Args:
            seed: seed of the draws.

        Returns:
            Images, in the shape of those of ``train``, and labels ``(m,)``, class by class.
        """
        images, labels = self.train
        size = int(torch.bincount(labels).max())
        with seeded(seed):
            chosen = []
            for label in range(self.num_classes):
                rows = (labels == label).nonzero()[:, 0]
                extra = rows[torch.randint(len(rows), (size - len(rows),), device="cpu").to(rows.device)]
                chosen.append(torch.cat([rows, extra]))
        index = torch.cat(chosen)
        return images[index], labels[index]


def stack_classes(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images of class 0, 1, ... in one tensor, with their labels.

    Args:
        images: images ``(n, *shape)`` of each class.

    Returns:
        Images ``(m, *shape)`` and labels ``(m,)``.

    Example:
        >>> stack_classes([torch.zeros(2, 4), torch.ones(1, 4)])[1]
        tensor([0, 0, 1])
    """
    labels = [torch.full((len(part),), label, device=part.device) for label, part in enumerate(images)]
    return torch.cat(list(images)), torch.cat(labels)
