"""Distances over retrainings: those of the other face, on metrics that differ in their units."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pyro_riemann import PullbackMetric as TorchPullback
from pyro_riemann.evaluation import identifiability_report as of_torch
from pyro_riemann.numpyro import PullbackMetric
from pyro_riemann.numpyro.evaluation import identifiability_report

SCALES = (0.5, 1.0, 2.0, 3.0)
RANDOM = np.random.default_rng(0)
CODES = RANDOM.normal(size=(2, 6, 2))
X, Y = np.array(SCALES, np.float32)[:, None, None] * (CODES + 0.1 * RANDOM.normal(size=(4, 2, 6, 2))).swapaxes(0, 1)
X, Y = X.astype(np.float32), Y.astype(np.float32)


def test_the_report_is_that_of_the_other_face() -> None:
    def ours_of(s: float) -> PullbackMetric:
        return PullbackMetric(lambda z: jnp.concatenate([z / s, jnp.sin(z / s)], -1), 2, jitter=0.0)

    def theirs_of(s: float) -> TorchPullback:
        return TorchPullback(lambda z: torch.cat([z / s, (z / s).sin()], -1), 2, jitter=0.0)

    metrics, others = [ours_of(s) for s in SCALES], [theirs_of(s) for s in SCALES]
    ours = identifiability_report(metrics, (jnp.asarray(X), jnp.asarray(Y)))
    theirs = of_torch(others, (torch.from_numpy(X), torch.from_numpy(Y)))
    np.testing.assert_allclose(ours.geodesic, theirs.geodesic, rtol=1e-4)
    np.testing.assert_allclose(ours.euclidean, theirs.euclidean, rtol=1e-6)
    np.testing.assert_allclose(ours.euclidean_variation, theirs.euclidean_variation, rtol=1e-4)
    assert float(ours.geodesic_variation.mean()) < float(ours.euclidean_variation.mean()) / 2  # whatever the units
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-2)
    assert str(ours).splitlines()[2] == str(theirs).splitlines()[2]


def test_errors() -> None:
    metrics = [PullbackMetric(lambda z: jnp.concatenate([z, z**2], -1), 2) for _ in SCALES]
    x, y = jnp.asarray(X), jnp.asarray(Y)
    for members, given, says in (
        (metrics[:1], (x, y), "needs two"),
        (metrics, (x, y[:, :3]), "one shape"),
        (metrics, (x[:, :1], y[:, :1]), "1 pairs"),
        (metrics, (x, x), "same code under member 0"),
        (metrics, (x[0], y[0]), r"must be codes \(4, P, d\)"),
    ):
        with pytest.raises(ValueError, match=says):
            identifiability_report(members, given)
