"""Trained models as other packages make them: one line to a metric, by what a model has."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyro.distributions import ZeroInflatedNegativeBinomial
from torch import Tensor, distributions, nn
from torch.func import jacfwd, vmap

from pyro_riemann import PullbackMetric

Z = torch.tensor([[0.3, -0.4], [-1.1, 0.2], [0.8, 0.9]])


def slopes(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    jacobian: Tensor = vmap(jacfwd(lambda point: decode(point[None])[0].flatten()))(z)
    return jacobian


def same(metric: PullbackMetric, decode: Callable[[Tensor], Tensor], z: Tensor) -> None:
    jacobian = slopes(decode, z).detach()
    expected = jacobian.mT @ jacobian + metric.jitter * torch.eye(metric.dim)
    torch.testing.assert_close(metric.metric(z), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


class Decoder(nn.Module):
    """As pythae's: a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        return {"reconstruction": self.layers(z)}


@dataclasses.dataclass
class Output:
    sample: Tensor


class Images(nn.Module):
    """As diffusers' autoencoders: codes are images, and the configuration tells their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(latent_channels=2, sample_size=4, block_out_channels=(8, 16))
        self.layers = nn.ConvTranspose2d(2, 3, 2, 2)

    def decode(self, z: Tensor, return_dict: bool = True) -> Output:
        return Output(self.layers(z).tanh())


class Counts(distributions.Distribution):
    """As scvi-tools' negative binomial."""

    def __init__(self, mu: Tensor, theta: Tensor, zi_logits: Tensor | None = None) -> None:
        super().__init__(mu.shape, validate_args=False)
        self.mu, self.theta, self.zi_logits = mu, theta, zi_logits

    @property
    def mean(self) -> Tensor:
        return self.mu


class Cells(nn.Module):
    """As the module of scvi-tools' model."""

    n_latent = 2

    def __init__(self, inflated: bool = False) -> None:
        super().__init__()
        self.layers, self.inflated = nn.Linear(2, 5), inflated
        self.log_theta = nn.Parameter(torch.linspace(-1, 1, 5))

    def generative(self, z: Tensor, library: Tensor, batch_index: Tensor) -> dict[str, Any]:
        mu = library.exp() * (self.layers(z) + batch_index).softmax(-1)
        return {"px": Counts(mu, self.log_theta.exp(), self.layers(z) if self.inflated else None), "pl": None}


