"""Nearest images: found exactly, distances without cancellation, drawn in three rows."""

from __future__ import annotations

import pytest
import torch
from matplotlib import pyplot as plt

from pyro_riemann.evaluation import nearest, nearest_images


def test_nearest_is_that_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_riemann.evaluation import _nearest

    queries, data = torch.randn(70, 5), torch.randn(90, 5)
    distances = torch.cdist(queries.double(), data.double())
    monkeypatch.setattr(_nearest, "_ROWS", 13)
    found = nearest(queries, data)
    assert torch.equal(found.rows, distances.argmin(-1))
    torch.testing.assert_close(found.distance.double(), distances.amin(-1), atol=1e-5, rtol=0)


def test_a_copy_is_at_distance_zero() -> None:
    data = 100 + torch.rand(50, 30)
    found = nearest(data[[7, 3]], data)
    assert found.rows.tolist() == [7, 3]
    assert found.distance.tolist() == [0.0, 0.0]


def test_reconstruction_of_another_image_may_be_nearer() -> None:
    data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    swap = torch.tensor([[1.0, 1.0], [0.1, 0.0]])
    found = nearest_images(torch.tensor([[0.2, 0.0]]), data, lambda rows: swap)
    assert found.train.tolist() == [[0.0, 0.0]]
    torch.testing.assert_close(found.reconstruction, torch.tensor([[0.1, 0.0]]))
    torch.testing.assert_close(found.train_distance, torch.tensor([0.2]))
    torch.testing.assert_close(found.reconstruction_distance, torch.tensor([0.1]))


def test_grid_has_a_row_for_each() -> None:
    data = torch.rand(20, 16)
    ax = nearest_images(data[:5], data, lambda rows: rows).plot((4, 4))
    pixels = ax.images[0].get_array()
    assert pixels.shape == (3 * 5 - 1, 5 * 5 - 1)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["generated", "nearest train", "nearest rec."]
    plt.close(ax.figure)


@pytest.mark.parametrize(
    "queries, data, message",
    [
        (torch.rand(2, 3), torch.rand(2, 4), r"`data` must have shape \(n, 3\)"),
        (torch.rand(3), torch.rand(2, 3), "queries"),
        (torch.rand(2, 3), torch.full((2, 3), torch.inf), "data"),
    ],
)
def test_bad_rows_are_named(queries: torch.Tensor, data: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest(queries, data)
