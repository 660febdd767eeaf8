"""Images of any shape, and data from whatever holds them, are judged as the same rows are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from pyro_riemann.evaluation import (
    AugmentationTask,
    ClassifierConfig,
    ImageClassifier,
    fid,
    nearest,
    nearest_images,
    train_classifier,
)

SHAPE = 3, 4, 6  # coloured, not square
IMAGES = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
ROWS = IMAGES.flatten(1)


def as_data(images: Tensor) -> list[object]:
    """The same images as rows, and in the three ways in which data sets hold them."""
    mappings = [{"pixel_values": image, "label": 0} for image in images]
    return [
        images.flatten(1),
        TensorDataset(images, torch.arange(len(images))),
        DataLoader(TensorDataset(images), batch_size=7, shuffle=True),
        DataLoader(mappings, batch_size=7),  # type: ignore[arg-type]  # a list is a data set
    ]


def test_distances_are_those_of_rows() -> None:
    other = IMAGES.flip(0).sqrt()

    def features(rows: Tensor) -> Tensor:
        return rows[:, ::17]

    expected = fid(ROWS, other.flatten(1), SHAPE, features)
    queries = other[:3]
    direct = torch.cdist(queries.flatten(1), ROWS)
    for data in as_data(IMAGES):
        assert fid(data, other, SHAPE, features) == pytest.approx(expected)
        found = nearest(queries, data)
        torch.testing.assert_close(found.distance, direct.amin(-1), atol=1e-5, rtol=1e-5)
        assert found.rows.tolist() == direct.argmin(-1).tolist()
        images = nearest_images(queries, data, lambda x: x.flip(-1))
        assert torch.equal(images.train, IMAGES[found.rows])
        assert images.reconstruction.shape == (3, *SHAPE)
    assert images.plot(SHAPE).images[0].get_array().shape == (14, 20, 3)


def test_channels_reach_the_classifier() -> None:
    """Two classes that differ in the order of their colours alone: their grey values are the same."""
    labels = torch.arange(40) % 2
    images = torch.zeros(40, *SHAPE)
    images[labels == 0, 0] = 1.0
    images[labels == 1, 2] = 1.0
    config = ClassifierConfig(epochs=20, batch_size=10)
    for data in as_data(images)[::3]:
        judge = train_classifier(data, labels, SHAPE, config=config)
        assert torch.equal(judge.predict(images), labels)
        assert torch.equal(judge.features(images), judge.features(images.flatten(1)))
    task = AugmentationTask((images, labels), (images, labels), (images, labels), SHAPE)
    assert task.score(*task.resampled(), config).balanced_accuracy == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: fid(IMAGES.permute(0, 2, 3, 1), IMAGES, SHAPE, lambda rows: rows),
        lambda: fid(IMAGES, TensorDataset(IMAGES.permute(0, 2, 3, 1)), SHAPE, lambda rows: rows),
        lambda: nearest(IMAGES, IMAGES.permute(0, 2, 3, 1)),
        lambda: train_classifier(IMAGES.permute(0, 2, 3, 1), torch.zeros(40), SHAPE),
        lambda: ImageClassifier(SHAPE, 2).predict(IMAGES.permute(0, 2, 3, 1)),
    ],
)
def test_channels_that_stand_last_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 6\)\), got \(40, 4, 6, 3\)"):
        call()


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="with 1 channel or 3"):
        ImageClassifier((2, 4, 4), 2)