def fisher_of_counts(metric: PullbackMetric, mean: Callable[[Tensor], Tensor], theta: Tensor) -> None:
    """J^T F J with the Fisher information ``theta / (mu (mu + theta))`` of a mean."""
    jacobian, mu = slopes(mean, Z).detach(), mean(Z).detach()
    information = theta / (mu * (mu + theta))
    expected = jacobian.mT @ (information[..., None] * jacobian) + metric.jitter * torch.eye(2)
    torch.testing.assert_close(metric.metric(Z), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_decoder_a_method_and_a_stack_of_images() -> None:
    model = types.SimpleNamespace(decoder=Decoder(), latent_dim=2, encoder=nn.Linear(5, 2))
    metric = PullbackMetric.from_vae(model)
    same(metric, lambda z: model.decoder(z)["reconstruction"], Z)
    assert {id(p) for p in metric.parameters()} == {id(p) for p in model.decoder.parameters()}
    images = Images()
    metric = PullbackMetric.from_vae(images)
    assert metric.dim == 8
    z = torch.linspace(-1, 1, 16).reshape(2, 8)
    same(metric, lambda z: images.decode(z.reshape(-1, 2, 2, 2)).sample, z)
    other = PullbackMetric.from_vae(images, latent_shape=(2, 1, 3))
    assert other.dim == 6
    assert [name for name, _ in metric.named_parameters()] == ["held.0.layers.weight", "held.0.layers.bias"]


def test_counts() -> None:
    model = types.SimpleNamespace(module=Cells())

    def mean(z: Tensor, library: float = math.log(1e4), batch: float = 0.0) -> Tensor:
        ones = torch.ones(len(z), 1)
        result: Tensor = model.module.generative(z, library * ones, batch * ones)["px"].mu
        return result

    theta = model.module.log_theta.detach().exp()
    fisher_of_counts(PullbackMetric.from_vae(model), mean, theta)
    own = PullbackMetric.from_vae(model, conditions={"library": 3.0, "batch_index": 1.0})
    fisher_of_counts(own, lambda z: mean(z, 3.0, 1.0), theta)
    same(PullbackMetric.from_vae(model, output="mean"), mean, Z)
    model.module.inflated = True
    inflated = PullbackMetric(
        lambda z: ZeroInflatedNegativeBinomial(
            theta, logits=(mean(z) / theta).log(), gate_logits=model.module.layers(z), validate_args=False
        ),
        2,
    )
    torch.testing.assert_close(PullbackMetric.from_vae(model).metric(Z), inflated.metric(Z), rtol=1e-4, atol=1e-3)
    same(PullbackMetric.from_vae(model, output="mean"), mean, Z)


def test_what_is_not_told() -> None:
    model = types.SimpleNamespace(decode=Decoder())
    with pytest.raises(ValueError, match="does not tell the dimension"):
        PullbackMetric.from_vae(model)
    assert PullbackMetric.from_vae(model, 2).dim == 2
    model.hparams = types.SimpleNamespace(latent_dim=2)
    assert PullbackMetric.from_vae(model).dim == 2
    with pytest.raises(ValueError, match=r"`dim` is 3, but codes of shape \(1, 2\) have 2 entries"):
        PullbackMetric.from_vae(model, 3, latent_shape=(1, 2))
    with pytest.raises(TypeError, match="no `decode` or `decoder`"):
        PullbackMetric.from_vae(nn.Linear(2, 3))


foreign = pytest.mark.filterwarnings("ignore")


@foreign
def test_pythae() -> None:
    models = pytest.importorskip("pythae.models")
    model = models.VAE(models.VAEConfig(input_dim=(1, 8, 8), latent_dim=2))
    same(PullbackMetric.from_vae(model), lambda z: model.decoder(z)["reconstruction"], Z)


@foreign
def test_diffusers() -> None:
    model = pytest.importorskip("diffusers").AutoencoderKL(
        sample_size=4,
        latent_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    metric = PullbackMetric.from_vae(model)
    assert metric.dim == 4
    z = torch.linspace(-1, 1, 8).reshape(2, 4)
    columns = [
        (model.decode((z + step).reshape(2, 1, 2, 2)).sample - model.decode((z - step).reshape(2, 1, 2, 2)).sample)
        / 2e-2
        for step in 1e-2 * torch.eye(4)
    ]
    jacobian = torch.stack([column.flatten(1) for column in columns], -1)
    expected = (jacobian.mT @ jacobian).detach()
    torch.testing.assert_close(metric.metric(z), expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))


@foreign
def test_lightning() -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, latent_dim: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.body = Decoder()

        def decode(self, z: Tensor) -> Tensor:
            result: Tensor = self.body(z)["reconstruction"]
            return result

    model = Module(latent_dim=2)
    same(PullbackMetric.from_vae(model), model.decode, Z)


@foreign
def test_scvi() -> None:
    scvi, anndata = pytest.importorskip("scvi"), pytest.importorskip("anndata")
    data = anndata.AnnData(np.random.default_rng(0).poisson(2.0, (60, 12)).astype("float32"))
    scvi.model.SCVI.setup_anndata(data)
    model = scvi.model.SCVI(data, n_latent=2, n_hidden=8, gene_likelihood="nb")
    model.module.eval()

    def mean(z: Tensor) -> Tensor:
        ones = torch.ones(len(z), 1)
        result: Tensor = model.module.generative(z, math.log(1e4) * ones, 0 * ones)["px"].mu
        return result

    fisher_of_counts(PullbackMetric.from_vae(model), mean, model.module.px_r.detach().exp())
