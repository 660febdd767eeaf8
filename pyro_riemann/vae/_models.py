"""The variational autoencoder as a Pyro model/guide pair, of six replaceable parts."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor

from pyro_riemann._checks import check_finite
from pyro_riemann._modes import full_precision_methods
from pyro_riemann.metrics import RiemannianMetric
from pyro_riemann.vae._interface import DecoderProtocol, EncoderProtocol
from pyro_riemann.vae._latent_metric import DecoderMetric, GivenMetric, LatentMetric
from pyro_riemann.vae._posteriors import NormalPosterior, Posterior, WrappedNormalPosterior
from pyro_riemann.vae._priors import HeatKernelPrior, NormalPrior, Prior


@full_precision_methods
class VAE(PyroModule):
    r"""Variational autoencoder of an encoder, a decoder with its likelihood, a prior, a posterior and a latent metric.

    :meth:`model` and :meth:`guide` are a Pyro pair. The R-VAE of Kalatzis et al. (2020) is a :class:`HeatKernelPrior`
    with a Riemannian posterior; the plain VAE a :class:`NormalPrior` with a :class:`NormalPosterior`;
    :func:`make_vae` makes both from names. Densities of codes are with respect to Lebesgue measure dz and the
    likelihood has all its constants, so ELBOs of different priors compare.

    *Two stages.* While :attr:`warm_up` is true (phase 1) there is no geometry yet: the likelihood of a
    :class:`GaussianDecoder` has one learned standard deviation, the posterior is Gaussian, and a standard normal stands
    in for a Riemannian prior.

    The steps of :func:`train` take :class:`FrozenPosteriorELBO`, which approximates what no gradient sees in K20's
    phase 2. The densities of this pair, whatever its mode, are complete.

    *Parameters* are ordinary ``nn.Parameter`` and belong to this module: they are registered with Pyro under
    ``name`` on each call, an entry of that name from another model is dropped, nothing is read from the global
    parameter store, and ``state_dict`` is all there is to save. Freeze with ``requires_grad_(False)``.

    Args:
        encoder: gives (loc, scale), such as :class:`Encoder`, see :class:`EncoderProtocol`; scale needs one entry for
            a Riemannian posterior.
        decoder: such as :class:`GaussianDecoder`, or a :class:`Decoder` with any :class:`Likelihood`, see
            :class:`DecoderProtocol`.
        prior: by default the heat kernel.
        posterior: by default the wrapped normal.
        metric: by default that of a frozen copy of the decoder; a metric of your own is taken as it is.
        name: prefix in Pyro's parameter store.

    Raises:
        TypeError: for a part that is none; also by methods, if data are no tensor.
        ValueError: for parts that do not fit together; also by methods, if data have the wrong width, are not finite,
            or cannot come from the likelihood.

    Source: K20, section 3 and appendix C; Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 2.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_riemann.vae import Encoder, GaussianDecoder
        >>> decoder = GaussianDecoder(2, 64, num_centers=10)
        >>> vae = VAE(Encoder(64, 2), decoder, prior=NormalPrior(2), posterior=NormalPosterior())
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        >>> loss = svi.step(torch.rand(8, 64))
    """

    encoder: Any  # EncoderProtocol and DecoderProtocol, checked below: who gave them may know more of them
    decoder: Any
    prior: Prior
    posterior_family: Posterior
    latent_metric: LatentMetric

    def __init__(
        self,
        encoder: EncoderProtocol,
        decoder: DecoderProtocol,
        prior: Prior | None = None,
        posterior: Posterior | None = None,
        metric: LatentMetric | RiemannianMetric | None = None,
        name: str = "vae",
    ) -> None:
        super().__init__()
        dim = encoder.latent_dim
        prior, posterior = prior or HeatKernelPrior(dim), posterior or WrappedNormalPosterior()
        metric = metric or DecoderMetric()
        rule = GivenMetric(metric) if isinstance(metric, RiemannianMetric) else metric
        parts = {
            "encoder": (encoder, EncoderProtocol),
            "decoder": (decoder, DecoderProtocol),
            "prior": (prior, Prior),
            "posterior": (posterior, Posterior),
            "metric": (rule, LatentMetric),
        }
        for key, (part, kind) in parts.items():
            if not isinstance(part, kind):
                raise TypeError(f"`{key}` must be a `vae.{kind.__name__}`, got {part!r:.60}; names are for `make_vae`.")
        if posterior.riemannian and encoder.scale_dim != 1:
            raise ValueError(
                f"a {type(posterior).__name__} has one time per datum: give it an encoder with `scale_dim=1`, "
                f"got {encoder.scale_dim}."
            )
        if decoder.latent_dim != dim or decoder.data_dim != encoder.data_dim:
            raise ValueError(
                f"`encoder` maps R^{encoder.data_dim} to latent dimension {dim}, `decoder` latent dimension "
                f"{decoder.latent_dim} to R^{decoder.data_dim}: they must be of the same spaces."
            )
        self.encoder, self.decoder = encoder, decoder
        self.prior, self.warm_up_prior = prior, NormalPrior(dim)
        self.posterior_family, self.warm_up_posterior = posterior, NormalPosterior()
        self.latent_metric = rule
        self.latent_metric.attach(decoder, refreshed=self.needs_metric)
        self.latent_dim, self.store_name = dim, name
        self.warm_up = False

    # ---------------------------------------------------------------- geometry

    @property
    def needs_metric(self) -> bool:
        """True if the prior or the posterior is Riemannian."""
        return self.prior.riemannian or self.posterior_family.riemannian

    @property
    def metric(self) -> RiemannianMetric:
        """Metric of the latent space."""
        return self.latent_metric.metric(self.decoder)

    def refresh_metric(self, codes: Tensor | None = None, margin: float = 0.3) -> None:
        """Renew the metric from the decoder's present weights; a no-op for a metric of your own.

        Args:
            codes: encoded training data ``(n, d)``; sets the box of a table to theirs, enlarged by ``margin`` on each
                side, and the table's error is that at these codes.
            margin: share of the codes' extent.
        """
        self.latent_metric.refresh(self.decoder, codes, margin)

    # ---------------------------------------------------------------- the distributions

    def prior_distribution(self) -> dist.TorchDistribution:
        """Prior of a code, event shape ``(d,)``, a density with respect to dz."""
        if self.warm_up and self.prior.riemannian:
            return self.warm_up_prior.distribution(None, self.encoder)
        return self.prior.distribution(self.metric if self.prior.riemannian else None, self.encoder)

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """Approximate posterior q(z | x): ``(*batch, D) ->`` batch shape ``(*batch)``, event shape ``(d,)``."""
        loc, scale = self.encoder(x)
        if self.posterior_family.riemannian and not self.warm_up:
            return self.posterior_family.distribution(loc, scale, self.metric)
        family = self.warm_up_posterior if self.posterior_family.riemannian else self.posterior_family
        return family.distribution(loc, scale, None)

    def observation(self, z: Tensor, x: Tensor | None = None) -> dist.TorchDistribution:
        """Likelihood p(x | z) of codes ``z`` ``(*batch, d)``, event shape ``(D,)``.

        ``x`` are the data ``(*batch, D)`` themselves, of which a likelihood of counts may take the total as known.
        """
        exposure = None if x is None else self.decoder.exposure(x)
        return self.decoder.observation(z, self.warm_up, exposure)

    def encode(self, x: Tensor) -> Tensor:
        """Location ``(*batch, d)`` of the posterior of ``x`` ``(*batch, D)``."""
        return self.encoder(self._check_data(x))[0]

    # ---------------------------------------------------------------- model and guide

    def model(self, x: Tensor | None, size: int | None = None, kl_weight: float = 1.0) -> Tensor:
        """Generative model: z from the prior, x from the decoder.

        Args:
            x: data ``(n, D)``, all of them or a minibatch; None draws ``size`` data (``Predictive``).
            size: size of the whole data set when ``x`` is a minibatch; scales the ELBO by size / n.
            kl_weight: factor of the KL term (deterministic warm-up); 1 is the ELBO.

        Returns:
            Codes ``(n, d)``.
        """
        self._register()
        count = size if x is None else len(self._check_data(x))
        if count is None:
            raise ValueError("`model(None)` draws data: say how many by `size=`.")
        with self._plate(count, size, x):
            with poutine.scale(scale=kl_weight):
                z = pyro.sample("z", self.prior_distribution())
            pyro.sample("x", self.observation(z, x), obs=x)
        return z

    def guide(self, x: Tensor, size: int | None = None, kl_weight: float = 1.0) -> Tensor:
        """Approximate posterior of the codes.

        Args:
            x: data ``(n, D)``, all of them or a minibatch.
            size: as in :meth:`model`.
            kl_weight: as in :meth:`model`.

        Returns:
            Codes ``(n, d)``.
        """
        self._register()
        with self._plate(len(self._check_data(x)), size, x), poutine.scale(scale=kl_weight):
            return pyro.sample("z", self.posterior(x))

    forward = model

    def _plate(self, count: int, size: int | None, x: Tensor | None) -> pyro.plate:
        if size is not None and size < count:
            raise ValueError(f"`size` is that of the whole data set: at least the {count} rows given, got {size}.")
        rows = torch.arange(count, device=None if x is None else x.device)
        return pyro.plate("data", size or count, subsample=rows)

    def _register(self) -> None:
        """Show the trainable parameters to SVI; this module stays their owner."""
        store = pyro.get_param_store()
        stored = dict(store.named_parameters())
        for key, value in self.named_parameters():
            full = f"{self.store_name}.{key}"
            if full in stored and stored[full] is not value:
                del store[full]  # left by another model: pyro.param would hand out that one's value
            if value.requires_grad:
                pyro.param(full, value)

    def _check_data(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing():
            if not isinstance(x, Tensor):
                raise TypeError(f"`x` must be a torch.Tensor, got {type(x).__name__}.")
            if x.dim() < 1 or x.shape[-1] != self.encoder.data_dim:
                raise ValueError(
                    f"`x` must have shape (n, {self.encoder.data_dim}), got {tuple(x.shape)}; flatten images."
                )
            self.decoder.check("x", check_finite("x", x))
        return x
