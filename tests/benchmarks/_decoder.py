"""The decoder of the benchmarks: K20's networks (d = 2, precision network) trained on MNIST, cached on disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pyro_riemann.datasets import load_dataset
from pyro_riemann.vae import VAE, TrainingConfig, encode_all, make_vae, train

CACHE_VARIABLE = "PYRO_RIEMANN_BENCHMARK_CACHE"


def cache_folder() -> Path:
    """Where trained decoders are kept."""
    return Path(os.environ.get(CACHE_VARIABLE, Path(tempfile.gettempdir()) / "pyro_riemann_benchmarks"))


def mnist_vae(latent_dim: int = 2, data_root: str | None = None, seed: int = 0) -> tuple[VAE, torch.Tensor]:
    """A VAE trained on MNIST and the codes of the 10,000 test images, from the cache if it is there.

    10 epochs of encoder and decoder mean, 3 of the precision network (float32, on the CPU, fixed seed). The
    decoder, ``vae.decoder``, is the immersion (mean, standard deviation) of 784 + 784 outputs.
    """
    folder = cache_folder()
    suffix = "" if latent_dim == 2 else f"_d{latent_dim}"
    path = folder / f"mnist_decoder{suffix}.safetensors"
    vae = make_vae(784, latent_dim, prior="normal", posterior="normal", seed=seed)
    if path.exists():
        tensors = load_file(path)
        codes = tensors.pop("codes")
        vae.load_state_dict(tensors)
        return vae.eval(), codes
    data = load_dataset("mnist", data_root)
    train(vae, data.train, config=TrainingConfig(warm_up_epochs=10, epochs=3, seed=seed))
    codes = encode_all(vae, data.test)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({**{key: value.clone() for key, value in vae.state_dict().items()}, "codes": codes}, partial)
    os.replace(partial, path)
    return vae, codes


if __name__ == "__main__":
    for dim in (2, 10):
        _, latent = mnist_vae(dim)
        print(f"d = {dim}: {tuple(latent.shape)} codes, standard deviation {latent.std(0).tolist()}")
