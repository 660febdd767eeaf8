"""Autoencoders without noise: a penalty on codes and decoder (Ghosh et al. 2020), or on the law of the codes (WAE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann.autoencoders._base import Autoencoder
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class RegularizedAutoencoder(Autoencoder):
    r"""RAE: squared error and a penalty on the length of the code, :math:`|x - D(z)|^2 + \frac{\beta}{2} |z|^2`.

    With a decoder of spectrally normalised hidden layers (``image_networks(..., spectral=True)``) it is RAE-SN.

    Args:
        encoder: a scale is not used.
        decoder: see :class:`ImageDecoder`.
        code_weight: :math:`\beta`.

    Raises:
        ValueError: if the networks do not fit together, or ``code_weight`` is negative.

    Source: Ghosh et al. (2020), eq. 6.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = RegularizedAutoencoder(*image_networks((8, 8), 2, hidden=(16,), variational=False))
        >>> model.loss(torch.rand(5, 64)).shape
        torch.Size([])
    """

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder, code_weight: float = 1e-2) -> None:
        super().__init__(encoder, decoder)
        if not code_weight >= 0:
            raise ValueError(f"`code_weight` must not be negative, got {code_weight}.")
        self.code_weight = code_weight

    def penalty(self, z: Tensor) -> Tensor:
        """What is added for the decoder, at the codes ``z`` ``(n, d)`` of a minibatch; a scalar."""
        return z.new_zeros(())

    def loss(self, x: Tensor) -> Tensor:
        z = self.encoder(x)[0]
        code = 0.5 * self.code_weight * z.square().sum(-1)
        return (self.reconstruction_error(x, z) + code).mean() + self.penalty(z)


class WeightDecayAutoencoder(RegularizedAutoencoder):
    r"""RAE-L2: RAE with :math:`\lambda |\theta|^2` on the decoder's parameters.

    Args:
        encoder: a scale is not used.
        decoder: see :class:`ImageDecoder`.
        code_weight: :math:`\beta`.
        weight: :math:`\lambda`.

    Raises:
        ValueError: if the networks do not fit together, ``code_weight`` is negative or ``weight`` not positive.

    Source: Ghosh et al. (2020), section 3.1.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = WeightDecayAutoencoder(*image_networks((8, 8), 2, hidden=(16,), variational=False), weight=0.5)
        >>> squares = sum(value.square().sum() for value in model.decoder.parameters())
        >>> bool(torch.isclose(model.penalty(torch.zeros(1, 2)), 0.5 * squares))
        True
    """

    def __init__(
        self, encoder: ImageEncoder, decoder: ImageDecoder, code_weight: float = 1e-2, weight: float = 1e-4
    ) -> None:
        super().__init__(encoder, decoder, code_weight)
        if not weight > 0:
            raise ValueError(f"`weight` must be positive, got {weight}.")
        self.weight = weight

    def penalty(self, z: Tensor) -> Tensor:
        return self.weight * torch.stack([value.square().sum() for value in self.decoder.parameters()]).sum()


class GradientPenaltyAutoencoder(RegularizedAutoencoder):
    r"""RAE-GP: RAE with :math:`\lambda |J|_F^2`, J the Jacobian of the decoder in the code.

    Of the decoder in the *code*: a gradient in the image, or of the sum of all pixels, is another quantity. The norm is
    estimated without bias by one product a row, :math:`|J|_F^2 = E\, |J^\top v|^2`, v with independent signs.

    Args:
        encoder: a scale is not used.
        decoder: see :class:`ImageDecoder`.
        code_weight: :math:`\beta`.
        weight: :math:`\lambda`.

    Raises:
        ValueError: if the networks do not fit together, ``code_weight`` is negative or ``weight`` not positive.

    Source: Ghosh et al. (2020), section 3.1.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = GradientPenaltyAutoencoder(*image_networks((8, 8), 2, hidden=(16,), variational=False))
        >>> model.squared_jacobian(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self, encoder: ImageEncoder, decoder: ImageDecoder, code_weight: float = 1e-2, weight: float = 1e-2
    ) -> None:
        super().__init__(encoder, decoder, code_weight)
        if not weight > 0:
            raise ValueError(f"`weight` must be positive, got {weight}.")
        self.weight = weight

    def squared_jacobian(self, z: Tensor) -> Tensor:
        """Unbiased estimate of :math:`|J|_F^2` at codes ``z`` ``(n, d)``; shape ``(n,)``."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            image = self.decoder(z)
            signs = torch.randint_like(image, 2) * 2 - 1
            (product,) = torch.autograd.grad((signs * image).sum(), z, create_graph=differentiable)
        return product.square().sum(-1)

    def penalty(self, z: Tensor) -> Tensor:
        return self.weight * self.squared_jacobian(z).mean()


def inverse_multiquadric_mmd(x: Tensor, y: Tensor, scales: Sequence[float] = SCALES) -> Tensor:
    r"""Unbiased estimate of the squared maximum mean discrepancy of two samples, a scalar.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{ij} k(x_i, y_j), \qquad k(x, y) = \sum_s \frac{2 d s}{2 d s + |x - y|^2}.

    The kernel is bounded by the number of scales; 2 d is the mean squared distance of two draws of N(0, I). An
    unbiased estimate of a small number may be negative.

    Args:
        x: ``(n, d)``, n at least 2.
        y: ``(m, d)``, m at least 2.
        scales: the s above.

    Raises:
        ValueError: for fewer than two rows.

    Source: Tolstikhin et al. (2018), section 4 and algorithm 2.

    Example:
        >>> x = torch.randn(500, 2)
        >>> bool(inverse_multiquadric_mmd(x, x + 3) > inverse_multiquadric_mmd(x, torch.randn(500, 2)).abs())
        True
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"`x` and `y` need two rows at least, got {len(x)} and {len(y)}.")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = (a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * a @ b.mT).clamp(min=0)
        constants = [2 * a.shape[-1] * scale for scale in scales]
        return torch.stack([constant / (constant + squared) for constant in constants]).sum(0)

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


class WassersteinAutoencoder(Autoencoder):
    r"""Autoencoder whose codes as a whole, not one by one, are drawn to N(0, I).

    .. math:: |x - D(E(x))|^2 + \lambda\, \mathrm{MMD}^2(E(x), N(0, I)).

    Args:
        encoder: a scale is not used.
        decoder: see :class:`ImageDecoder`.
        weight: :math:`\lambda`. The authors' 10 for images stands beside a squared error times 0.05: 200 here.

    Raises:
        ValueError: if the networks do not fit together, or ``weight`` is not positive.

    Source: Tolstikhin et al. (2018), *Wasserstein auto-encoders*, algorithm 2.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = WassersteinAutoencoder(*image_networks((8, 8), 2, hidden=(16,), variational=False))
        >>> model.loss(torch.rand(5, 64)).shape
        torch.Size([])
    """

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder, weight: float = 200.0) -> None:
        super().__init__(encoder, decoder)
        if not weight > 0:
            raise ValueError(f"`weight` must be positive, got {weight}.")
        self.weight = weight

    def loss(self, x: Tensor) -> Tensor:
        z = self.encoder(x)[0]
        error = self.reconstruction_error(x, z).mean()
        if len(z) < 2:  # the last minibatch may hold one row, which says nothing of a law
            return error
        return error + self.weight * inverse_multiquadric_mmd(z, torch.randn_like(z))
