"""The Frechet distance of two sets of images, in the features of any network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite
from pyro_riemann._work import announced
from pyro_riemann.plotting._images import image_size
from pyro_riemann.vae._data import Data, as_rows

Features = Callable[[Tensor], Tensor]
"""What maps images ``(n, D)`` to features ``(n, p)``."""
_ROWS = 64  # images that Inception sees at once


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    r"""Frechet distance of the Gaussians with the moments of two sets of features, by torchmetrics.

    .. math:: |\mu_r - \mu_g|^2 + \mathrm{tr}\bigl(S_r + S_g - 2 (S_r S_g)^{1/2}\bigr).

    Args:
        real: features ``(n, p)``, n at least 2.
        generated: features ``(m, p)``, m at least 2.

    Raises:
        ValueError: for features of different width, or fewer than two rows.
        ImportError: if torchmetrics is not installed.

    Source: Heusel et al. (2017), *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*;
    Dowson & Landau (1982), *The Frechet distance between multivariate normal distributions*.

    Example:
        >>> x = torch.randn(1000, 3)
        >>> round(frechet_distance(x, x + 2), 3)  # a shift by 2 along 3 axes
        12.0
    """
    check_features(real, generated)
    with torch.device(real.device):
        metric = _torchmetrics()(feature=_Identity(real.shape[-1]))
    metric.set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return float(metric.compute())


@announced
def fid(real: Data, generated: Data, shape: tuple[int, ...], features: Features | None = None) -> float:
    """Frechet Inception distance of two sets of images, grey or coloured, or its kin in other features.

    Args:
        real: images in [0, 1], ``(n, D)`` or ``(n, *shape)``; or a ``Dataset`` or ``DataLoader`` of such.
        generated: likewise.
        shape: ``(height, width)`` or ``(channels, height, width)``.
        features: maps images ``(n, D)`` to features ``(n, p)``, for instance ``train_classifier(...).features``;
            default: :func:`inception_features`. Distances in different features do not compare: say which.

    Raises:
        TypeError: for sets of another kind.
        RuntimeError: without ``features``, if Inception's weights cannot be had; the message names the ways out.
        ValueError, ImportError: as :func:`frechet_distance`; ValueError for images of another shape.

    Source: Heusel et al. (2017), *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*.

    Example:
        >>> images = torch.rand(300, 16)
        >>> round(fid(images, images, (4, 4), features=lambda x: x[:, :3]), 6)
        0.0
    """
    extract = inception_features(shape) if features is None else features
    sets = (as_rows(name, data, math.prod(shape), shape) for name, data in (("real", real), ("generated", generated)))
    return frechet_distance(*map(extract, sets))


@announced
def inception_features(shape: tuple[int, ...], weights: str | Path | None = None) -> Features:
    """The 2048 features of the Inception network of the original FID, of images as rows.

    Args:
        shape: ``(height, width)`` or ``(channels, height, width)`` of the images; a grey one is shown as three colours.
        weights: file of the weights; by default torch-fidelity looks for them in torch's cache and on the network.

    Raises:
        ValueError: for another shape.
        RuntimeError: if torch-fidelity or the weights are missing; the message names the ways out.
        ImportError: if torchmetrics is not installed.

    Source: Heusel et al. (2017), *GANs trained by a two time-scale update rule converge to a local Nash equilibrium*;
    Szegedy et al. (2016), *Rethinking the Inception architecture for computer vision*.

    Example:
        >>> try:
        ...     extract = inception_features((28, 28), weights="/nowhere/inception.pth")
        ... except RuntimeError as error:
        ...     print("train_classifier" in str(error))
        True
    """
    size, metric_class = image_size(shape), _torchmetrics()
    try:
        metric = metric_class(feature=2048, feature_extractor_weights_path=None if weights is None else str(weights))
    except Exception as error:  # each cause has a class of its own: no package, no file, no network, a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RuntimeError(
            f"the Inception network cannot be had here ({reason}). Either `pip install torch-fidelity` where its "
            "weights can be fetched, or give their file by `weights=`, or use other features: "
            "`features=train_classifier(images, labels, shape).features`."
        ) from error
    network = metric.inception

    def extract(images: Tensor) -> Tensor:
        light = (images.reshape(-1, *size).clamp(0, 1) * 255).byte()
        return torch.cat([network(part.expand(-1, 3, -1, -1)) for part in light.split(_ROWS)])

    return extract


def check_features(real: Tensor, generated: Tensor, least: int = 2) -> None:
    """Raise unless both are finite matrices of the same width with enough rows."""
    for name, value in (("real", real), ("generated", generated)):
        if value.dim() != 2 or len(value) < least:
            raise ValueError(f"`{name}` must be features (n, p) with n >= {least}, got shape {tuple(value.shape)}.")
        check_finite(name, value)
    if real.shape[-1] != generated.shape[-1]:
        raise ValueError(f"`real` has {real.shape[-1]} features, `generated` {generated.shape[-1]}.")


class _Identity(nn.Module):
    """Features that have been extracted already, as torchmetrics wants them."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def _torchmetrics() -> Any:
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise ImportError(
            "the Frechet distance is computed by torchmetrics: install it with `pip install pyro-riemann[vision]`."
        ) from error
    return FrechetInceptionDistance
