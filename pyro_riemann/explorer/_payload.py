"""What the page needs of a trained VAE, as JSON: tables of its metric, the decoder's mean, codes, the prior."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite
from pyro_riemann._formulas import grid_table
from pyro_riemann._rescale import Rescale
from pyro_riemann.metrics import GridMetric, PullbackMetric
from pyro_riemann.plotting._images import image_size
from pyro_riemann.vae import VAE, HeatKernelPrior
from pyro_riemann.vae._data import Data, as_rows

Corner = float | Sequence[float] | Tensor | None

_MARGIN = 0.3  # share of the codes' extent on each side, as in `VAE.refresh_metric`
_CHUNK = 1024


def make_payload(
    vae: VAE,
    codes: Tensor,
    labels: Tensor,
    image_shape: tuple[int, ...] | None,
    images: Data | None,
    low: Corner,
    high: Corner,
    resolution: int,
    max_codes: int,
    title: str,
) -> dict[str, Any]:
    """Everything the page shows, ready for ``json.dumps``; arguments as :func:`explorer_page`."""
    check_vae(vae)
    layers = decoder_layers(vae.decoder.mean)
    if image_shape is None and isinstance(images, Tensor) and images.dim() > 2:
        image_shape = tuple(images.shape[1:])
    shape = check_image_shape(vae.decoder.data_dim, image_shape)
    rows = None if images is None else as_rows("images", images, vae.decoder.data_dim, shape)
    check_codes(codes, labels, rows)
    prior = _prior(vae)
    corners = box(codes if prior is None else torch.cat([codes, codes.new_tensor([prior["loc"]])]), low, high)
    metric = PullbackMetric(vae.decoder.distance_immersion().cpu().double(), 2)
    grid = GridMetric(metric, corners[0], corners[1], resolution, outside="error", chunk_size=_CHUNK)
    inside = codes_inside(grid, codes.detach().cpu().double())
    mean, std = metric_tables(metric, corners, resolution)
    count = min(max_codes, len(codes))
    shown = torch.linspace(0, len(codes) - 1, count, dtype=torch.float64, device="cpu").round().long()
    codes, labels = codes.detach().cpu(), labels.detach().cpu()
    return {
        "title": title,
        "low": corners[0].tolist(),
        "high": corners[1].tolist(),
        "size": [resolution, resolution],
        "mean_metric": pack(mean),
        "std_metric": pack(std),
        "jitter": metric.jitter,
        "table_error": _error(grid, metric, inside),
        "stiffness": _stiffness(grid, inside),
        "layers": layers,
        "image_shape": list(shape),
        "codes": pack(codes[shown].float().numpy()),
        "labels": pack(labels[shown].to(torch.int32).numpy()),
        "images": None if rows is None else pack(_bytes(rows.detach().cpu()[shown])),
        "prior": prior,
        "time": _time(grid, inside) if prior is None else prior["time"],
    }


# -------------------------------------------------------------------- checks


def check_vae(vae: VAE) -> None:
    """Refuse a model that the page cannot show."""
    if vae.latent_dim != 2:
        raise ValueError(
            f"the explorer draws a plane: it needs a VAE with latent dimension 2, got {vae.latent_dim}. "
            "Train one with `latent_dim=2`."
        )
    if vae.warm_up:
        raise ValueError(
            "the VAE is in the warm-up of its training, where there is no geometry yet: train phase 2 as well."
        )
    if not hasattr(vae.decoder, "distance_immersion") or not isinstance(vae.decoder.mean, nn.Sequential):
        raise ValueError(
            f"the explorer needs a `GaussianDecoder` (a mean network and a standard deviation with jets), "
            f"got {type(vae.decoder).__name__}."
        )


def check_image_shape(data_dim: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Shape of the images, (height, width) or (channels, height, width); a square if none is given."""
    if shape is None:
        side = math.isqrt(data_dim)
        if side * side != data_dim:
            raise ValueError(
                f"data of {data_dim} entries are no square image: give `image_shape=(height, width)` or "
                "`(channels, height, width)`."
            )
        return side, side
    if math.prod(image_size(shape)) != data_dim:
        raise ValueError(
            f"`image_shape` must be (height, width) or (channels, height, width) with {data_dim} entries, got "
            f"{tuple(shape)}."
        )
    return tuple(int(side) for side in shape)


def check_codes(codes: Tensor, labels: Tensor, images: Tensor | None) -> None:
    """Refuse codes, labels and images that do not belong together."""
    if codes.dim() != 2 or codes.shape[-1] != 2 or len(codes) < 2:
        raise ValueError(f"`codes` must have shape (n, 2) with n of at least 2, got {tuple(codes.shape)}.")
    check_finite("codes", codes)
    if labels.shape != codes.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"`labels` must be whole numbers of shape ({len(codes)},), got {labels.dtype} of {tuple(labels.shape)}."
        )
    if images is not None and len(images) != len(codes):
        raise ValueError(f"`images` must be one for each of the {len(codes)} codes, got {len(images)}.")


