"""VAE and VampPrior-VAE, the Pyro model/guide pair of ``pyro_riemann.vae``; and VAEs with Hamiltonian posteriors."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_riemann.autoencoders._base import Autoencoder
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder
from pyro_riemann.sampling import LatentSampler
from pyro_riemann.vae import VAE, NormalPosterior, NormalPrior, Prior, VampMixturePrior

_LONGEST_STEP = 0.5  # of Caterini et al.: beyond it the leapfrog is unstable on a unit Gaussian's scale


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


class HamiltonianAutoencoder(Autoencoder):
    r"""HVAE: the posterior draw is moved by K tempered leapfrog steps on :math:`U(z) = -\log p(x, z)`.

    With :math:`z_0 \sim q(z|x)`, :math:`v_0 \sim N(0, I)` and momentum :math:`v_0 / \sqrt{\beta_0}`, shrunk again by
    :math:`\sqrt{\beta_{k-1} / \beta_k}` at step k until :math:`\beta_K = 1`, the map has the determinant
    :math:`\beta_0^{d/2}`, which the density of the first momentum cancels:

    .. math:: ELBO = E\, [\log p(x, z_K) + \log N(v_K | 0, I) - \log q(z_0 | x) - \log N(v_0 | 0, I)].

    Step sizes (one a coordinate) and :math:`\beta_0` are learned.

    Args:
        encoder: with a scale.
        decoder: see :class:`ImageDecoder`.
        num_steps: K.
        step_size: first step size, in (0, 0.5).
        inverse_temperature: first :math:`\beta_0`, in (0, 1).

    Raises:
        ValueError: if the networks do not fit together, or a setting is out of range.

    Source: Caterini et al. (2018), algorithm 1 with their quadratic tempering.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = HamiltonianAutoencoder(*image_networks((8, 8), 2, hidden=(16,)))
        >>> model.loss(torch.rand(5, 64)).shape
        torch.Size([])
    """

    variational = True

    def __init__(
        self,
        encoder: ImageEncoder,
        decoder: ImageDecoder,
        num_steps: int = 3,
        step_size: float = 0.05,
        inverse_temperature: float = 0.3,
    ) -> None:
        super().__init__(encoder, decoder)
        if num_steps < 1 or not 0 < step_size < _LONGEST_STEP or not 0 < inverse_temperature < 1:
            raise ValueError(
                f"`num_steps` must be at least 1, `step_size` in (0, {_LONGEST_STEP}), `inverse_temperature` in "
                f"(0, 1); got {num_steps}, {step_size}, {inverse_temperature}."
            )
        self.num_steps = num_steps
        share = step_size / _LONGEST_STEP
        self.raw_step = nn.Parameter(torch.full((self.latent_dim,), math.log(share / (1 - share))))
        self.raw_temperature = nn.Parameter(torch.tensor(math.log(inverse_temperature / (1 - inverse_temperature))))

    @property
    def step_size(self) -> Tensor:
        """Leapfrog step of each coordinate, ``(d,)``."""
        return _LONGEST_STEP * self.raw_step.sigmoid()

    @property
    def inverse_temperature(self) -> Tensor:
        r""":math:`\beta_0`, a scalar in (0, 1)."""
        return self.raw_temperature.sigmoid()

    def tempering(self) -> list[Tensor]:
        r"""Factors of the momentum after each step, ``num_steps`` scalars; their product is :math:`\sqrt{\beta_0}`."""
        hottest = self.inverse_temperature.rsqrt()
        # quadratic: 1 / sqrt(beta_k) falls from hottest to 1 with the square of k / K
        levels = [(1 - hottest) * (k / self.num_steps) ** 2 + hottest for k in range(self.num_steps + 1)]
        return [after / before for before, after in pairwise(levels)]

    def joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) of ``x`` ``(n, D)`` and ``z`` ``(n, d)``, in nats with respect to dx dz; shape ``(n,)``."""
        return self.decoder.log_likelihood(x, z) + normal_log_density(z)

    def joint_gradient(self, x: Tensor, z: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
        """log p(x, z), ``(n,)``, as :meth:`joint`, and its gradient in z, ``(n, d)``.

        Args:
            x: images, ``(n, D)``.
            z: codes, ``(n, d)``, which require a gradient.
            create_graph: make the gradient itself differentiable, as training needs.
        """
        value = self.joint(x, z)
        (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=create_graph)
        return value, gradient

    def flow(self, x: Tensor, z: Tensor, v: Tensor, create_graph: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Leapfrog steps and tempering.

        Args:
            x: images, ``(n, D)``.
            z: first codes, ``(n, d)``.
            v: first momentum, heated, ``(n, d)``.
            create_graph: make the result differentiable.

        Returns:
            ``z_K``, ``(n, d)``, ``v_K``, ``(n, d)``, and log p(x, z_K), ``(n,)``.
        """
        step = self.step_size
        value, gradient = self.joint_gradient(x, z, create_graph)
        for factor in self.tempering():
            v = v + 0.5 * step * gradient
            z = z + step * v
            value, gradient = self.joint_gradient(x, z, create_graph)
            v = (v + 0.5 * step * gradient) * factor
        return z, v, value

    def elbo(self, x: Tensor) -> Tensor:
        """One draw's bound on log p(x), ``(n,)``, in nats."""
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():  # the flow needs gradients in z even where the loss needs none
            loc, scale = self.encoder(x)
            noise, v = torch.randn_like(loc), torch.randn_like(loc)
            start = loc + scale * noise
            if not start.requires_grad:
                start.requires_grad_()
            moved = self.moved(x, loc, start, v, create_graph)
            bound = moved - (normal_log_density(noise) - scale.log().sum(-1))
        return bound if create_graph else bound.detach()

    def moved(self, x: Tensor, loc: Tensor, z: Tensor, noise: Tensor, create_graph: bool) -> Tensor:
        """log p(x, z_K) and the log ratio of the densities of the last and the first momentum, ``(n,)``, in nats.

        Args:
            x: images, ``(n, D)``.
            loc: locations of the posteriors, ``(n, d)``.
            z: first codes, ``(n, d)``.
            noise: of the first momentum, ``(n, d)``.
            create_graph: make the result differentiable.
        """
        _, end, joint = self.flow(x, z, noise * self.inverse_temperature.rsqrt(), create_graph)
        return joint + normal_log_density(end) - normal_log_density(noise)

    def loss(self, x: Tensor) -> Tensor:
        return -self.elbo(x).mean()


def normal_log_density(v: Tensor) -> Tensor:
    """log N(v | 0, I), ``(*batch, d) -> (*batch)``."""
    return -0.5 * (v.square().sum(-1) + v.shape[-1] * math.log(2 * math.pi))
