"""Ensembles of decoders: what they share, where they disagree, and distances over retrainings."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from pyro_riemann.numpyro import PullbackMetric
from pyro_riemann.numpyro.evaluation import identifiability_report
from pyro_riemann.numpyro.vae import VAE, Ensemble, TrainingConfig, make_vae, train, train_ensemble
from tests.numpyro.vae.test_training import arc

__all__ = ["arc"]

SEEDS = (3, 4, 5)
CONFIG = TrainingConfig(warm_up_epochs=6, epochs=0, batch_size=50, learning_rate=1e-2)
KEY = jax.random.key(0)
train_all = partial(train_ensemble, key=KEY, progress=False)


def make(seed: int) -> VAE:
    return make_vae(4, 1, likelihood="gaussian", hidden=(16,), key=jax.random.key(seed))


@pytest.fixture(scope="module")
def ensemble(arc: Array) -> Ensemble:
    return train_all(make, arc, SEEDS, config=CONFIG, bootstrap=True)


def test_members_share_codes_and_differ_in_decoders(arc: Array, ensemble: Ensemble) -> None:
    first, *others = ensemble.models
    codes = first.encode(arc)
    for other in others:
        np.testing.assert_array_equal(other.encode(arc), codes)
        assert float(jnp.abs(other.decoder.mean(codes) - first.decoder.mean(codes)).max()) > 1e-3
    assert all(len(history) == 6 for history in ensemble.histories)
    # each decoder has learned: it is nearer to the data than their mean is
    scatter = ((arc - arc.mean(0)) ** 2).mean()
    assert all(((model.decoder.mean(codes) - arc) ** 2).mean() < 0.5 * scatter for model in ensemble.models)


def test_metric_is_the_mean_of_the_members(ensemble: Ensemble) -> None:
    z = jnp.linspace(-2, 2, 5)[:, None]
    each = jnp.stack([PullbackMetric(model.decoder, 1).metric(z) for model in ensemble.models])
    np.testing.assert_allclose(ensemble.metric.metric(z), each.mean(0), rtol=1e-10)
    samples = ensemble.metric.dist_samples(z[:-1], z[1:])
    assert samples.shape == (3, 4)
    assert bool((samples.std(0) > 0).all())


def test_the_first_model_is_that_of_train_alone(arc: Array, ensemble: Ensemble) -> None:
    key, _ = jax.random.split(jax.random.fold_in(KEY, SEEDS[0]))
    alone, _ = train(make(SEEDS[0]), arc, config=CONFIG, key=key, progress=False)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), alone, ensemble.models[0]))


def test_own_encoders_have_no_common_chart_but_distances(arc: Array) -> None:
    whole = train_all(make, arc, SEEDS, config=CONFIG, own_encoders=True)
    codes = [model.encode(arc) for model in whole.models]
    assert float(jnp.abs(codes[0] - codes[1]).max()) > 1e-2
    with pytest.raises(ValueError, match="encoders of their own"):
        _ = whole.metric
    pairs = arc[:5], arc[5:10]
    report = identifiability_report(whole.models, pairs)
    x, y = (jnp.stack([model.encode(end) for model in whole.models]) for end in pairs)
    of_metrics = identifiability_report([model.metric for model in whole.models], (x, y))
    np.testing.assert_allclose(report.geodesic, of_metrics.geodesic, rtol=1e-10)
    np.testing.assert_allclose(report.euclidean, jnp.abs(x - y)[..., 0], rtol=1e-10)


def test_bad_arguments(arc: Array) -> None:
    with pytest.raises(ValueError, match="`seeds` must be two different ones"):
        train_all(make, arc, (1, 1))
    with pytest.raises(TypeError, match="`make` must give a VAE"):
        train_all(lambda seed: make(seed).encoder, arc)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="`members` must be metrics or models"):
        identifiability_report([make(0).encoder] * 2, (arc[:3], arc[3:6]))  # type: ignore[list-item]
