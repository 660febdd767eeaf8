"""What the cases are made of: the VAE of the benchmarks, pairs of its codes, and distances with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Calls = dict[str, Callable[[], Any]]
PAIRS = 32
DECODERS: list[Path] = []  # the folder with the decoders, from the command line


def plain_decoder(dim: int) -> tuple[dict[str, Tensor], Tensor]:
    """Weights of the VAE of the benchmarks, its units folded into the outer layers, and its 10,000 codes."""
    from safetensors.torch import load_file

    suffix = "" if dim == 2 else f"_d{dim}"
    state = load_file(DECODERS[0] / f"mnist_decoder{suffix}.safetensors")
    codes = state.pop("codes")
    if "encoder.units.loc" in state:
        loc, scale = state.pop("encoder.units.loc"), state.pop("encoder.units.scale")
        for part in ("loc", "spread"):
            weight = state[f"encoder.{part}.0.weight"] / scale
            state[f"encoder.{part}.0.weight"] = weight
            state[f"encoder.{part}.0.bias"] = state[f"encoder.{part}.0.bias"] - weight @ loc
        names = [key.removesuffix(".loc") for key in state if key.startswith("decoder.mean") and key.endswith(".loc")]
        loc, scale = state.pop(f"{names[0]}.loc"), state.pop(f"{names[0]}.scale")
        state["decoder.mean.4.weight"] = scale * state["decoder.mean.4.weight"]
        state["decoder.mean.4.bias"] = scale * state["decoder.mean.4.bias"] + loc
    return state, codes


def mnist_vae(dim: int = 2, **settings: Any) -> tuple[Any, Tensor]:
    """The VAE of the benchmarks with other settings, and its codes."""
    from pyro_riemann.vae import make_vae

    state, codes = plain_decoder(dim)
    vae = make_vae(784, dim, **{"prior": "normal", "posterior": "normal", "seed": 0, **settings})
    own = vae.state_dict()
    for part in ("weight", "bias"):  # one time in place of d scales
        key = f"encoder.spread.4.{part}"
        if state[key].shape != own[key].shape:
            state[key] = state[key].mean(0, keepdim=True)
    vae.load_state_dict({**own, **{key: value for key, value in state.items() if key in own}})
    return vae.eval(), codes


def pairs(codes: Tensor, count: int) -> Tensor:
    chosen = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))[: 2 * count]]
    return chosen.reshape(2, count, codes.shape[1])


def with_gradient(metric: Any, z: Tensor, y: Tensor) -> Tensor:
    start = z.clone().requires_grad_()
    squared: Tensor = metric.squared_dist(start, y)
    torch.autograd.grad(squared.sum(), start)
    return squared.detach()
