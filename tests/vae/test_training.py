"""Two-phase training: what is frozen when, resumption bit for bit, interrupts, early stopping."""

from __future__ import annotations

import json
from pathlib import Path

import pyro
import pytest
import torch

from pyro_riemann.vae import TrainingConfig, encode_all, load_checkpoint, save_checkpoint, set_phase, train
from pyro_riemann.vae._phases import parameter_groups
from tests.vae._models import curve_data, small_vae

CONFIG = TrainingConfig(warm_up_epochs=2, epochs=2, batch_size=40, seed=3)


def test_settings_by_position_mean_what_they_meant() -> None:
    config = TrainingConfig(1, 2, 3, 0.1, 0.2, 0.3, 0.4, ("prior",), 5, 6, 7, 8, 9)
    assert (config.refresh_every, config.patience, config.num_particles) == (5, 6, 7)
    assert (config.checkpoint_every, config.seed) == (8, 9)


def snapshot(vae) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in vae.state_dict().items()}


def test_phases_train_what_they_should():
    vae = small_vae("heat_kernel", "normal", "fixed")
    groups = parameter_groups(vae)

    def active() -> set[str]:
        return {name for name, values in groups.items() if any(value.requires_grad for value in values)}

    set_phase(vae, 1)
    assert vae.warm_up
    assert active() == {"encoder", "posterior", "decoder"}
    set_phase(vae, 2)
    assert not vae.warm_up
    assert active() == {"precision", "prior"}


def test_phase_two_leaves_encoder_and_mean_alone():
    vae = small_vae("heat_kernel", "normal", "grid")
    data = curve_data()
    train(vae, data, config=TrainingConfig(warm_up_epochs=1, epochs=0, batch_size=40), progress=False)
    before = snapshot(vae)
    # phase 1 again would move them; a run of phase 2 alone must not
    train(vae, data, config=TrainingConfig(warm_up_epochs=0, epochs=2, batch_size=40), progress=False)
    after = snapshot(vae)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not {key for key in moved if key.startswith(("encoder.", "decoder.mean"))}
    assert {"prior.loc", "prior.log_time", "decoder.std.log_weight"} <= moved


@pytest.mark.parametrize(
    ("phase_two", "encodings"),
    [
        (("precision", "prior"), 1),  # the encoder is frozen: its codes stay
        (("encoder", "precision", "prior"), 3),  # two refreshed metrics within the phase, one at its end
    ],
)
def test_codes_are_encoded_anew_only_when_they_change(phase_two: tuple[str, ...], encodings: int, monkeypatch):
    vae, data = small_vae("heat_kernel", "normal", "grid"), curve_data()
    seen: list[torch.Tensor] = []
    refresh = vae.refresh_metric

    def watched(codes: torch.Tensor) -> None:
        seen.append(codes)
        assert torch.equal(codes, encode_all(vae, data))
        refresh(codes)

    monkeypatch.setattr(vae, "refresh_metric", watched)
    config = TrainingConfig(warm_up_epochs=1, epochs=3, batch_size=40, phase_two=phase_two)
    train(vae, data, config=config, progress=False)
    assert len(seen) == 4  # the first starts the phase
    assert len({id(codes) for codes in seen[1:]}) == encodings


