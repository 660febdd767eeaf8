"""Encoders and decoders of images, one architecture for all models (C22, appendix E, table 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann._checks import check_one_of
from pyro_riemann._rescale import Rescale

ARCHITECTURES = ("mlp", "conv")
_CANVAS = 32  # the convolutional networks pad images to this many rows and columns


class ImageEncoder(nn.Module):
    """A trunk of layers and a linear head that gives the location, and for variational models the scale, of a code.

    Args:
        trunk: maps rows ``(n, D)`` to features ``(n, width)``.
        width: number of features.
        data_dim: number D of pixels.
        latent_dim: latent dimension d.
        variational: give a scale as well.
        min_scale: least scale, which keeps the density finite.

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
    ) -> None:
        super().__init__()
        self.trunk, self.data_dim, self.latent_dim, self.scale_dim = trunk, data_dim, latent_dim, latent_dim
        self.units = Rescale(data_dim)
        self.loc, self.min_scale = nn.Linear(width, latent_dim), min_scale
        self.log_scale = nn.Linear(width, latent_dim) if variational else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Location ``(n, d)``, and scale ``(n, d)`` or None, of rows ``x`` ``(n, D)``."""
        features = self.trunk(self.units.inverse(x))
        if self.log_scale is None:
            return self.loc(features), None
        # an exponential of a raw output overflows in the first steps of training; beyond 5 no posterior is wanted
        return self.loc(features), self.log_scale(features).clamp(max=5.0).exp() + self.min_scale

    def standardize(self, data: Tensor) -> None:
        """Subtract the mean of training ``data`` ``(n, D)`` from now on, and divide by their one standard deviation."""
        self.units.fit(data)


class ImageDecoder(nn.Module):
    r"""Image of a code, and the Gaussian likelihood around it.

    The likelihood is :math:`N(x \mid \mu(z), s^2 I)` with all its constants. At the default
    :math:`s^2 = 1/2` its negative logarithm is :math:`|x - \mu(z)|^2 + (D/2) \log \pi`, C22's eq. 3 and a constant.

    Args:
        body: maps codes ``(n, d)`` to pixels ``(n, D)`` in [0, 1].
        latent_dim: latent dimension d.
        data_dim: number D of pixels.
        scale: the :math:`s` above.

    Raises:
        ValueError: if ``scale`` is not positive.

    Source: C22, eq. 3 and appendix E, table 3.

    Example:
        >>> encoder, decoder = image_networks((8, 8), latent_dim=2, hidden=(16,))
        >>> decoder(torch.zeros(5, 2)).shape
        torch.Size([5, 64])
    """

    def __init__(self, body: nn.Module, latent_dim: int, data_dim: int, scale: float = 0.5**0.5) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"`scale` must be positive, got {scale}.")
        self.body, self.latent_dim, self.data_dim, self.scale = body, latent_dim, data_dim, scale

    def forward(self, z: Tensor) -> Tensor:
        """Mean images ``(*batch, D)`` of codes ``z`` ``(*batch, d)``."""
        return self.body(z.reshape(-1, self.latent_dim)).reshape(*z.shape[:-1], self.data_dim)

    def standardize(self, data: Tensor) -> None:
        """Start at the mean of training ``data`` ``(n, D)``, where the body knows how (:func:`image_networks`)."""
        for layer in self.body.modules():
            if isinstance(layer, Rescale):
                layer.fit_logits(data.clamp(0, 1))

    def observation(self, z: Tensor, warm_up: bool = False) -> dist.TorchDistribution:
        """Likelihood p(x | z) of ``z`` ``(*batch, d)``, event shape ``(D,)``; ``warm_up`` changes nothing here."""
        mean = self(z)
        return dist.Normal(mean, torch.full_like(mean, self.scale), validate_args=False).to_event(1)

    def log_likelihood(self, x: Tensor, mean: Tensor) -> Tensor:
        """log p(x | z) in nats with respect to dx, ``(*batch)``; ``x`` and its ``mean`` are ``(*batch, D)``."""
        squared = (x - mean).square().sum(-1) / self.scale**2
        return -0.5 * (squared + self.data_dim * math.log(2 * math.pi * self.scale**2))


def image_networks(
    shape: tuple[int, int],
    latent_dim: int,
    architecture: str = "mlp",
    *,
    hidden: Sequence[int] | None = None,
    variational: bool = True,
    spectral: bool = False,
    scale: float = 0.5**0.5,
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
        scale: standard deviation of the likelihood, see :class:`ImageDecoder`.

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
    if architecture == "mlp":
        widths = [data_dim, *(hidden or (1000, 500))]
        trunk = nn.Sequential(*_linear_layers(widths))
        body: nn.Module = nn.Sequential(
            *_linear_layers([latent_dim, *reversed(widths[1:])]), nn.Linear(widths[1], data_dim), *_to_pixels(data_dim)
        )
        encoder = ImageEncoder(trunk, widths[-1], data_dim, latent_dim, variational)
    else:
        channels = tuple(hidden or (128, 256, 512, 1024))
        if max(shape) > _CANVAS or len(channels) != 4:
            raise ValueError(f"`conv` takes images up to 32 x 32 and four channels, got {shape} and {channels}.")
        encoder = ImageEncoder(_ConvTrunk(shape, channels), 4 * channels[-1], data_dim, latent_dim, variational)
        body = _ConvBody(shape, latent_dim, channels)
    if spectral:
        layers = [module for module in body.modules() if isinstance(module, nn.Linear | nn.ConvTranspose2d)]
        for module in layers[:-1]:
            nn.utils.parametrizations.spectral_norm(module)
    return encoder, ImageDecoder(body, latent_dim, data_dim, scale)


def _to_pixels(data_dim: int) -> tuple[nn.Module, ...]:
    return Rescale(data_dim), nn.Sigmoid()


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

    def __init__(self, shape: tuple[int, int], latent_dim: int, channels: Sequence[int]) -> None:
        super().__init__()
        _, third, second, first = channels
        self.padding, self.shape = _padding(shape), shape
        self.start = nn.Sequential(nn.Linear(latent_dim, first * 64), nn.Unflatten(-1, (first, 8, 8)))
        self.layers = nn.Sequential(
            *(nn.ConvTranspose2d(first, second, 4, 2, 1), nn.BatchNorm2d(second), nn.ReLU()),
            *(nn.ConvTranspose2d(second, third, 4, 2, 1), nn.BatchNorm2d(third), nn.ReLU()),
            *(nn.ConvTranspose2d(third, 1, 4, 1, 1), nn.BatchNorm2d(1)),
        )
        self.pixels = nn.Sequential(*_to_pixels(math.prod(shape)))

    def forward(self, z: Tensor) -> Tensor:
        # an even kernel at stride 1 gives one row and column too many: 33
        canvas = self.layers(self.start(z))[..., :_CANVAS, :_CANVAS]
        return self.pixels(functional.pad(canvas, [-pad for pad in self.padding]).flatten(1))


def _padding(shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros to the left, right, top and bottom that centre an image on the canvas."""
    height, width = shape
    left, top = (_CANVAS - width) // 2, (_CANVAS - height) // 2
    return left, _CANVAS - width - left, top, _CANVAS - height - top
