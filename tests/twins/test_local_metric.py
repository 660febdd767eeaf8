"""The metric of the local covariance: the twin has the same forms."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch

from pyro_riemann.metrics import LocalMetric
from pyro_riemann.numpyro import to_numpyro


def test_forms_agree() -> None:
    data, z, v = (np.random.default_rng(seed).standard_normal((20 if seed == 0 else 3, 2)) for seed in range(3))
    metric = LocalMetric(torch.tensor(data), 0.7, 0.01)
    twin = to_numpyro(metric)
    for name, arguments in (("metric", (z,)), ("logdet", (z,)), ("cholesky", (z,)), ("inner", (z, v, v))):
        expected = getattr(metric, name)(*map(torch.tensor, arguments))
        np.testing.assert_allclose(getattr(twin, name)(*map(jnp.asarray, arguments)), expected, rtol=1e-9, atol=1e-12)
    expected = metric.metric_jacobian(torch.tensor(z))[1]
    np.testing.assert_allclose(twin.metric_jacobian(jnp.asarray(z))[1], expected, rtol=1e-9, atol=1e-12)
    assert twin.on_floor(jnp.asarray(z)).tolist() == metric.on_floor(torch.tensor(z)).tolist()