@pytest.mark.parametrize(
    ("prior", "posterior", "stop_after"),
    [("heat_kernel", "wrapped_normal", 3), ("heat_kernel", "normal", 2), ("vamp", "normal", 1)],
)
def test_resumes_bit_for_bit(tmp_path: Path, prior: str, posterior: str, stop_after: int, monkeypatch):
    data, held_out = curve_data(), curve_data(30, seed=8)
    whole = small_vae(prior, posterior, "grid")
    expected = train(whole, data, held_out, CONFIG, checkpoint=tmp_path / "whole", progress=False)

    class Killed(Exception):
        pass

    from pyro_riemann.vae import _loop

    original, count = _loop.TrainingRun._save, [0]

    def save_then_die(run) -> None:
        original(run)
        count[0] += 1
        if count[0] == stop_after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_loop.TrainingRun, "_save", save_then_die)
        with pytest.raises(Killed):
            train(
                small_vae(prior, posterior, "grid"), data, held_out, CONFIG, checkpoint=tmp_path / "cut", progress=False
            )
    torch.rand(11)  # the global generator plays no part
    resumed = small_vae(prior, posterior, "grid", seed=77)
    history = train(resumed, data, held_out, CONFIG, checkpoint=tmp_path / "cut", progress=False)
    assert history["elbo"] == expected["elbo"]
    assert history["validation"] == expected["validation"]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_interrupt_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch):
    vae = small_vae()
    original, calls = pyro.infer.SVI.step, [0]

    def step(self, *args, **kwargs):
        calls[0] += 1
        if calls[0] == 5:  # in the second epoch of three steps
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pyro.infer.SVI, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(vae, curve_data(), config=CONFIG, checkpoint=tmp_path, progress=False)
    _, info = load_checkpoint(tmp_path)
    assert info["epoch"] == 1


def test_checkpoints_are_json_and_safetensors(tmp_path: Path):
    train(small_vae(), curve_data(), config=CONFIG, checkpoint=tmp_path, progress=False)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert json.loads((tmp_path / "checkpoint.json").read_text())["identity"]["settings"]["seed"] == 3


def test_another_config_is_refused(tmp_path: Path):
    train(small_vae(), curve_data(), config=CONFIG, checkpoint=tmp_path, progress=False)
    with pytest.raises(ValueError, match="batch_size"):
        train(small_vae(), curve_data(), config=TrainingConfig(2, 2, batch_size=30, seed=3), checkpoint=tmp_path)


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path):
    save_checkpoint(tmp_path, {"w": torch.ones(1)}, {"epoch": 1})
    (tmp_path / "checkpoint.b.safetensors").write_bytes(b"cut off")  # the next one, interrupted
    tensors, info = load_checkpoint(tmp_path)
    assert info["epoch"] == 1
    assert torch.equal(tensors["w"], torch.ones(1))


def test_training_raises_the_elbo_and_leaves_no_trace():
    state = torch.get_rng_state()
    store = dict(pyro.get_param_store().named_parameters())
    config = TrainingConfig(warm_up_epochs=15, epochs=2, batch_size=20, kl_ramp=0.2, learning_rate=5e-3)
    vae = small_vae("heat_kernel", "normal", "grid")
    history = train(vae, curve_data(), curve_data(40, seed=4), config, progress=False)
    assert history["validation"][14] > history["validation"][3]
    assert history["phase"] == [1] * 15 + [2] * 2
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(pyro.get_param_store().named_parameters()) == store
    assert not vae.warm_up


def test_early_stopping_restores_the_best():
    config = TrainingConfig(warm_up_epochs=200, epochs=0, batch_size=40, learning_rate=0.3, patience=2, kl_ramp=0.0)
    history = train(small_vae(), curve_data(), curve_data(30, seed=4), config, progress=False)
    assert len(history) < 200
    best = max(range(len(history)), key=lambda index: history["validation"][index])
    assert len(history) == best + 3


def test_device_argument():
    vae = small_vae()
    train(vae, curve_data(), config=CONFIG, device="cpu", progress=False)
    assert next(vae.parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    "settings",
    [
        {"warm_up_epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"phase_two": ("precison",)},
        {"num_particles": 0},
    ],
)
def test_bad_config(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainingConfig(**settings)


@pytest.mark.parametrize(
    "data", [torch.zeros(10, 5), torch.zeros(0, 6), torch.full((10, 6), float("inf")), torch.zeros(6)]
)
def test_bad_data(data: torch.Tensor):
    with pytest.raises(ValueError, match="data"):
        train(small_vae(), data, config=CONFIG, progress=False)
