"""Nearest images: found exactly, distances without cancellation, copies known, drawn in three rows."""

from __future__ import annotations

import pytest
import scipy
import torch
from matplotlib import pyplot as plt

from pyro_riemann.evaluation import authenticity, nearest, nearest_images


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


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_copies_have_no_authenticity_and_new_rows_that_of_a_poisson_process(dim: int) -> None:
    data, fresh = torch.rand(5_000, dim).double(), 0.15 + 0.7 * torch.rand(4_000, dim).double()
    assert authenticity(data[:500], data) == 0
    assert authenticity(data[:500] + 1e-9, data) == 0
    assert authenticity(100 + fresh, data) == 1
    # no row lies in the ball of volume V ~ Exp(1) about the new one; one of its radius about the nearest has the rest
    outside = 1 - scipy.special.betainc((dim + 1) / 2, 0.5, 0.75)
    assert authenticity(fresh, data) == pytest.approx(outside / (1 + outside), abs=0.035)


def test_authenticity_is_that_of_all_distances() -> None:
    generated, data = torch.randn(70, 2, 3).double(), torch.randn(90, 2, 3).double()
    to_data = torch.cdist(generated.flatten(1), data.flatten(1))
    among = torch.cdist(data.flatten(1), data.flatten(1)).fill_diagonal_(torch.inf).amin(-1)
    expected = (to_data.amin(-1) > among[to_data.argmin(-1)]).double().mean()
    assert authenticity(generated, data) == float(expected)
    with pytest.raises(ValueError, match="at least 2 rows"):
        authenticity(generated, data[:1])


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
