"""VAE and VampPrior-VAE: the Pyro model/guide pair of ``pyro_riemann.vae`` with the common networks."""

from __future__ import annotations

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_riemann.autoencoders._base import Autoencoder
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder
from pyro_riemann.sampling import LatentSampler
from pyro_riemann.vae import VAE, NormalPosterior, NormalPrior, Prior, VampMixturePrior


class VariationalAutoencoder(Autoencoder):
    r"""Variational autoencoder; its loss is the negative ELBO in nats a datum, with all constants.

    .. math:: -E_{q(z|x)} \log p(x|z) + KL(q(z|x) \,|\, p(z)).

    :attr:`pair` is the Pyro model and guide: ``SVI(model.pair.model, model.pair.guide, ...)`` trains it as well.

    Args:
        encoder: with a scale.
        decoder: see :class:`ImageDecoder`.
        prior: N(0, I) by default.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, eq. 3.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = VariationalAutoencoder(*image_networks((8, 8), 2, hidden=(16,)))
        >>> loc, scale = model.posterior(torch.rand(5, 64))
        >>> scale.shape
        torch.Size([5, 2])
    """

    variational = True

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder, prior: Prior | None = None) -> None:
        super().__init__(encoder, decoder)
        module = NormalPrior(self.latent_dim) if prior is None else prior
        self.pair = VAE(encoder, decoder, prior=module, posterior=NormalPosterior())
        # the KL divergence of two Gaussians is known; that to a mixture is not
        self.elbo = TraceMeanField_ELBO() if isinstance(module, NormalPrior) else Trace_ELBO()

    def loss(self, x: Tensor) -> Tensor:
        return self.elbo.differentiable_loss(self.pair.model, self.pair.guide, x) / len(x)

    def pyro_parameters(self) -> dict[str, nn.Parameter]:
        return {f"{self.pair.store_name}.{key}": value for key, value in self.pair.named_parameters()}

    def prior(self) -> LatentSampler:
        """The prior of the pair."""
        return _Draws(self.pair)


class VampPriorAutoencoder(VariationalAutoencoder):
    """Variational autoencoder whose prior is the mixture of the posteriors at learned pseudo-inputs.

    The pseudo-inputs start at random training images.

    Args:
        encoder: with a scale.
        decoder: see :class:`ImageDecoder`.
        num_components: number of pseudo-inputs.

    Raises:
        ValueError: if the networks do not fit together, or ``num_components`` is less than 1.

    Source: Tomczak & Welling (2018), *VAE with a VampPrior*, eq. 9.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = VampPriorAutoencoder(*image_networks((8, 8), 2, hidden=(16,)), num_components=7)
        >>> model.pair.prior_distribution().logits.shape
        torch.Size([7])
    """

    def __init__(self, encoder: ImageEncoder, decoder: ImageDecoder, num_components: int = 50) -> None:
        if num_components < 1:
            raise ValueError(f"`num_components` must be at least 1, got {num_components}.")
        pseudo = VampMixturePrior(torch.zeros(num_components, encoder.data_dim))
        super().__init__(encoder, decoder, pseudo)
        self.pseudo_inputs = pseudo.pseudo_inputs

    @torch.no_grad()
    def prepare(self, data: Tensor) -> None:
        """Put the pseudo-inputs on random rows of the training ``data``, ``(n, D)``."""
        chosen = torch.randint(len(data), (len(self.pseudo_inputs),), device=data.device)
        self.pseudo_inputs.copy_(data[chosen])


class _Draws:
    """Draws of a pair's prior as a sampler."""

    def __init__(self, pair: VAE) -> None:
        self.pair = pair

    def sample(self, num_samples: int) -> Tensor:
        with torch.no_grad():
            return self.pair.prior_distribution().sample((num_samples,))
