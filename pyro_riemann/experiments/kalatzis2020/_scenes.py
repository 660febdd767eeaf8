"""What the paper's figures show, as arrays: drawn later, without the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from pyro_riemann._seed import seeded
from pyro_riemann.brownian import brownian_motion
from pyro_riemann.datasets import ImageData
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.experiments._jobs import pack, pack_images
from pyro_riemann.experiments._latent import FINE, frame, pairs, straight_length
from pyro_riemann.experiments.kalatzis2020._measure import evaluation_prior
from pyro_riemann.metrics import PullbackMetric, RiemannianMetric
from pyro_riemann.vae import VAE, HeatKernelPrior, encode_all, mlp

PIXELS = 120
"""Pixels an axis of every map."""
_SHOWN = 2000  # codes that are drawn
_MARGIN = 0.15  # of every box about the codes, in shares of its sides
_INCREASE = 10.0  # factor of the learned time in figure 7


def pixel_grid(box: Tensor) -> Tensor:
    """Centres of the pixels of a map, row by row from the bottom, ``(PIXELS^2, 2)``."""
    unit = (torch.arange(PIXELS, dtype=box.dtype, device=box.device) + 0.5) / PIXELS
    first, second = (box[0, axis] + unit * (box[1, axis] - box[0, axis]) for axis in (0, 1))
    return torch.stack(torch.meshgrid(first, second, indexing="xy"), -1).reshape(-1, 2)


@torch.no_grad()
def _map(function: Any, box: Tensor) -> dict[str, Any]:
    """A function of z on the pixels, ``(PIXELS, PIXELS)``."""
    values = torch.cat([function(rows) for rows in pixel_grid(box).split(2000)])
    return pack(values.reshape(PIXELS, PIXELS), "float32")


@torch.no_grad()
def digit_one(plain: VAE, rvae: VAE, data: ImageData, seed: int = 0) -> dict[str, Any]:
    """Figures 1 and 2: both priors of the models of one digit, and geodesics of the second."""
    scenes: dict[str, Any] = {}
    for name, vae in (("vae", plain), ("rvae", rvae)):
        codes = encode_all(vae, data.train)
        prior = evaluation_prior(vae)
        # the plain prior's mass lies where no code is: show all of it
        box = frame(codes, _MARGIN) if name == "rvae" else torch.tensor([[-3.5, -3.5], [3.5, 3.5]], device=codes.device)
        scenes[name] = {
            "box": box.tolist(),
            "codes": pack(codes[:_SHOWN]),
            "log_prior": _map(prior.log_prob, box),
            "code_share_in_central_half": _central_share(prior, codes, seed),
        }
    codes = encode_all(rvae, data.train)
    scenes["geodesics"] = _curves(rvae.metric, codes[:16], codes[16:32])
    scenes["log_volume"] = _map(lambda z: 0.5 * rvae.metric.logdet(z), frame(codes, _MARGIN))
    return scenes


def _central_share(prior: Any, codes: Tensor, seed: int, count: int = 4000) -> float:
    """Share of the codes in the region of highest density that holds half of the prior's draws: 0.5 is a match."""
    with seeded(seed, codes.device):
        draws = prior.sample((count,))
    return float((prior.log_prob(codes) >= prior.log_prob(draws).median()).double().mean())


def _curves(metric: RiemannianMetric, z: Tensor, y: Tensor) -> dict[str, Any]:
    solver, metric.solver = metric.solver, FINE
    curves = metric.geodesic(z, y)
    metric.solver = solver
    return {
        "points": pack(curves.points, "float32"),
        "length": curves.length.tolist(),
        "straight_length": straight_length(metric, z, y, 64).tolist(),
        "converged": curves.converged.tolist(),
    }


def uncertainty(vae: VAE, data: ImageData, epochs: int, seed: int = 0) -> dict[str, Any]:
    """Figure 3: standard deviation and volume element by an ordinary network and by the RBF network."""
    codes = encode_all(vae, data.train)
    box = frame(codes, 0.5)
    plain = _plain_deviation(vae, data, codes, epochs, seed)
    mean = vae.decoder.mean

    def ordinary(z: Tensor) -> tuple[Tensor, Tensor]:
        return mean(z), plain(z)

    metrics = {"plain": PullbackMetric(ordinary, 2), "rbf": PullbackMetric(vae.decoder, 2)}
    deviations = {"plain": plain, "rbf": vae.decoder.std}
    return {"box": box.tolist(), "codes": pack(codes[:_SHOWN])} | {
        name: {
            "log_deviation": _map(lambda z, std=deviations[name]: std(z).log().mean(-1), box),
            "log_volume": _map(lambda z, metric=metrics[name]: 0.5 * metric.logdet(z), box),
        }
        for name in metrics
    }


def _plain_deviation(vae: VAE, data: ImageData, codes: Tensor, epochs: int, seed: int) -> Callable[[Tensor], Tensor]:
    """A softplus network for the standard deviation, fitted to the residuals by maximum likelihood."""
    with torch.no_grad():
        residual = data.train - torch.cat([vae.decoder.mean(rows) for rows in codes.split(2000)])
    floor = float(vae.decoder.std.min_scale)
    with seeded(seed, codes.device), torch.enable_grad():
        body = mlp([2, 100, 100, data.train.shape[1]]).to(codes)
        network = nn.Sequential(*body, nn.Softplus())
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(codes), device="cpu").to(codes.device).split(200):
                scale = network(codes[rows]) + floor
                loss = (scale.log() + 0.5 * (residual[rows] / scale).square()).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    network.requires_grad_(False)
    return lambda z: network(z) + floor


