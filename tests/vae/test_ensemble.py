"""Several VAEs trained at once end where each of them ends alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from pyro.infer import SVI

from pyro_riemann.vae import VAE, TrainingConfig, train, train_ensemble
from pyro_riemann.vae._loop import TrainingRun
from tests.vae._models import curve_data, small_vae

SEEDS = (3, 4, 7)
CONFIG = TrainingConfig(
    warm_up_epochs=3, epochs=3, batch_size=33, num_particles=2, phase_two=("posterior", "precision", "prior"), seed=3
)


def members(prior: str, posterior: str) -> list[VAE]:
    """One architecture, different weights."""
    vaes = [small_vae(prior, posterior, "grid") for _ in SEEDS]
    with torch.no_grad():
        for vae in vaes:
            for value in vae.parameters():
                value.add_(0.05 * torch.randn_like(value))
    return vaes


def alone(vaes: list[VAE], config: TrainingConfig, held_out: torch.Tensor | None = None) -> list[list[float]]:
    configs = [dataclasses.replace(config, seed=seed) for seed in SEEDS]
    histories = [
        train(vae, curve_data(), held_out, own, progress=False) for vae, own in zip(vaes, configs, strict=True)
    ]
    return [history["validation"] for history in histories]


def assert_same_weights(one: list[VAE], other: list[VAE]) -> None:
    for first, second in zip(one, other, strict=True):
        for key, value in first.state_dict().items():
            torch.testing.assert_close(second.state_dict()[key], value, rtol=1e-10, atol=1e-10, msg=key)


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize(
    ("prior", "posterior"),
    [("normal", "normal"), ("vamp", "normal"), ("heat_kernel", "normal")],
)
def test_each_ends_where_it_ends_alone(prior: str, posterior: str, particles: int) -> None:
    config = dataclasses.replace(CONFIG, num_particles=particles)
    vaes, held_out = members(prior, posterior), curve_data(30, seed=8)
    together = copy.deepcopy(vaes)
    expected = alone(vaes, config, held_out)
    histories = train_ensemble(together, curve_data(), held_out, config, seeds=SEEDS, progress=False)
    assert_same_weights(vaes, together)
    for history, values in zip(histories, expected, strict=True):
        assert history["validation"] == pytest.approx(values, rel=1e-10)
    assert not together[0].training
    assert len({history["elbo"][-1] for history in histories}) == len(SEEDS)


def test_early_stopping_is_each_ones_own() -> None:
    config = dataclasses.replace(CONFIG, warm_up_epochs=12, patience=1, learning_rate=0.05)
    vaes = members("normal", "normal")
    together = copy.deepcopy(vaes)
    expected = alone(vaes, config, curve_data(30, seed=8))
    assert len(set(map(len, expected))) > 1, "they should stop at different epochs"
    train_ensemble(together, curve_data(), curve_data(30, seed=8), config, seeds=SEEDS, progress=False)
    assert_same_weights(vaes, together)


def test_no_model_has_steps_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a step of one model alone")

    monkeypatch.setattr(SVI, "step", refuse)
    train_ensemble(members("vamp", "normal"), curve_data(), config=CONFIG, progress=False)
    with pytest.raises(AssertionError, match="of one model alone"):
        train_ensemble(members("heat_kernel", "normal"), curve_data(), config=CONFIG, progress=False)


class Killed(Exception):
    pass


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, saves: int) -> Iterator[None]:
    """End the program before the checkpoint that follows the first ``saves``."""
    save, count = TrainingRun._save, 0

    def counted(run: TrainingRun) -> None:
        nonlocal count
        if count == saves:
            raise Killed
        count += 1
        save(run)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(TrainingRun, "_save", counted)
        yield
        pytest.fail("the program should have ended before")


@pytest.mark.parametrize("saves", [1, 5, 8, 14])
def test_killed_between_the_checkpoints_of_an_epoch(
    saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are behind catch up; then they go on together."""
    start = members("vamp", "normal")
    whole, stopped, resumed = (copy.deepcopy(start) for _ in range(3))
    train_ensemble(whole, curve_data(), config=CONFIG, seeds=SEEDS, progress=False)
    folders = [tmp_path / str(seed) for seed in SEEDS]
    with killed_at(monkeypatch, saves):
        train_ensemble(stopped, curve_data(), config=CONFIG, seeds=SEEDS, checkpoints=folders, progress=False)
    train_ensemble(resumed, curve_data(), config=CONFIG, seeds=SEEDS, checkpoints=folders, progress=False)
    assert_same_weights(whole, resumed)


def test_train_goes_on_from_a_checkpoint_of_the_ensemble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = members("vamp", "normal")
    whole, part = copy.deepcopy(start), copy.deepcopy(start)
    folders = [tmp_path / str(seed) for seed in SEEDS]
    alone(whole, CONFIG)
    with killed_at(monkeypatch, 4 * len(SEEDS)):  # in phase 2
        train_ensemble(part, curve_data(), config=CONFIG, seeds=SEEDS, checkpoints=folders, progress=False)
    for vae, seed, folder in zip(start, SEEDS, folders, strict=True):
        own = dataclasses.replace(CONFIG, seed=seed)
        train(vae, curve_data(), config=own, checkpoint=folder, progress=False)
    assert_same_weights(whole, start)


def test_what_is_no_ensemble_is_refused() -> None:
    data = curve_data()
    pair = members("normal", "normal")[:2]
    coarser = copy.deepcopy(pair[1])
    coarser.decoder.std.min_scale = 0.5
    for vaes, settings, match in (
        ([], {}, "`vaes` is empty"),
        (pair, {"seeds": [1]}, "`seeds` has 1 entries for 2 VAEs"),
        (pair, {"seeds": [1, 1]}, "`seeds` has an entry twice"),
        (pair, {"checkpoints": ["a"]}, "`checkpoints` has 1 entries for 2 VAEs"),
        (pair, {"checkpoints": ["a", "a"]}, "`checkpoints` has an entry twice"),
        ([pair[0], pair[0]], {}, "the same VAE twice"),
        ([pair[0], small_vae("vamp", "normal", "grid")], {}, "at 1 differs from the first in prior"),
        ([pair[0], small_vae("normal", "normal", "grid").float()], {}, "at 1 differs from the first in .* and more"),
        ([pair[0], coarser], {}, r"at 1 differs from the first in decoder.std.min_scale\.$"),
    ):
        with pytest.raises(ValueError, match=match):
            train_ensemble(vaes, data, progress=False, **settings)
