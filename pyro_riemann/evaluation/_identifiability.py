"""Do distances mean the same after the model is trained again: geodesic against Euclidean ones of the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

from pyro_riemann._formulas.retrainings import Retrainings, check_codes, check_pairs, check_straight
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.plotting._style import GEODESIC_COLOR, LINE_COLOR


@runtime_checkable
class EncodingModel(Protocol):
    """A trained model that says where data lie and what is far there, as those of ``pyro_riemann.vae`` do.

    Attributes:
        metric: the geometry of its codes.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> isinstance(make_vae(data_dim=4, latent_dim=2), EncodingModel)
        True
    """

    @property
    def metric(self) -> RiemannianMetric:
        """The metric of its latent space."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Codes ``(n, d)`` of data x, ``(n, *shape)``."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class IdentifiabilityReport(Retrainings[Tensor]):
    """Distances of P pairs under K retrainings of a model, and how much they vary; printed, it is a small table.

    A retraining may rescale, turn and bend the latent space. What it changes of a distance says nothing about the data.

    Attributes:
        geodesic: geodesic distances, ``(K, P)``.
        euclidean: Euclidean distances of the codes, ``(K, P)``.

    Example:
        >>> geodesic, euclidean = torch.tensor([[[1.0, 2.0], [1.1, 2.1]], [[1.0, 2.0], [3.0, 5.0]]])
        >>> report = IdentifiabilityReport(geodesic, euclidean)
        >>> print(report)
        distance    CV, mean    CV, median
        geodesic       0.051         0.051
        euclidean      0.657         0.657
        paired t-test, 2 pairs, 2 models: t = -17.77, p = 0.018
    """

    def plot(self, ax: Axes | None = None) -> Axes:
        """Empirical distribution functions of both coefficients of variation: further left, a distance means more.

        Args:
            ax: axes to draw on, by default those of a new figure.

        Returns:
            The axes.
        """
        if ax is None:
            ax = plt.subplots(figsize=(4.5, 3.2), layout="constrained")[1]
        curves = zip(("geodesic", "Euclidean"), self.numbers(), (GEODESIC_COLOR, LINE_COLOR), strict=True)
        for name, value, color in curves:
            values = np.sort(value)
            ax.step(values, (np.arange(len(values)) + 1) / len(values), where="post", color=color, label=name)
        ax.set_xlabel("coefficient of variation over models")
        ax.set_ylabel("share of pairs")
        ax.set_xlim(left=0)
        ax.set_ylim(0, 1.02)
        ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    @staticmethod
    def _variation(distances: Tensor) -> Tensor:
        return distances.std(0) / distances.mean(0)

    @staticmethod
    def _host(values: Tensor) -> np.ndarray:
        return values.double().cpu().numpy()


@torch.no_grad()
def identifiability_report(
    members: Sequence[RiemannianMetric | EncodingModel], pairs: tuple[Tensor, Tensor]
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
        >>> from pyro_riemann import PullbackMetric
        >>> scales = torch.tensor([0.5, 1.0, 2.0])  # retrainings that find the same curve in other units
        >>> metrics = [PullbackMetric(lambda z, s=s: torch.cat([z / s, (z / s).sin()], -1), 1) for s in scales]
        >>> codes = scales[:, None, None] * torch.linspace(-1, 1, 6)[:, None]
        >>> report = identifiability_report(metrics, (codes[:, :5], codes[:, 1:]))
        >>> bool((report.geodesic_variation < 1e-3).all()), report.euclidean_variation.mean().round(decimals=3).item()
        (True, 0.6549999713897705)
    """
    x, y = pairs
    check_pairs(members, tuple(x.shape), tuple(y.shape))
    geodesic, euclidean = [], []
    for index, member in enumerate(members):
        if isinstance(member, RiemannianMetric):
            check_codes(members, tuple(x.shape))
            metric, codes = member, (x[index], y[index])
        elif isinstance(member, EncodingModel):
            metric, codes = member.metric, (member.encode(x), member.encode(y))
        else:
            raise TypeError(
                f"`members` must be metrics or models with `metric` and `encode`, got {type(member).__name__}."
            )
        euclidean.append((codes[0] - codes[1]).norm(dim=-1))
        check_straight(index, euclidean[-1].cpu().numpy())
        geodesic.append(metric.dist(*codes))
    return IdentifiabilityReport(torch.stack(geodesic).detach(), torch.stack(euclidean).detach())