def box(codes: Tensor, low: Corner, high: Corner) -> Tensor:
    """Corners of the plane that is shown, ``(2, 2)`` in float64: around the codes where none are given."""
    least, most = (bound.detach().cpu().double() for bound in (codes.amin(0), codes.amax(0)))
    around = [least - _MARGIN * (most - least), most + _MARGIN * (most - least)]
    corners = []
    for name, given, default in (("low", low, around[0]), ("high", high, around[1])):
        corner = default if given is None else torch.as_tensor(given, dtype=torch.float64, device="cpu")
        if corner.shape not in (torch.Size([]), torch.Size([2])):
            raise ValueError(f"`{name}` must be a number or two, got shape {tuple(corner.shape)}.")
        corners.append(check_finite(name, corner).expand(2))
    result = torch.stack(corners)
    grid_table.check_corners(result.numpy())
    return result


# -------------------------------------------------------------------- parts


@torch.no_grad()
def metric_tables(metric: PullbackMetric, corners: Tensor, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    r""":math:`J_\mu^\top J_\mu` and :math:`J_\sigma^\top J_\sigma` at the nodes.

    Returns:
        Two float32 arrays ``(resolution, resolution, 3)``: the entries 00, 01 and 11. The first axis is that of z_0.
    """
    nodes = torch.from_numpy(grid_table.nodes(corners.numpy(), (resolution, resolution)))
    parts: list[list[Tensor]] = [[], []]
    immersion: Any = metric.immersion
    for chunk in nodes.split(_CHUNK):
        for part, jet in zip(parts, immersion.jet(chunk), strict=True):
            jacobian = jet.jacobian()
            square = jacobian.mT @ jacobian
            part.append(torch.stack([square[..., 0, 0], square[..., 0, 1], square[..., 1, 1]], -1))
    mean, std = (torch.cat(part).float().reshape(resolution, resolution, 3).numpy() for part in parts)
    return mean, std


def decoder_layers(network: nn.Sequential) -> list[dict[str, Any]]:
    """Weights of an MLP with ELU between its linear layers, the last of them in the units of the data."""
    inner = [layer for layer in network if not isinstance(layer, Rescale)]
    between = inner[1::2]
    linear = [layer for layer in inner[::2] if isinstance(layer, nn.Linear)]
    if len(inner) != 2 * len(linear) - 1 or not all(
        isinstance(layer, nn.ELU) and layer.alpha == 1 for layer in between
    ):
        kinds = ", ".join(type(layer).__name__ for layer in network)
        raise ValueError(f"the page decodes by linear layers with ELU between them (`vae.mlp`), got {kinds}.")
    weights = [(layer.weight.detach().cpu(), layer.bias.detach().cpu()) for layer in linear]
    if isinstance(units := network[-1], Rescale):
        weight, bias = weights[-1]
        weights[-1] = (units.scale.cpu() * weight, units(bias.to(units.loc)).cpu())
    return [{"weight": pack(weight.float().numpy()), "bias": pack(bias.numpy())} for weight, bias in weights]


def _prior(vae: VAE) -> dict[str, Any] | None:
    """Centre and time of a heat-kernel prior, None for any other."""
    if not isinstance(vae.prior, HeatKernelPrior):
        return None
    return {"loc": vae.prior.loc.detach().cpu().tolist(), "time": vae.prior.time.item()}


def codes_inside(grid: GridMetric, codes: Tensor) -> Tensor:
    """The codes in the box, ``(m, 2)``."""
    inside = codes[grid.table.contains(codes)]
    if len(inside) == 0:
        low, high = grid.table.low.tolist(), grid.table.high.tolist()
        raise ValueError(f"none of the {len(codes)} codes lies in the box {low} to {high}: choose a larger one.")
    return inside


@torch.no_grad()
def _stiffness(grid: GridMetric, codes: Tensor) -> float:
    """Median of det G^(1/2) at the codes: the unit of the slider of an added lambda I."""
    return float((0.5 * grid.logdet(codes)).exp().median())


@torch.no_grad()
def _error(grid: GridMetric, metric: PullbackMetric, codes: Tensor, count: int = 500) -> float:
    """Mean relative error of the table at codes: in the corners of the box, where nobody looks, it is larger."""
    some = codes[:: max(1, len(codes) // count)]
    error = grid_table.relative_error(grid.metric(some).numpy(), metric.metric(some).numpy())
    return float(error.mean())


@torch.no_grad()
def _time(grid: GridMetric, codes: Tensor) -> float:
    """Time in which a walker crosses about a third of the codes' spread, for priors that have none of their own."""
    return float((0.3 * codes.std(0).mean()).square() * (0.5 * grid.logdet(codes)).exp().median())


def _bytes(images: Tensor) -> np.ndarray:
    pixels: np.ndarray = (images.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return pixels


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: base64 of its bytes, little-endian."""
    ordered = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    data = base64.b64encode(ordered.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Inverse of :func:`pack`."""
    dtype = np.dtype(packed["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(packed["data"]), dtype=dtype).reshape(packed["shape"])
