"""The Wasserstein autoencoder with the maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_riemann.autoencoders._base import Autoencoder
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


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
