"""C22's figure 1: the latent space of disks and rings, and curves that keep to where the metric's volume is large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_riemann.autoencoders import Autoencoder, FitConfig, make_autoencoder
from pyro_riemann.datasets import disks_and_rings
from pyro_riemann.experiments._jobs import pack, pack_images
from pyro_riemann.experiments.chadebec2022._study import Study
from pyro_riemann.metrics import KernelMetric
from pyro_riemann.sampling import interpolate

_SIZE, _IMAGES, _CENTROIDS, _CELLS, _FRAMES, _POINTS = 32, 1_000, 200, 100, 10, 100
_WIDENING = 2.5


def toy(study: Study) -> dict[str, Any]:
    """A VAE of disks and rings with two latent dimensions, its metric, and curves by eq. 8 against straight lines."""
    images, labels = disks_and_rings(_IMAGES, _SIZE)
    held_out, held_out_labels = disks_and_rings(200, _SIZE, seed=1)
    model = make_autoencoder("vae", (_SIZE, _SIZE), 2, hidden=(256, 128), seed=0)
    config = FitConfig(study.protocol.toy_epochs, 100, checkpoint_every=20, patience=20)
    model.fit(images, held_out, config, checkpoint=study.cache / "toy", progress=not study.quiet)
    loc, scale = model.posterior(images)
    # between C22's rule, which leaves gaps along the bands, and "mahalanobis", under which the bands become one hill
    bandwidth = _WIDENING * float(KernelMetric.from_posterior(loc, scale, _CENTROIDS, "euclidean").bandwidth)
    metric = KernelMetric.from_posterior(loc, scale, _CENTROIDS, bandwidth, regularization=1e-3)
    margin = 0.15 * (loc.amax(0) - loc.amin(0))
    low, high = loc.amin(0) - margin, loc.amax(0) + margin
    axes = [torch.linspace(float(a), float(b), _CELLS) for a, b in zip(low, high, strict=True)]
    volume = 0.5 * metric.logdet(torch.cartesian_prod(*axes)).reshape(_CELLS, _CELLS)
    codes = model.encode(held_out)
    starts, ends = _pairs(codes, held_out_labels)
    found = {
        "straight": interpolate(metric, starts, ends, kind="line", num_frames=_POINTS),
        "curved": interpolate(metric, starts, ends, kind="volume", num_frames=_POINTS, init="graph"),
    }
    curve = found["curved"].curve
    assert curve is not None
    return {
        "size": _SIZE,
        "codes": pack(loc, "float32"),
        "labels": labels.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "log_volume_element": pack(volume, "float32"),
        "bandwidth": float(metric.bandwidth),
        "coverage": float(metric.coverage(loc)),
        "curves": [
            {name: _curve(model, metric, one.points[:, index]) for name, one in found.items()}
            for index in range(len(starts))
        ],
        "converged": curve.converged.tolist(),
    }


def _pairs(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each class, its two codes that lie farthest apart."""
    ends = []
    for label in (0, 1):
        mine = codes[labels == label]
        first, second = divmod(int(torch.cdist(mine, mine).argmax()), len(mine))
        ends.append(mine[[first, second]])
    both = torch.stack(ends)
    return both[:, 0], both[:, 1]


def _curve(model: Autoencoder, metric: KernelMetric, points: Tensor) -> dict[str, Any]:
    """Points and decoded frames of a curve, and how small the metric's volume gets along it."""
    shown = torch.linspace(0, _POINTS - 1, _FRAMES).round().long()
    return {
        "points": pack(points, "float32"),
        "frames": pack_images(model.decode(points[shown])),
        "least_log_volume_element": float(0.5 * metric.logdet(points).min()),
    }