@torch.no_grad()
def latent_space(vae: VAE, data: ImageData, seed: int = 0) -> dict[str, Any]:
    """Figures 4 to 7: codes over the volume element, interpolations, Brownian runs."""
    codes, metric = encode_all(vae, data.test), vae.metric
    box = frame(codes, _MARGIN)
    return {
        "box": box.tolist(),
        "codes": pack(codes[:_SHOWN]),
        "labels": data.test_labels[:_SHOWN].tolist(),
        "log_volume": _map(lambda z: 0.5 * metric.logdet(z), box),
        "interpolations": _interpolations(vae, codes, data.test_labels, seed),
        "brownian": {
            "learned": _brownian(vae, data, codes, 1.0, seed),
            "increased": _brownian(vae, data, codes, _INCREASE, seed),
        },
    }


def _interpolations(vae: VAE, codes: Tensor, labels: Tensor, seed: int, count: int = 200) -> dict[str, Any]:
    """Geodesics between codes of different classes; decoded: the two whose straight lines are the longest detours."""
    first, second = pairs(labels, count, 3 * count, seed)
    z, y = codes[first], codes[second]
    record = _curves(vae.metric, z, y)
    detour = torch.tensor(record["straight_length"]) / torch.tensor(record["length"])
    usable = torch.where(torch.tensor(record["converged"]), detour, torch.zeros_like(detour))
    chosen = usable.argsort(descending=True)[:2]
    curves = vae.metric.geodesic(z[chosen], y[chosen])
    times = torch.linspace(0, 1, 10, dtype=z.dtype, device=z.device)
    lines = z[chosen] + times.reshape(-1, 1, 1) * (y[chosen] - z[chosen])
    return {
        "points": pack(curves.points, "float32"),
        "images_geodesic": pack_images(vae.decoder.mean(curves(times)).movedim(0, 1)),
        "images_straight": pack_images(vae.decoder.mean(lines).movedim(0, 1)),
        "detour_quantiles": detour.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist(),
        "converged_share": sum(record["converged"]) / len(record["converged"]),
        "pairs": len(z),
    }


def _brownian(vae: VAE, data: ImageData, codes: Tensor, factor: float, seed: int) -> dict[str, Any]:
    """Runs from the prior's centre for ``factor`` times the learned time, images along four, and how far they stray."""
    prior = vae.prior
    assert isinstance(prior, HeatKernelPrior)
    with seeded(seed, codes.device):
        paths = brownian_motion(
            vae.metric, prior.loc.expand(200, 2), factor * prior.time, num_steps=200, return_path=True
        )
        flat = torch.randn_like(paths[1:]).cumsum(0)
    # the same walk with a constant metric, that at the centre: what Brownian motion does without geometry
    root = torch.linalg.cholesky(torch.linalg.inv(vae.metric.metric(prior.loc)))
    flat = prior.loc + (factor * prior.time / 200).sqrt() * flat @ root.mT
    along = paths[:: 200 // 9, :4]
    return {
        "factor": factor,
        "time": float(factor * prior.time),
        "paths": pack(paths[:, :12], "float32"),
        "images": pack_images(vae.decoder.mean(along).movedim(0, 1)),
        "strayed_share": _strayed(codes, paths[-1]),
        "strayed_share_flat": _strayed(codes, flat[-1]),
    }


def _strayed(codes: Tensor, points: Tensor) -> float:
    """Share of points farther from the nearest code than all but 1 % of the codes are from theirs."""
    search = NearestNeighbors(n_neighbors=2).fit(codes.cpu().numpy())
    usual = torch.as_tensor(search.kneighbors(codes.cpu().numpy())[0][:, 1]).quantile(0.99)
    far = torch.as_tensor(search.kneighbors(points.cpu().numpy(), n_neighbors=1)[0][:, 0]) > usual
    return float(far.double().mean())


@torch.no_grad()
def draw_tabulated(prior: RiemannianHeatKernel, box: Tensor, count: int, seed: int, resolution: int = 600) -> Tensor:
    """Draws of a density on a box, d = 2, by its values on a fine grid: exact up to the cells' width.

    Brownian motion would be another law than the short-time density that is calibrated.
    """
    unit = (torch.arange(resolution, dtype=box.dtype, device=box.device) + 0.5) / resolution
    nodes = torch.stack(torch.meshgrid(unit, unit, indexing="ij"), -1).reshape(-1, 2)
    extent = box[1] - box[0]
    log_weight = torch.cat([prior.log_prob(rows) for rows in (box[0] + nodes * extent).split(20_000)])
    with seeded(seed, box.device):
        chosen = torch.multinomial((log_weight - log_weight.max()).exp(), count, replacement=True)
        jitter = (torch.rand(count, 2, dtype=box.dtype, device="cpu").to(box.device) - 0.5) / resolution
    return box[0] + (nodes[chosen] + jitter) * extent
