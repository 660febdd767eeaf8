"""Stopped at any step, by a signal or a crash, and called again: the same weights, bit for bit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from pyro_riemann import _safe_points
from pyro_riemann._safe_points import SafePoints
from pyro_riemann.autoencoders import FitConfig, make_autoencoder
from pyro_riemann.vae import TrainingConfig, load_checkpoint, train
from tests.vae._models import curve_data, small_vae

pytestmark = [  # tables of 24 x 24 nodes around steep walls
    pytest.mark.filterwarnings("ignore:the table of the metric is off:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* lies past the cut locus:UserWarning"),
]

CONFIG = TrainingConfig(warm_up_epochs=2, epochs=2, batch_size=30, seed=3)  # four steps an epoch


class Terminated(Exception):
    """What the handler of these tests makes of SIGTERM."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    def terminate(*_: Any) -> None:
        raise Terminated

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGTERM) is terminate, "a training leaves handlers as they were"
    for number, handler in previous.items():
        signal.signal(number, handler)


def signal_in_step(patch: pytest.MonkeyPatch, step: int, number: int) -> None:
    """The signal comes in the middle of that step."""
    original, calls = pyro.infer.SVI.step, [0]

    def watched(self: Any, *arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            signal.raise_signal(number)
        return original(self, *arguments, **settings)

    patch.setattr(pyro.infer.SVI, "step", watched)


def assert_same(first: Any, second: Any) -> None:
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


@pytest.mark.parametrize(
    ("model", "step", "number"),
    [
        (("normal", "normal", "fixed"), 1, signal.SIGINT),
        (("heat_kernel", "normal", "grid"), 4, signal.SIGTERM),  # the last step of an epoch
        (("heat_kernel", "wrapped_normal", "grid"), 9, signal.SIGTERM),  # the first of phase 2
        (("heat_kernel", "normal", "fixed"), 14, signal.SIGINT),  # after the metric was taken anew
    ],
)
def test_a_signal_saves_the_step_and_stops(
    model: tuple[str, str, str], step: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, held_out = curve_data(), curve_data(30, seed=8)
    whole = small_vae(*model)
    expected = train(whole, data, held_out, CONFIG, progress=False)
    with monkeypatch.context() as patch:
        signal_in_step(patch, step, number)
        with pytest.raises(Terminated if number == signal.SIGTERM else KeyboardInterrupt):
            train(small_vae(*model), data, held_out, CONFIG, checkpoint=tmp_path, progress=False)
    _, info = load_checkpoint(tmp_path)
    done = 4 * len(info["history"]) + len(info["losses"])
    assert done == step, "the step at hand was done and saved, and no other"
    torch.rand(11)  # the global generator plays no part
    resumed = small_vae(*model, seed=77)
    history = train(resumed, data, held_out, CONFIG, checkpoint=tmp_path, progress=False)
    assert history["elbo"] == expected["elbo"]
    assert history["validation"] == expected["validation"]
    assert_same(whole, resumed)


def test_long_epochs_are_saved_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies in a step goes on from the step before, where steps take as long as checkpoints are apart."""
    monkeypatch.setattr(_safe_points, "SECONDS", 0.0)
    data = curve_data()
    whole = small_vae()
    train(whole, data, config=CONFIG, progress=False)
    original, calls = pyro.infer.SVI.step, [0]

    def dies(self: Any, *arguments: Any, **settings: Any) -> Any:
        calls[0] += 1
        if calls[0] == 7:
            raise ZeroDivisionError
        return original(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(pyro.infer.SVI, "step", dies)
        with pytest.raises(ZeroDivisionError):
            train(small_vae(), data, config=CONFIG, checkpoint=tmp_path, progress=False)
    _, info = load_checkpoint(tmp_path)
    assert (info["epoch"], len(info["losses"])) == (1, 2)
    seconds = info["seconds_of_losses"][0]
    resumed = small_vae()
    history = train(resumed, data, config=CONFIG, checkpoint=tmp_path, progress=False)
    assert history["seconds"][1] > seconds, "the time of the first steps counts"
    assert_same(whole, resumed)


def test_short_epochs_are_saved_at_their_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_riemann.vae import _loop

    saves = []
    original = _loop.save_run

    def counted(run: Any) -> None:
        saves.append(len(run.losses))
        original(run)

    monkeypatch.setattr(_loop, "save_run", counted)
    train(small_vae(), curve_data(), config=CONFIG, checkpoint=tmp_path, progress=False)
    assert saves == [0, 0, 0, 0, 0]  # four epochs, and what the end makes of the model


@pytest.mark.parametrize("name", ["vae", "vamp", "ae"])
def test_an_autoencoder_stops_within_an_epoch_and_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = torch.rand(60, 16, generator=torch.Generator().manual_seed(1))
    config = FitConfig(epochs=3, batch_size=20)

    def model() -> Any:
        return make_autoencoder(name, (4, 4), 2, "mlp", hidden=(8,), seed=0)

    whole, cut, resumed = model(), model(), model()
    expected = whole.fit(data, config=config, progress=False)
    original, calls = cut.loss, [0]

    def signalled(rows: torch.Tensor) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            signal.raise_signal(signal.SIGTERM)
        return original(rows)

    monkeypatch.setattr(cut, "loss", signalled)
    with pytest.raises(Terminated):
        cut.fit(data, config=config, checkpoint=tmp_path, progress=False)
    _, info = load_checkpoint(tmp_path)
    assert (len(info["history"]), len(info["losses"])) == (1, 2)
    history = resumed.fit(data, config=config, checkpoint=tmp_path, progress=False)
    assert history["loss"] == expected["loss"]
    assert_same(whole, resumed)


# -------------------------------------------------------------------- the signals themselves


def test_a_second_signal_acts_at_once() -> None:
    with SafePoints(active=True):
        signal.raise_signal(signal.SIGTERM)  # put off
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM).__name__ == "terminate"


def test_a_signal_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), SafePoints(active=True):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_that_comes_while_processes_agree_is_not_lost() -> None:
    saved = []

    def agreed(asked: int, due: bool) -> tuple[int, bool]:
        if not asked:
            signal.raise_signal(signal.SIGTERM)  # after this process has said that it was not asked
        return asked, due

    with SafePoints(active=True, agreed=agreed) as safe:
        safe.reached(lambda: saved.append("too early: the other processes have not heard"))
        assert not saved
        with pytest.raises(Terminated):
            safe.reached(lambda: saved.append("together"))
    assert saved == ["together"]


def test_what_another_process_was_asked_for_is_saved_before_it_acts() -> None:
    saved = []

    def save() -> None:
        signal.raise_signal(signal.SIGTERM)  # the launcher tells this process only now
        saved.append(True)

    with pytest.raises(Terminated), SafePoints(active=True, agreed=lambda asked, due: (signal.SIGTERM, due)) as safe:
        safe.reached(save)
    assert saved == [True]


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with SafePoints(active=True) as safe:
        signal.raise_signal(signal.SIGINT)
        safe.reached(lambda: pytest.fail("nobody asked for it"))
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_without_a_folder_signals_act_as_ever() -> None:
    with pytest.raises(Terminated), SafePoints(active=False):
        signal.raise_signal(signal.SIGTERM)


def test_a_training_in_a_thread_leaves_signals_alone(tmp_path: Path) -> None:
    done: list[Any] = []
    config = TrainingConfig(warm_up_epochs=1, epochs=0, batch_size=60)
    thread = threading.Thread(
        target=lambda: done.append(train(small_vae(), curve_data(), config=config, checkpoint=tmp_path, progress=False))
    )
    thread.start()
    thread.join()
    assert len(done[0]) == 1
