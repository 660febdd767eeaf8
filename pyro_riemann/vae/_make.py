"""A VAE from plain arguments: the names of its parts."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.vae._counts import NegativeBinomialLikelihood, PoissonLikelihood
from pyro_riemann.vae._decoders import Decoder, GaussianDecoder
from pyro_riemann.vae._encoders import Encoder, mlp
from pyro_riemann.vae._interface import DecoderProtocol
from pyro_riemann.vae._latent_metric import DecoderMetric, LatentMetric
from pyro_riemann.vae._likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._posteriors import HeatKernelPosterior, NormalPosterior, Posterior, WrappedNormalPosterior
from pyro_riemann.vae._priors import HeatKernelPrior, NormalPrior, Prior, UniformPrior, VampMixturePrior

PRIORS = ("normal", "vamp", "heat_kernel", "uniform")
POSTERIORS = ("normal", "wrapped_normal", "heat_kernel")
METRICS = ("fixed", "grid", "learned")
LIKELIHOODS = ("precision_network", "gaussian", "bernoulli", "poisson", "negative_binomial")


def make_vae(
    data_dim: int,
    latent_dim: int = 2,
    prior: str | Prior = "heat_kernel",
    posterior: str | Posterior = "wrapped_normal",
    metric: str | LatentMetric | RiemannianMetric = "fixed",
    *,
    likelihood: str | Likelihood = "precision_network",
    hidden: tuple[int, ...] = (300, 300),
    num_centers: int = 350,
    floor: float = 1e-2,
    min_scale: float = 1e-2,
    output: str = "linear",
    pseudo_inputs: Tensor | None = None,
    solver: GeodesicSolver | None = None,
    posterior_steps: int = 4,
    flow_steps: int = 2,
    grid_resolution: int = 64,
    seed: int | None = None,
    name: str = "vae",
) -> VAE:
    """A VAE with the networks of K20, appendix C, from plain arguments.

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        prior: ``"normal"``, ``"vamp"``, ``"heat_kernel"`` or ``"uniform"``; or a :class:`Prior`.
        posterior: ``"normal"``, ``"wrapped_normal"`` or ``"heat_kernel"``; or a :class:`Posterior`.
        metric: ``"fixed"`` for a frozen copy of the decoder, ``"grid"`` for a table of that, ``"learned"`` for the
            decoder itself, see :class:`DecoderMetric`; or a :class:`LatentMetric`, or a metric of your own.
        likelihood: ``"precision_network"`` (:class:`GaussianDecoder`), ``"gaussian"`` with one learned standard
            deviation, ``"bernoulli"``, ``"poisson"`` or ``"negative_binomial"`` with a learned dispersion of each
            entry; or a :class:`Likelihood`.
        hidden: widths of the hidden layers of encoder and decoder.
        num_centers: basis functions of the precision network.
        floor: least precision.
        min_scale: least standard deviation.
        output: of the mean of Gaussian data, ``"linear"`` or ``"sigmoid"``, see :class:`GaussianDecoder`.
        pseudo_inputs: starting values of a VampPrior, ``(k, D)``.
        solver: see :class:`DecoderMetric`.
        posterior_steps: see :class:`HeatKernelPosterior`.
        flow_steps: see :class:`DecoderMetric`.
        grid_resolution: see :class:`DecoderMetric`.
        seed: seed of the weights; the global generator is left alone. Default: draws from the global one.
        name: prefix in Pyro's parameter store.

    Raises:
        TypeError, ValueError: for an unknown name, and as the parts that it makes.

    Example:
        >>> vae = make_vae(data_dim=64, latent_dim=2, num_centers=50, seed=0)
        >>> vae.prior.riemannian, vae.posterior_family
        (True, WrappedNormalPosterior())
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        family = _posterior(posterior, posterior_steps)
        law = _likelihood(likelihood, data_dim, output)
        features = None if law is None else law.features()
        encoder = Encoder(data_dim, latent_dim, hidden, 1 if family.riemannian else latent_dim, features=features)
        decoder: DecoderProtocol
        if law is None:
            decoder = GaussianDecoder(latent_dim, data_dim, hidden, num_centers, floor, min_scale, output)
        else:
            decoder = Decoder(mlp([latent_dim, *hidden, law.num_outputs(data_dim)]), latent_dim, data_dim, law)
        module = make_prior(prior, encoder, pseudo_inputs) if isinstance(prior, str) else prior
        rule = _metric(metric, solver, flow_steps, grid_resolution) if isinstance(metric, str) else metric
        return VAE(encoder, decoder, module, family, rule, name)


def make_prior(name: str, encoder: Encoder, pseudo_inputs: Tensor | None = None) -> Prior:
    """Prior by name: one of :data:`PRIORS`."""
    dim = encoder.latent_dim
    if check_one_of("prior", name, PRIORS) == "normal":
        return NormalPrior(dim)
    if name == "vamp":
        return VampMixturePrior(torch.rand(64, encoder.data_dim) if pseudo_inputs is None else pseudo_inputs)
    if name == "heat_kernel":
        return HeatKernelPrior(dim)
    return UniformPrior(torch.full((dim,), -4.0), torch.full((dim,), 4.0))


def _posterior(given: str | Posterior, num_steps: int) -> Posterior:
    if not isinstance(given, str):
        return given
    if check_one_of("posterior", given, POSTERIORS) == "heat_kernel":
        return HeatKernelPosterior(num_steps)
    return NormalPosterior() if given == "normal" else WrappedNormalPosterior()


def _metric(name: str, solver: GeodesicSolver | None, flow_steps: int, resolution: int) -> LatentMetric:
    frozen, table = check_one_of("metric", name, METRICS) != "learned", resolution if name == "grid" else None
    return DecoderMetric(frozen, table, solver, flow_steps)


def _likelihood(given: str | Likelihood, data_dim: int, output: str) -> Likelihood | None:
    """The likelihood, or None for that of the precision network."""
    if not isinstance(given, str):
        return given
    if check_one_of("likelihood", given, LIKELIHOODS) == "precision_network":
        return None
    if given == "gaussian":
        return GaussianLikelihood(link="sigmoid" if output == "sigmoid" else "identity")
    if given == "bernoulli":
        return BernoulliLikelihood()
    if given == "poisson":
        return PoissonLikelihood()
    return NegativeBinomialLikelihood(torch.full((data_dim,), 10.0))
