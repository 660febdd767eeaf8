"""Bounds on the evidence of a VAE: its ELBO term by term, and by importance weighting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_riemann._modes import full_precision
from pyro_riemann._seed import seeded
from pyro_riemann._warn import warn
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae._models import VAE

_SMALL_MASS = 0.01  # nats: a log mass below that is not worth a warning
Proposal = Callable[[Tensor], dist.TorchDistribution]


class ELBOTerms(NamedTuple):
    """Terms of the ELBO of each datum, from the same draws: ``elbo == reconstruction - kl`` exactly.

    Attributes:
        reconstruction: mean of log p(x | z), ``(n,)``, in nats.
        kl: mean of log q(z | x) - log p(z), ``(n,)``, in nats.

    Example:
        >>> terms = ELBOTerms(torch.tensor([-1.0]), torch.tensor([2.0]))
        >>> terms.elbo
        tensor([-3.])
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """Reconstruction minus KL, ``(n,)``, in nats."""
        return self.reconstruction - self.kl

    def means(self) -> dict[str, float]:
        """Means over the data, and their standard errors: ``elbo`` is ``reconstruction - kl`` to the last digit."""
        reconstruction, kl = self.reconstruction.double(), self.kl.double()
        return {
            "reconstruction": reconstruction.mean().item(),
            "kl": kl.mean().item(),
            "elbo": reconstruction.mean().item() - kl.mean().item(),
            "reconstruction_standard_error": standard_error(reconstruction),
            "kl_standard_error": standard_error(kl),
            "elbo_standard_error": standard_error(reconstruction - kl),
        }


@full_precision
@torch.no_grad()
def elbo_terms(
    vae: VAE,
    data: Tensor,
    num_samples: int = 1,
    *,
    prior: dist.TorchDistribution | None = None,
    seed: int = 0,
    chunk_size: int = 2000,
) -> ELBOTerms:
    """Monte Carlo ELBO of every datum, in nats; the KL keeps its sign (an estimate may be negative).

    In evaluation mode whatever mode the VAE is in, which it gets back. A posterior whose density is not normalised (a
    heat kernel without ``normalize``) would give no bound: the log of its mass is subtracted from its log density,
    with a warning where it matters.

    Args:
        vae: the model.
        data: ``(n, D)``.
        num_samples: draws of the posterior a datum.
        prior: evaluate under this prior instead of the VAE's own, for instance one with tabulated distances.
        seed: seed of the draws; the global generator is left alone.
        chunk_size: posterior draws at once.

    Raises:
        ValueError: if ``num_samples`` is less than 1, or for data that the likelihood cannot give.

    Source: K20, section 3.1; Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 2.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, latent_dim=1, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> terms = elbo_terms(vae, torch.rand(5, 4))
        >>> terms.elbo.shape
        torch.Size([5])
    """
    terms, masses = elbo_and_masses(vae, data, num_samples, prior, seed, chunk_size)
    warn_unnormalized(masses)
    return terms


def elbo_and_masses(
    vae: VAE, data: Tensor, num_samples: int, prior: dist.TorchDistribution | None, seed: int, chunk_size: int
) -> tuple[ELBOTerms, Tensor | None]:
    """The terms, and the log masses of the posteriors where these are not normalised."""
    (likelihood, gap), masses = _draws(
        vae, data, num_samples, prior, seed, chunk_size, lambda a, b: (a.mean(0), b.mean(0))
    )
    return ELBOTerms(likelihood, gap), masses


