"""Ensembles of decoders: what they share, where they disagree, and that a stopped training goes on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric
from pyro_riemann.evaluation import identifiability_report
from pyro_riemann.vae import VAE, Ensemble, GaussianLikelihood, TrainingConfig, make_vae, train_ensemble

SEEDS = (3, 4, 5)
CONFIG = TrainingConfig(warm_up_epochs=6, epochs=0, batch_size=50, learning_rate=1e-2)


def make(seed: int) -> VAE:
    return make_vae(4, 1, "normal", "normal", likelihood=GaussianLikelihood(), hidden=(16,), seed=seed)


@pytest.fixture(scope="module")
def arc() -> Tensor:
    """Points on a curve in four dimensions."""
    generator = torch.Generator().manual_seed(0)
    t = 4 * torch.rand(200, generator=generator) - 2
    curve = torch.stack([t, t.sin(), t.cos(), 0.3 * t.square()], -1)
    return curve + 0.05 * torch.randn(200, 4, generator=generator)


train = partial(train_ensemble, make, progress=False)


@pytest.fixture(scope="module")
def ensemble(arc: Tensor) -> Ensemble:
    return train(arc, SEEDS, config=CONFIG, bootstrap=True)


def test_members_share_codes_and_differ_in_decoders(arc: Tensor, ensemble: Ensemble) -> None:
    first, *others = ensemble.models
    codes = first.encode(arc)
    for other in others:
        assert torch.equal(other.encode(arc), codes)
        assert (other.decoder.mean(codes) - first.decoder.mean(codes)).abs().max() > 1e-3
    assert all(len(history) == 6 for history in ensemble.histories)
    # each decoder has learned: it is nearer to the data than their mean is
    scatter = (arc - arc.mean(0)).square().mean()
    assert all((model.decoder.mean(codes) - arc).square().mean() < 0.5 * scatter for model in ensemble.models)


def test_metric_is_the_mean_of_the_members(ensemble: Ensemble) -> None:
    z = torch.linspace(-2, 2, 9)[:, None]
    each = torch.stack([PullbackMetric(model.decoder, 1).metric(z) for model in ensemble.models])
    torch.testing.assert_close(ensemble.metric.metric(z), each.mean(0))
    samples = ensemble.metric.dist_samples(z[:-1], z[1:])
    assert samples.shape == (3, 8)
    assert (samples.std(0) > 0).all()


def test_the_first_model_is_that_of_train_alone(arc: Tensor, ensemble: Ensemble) -> None:
    from pyro_riemann.vae import train as train_one

    alone = make(SEEDS[0])
    train_one(alone, arc, config=TrainingConfig(**{**vars(CONFIG), "seed": SEEDS[0]}), progress=False)
    for name, value in ensemble.models[0].state_dict().items():
        assert torch.equal(value, alone.state_dict()[name]), name


def test_a_stopped_training_goes_on(arc: Tensor, ensemble: Ensemble, tmp_path: Path) -> None:
    def stop(record: object) -> None:
        told.append(record)
        if len(told) == 9:
            raise RuntimeError("stopped")

    told: list[object] = []
    with pytest.raises(RuntimeError, match="stopped"):
        train(arc, SEEDS, config=CONFIG, bootstrap=True, checkpoint=tmp_path, callbacks=[stop])
    told.extend(range(10))
    again = train(arc, SEEDS, config=CONFIG, bootstrap=True, checkpoint=tmp_path, callbacks=[stop])
    for one, other in zip(again.models, ensemble.models, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    count = len(told)
    shutil.rmtree(tmp_path / f"seed-{SEEDS[-1]}")
    train(arc, SEEDS, config=CONFIG, bootstrap=True, checkpoint=tmp_path, callbacks=[stop])
    assert len(told) == count + 6  # the one model that was missing


def test_bootstrap_changes_the_data_of_the_others_alone(arc: Tensor, ensemble: Ensemble) -> None:
    plain = train(arc, SEEDS[:2], config=CONFIG)
    codes = plain.models[0].encode(arc)
    gaps = [
        (a.decoder.mean(codes) - b.decoder.mean(codes)).abs().max()
        for a, b in zip(plain.models, ensemble.models, strict=False)
    ]
    assert gaps[0] == 0
    assert gaps[1] > 1e-4


def test_own_encoders_give_retrainings_without_a_common_metric(arc: Tensor) -> None:
    retrained = train(arc, SEEDS[:2], config=CONFIG, own_encoders=True)
    codes = [model.encode(arc) for model in retrained.models]
    assert (codes[0] - codes[1]).abs().max() > 1e-2
    with pytest.raises(ValueError, match="own_encoders"):
        _ = retrained.metric
    report = identifiability_report(retrained.models, (arc[:20], arc[20:40]))
    assert report.geodesic.shape == (2, 20)


def test_bad_arguments(arc: Tensor) -> None:
    for seeds in ((1,), (1, 1)):
        with pytest.raises(ValueError, match="seeds"):
            train(arc, seeds)
    with pytest.raises(TypeError, match="make"):
        train_ensemble(lambda seed: None, arc)  # type: ignore[arg-type, return-value]
