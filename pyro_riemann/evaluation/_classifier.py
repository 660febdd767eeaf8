"""A small convolutional classifier: extractor of features, and judge of augmented data (C22, section 5.3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann._seed import seeded
from pyro_riemann._work import announced
from pyro_riemann.plotting._images import image_size
from pyro_riemann.vae._data import Data, as_rows

_ROWS = 1000  # images classified at once


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """Settings of :func:`train_classifier`.

    Attributes:
        epochs: passes over the training data.
        batch_size: rows a step.
        learning_rate: Adam's rate.
        channels: channels of the two convolutions.
        num_features: width of the last hidden layer, the features.
        seed: seed of weights and order.

    Raises:
        ValueError: if a setting is not positive.

    Example:
        >>> ClassifierConfig(epochs=3).num_features
        64
    """

    epochs: int = 2
    batch_size: int = 200
    learning_rate: float = 1e-3
    channels: tuple[int, int] = (16, 32)
    num_features: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.num_features, *self.channels) < 1 or not self.learning_rate > 0:
            raise ValueError(f"all settings of a classifier must be positive, got {self}.")


class ImageClassifier(nn.Module):
    """Two convolutions of stride 2, a hidden layer of features, and a linear layer to the classes.

    Calling it gives logits; :meth:`features` are the activations of the hidden layer.

    Args:
        shape: ``(height, width)`` or ``(channels, height, width)`` of the images, which come as rows ``(n, D)`` or in
            this shape.
        num_classes: number of classes.
        config: widths.

    Raises:
        ValueError: for another shape; by methods, if images do not have it.

    Source: the judge of C22, section 5.3, with a network of our own in place of its table 4.

    Example:
        >>> ImageClassifier((8, 8), 10)(torch.rand(5, 64)).shape
        torch.Size([5, 10])
        >>> ImageClassifier((3, 8, 12), 10).features(torch.rand(5, 3, 8, 12)).shape
        torch.Size([5, 64])
    """

    def __init__(self, shape: tuple[int, ...], num_classes: int, config: ClassifierConfig | None = None) -> None:
        super().__init__()
        config = config or ClassifierConfig()
        first, second = config.channels
        channels, *sides = image_size(shape)
        height, width = ((side + 3) // 4 for side in sides)  # halved twice, rounded up
        self.shape, self.num_features = shape, config.num_features
        self.body = nn.Sequential(
            nn.Unflatten(-1, (channels, *sides)),
            *(nn.Conv2d(channels, first, 5, 2, 2), nn.ReLU(), nn.Conv2d(first, second, 5, 2, 2), nn.ReLU()),
            nn.Flatten(),
            *(nn.Linear(second * height * width, config.num_features), nn.ReLU()),
        )
        self.head = nn.Linear(config.num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Features ``(n, num_features)`` of images ``x``, ``(n, D)`` or ``(n, *shape)``, without gradient."""
        with torch.no_grad():
            return torch.cat([self.body(rows) for rows in self._rows(x).split(_ROWS)])

    def predict(self, x: Tensor) -> Tensor:
        """Classes ``(n,)`` of images ``x``, ``(n, D)`` or ``(n, *shape)``."""
        with torch.no_grad():
            return torch.cat([self(rows).argmax(-1) for rows in x.split(_ROWS)])

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, num_classes)`` of images ``x``, ``(n, D)`` or ``(n, *shape)``."""
        return self.head(self.body(self._rows(x)))

    def _rows(self, x: Tensor) -> Tensor:
        width = math.prod(self.shape)
        if x.shape[1:] not in ((width,), tuple(self.shape)):
            raise ValueError(f"`x` must have shape (n, {width}) or (n, *{tuple(self.shape)}), got {tuple(x.shape)}.")
        return x.flatten(1)


@announced
def train_classifier(
    images: Data,
    labels: Tensor,
    shape: tuple[int, ...],
    num_classes: int | None = None,
    config: ClassifierConfig | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
) -> ImageClassifier:
    """An :class:`ImageClassifier` trained by cross-entropy, in evaluation mode.

    Args:
        images: in [0, 1], ``(n, D)`` or ``(n, *shape)``; or a ``Dataset`` or ``DataLoader`` of such.
        labels: ``(n,)``, integers from 0, in the order of the images, of a loader those of its data set.
        shape: ``(height, width)`` or ``(channels, height, width)``.
        num_classes: default: the largest label and one.
        config: settings.
        validation: images, ``(m, D)`` or ``(m, *shape)``, and labels ``(m,)``; given, the weights of the epoch with the
            best balanced accuracy there are kept.

    Raises:
        TypeError: for images of another kind.
        ValueError: if images and labels do not match, or images have another shape.

    Source: C22, section 5.3.

    Example:
        >>> images = torch.cat([torch.zeros(50, 16), torch.ones(50, 16)])
        >>> labels = torch.arange(2).repeat_interleave(50)
        >>> judge = train_classifier(images, labels, (4, 4), config=ClassifierConfig(epochs=30, batch_size=50))
        >>> judge.predict(images[::50])
        tensor([0, 1])
    """
    config = config or ClassifierConfig()
    images = as_rows("images", images, math.prod(shape), shape).to(labels.device)
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"`images` (n, D) and `labels` (n,) do not match: {tuple(images.shape)}, {tuple(labels.shape)}."
        )
    with seeded(config.seed):
        with torch.device("cpu"):  # so that a seed gives the same weights on every device
            model = ImageClassifier(shape, int(labels.max()) + 1 if num_classes is None else num_classes, config)
        model.to(images.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        best, kept = -1.0, None
        for _ in range(config.epochs):
            for rows in torch.randperm(len(images), device="cpu").split(config.batch_size):
                optimizer.zero_grad()
                functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
            if validation is not None:
                score = classification_scores(validation[1], model.predict(validation[0])).balanced_accuracy
                if score > best:
                    best, kept = score, {key: value.clone() for key, value in model.state_dict().items()}
    if kept is not None:
        model.load_state_dict(kept)
    return model.eval()


@dataclasses.dataclass(frozen=True)
class Scores:
    """Balanced accuracy, and precision, recall and F1 of each class, in the order of the classes.

    Attributes:
        balanced_accuracy: mean recall of the classes.
        precision: of each class.
        recall: of each class.
        f1: of each class.

    Example:
        >>> classification_scores(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])).recall
        (0.5, 1.0)
    """

    balanced_accuracy: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]


def classification_scores(labels: Tensor, predictions: Tensor) -> Scores:
    """Scores of predicted classes, by scikit-learn; a class that is never predicted has precision 0.

    Args:
        labels: true classes ``(n,)``.
        predictions: predicted classes ``(n,)``.

    Raises:
        ValueError: if the two do not match.

    Source: C22, section 5.3 and table 2; Brodersen et al. (2010), *The balanced accuracy and its posterior
    distribution*.

    Example:
        >>> classification_scores(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])).balanced_accuracy
        0.75
    """
    from sklearn.metrics import precision_recall_fscore_support

    if labels.shape != predictions.shape or labels.dim() != 1 or len(labels) == 0:
        raise ValueError(f"`labels` and `predictions` do not match: {tuple(labels.shape)}, {tuple(predictions.shape)}.")
    classes = labels.unique().tolist()
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels.numpy(), predictions.numpy(), labels=classes, zero_division=0.0
    )
    values = [tuple(float(entry) for entry in part) for part in (precision, recall, f1)]
    return Scores(sum(values[1]) / len(classes), *values)


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