@full_precision
@torch.no_grad()
def importance_log_likelihood(
    vae: VAE,
    data: Tensor,
    num_samples: int = 500,
    *,
    prior: dist.TorchDistribution | None = None,
    proposal: Proposal | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
) -> Tensor:
    r"""Importance-weighted bound :math:`\log \frac1K \sum_k p(x, z_k) / q(z_k | x)` of every datum, ``(n,)``, in nats.

    Rises to log p(x), a density with respect to dx, with K, and so compares models across priors and posteriors,
    provided that q's density is that of its draws: true of ``"normal"`` and ``"wrapped_normal"``, approximately of
    ``"heat_kernel"``, whose density is divided by its mass as in :func:`elbo_terms`. A prior whose density has mass m
    must be credited with -log m, see :func:`evaluate`.

    The limit is the same from any q: where the posterior's own density is dear (that of a wrapped normal asks for d
    Jacobi fields a draw), a ``proposal`` near it serves as well.

    Args:
        vae: the model.
        data: ``(n, D)``.
        num_samples: the K above.
        prior: as in :func:`elbo_terms`.
        proposal: maps data ``(n, D)`` to a distribution of codes, batch shape ``(n)`` and event shape ``(d,)``, to
            draw from in place of the VAE's posterior.
        seed: as in :func:`elbo_terms`.
        chunk_size: draws at once; default 20,000, or 2,000 where distances ask for the decoder.

    Raises:
        ValueError: if ``num_samples`` is less than 1, or for data that the likelihood cannot give.

    Source: Burda, Grosse & Salakhutdinov (2016), *Importance weighted autoencoders*, section 3.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> importance_log_likelihood(vae, torch.rand(5, 4), num_samples=10).shape
        torch.Size([5])
    """

    bound, masses = importance_bound(vae, data, num_samples, prior, proposal, seed, chunk_size)
    warn_unnormalized(masses)
    return bound


def importance_bound(
    vae: VAE,
    data: Tensor,
    num_samples: int,
    prior: dist.TorchDistribution | None,
    proposal: Proposal | None,
    seed: int,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The bound, and the log masses of the posteriors where these are not normalised."""

    def combine(likelihood: Tensor, gap: Tensor) -> tuple[Tensor, ...]:
        return (torch.logsumexp((likelihood - gap).double(), 0) - math.log(num_samples),)

    if chunk_size is None:
        on_decoder = vae.needs_metric and not vae.warm_up and not isinstance(vae.metric, GridMetric)
        chunk_size = 2_000 if on_decoder else 20_000
    (bound,), masses = _draws(vae, data, num_samples, prior, seed, chunk_size, combine, proposal)
    return bound.to(data.dtype), masses


def _draws(
    vae: VAE,
    data: Tensor,
    count: int,
    prior: dist.TorchDistribution | None,
    seed: int,
    chunk_size: int,
    combine: Any,
    proposal: Proposal | None = None,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """``combine(log p(x | z), log q(z | x) - log p(z))`` for blocks of rows, with ``count`` draws each, and log masses.

    The log mass ``(n)`` of a q whose density is not normalised is subtracted from its log density; None if it is.
    """
    if count < 1:
        raise ValueError(f"`num_samples` must be at least 1, got {count}.")
    data = vae.decoder.check("data", data.to(next(vae.parameters())))
    target = vae.prior_distribution() if prior is None else prior
    parts, masses = [], []
    with seeded(seed, data.device), evaluation_mode(vae):
        for rows in data.split(max(1, chunk_size // count)):
            posterior = (proposal or vae.posterior)(rows)
            z = posterior.rsample((count,))
            likelihood = vae.observation(z, rows).log_prob(rows)
            log_q = posterior.log_prob(z)
            if (mass := _log_masses(posterior)) is not None:
                masses.append(mass)
                log_q = log_q - mass
            parts.append(combine(likelihood, log_q - target.log_prob(z)))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True)), torch.cat(masses) if masses else None


def _log_masses(law: dist.TorchDistribution) -> Tensor | None:
    """Log masses ``(n)`` of densities that are not normalised, a few at a time: each asks for many geodesics."""
    if not isinstance(law, RiemannianHeatKernel) or law.normalize:
        return None
    rows = torch.arange(law.batch_shape[-1], device=law.loc.device).split(64)
    return torch.cat([law.take(some).log_mass().value for some in rows])


def warn_unnormalized(masses: Tensor | None) -> None:
    if masses is None or float(masses.abs().mean()) < _SMALL_MASS:
        return
    warn(
        f"The density of the heat-kernel posterior is not normalised: its log mass, {float(masses.mean()):.3g} in the "
        "mean over the data, is subtracted here. An evidence lower bound with that density as it is, as in training, "
        'is none; `posterior="wrapped_normal"` has mass 1.'
    )


@contextmanager
def evaluation_mode(vae: VAE) -> Iterator[None]:
    """All modules of a VAE in evaluation mode inside, afterwards each in the mode that it had.

    Args:
        vae: the model.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, hidden=(8,), num_centers=3).train()
        >>> with evaluation_mode(vae):
        ...     vae.training
        False
        >>> vae.training
        True
    """
    training = [module for module in vae.modules() if module.training]
    vae.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def standard_error(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan
