"""Training takes data in any container, and tells what watches it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from pyro_riemann.autoencoders import FitConfig, make_autoencoder
from pyro_riemann.vae import Callback, TrainingConfig, make_vae, train
from pyro_riemann.vae._data import as_rows

ROWS = torch.rand(25, 6, generator=torch.Generator().manual_seed(0))
CONFIG = TrainingConfig(warm_up_epochs=2, epochs=1, batch_size=10)


class Pictures(Dataset[dict[str, Any]]):
    """Images of 2 x 3 pixels in dictionaries."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": ROWS[index].reshape(1, 2, 3), "label": index % 2}


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(ROWS)


CONTAINERS: dict[str, Any] = {
    "images": ROWS.reshape(25, 1, 2, 3),
    "data set of tuples": TensorDataset(ROWS, torch.arange(25)),
    "data set of dictionaries": Pictures(),
    "data set of a stream": Stream(),
    "loader": DataLoader(TensorDataset(ROWS), batch_size=7),
    "loader that shuffles": DataLoader(Pictures(), batch_size=4, shuffle=True, drop_last=True),
    "loader of a list": DataLoader(list(ROWS), batch_size=3),
    "loader without batches": DataLoader(TensorDataset(ROWS), batch_size=None),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_gives_the_rows_in_their_order(kind: str) -> None:
    assert torch.equal(as_rows("data", CONTAINERS[kind], 6), ROWS)


def test_training_on_a_loader_is_training_on_its_data(tmp_path: Path) -> None:
    """Also when it goes on: a loader that shuffles is no other data."""
    weights = []
    for data in (ROWS, CONTAINERS["loader that shuffles"]):
        vae = make_vae(6, 2, "normal", "normal", hidden=(8,), num_centers=3, seed=0)
        history = train(vae, data, data, CONFIG, checkpoint=tmp_path, progress=False)
        weights.append((history["elbo"], [value.clone() for value in vae.parameters()]))
    assert weights[0][0] == weights[1][0]
    assert all(torch.equal(*pair) for pair in zip(weights[0][1], weights[1][1], strict=True))


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (ROWS.numpy(), TypeError, "`data` must be a tensor, a Dataset or a DataLoader, got ndarray"),
        (DataLoader(["a", "b"]), TypeError, "`data` must hold tensors, .* got batches of str"),
        (TensorDataset(ROWS[:, :5]), ValueError, r"`data` must have shape \(n, 6\), got \(25, 5\)"),
        (Subset(Pictures(), []), ValueError, r"`data` must have shape \(n, 6\), got \(0, 6\)"),
        (TensorDataset(ROWS * math.nan), ValueError, "`data` has 150 NaN"),
        (
            DataLoader(Pictures(), sampler=WeightedRandomSampler([1.0] * 25, 25)),
            ValueError,
            "a loader with a WeightedRandomSampler, whose choice",
        ),
    ],
)
def test_what_is_no_data_is_refused(data: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        train(make_vae(6, hidden=(8,), num_centers=3), data, config=CONFIG, progress=False)


# ------------------------------------------------------------------------------------ callbacks


class Watch(Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def start(self, num_epochs: int, num_done: int) -> None:
        self.heard.append(("start", num_epochs, num_done))

    def epoch(self, record: Any, model: nn.Module) -> None:
        assert not model.training
        self.heard.append((record["phase"], record["epoch"], record["step"]))

    def stop(self) -> None:
        self.heard.append("stop")


class Writer:
    """As TensorBoard's ``SummaryWriter``."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int | None, float]]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        self.points.setdefault(tag, []).append((global_step, scalar_value))


def test_callbacks_hear_of_every_epoch_once(tmp_path: Path) -> None:
    watch, writer, records = Watch(), Writer(), []  # type: ignore[var-annotated]
    vae = make_vae(6, 2, "normal", "normal", hidden=(8,), num_centers=3, seed=0)
    callbacks = (watch, writer, records.append)
    history = train(vae, ROWS, config=CONFIG, checkpoint=tmp_path, progress=False, callbacks=callbacks)
    assert watch.heard == [("start", 3, 0), (1, 1, 1), (1, 2, 2), (2, 1, 3), "stop"]
    assert writer.points["training/elbo"] == list(enumerate(history["elbo"], 1))
    assert [record["elbo"] for record in records] == history["elbo"]
    train(vae, ROWS, config=CONFIG, checkpoint=tmp_path, progress=False, callbacks=[watch])
    assert watch.heard[5:] == [("start", 3, 3), "stop"]


def test_an_autoencoder_tells_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    watch, writer = Watch(), Writer()
    model = make_autoencoder("ae", (2, 3), 2, hidden=(4,), seed=0)
    history = model.fit(Pictures(), Pictures(), FitConfig(epochs=2), callbacks=[watch, writer])
    assert watch.heard == [("start", 2, 0), (1, 1, 1), (1, 2, 2), "stop"]
    assert writer.points["training/validation"] == list(enumerate(history["validation"], 1))
    assert "2/2" in capsys.readouterr().err  # the progress bar


def test_a_callback_that_fails_ends_the_training_and_all_are_told() -> None:
    watch = Watch()

    def fail(record: Any) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(make_vae(6, hidden=(8,), num_centers=3), ROWS, config=CONFIG, progress=False, callbacks=[watch, fail])
    assert watch.heard == [("start", 3, 0), (1, 1, 1), "stop"]


def test_what_is_no_callback_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`callbacks` must hold `Callback`s, .* got int"):
        train(make_vae(6, hidden=(8,), num_centers=3), ROWS, config=CONFIG, progress=False, callbacks=[3])  # type: ignore[list-item]
