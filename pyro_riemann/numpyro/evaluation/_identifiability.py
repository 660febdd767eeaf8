"""Do distances mean the same after the model is trained again: geodesic against Euclidean ones of the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_riemann._formulas.retrainings import Retrainings, check_codes, check_pairs, check_straight
from pyro_riemann.numpyro.metrics import RiemannianMetric


@runtime_checkable
class EncodingModel(Protocol):
    """A trained model that says where data lie and what is far there, as those of ``pyro_riemann.numpyro.vae`` do.

    Attributes:
        metric: the geometry of its codes.

    Example:
        >>> from pyro_riemann.numpyro.vae import make_vae
        >>> isinstance(make_vae(4, likelihood="gaussian", key=jax.random.key(0)), EncodingModel)
        True
    """

    @property
    def metric(self) -> RiemannianMetric:
        """The metric of its latent space."""
        ...

    def encode(self, x: Array) -> Array:
        """Codes ``(n, d)`` of data x, ``(n, *shape)``."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class IdentifiabilityReport(Retrainings[Array]):
    """Distances of P pairs under K retrainings of a model, and how much they vary; printed, it is a small table.

    A retraining may rescale, turn and bend the latent space. What it changes of a distance says nothing about the data.

    Attributes:
        geodesic: geodesic distances, ``(K, P)``.
        euclidean: Euclidean distances of the codes, ``(K, P)``.

    Example:
        >>> geodesic, euclidean = jnp.array([[[1.0, 2.0], [1.1, 2.1]], [[1.0, 2.0], [3.0, 5.0]]])
        >>> print(IdentifiabilityReport(geodesic, euclidean))
        distance    CV, mean    CV, median
        geodesic       0.051         0.051
        euclidean      0.657         0.657
        paired t-test, 2 pairs, 2 models: t = -17.77, p = 0.018
    """

    @staticmethod
    def _variation(distances: Array) -> Array:
        return distances.std(0, ddof=1) / distances.mean(0)

    @staticmethod
    def _host(values: Array) -> np.ndarray:
        return np.asarray(values, np.float64)


def identifiability_report(
    members: Sequence[RiemannianMetric | EncodingModel], pairs: tuple[Array, Array]
) -> IdentifiabilityReport:
    """Geodesic and Euclidean distances of the same pairs under models that were trained again, from other seeds.

    Args:
        members: K models, or their metrics.
        pairs: for models, two batches of data ``(P, *shape)``, which each model encodes; for metrics, two batches of
            codes ``(K, P, d)``, those of each.

    Raises:
        ValueError: for fewer than two members or pairs, batches of different shape or of the wrong one, or a pair whose
            codes coincide.
        TypeError: for a member that is neither.

    Source: Syrota, Zainchkovskyy, Xi, Bloem-Reddy and Hauberg (2025), *Identifying metric structures of deep latent
    variable models*: 100 pairs of test data, coefficients of variation over retrainings, Student's t-test.

    Example:
        >>> scales = jnp.array([0.5, 1.0, 2.0])  # retrainings that find the same line in other units
        >>> metrics = [ConstantMetric(jnp.eye(1) / scale**2) for scale in scales]
        >>> codes = scales[:, None, None] * jnp.linspace(-1.0, 1.0, 6)[:, None]
        >>> report = identifiability_report(metrics, (codes[:, :5], codes[:, 1:]))
        >>> bool((report.geodesic_variation < 1e-3).all()), round(float(report.euclidean_variation.mean()), 3)
        (True, 0.655)
    """
    x, y = pairs
    check_pairs(members, x.shape, y.shape)
    geodesic, euclidean = [], []
    for index, member in enumerate(members):
        if isinstance(member, RiemannianMetric):
            check_codes(members, x.shape)
            metric, codes = member, (x[index], y[index])
        elif isinstance(member, EncodingModel):
            metric, codes = member.metric, (member.encode(x), member.encode(y))
        else:
            raise TypeError(
                f"`members` must be metrics or models with `metric` and `encode`, got {type(member).__name__}."
            )
        euclidean.append(jnp.linalg.norm(codes[0] - codes[1], axis=-1))
        check_straight(index, np.asarray(euclidean[-1]))
        geodesic.append(metric.dist(*codes))
    return IdentifiabilityReport(jnp.stack(geodesic), jnp.stack(euclidean))
