"""Negative binomial VAEs of counts, further decoders on the same codes, and metrics on tables."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.experiments._chains import frozen
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import VAE, Decoder, NegativeBinomialLikelihood, TrainingConfig, make_vae, mlp, train

CPU = torch.device("cpu")


def fit_vae(
    counts: Tensor,
    held_out: Tensor,
    *,
    latent_dim: int,
    hidden: tuple[int, ...],
    epochs: int,
    kl_weight: float,
    seed: int,
) -> VAE:
    """A frozen VAE with the prior N(0, I), a diagonal normal posterior and counts that are given their total.

    Args:
        counts: training part, ``(n, genes)``.
        held_out: the weights are those of the epoch with the best ELBO of these cells, ``(m, genes)``.
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        epochs: of training, the weight of the KL divergence rises in the first third.
        kl_weight: its weight from then on.
        seed: of weights, order and noise.
    """
    dispersion = torch.full((counts.shape[1],), 10.0)
    likelihood = NegativeBinomialLikelihood(dispersion, exposure="total")
    vae = make_vae(counts.shape[1], latent_dim, "normal", "normal", likelihood=likelihood, hidden=hidden, seed=seed)
    settings = TrainingConfig(
        warm_up_epochs=epochs, epochs=0, batch_size=64, kl_ramp=0.3, kl_weight=kl_weight, seed=seed
    )
    train(vae, counts, held_out, settings, progress=False)
    frozen(vae)
    return vae


def fit_decoder(
    vae: VAE, counts: Tensor, *, hidden: tuple[int, ...], epochs: int, batch_size: int = 64, seed: int
) -> Decoder:
    """A further decoder of the codes of a VAE: from other weights, on a bootstrap sample of the cells.

    Args:
        vae: a trained VAE, whose encoder is kept.
        counts: training part, ``(n, genes)``.
        hidden: widths of the hidden layers.
        epochs: of the bootstrap sample.
        batch_size: cells a step.
        seed: of weights, sample, order and noise.
    """
    genes = counts.shape[1]
    with seeded(seed, CPU):
        likelihood = NegativeBinomialLikelihood(torch.full((genes,), 10.0), exposure="total")
        decoder = Decoder(mlp([vae.latent_dim, *hidden, genes]), vae.latent_dim, genes, likelihood)
        decoder.standardize(counts)
        sample = counts[torch.randint(len(counts), (len(counts),))]
        optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-3)
        for _ in range(epochs):
            for x in sample[torch.randperm(len(sample))].split(batch_size):
                with torch.no_grad():
                    z = vae.posterior(x).sample()
                loss = -decoder.observation(z, exposure=decoder.exposure(x)).log_prob(x).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    frozen(decoder)
    return decoder


def table(metric: RiemannianMetric, codes: Tensor, *, margin: float, resolution: int) -> GridMetric:
    """A metric on the box of the ``codes``, judged at these.

    Args:
        metric: of dimension 2.
        codes: ``(n, 2)``.
        margin: the box reaches beyond the codes by that share of its sides at each end.
        resolution: nodes an axis.
    """
    low, high = codes.amin(0), codes.amax(0)
    reach = margin * (high - low)
    return GridMetric(metric, low - reach, high + reach, resolution, points=codes)
