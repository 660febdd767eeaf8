"""Encoders and decoders of images, one architecture for all models (C22, appendix E, table 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann._checks import check_one_of
from pyro_riemann._rescale import Rescale
from pyro_riemann.vae import DecoderProtocol, EncoderProtocol, GaussianLikelihood, Likelihood

ARCHITECTURES = ("mlp", "conv")
_CANVAS = 32  # the convolutional networks pad images to this many rows and columns


class ImageEncoder(nn.Module, EncoderProtocol):
    """A trunk of layers and a linear head that gives the location, and for variational models the scale, of a code.

    Args:
        trunk: maps rows ``(n, D)`` to features ``(n, width)``.
        width: number of features.
        data_dim: number D of pixels.
        latent_dim: latent dimension d.
        variational: give a scale as well.
        min_scale: least scale, which keeps the density finite.
        features: what the trunk sees of the data, see :meth:`~pyro_riemann.vae.Likelihood.features`.

    Source: C22, appendix E, table 3.

    Example:
        >>> encoder, decoder = image_networks((8, 8), latent_dim=2, hidden=(16,))
        >>> loc, scale = encoder(torch.rand(5, 64))
        >>> loc.shape, scale.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        data_dim: int,
        latent_dim: int,
        variational: bool = True,
        min_scale: float = 1e-4,
        features: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.trunk, self.data_dim, self.latent_dim, self.scale_dim = trunk, data_dim, latent_dim, latent_dim
        self.features = nn.Identity() if features is None else features
        self.units = Rescale(data_dim)
        self.loc, self.min_scale = nn.Linear(width, latent_dim), min_scale
        self.log_scale = nn.Linear(width, latent_dim) if variational else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location ``(n, d)``, and scale ``(n, d)``, 0 for models without one, of rows ``x`` ``(n, D)``."""
        features = self.trunk(self.units.inverse(self.features(x)))
        if self.log_scale is None:
            return (loc := self.loc(features)), torch.zeros_like(loc)
        # an exponential of a raw output overflows in the first steps of training; beyond 5 no posterior is wanted
        return self.loc(features), self.log_scale(features).clamp(max=5.0).exp() + self.min_scale

    def scale_parameters(self) -> Iterable[nn.Parameter]:
        return () if self.log_scale is None else self.log_scale.parameters()

    def standardize(self, data: Tensor) -> None:
        """Subtract the mean of training ``data`` ``(n, D)`` from now on, and divide by their one standard deviation."""
        self.units.fit(self.features(data))


class ImageDecoder(nn.Module, DecoderProtocol):
    r"""Image of a code, and the likelihood around it.

    The default likelihood is :math:`N(x \mid \mu(z), s^2 I)` with all its constants. At the default
    :math:`s^2 = 1/2` its negative logarithm is :math:`|x - \mu(z)|^2 + (D/2) \log \pi`, C22's eq. 3 and a constant.

    Args:
        body: maps codes ``(n, d)`` to what the likelihood takes, ``(n, D)``: of the default one pixels in [0, 1].
        latent_dim: latent dimension d.
        data_dim: number D of pixels.
        scale: the :math:`s` above.
        likelihood: another one, with D outputs.

    Raises:
        ValueError: if ``scale`` is not positive, or the likelihood takes more outputs than pixels.

    Source: C22, eq. 3 and appendix E, table 3.

    Example:
        >>> encoder, decoder = image_networks((8, 8), latent_dim=2, hidden=(16,))
        >>> decoder(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        body: nn.Module,
        latent_dim: int,
        data_dim: int,
        scale: float = 0.5**0.5,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__()
        self.body, self.latent_dim, self.data_dim = body, latent_dim, data_dim
        self.likelihood = GaussianLikelihood(scale, learn_scale=False) if likelihood is None else likelihood
        if (count := self.likelihood.num_outputs(data_dim)) != data_dim:
            raise ValueError(f"`likelihood` must take {data_dim} outputs, one a pixel; it takes {count}.")

    def output(self, z: Tensor) -> Tensor:
        """What the likelihood takes, ``(*batch, D)``, at codes ``z`` ``(*batch, d)``."""
        return self.body(z.reshape(-1, self.latent_dim)).reshape(*z.shape[:-1], self.data_dim)

    def forward(self, z: Tensor) -> Tensor:
        """Mean images ``(*batch, D)`` of codes ``z`` ``(*batch, d)``."""
        return self.likelihood.mean(self.output(z))

    def standardize(self, data: Tensor) -> None:
        """Start at the mean of training ``data`` ``(n, D)``, where the body knows how (:func:`image_networks`)."""
        outputs = self.likelihood.standardize(data)
        for layer in self.body.modules():
            if isinstance(layer, Rescale) and _is_pixels(self.likelihood):
                layer.fit_logits(data.clamp(0, 1))
            elif isinstance(layer, Rescale):
                layer.start(*outputs)

    def observation(self, z: Tensor, warm_up: bool = False, exposure: Tensor | None = None) -> dist.TorchDistribution:
        """Likelihood p(x | z) of codes with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: changes nothing here.
            exposure: that of each datum, ``(*batch, 1)``, where the likelihood has one.
        """
        return self.likelihood.distribution(self.output(z), exposure)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats with respect to dx (for counts, the log probability), ``(*batch)``.

        Args:
            x: data, ``(*batch, D)``.
            z: codes, ``(*batch, d)``.
        """
        value: Tensor = self.observation(z, exposure=self.exposure(x)).log_prob(x)
        return value

    def exposure(self, x: Tensor) -> Tensor | None:
        return self.likelihood.exposure(x)

    def check(self, name: str, x: Tensor) -> Tensor:
        return self.likelihood.check(name, x)


def _is_pixels(likelihood: Likelihood) -> bool:
    """Whether outputs are pixels, which end in a sigmoid within the body."""
    return isinstance(likelihood, GaussianLikelihood) and likelihood.link == "identity"


def image_networks(
    shape: tuple[int, int],
    latent_dim: int,
    architecture: str = "mlp",
    *,
    hidden: Sequence[int] | None = None,
    variational: bool = True,
    spectral: bool = False,
    scale: float = 0.5**0.5,
    likelihood: Likelihood | None = None,
) -> tuple[ImageEncoder, ImageDecoder]:
    """Encoder and decoder of grey images as rows.

    Args:
        shape: height and width of the images.
        latent_dim: latent dimension d.
        architecture: ``"mlp"``, ReLU layers as in table 3's column for SVHN, or ``"conv"``, its column for MNIST
            (images of at most 32 x 32, padded with zeros).
        hidden: widths of the encoder's layers, reversed in the decoder; default ``(1000, 500)`` for ``"mlp"``,
            ``(128, 256, 512, 1024)`` channels for ``"conv"``, whose decoder uses all but the first.
        variational: give the encoder a scale.
        spectral: spectral normalisation of every layer of the decoder but the last, whose scale is that of the
            pixels (RAE-SN): with Lipschitz constant 1/4 in all, images that differ would need codes far apart.
        scale: standard deviation of the Gaussian likelihood, see :class:`ImageDecoder`.
        likelihood: another one, with one output a pixel. A Gaussian one has means in [0, 1].

    Raises:
        ValueError: for an unknown architecture, no layer, or images that the convolutions cannot hold.

    Source: C22, appendix E, table 3; spectral normalisation as in Ghosh et al. (2020), section 3.1.

    Example:
        >>> encoder, decoder = image_networks((28, 28), 16, "conv", hidden=(4, 8, 16, 32))
        >>> decoder(encoder(torch.rand(3, 784))[0]).shape
        torch.Size([3, 784])
    """
    check_one_of("architecture", architecture, ARCHITECTURES)
    if latent_dim < 1 or (hidden is not None and (len(hidden) < 1 or min(hidden) < 1)):
        raise ValueError(f"`latent_dim` and `hidden` must be positive, got {latent_dim} and {hidden}.")
    data_dim = math.prod(shape)
    law = GaussianLikelihood(scale, learn_scale=False) if likelihood is None else likelihood
    pixels = [Rescale(data_dim), nn.Sigmoid()][: 1 + _is_pixels(law)]
    if architecture == "mlp":
        widths = [data_dim, *(hidden or (1000, 500))]
        trunk = nn.Sequential(*_linear_layers(widths))
        body: nn.Module = nn.Sequential(
            *_linear_layers([latent_dim, *reversed(widths[1:])]), nn.Linear(widths[1], data_dim), *pixels
        )
        encoder = ImageEncoder(trunk, widths[-1], data_dim, latent_dim, variational, features=law.features())
    else:
        channels = tuple(hidden or (128, 256, 512, 1024))
        if max(shape) > _CANVAS or len(channels) != 4:
            raise ValueError(f"`conv` takes images up to 32 x 32 and four channels, got {shape} and {channels}.")
        encoder = ImageEncoder(
            _ConvTrunk(shape, channels), 4 * channels[-1], data_dim, latent_dim, variational, features=law.features()
        )
        body = _ConvBody(shape, latent_dim, channels, pixels)
    if spectral:
        layers = [module for module in body.modules() if isinstance(module, nn.Linear | nn.ConvTranspose2d)]
        for module in layers[:-1]:
            nn.utils.parametrizations.spectral_norm(module)
    return encoder, ImageDecoder(body, latent_dim, data_dim, likelihood=law)


def _linear_layers(widths: Sequence[int]) -> list[nn.Module]:
    return [layer for fan_in, fan_out in pairwise(widths) for layer in (nn.Linear(fan_in, fan_out), nn.ReLU())]


class _ConvTrunk(nn.Sequential):
    """Four convolutions of stride 2, from the padded image to 2 x 2 cells."""

    def __init__(self, shape: tuple[int, int], channels: Sequence[int]) -> None:
        layers: list[nn.Module] = [nn.Unflatten(-1, (1, *shape)), nn.ZeroPad2d(_padding(shape))]
        for fan_in, fan_out in pairwise((1, *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 4, 2, 1), nn.BatchNorm2d(fan_out), nn.ReLU()]
        super().__init__(*layers, nn.Flatten())


class _ConvBody(nn.Module):
    """A linear layer to 8 x 8 cells, two transposed convolutions of stride 2 and one of stride 1."""

    def __init__(
        self, shape: tuple[int, int], latent_dim: int, channels: Sequence[int], pixels: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        _, third, second, first = channels
        self.padding, self.shape = _padding(shape), shape
        self.start = nn.Sequential(nn.Linear(latent_dim, first * 64), nn.Unflatten(-1, (first, 8, 8)))
        self.layers = nn.Sequential(
            *(nn.ConvTranspose2d(first, second, 4, 2, 1), nn.BatchNorm2d(second), nn.ReLU()),
            *(nn.ConvTranspose2d(second, third, 4, 2, 1), nn.BatchNorm2d(third), nn.ReLU()),
            *(nn.ConvTranspose2d(third, 1, 4, 1, 1), nn.BatchNorm2d(1)),
        )
        self.pixels = nn.Sequential(*pixels)

    def forward(self, z: Tensor) -> Tensor:
        # an even kernel at stride 1 gives one row and column too many: 33
        canvas = self.layers(self.start(z))[..., :_CANVAS, :_CANVAS]
        return self.pixels(functional.pad(canvas, [-pad for pad in self.padding]).flatten(1))


def _padding(shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros to the left, right, top and bottom that centre an image on the canvas."""
    height, width = shape
    left, top = (_CANVAS - width) // 2, (_CANVAS - height) // 2
    return left, _CANVAS - width - left, top, _CANVAS - height - top
