"""Regularised autoencoders: no noise, a penalty on codes and decoder instead (Ghosh et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann.autoencoders._base import Autoencoder
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder


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
