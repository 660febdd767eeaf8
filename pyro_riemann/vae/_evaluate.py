"""Evaluation of a trained VAE: its bounds, the mass of its prior, the convergence of its geodesics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._modes import full_precision
from pyro_riemann.distributions import RiemannianHeatKernel, RiemannianWrappedNormal, VampPrior
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.vae._bounds import (
    Proposal,
    elbo_and_masses,
    evaluation_mode,
    importance_bound,
    standard_error,
    warn_unnormalized,
)
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._phases import encode_all
from pyro_riemann.vae._priors import HeatKernelPrior

_FOLDED_DATA = 4  # posteriors whose tangent mass past the cut locus is measured
_ACCURATE = GeodesicSolver(num_knots=16, num_segments=64)


@full_precision
@torch.no_grad()
def prior_mass(vae: VAE, prior: dist.TorchDistribution | None = None) -> Estimate:
    """Log of the mass of the prior density with respect to dz, with its error.

    Zero for normalised priors. The short-time heat kernel has a mass near, not equal to, one: its
    :meth:`~pyro_riemann.RiemannianHeatKernel.log_normalizer`, over all of the latent space. On a decoder in more than
    two dimensions its distances are those of the metric's own solver; elsewhere they are the shortest, and training
    distances, which may be longer than these, give a density of less mass, never of more.

    Args:
        vae: the model.
        prior: another prior than the VAE's own.

    Source: Hsu (2002), *Stochastic Analysis on Manifolds*, section 5.1, for the expansion whose mass this is.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> prior_mass(vae).value.item()  # a normalised prior
        0.0
    """
    with evaluation_mode(vae):
        target = vae.prior_distribution() if prior is None else prior
        if isinstance(target, VampPrior):
            return target.log_normalizer()
        if isinstance(target, RiemannianHeatKernel):
            return target.log_mass()
    zero = next(vae.parameters()).new_zeros(())
    return Estimate(zero, zero)


@full_precision
@torch.no_grad()
def converged_share(vae: VAE, codes: Tensor, num_pairs: int = 200, init: str = "graph", **settings: Any) -> float:
    """Share of converged geodesics between the prior's centre (else the mean code) and the first ``num_pairs`` codes.

    Args:
        vae: the model.
        codes: ``(n, d)``.
        num_pairs: how many codes.
        init: as :meth:`RiemannianMetric.geodesic <pyro_riemann.metrics.RiemannianMetric.geodesic>` has it.
        **settings: of the geodesic solver; by default accurate ones, not those of the VAE's training.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, metric=EuclideanMetric(2), hidden=(8,), num_centers=3)
        >>> converged_share(vae, torch.randn(5, 2))
        1.0
    """
    loc = getattr(vae.prior, "loc", codes.mean(0))
    accurate = dataclasses.asdict(_ACCURATE.replace(**{"init": init, **settings}))
    return vae.metric.geodesic(loc, codes[:num_pairs], **accurate).converged.double().mean().item()


@contextmanager
def solver_settings(vae: VAE, solver: GeodesicSolver | None = None) -> Iterator[None]:
    """Distances with other solver settings inside, such as accurate ones for evaluation.

    Args:
        vae: the model.
        solver: settings meanwhile; twice the default numbers of knots and chords if None.

    Example:
        >>> from pyro_riemann import GeodesicSolver
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, hidden=(8,), num_centers=3)
        >>> with solver_settings(vae, GeodesicSolver(num_segments=64)):
        ...     vae.metric.solver.num_segments
        64
    """
    metric = vae.metric
    previous, metric.solver = metric.solver, solver or _ACCURATE
    try:
        yield
    finally:
        metric.solver = previous


@full_precision
def evaluate(
    vae: VAE,
    data: Tensor,
    *,
    num_samples: int = 1,
    num_importance: int = 500,
    num_importance_data: int | None = None,
    prior: dist.TorchDistribution | None = None,
    proposal: Proposal | None = None,
    num_pairs: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of merit of a VAE on test data, in nats per datum, JSON-able.

    ``elbo = reconstruction - kl`` from the same draws. With a prior whose density is not normalised (the heat
    kernel's short-time density), ``elbo`` uses it as it is, as K20 does, and ``elbo_normalized`` subtracts the log
    of its mass: only that one is a bound and compares with other models; likewise for ``iwae``.

    Args:
        vae: a trained model.
        data: test data ``(n, D)``.
        num_samples: draws a datum for the ELBO.
        num_importance: draws a datum for the importance-weighted likelihood; 0 leaves it out.
        num_importance_data: how many data for that; default all.
        prior: evaluate under this prior instead of the VAE's own (for instance with tabulated distances).
        proposal: of the importance-weighted likelihood, see :func:`importance_log_likelihood`.
        num_pairs: geodesics whose convergence is counted.
        seed: seed of the draws.

    Returns:
        ``reconstruction``, ``kl``, ``elbo`` with ``..._standard_error`` over the data; ``iwae`` and its standard error;
        for Riemannian priors ``log_mass``, ``log_mass_error``, ``elbo_normalized``, ``iwae_normalized``,
        ``converged_geodesics``; for the heat kernel ``prior_time``. For a heat kernel as posterior
        ``posterior_log_mass``, the mean of what was subtracted from its log density; for a wrapped normal
        ``posterior_folded_mass``, the largest share among the first posteriors that lies past the cut locus, where its
        density is too small and the ELBO too large.

    Raises:
        ValueError: if ``num_samples`` is less than 1, or for data that the likelihood cannot give.

    Source: K20, section 5.1, tables 1 and 2.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, latent_dim=1, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> report = evaluate(vae, torch.rand(20, 4), num_importance=10)
        >>> abs(report["elbo"] - (report["reconstruction"] - report["kl"])) < 1e-9
        True
    """
    report: dict[str, Any] = {}
    with evaluation_mode(vae), torch.no_grad():
        terms, masses = elbo_and_masses(vae, data, num_samples, prior, seed, 2000)
        warn_unnormalized(masses)
        report |= {**terms.means(), "num_data": len(data)}
        if num_importance > 0:
            bound = importance_bound(vae, data[:num_importance_data], num_importance, prior, proposal, seed)[0].double()
            report |= {"iwae": bound.mean().item(), "iwae_standard_error": standard_error(bound)}
            report |= {"iwae_samples": num_importance, "iwae_num_data": len(bound)}
        if vae.prior.riemannian and not vae.warm_up:
            mass = prior_mass(vae, prior)
            report |= {"log_mass": mass.value.item(), "log_mass_error": mass.standard_error.item()}
            report["elbo_normalized"] = report["elbo"] - report["log_mass"]
            if "iwae" in report:
                report["iwae_normalized"] = report["iwae"] - report["log_mass"]
            report["converged_geodesics"] = converged_share(vae, encode_all(vae, data[:num_pairs]), num_pairs)
            if isinstance(vae.prior, HeatKernelPrior):
                report["prior_time"] = vae.prior.time.item()
        if masses is not None:
            report["posterior_log_mass"] = masses.mean().item()
        posterior = vae.posterior(data[:_FOLDED_DATA].to(next(vae.parameters())))
        if isinstance(posterior, RiemannianWrappedNormal):
            report["posterior_folded_mass"] = posterior.folded_mass().value.max().item()
    return report
