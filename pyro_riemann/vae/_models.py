"""The variational autoencoder as a Pyro model/guide pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_riemann._checks import check_finite, check_one_of
from pyro_riemann._modes import full_precision_methods
from pyro_riemann.distributions import RiemannianWrappedNormal
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.vae._networks import DistanceImmersion, Encoder, GaussianDecoder
from pyro_riemann.vae._priors import NormalPrior, Prior, make_prior
from pyro_riemann.vae._shortcuts import FrozenHeatKernel, FrozenWrappedNormal, LastCall, PosteriorHeatKernel

POSTERIORS = ("normal", "wrapped_normal", "heat_kernel")
METRICS = ("fixed", "grid", "learned")


def training_solver(latent_dim: int) -> GeodesicSolver:
    """Cheap, deterministic solver settings for distances in training.

    Two dimensions have walls and need iterations. With more, the codes lie apart and curves bend little: one
    preconditioned step from the straight line is enough (``tests/benchmarks/test_training_speed.py`` measures it).
    """
    if latent_dim <= 3:
        return GeodesicSolver(
            num_knots=6, num_segments=18, max_iterations=6, max_polish=0, tolerance=1e-3, on_failure="ignore"
        )
    return GeodesicSolver(
        num_knots=1,
        num_segments=6,
        max_iterations=1,
        max_polish=0,
        tolerance=1e-3,
        constant_hessian=True,
        on_failure="ignore",
    )


@full_precision_methods
class VAE(PyroModule):
    r"""Variational autoencoder with a prior and a posterior of choice, as :meth:`model` and :meth:`guide`.

    The R-VAE of Kalatzis et al. (2020) is ``prior="heat_kernel"`` with a Riemannian posterior; the plain VAE is
    ``prior="normal", posterior="normal"``. Densities of codes are with respect to Lebesgue measure dz and the
    likelihood has all its constants, so ELBOs of different priors compare.

    *Two stages.* While :attr:`warm_up` is true (phase 1) there is no geometry yet: the likelihood has one learned
    standard deviation, the posterior is Gaussian, and a standard normal stands in for a Riemannian prior.

    *Posterior.* ``"normal"`` is N(loc, diag scale^2). The Riemannian families have one number as spread: time
    :math:`t = s^2 \det G(loc)^{1/d}`, with s the encoder's scale, for which the volume of the posterior in the chart
    is that of the Gaussian of phase 1; so phase 2 starts where phase 1 ended although the units have changed.

    While :func:`train` takes its steps, and nothing that a Riemannian posterior depends on is being trained (K20's
    phase 2), its log density is a constant that no gradient sees, and is approximated: the wrapped normal's leaves out
    log V, the heat kernel's takes straight lines for geodesics. Everywhere else, in training mode too, it is complete.

    *Metric.* ``"fixed"``: the pullback of a frozen copy of the decoder (reduced by QR, see
    :meth:`GaussianDecoder.distance_immersion`), renewed by :meth:`refresh_metric`. ``"grid"``: the same,
    tabulated on the box of the codes (d <= 3); no decoder evaluation in any distance. ``"learned"``: the
    pullback of the decoder itself, with gradients into its weights. Or any
    :class:`~pyro_riemann.metrics.RiemannianMetric` of your own.

    *Parameters* are ordinary ``nn.Parameter`` and belong to this module: they are registered with Pyro under
    ``name`` on each call, an entry of that name from another model is dropped, nothing is read from the global
    parameter store, and ``state_dict`` is all there is to save. Freeze with ``requires_grad_(False)``.

    Args:
        encoder: gives (loc, scale); scale needs d entries for ``posterior="normal"``, one else.
        decoder: such as :class:`GaussianDecoder`.
        prior: a :class:`Prior`, or one of ``"normal"``, ``"vamp"``, ``"heat_kernel"``, ``"uniform"``.
        posterior: ``"normal"``, ``"wrapped_normal"`` (exact density: the natural choice for an R-VAE) or
            ``"heat_kernel"`` (K20; its density is the short-time approximation of the law it draws from).
        metric: ``"fixed"``, ``"grid"``, ``"learned"`` or a metric.
        solver: solver settings of distances while training; the default is cheap and deterministic.
        posterior_steps: Brownian steps of a draw from the ``"heat_kernel"`` posterior.
        flow_steps: Runge-Kutta steps of a draw from the ``"wrapped_normal"`` posterior, whose vectors are short; more
            are taken where they do not keep the speed.
        grid_resolution: points per axis of the table of ``metric="grid"``.
        name: prefix in Pyro's parameter store.

    Raises:
        ValueError: for an unknown name, or parts that do not fit together; also by methods, if data have the wrong
            width or are not finite.
        TypeError: by methods, if data are no tensor.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> vae = VAE(Encoder(64, 2), GaussianDecoder(2, 64, num_centers=10), prior="normal", posterior="normal")
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
        >>> loss = svi.step(torch.rand(8, 64))
    """

    box: Tensor
    encoder: Encoder
    decoder: Any  # GaussianDecoder or one of the user's own with its methods
    prior: Prior
    snapshot: DistanceImmersion

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        prior: Prior | str = "heat_kernel",
        posterior: str = "wrapped_normal",
        metric: RiemannianMetric | str = "fixed",
        solver: GeodesicSolver | None = None,
        posterior_steps: int = 4,
        flow_steps: int = 2,
        grid_resolution: int = 64,
        name: str = "vae",
    ) -> None:
        super().__init__()
        check_one_of("posterior", posterior, POSTERIORS)
        dim = encoder.latent_dim
        if posterior != "normal" and encoder.scale_dim != 1:
            raise ValueError(
                f"`posterior={posterior!r}` has one time per datum: give it an encoder with `scale_dim=1`, "
                f"got {encoder.scale_dim}."
            )
        if getattr(decoder, "latent_dim", dim) != dim:
            raise ValueError(f"`encoder` has latent dimension {dim}, `decoder` {decoder.latent_dim}.")
        self.encoder, self.decoder = encoder, decoder
        self.prior = make_prior(prior, encoder) if isinstance(prior, str) else prior
        self.warm_up_prior = NormalPrior(dim)
        self.posterior_family, self.posterior_steps, self.flow_steps = posterior, posterior_steps, flow_steps
        self.log_time_factor = nn.Parameter(torch.tensor(0.0))
        self.latent_dim, self.store_name = dim, name
        self.warm_up = False
        self.leaves_out_constants = False  # see constants_left_out
        self.solver = solver or training_solver(dim)
        self.register_buffer("box", torch.tensor([[-5.0], [5.0]]).repeat(1, dim))
        self.grid_resolution = grid_resolution
        if isinstance(metric, RiemannianMetric):
            self.metric_mode, self.own_metric = "own", metric
            if metric.dim != dim:
                raise ValueError(f"`metric` has dimension {metric.dim}, the latent space {dim}.")
        else:
            self.metric_mode = check_one_of("metric", metric, METRICS)
            if metric == "grid" and dim > 3:
                raise ValueError(f"`metric='grid'` needs d <= 3, got {dim}; use 'fixed'.")
            if self.needs_metric and metric != "learned":
                self.snapshot = self.decoder.distance_immersion()
        # outside nn.Module's registry: the metric shares the snapshot's (or decoder's) tensors
        object.__setattr__(self, "_metric_cache", None)
        object.__setattr__(self, "_codes", None)

    # ---------------------------------------------------------------- geometry

    @property
    def needs_metric(self) -> bool:
        """True if the prior or the posterior is Riemannian."""
        return self.prior.riemannian or self.posterior_family != "normal"

    @property
    def metric(self) -> RiemannianMetric:
        """Metric of the latent space."""
        if self.metric_mode == "own":
            return self.own_metric
        if self._metric_cache is None:
            object.__setattr__(self, "_metric_cache", self._build_metric())
        return self._metric_cache

    def _build_metric(self) -> RiemannianMetric:
        if self.metric_mode == "learned":
            metric: RiemannianMetric = PullbackMetric(self.decoder, self.latent_dim)
        else:
            immersion = self.snapshot if hasattr(self, "snapshot") else self.decoder
            metric = PullbackMetric(immersion, self.latent_dim)
            if self.metric_mode == "grid":
                # judged at the codes, by `train` at its end: tables of its first epochs are of decoders that change
                metric = GridMetric(
                    metric, self.box[0], self.box[1], self.grid_resolution, points=self._codes, max_error=None
                )
        metric.solver, metric.flow_steps = self.solver, self.flow_steps
        if self.metric_mode != "learned":  # a kept result would hold on to the weights' graph of the last step
            own = ("metric_and_force",) if isinstance(metric, PullbackMetric) else ()
            for name in ("cholesky", "logdet", *own):
                setattr(metric, name, LastCall(getattr(metric, name)))
        return metric

    def refresh_metric(self, codes: Tensor | None = None, margin: float = 0.3) -> None:
        """Renew the frozen metric from the decoder's present weights; a no-op for a metric of your own.

        Args:
            codes: encoded training data ``(n, d)``; sets the box of the table to theirs, enlarged by
                ``margin`` on each side, and the table's error is that at these codes.
            margin: share of the codes' extent.
        """
        if codes is not None:
            check_finite("codes", codes)
            low, high = codes.detach().amin(0), codes.detach().amax(0)
            object.__setattr__(self, "_codes", codes.detach()[:: max(1, len(codes) // 512)].clone())
            self.box.copy_(torch.stack([low - margin * (high - low), high + margin * (high - low)]))
        if hasattr(self, "snapshot"):
            self.snapshot.load_decoder(self.decoder)
        object.__setattr__(self, "_metric_cache", None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VAE:
        object.__setattr__(self, "_metric_cache", None)  # a table would stay on the old device
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_metric_cache": None}

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As for any module; the metric is then built anew, from the loaded weights.

        Args:
            *args: of ``torch.nn.Module.load_state_dict``.
            **kwargs: likewise.
        """
        object.__setattr__(self, "_metric_cache", None)
        return super().load_state_dict(*args, **kwargs)

    # ---------------------------------------------------------------- the distributions

    def prior_distribution(self) -> dist.TorchDistribution:
        """Prior of a code, event shape ``(d,)``, a density with respect to dz."""
        if self.warm_up and self.prior.riemannian:
            return self.warm_up_prior.distribution(None, self.encoder)
        return self.prior.distribution(self.metric if self.prior.riemannian else None, self.encoder)

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """Approximate posterior q(z | x): ``(*batch, D) ->`` batch shape ``(*batch)``, event shape ``(d,)``."""
        loc, scale = self.encoder(x)
        if self.warm_up or self.posterior_family == "normal":
            return dist.Normal(loc, scale.expand_as(loc)).to_event(1)
        time = scale[..., 0].square() * (self.metric.logdet(loc) / self.latent_dim + self.log_time_factor).exp()
        # every trained posterior has the full density
        constant = self.leaves_out_constants and not (
            loc.requires_grad or time.requires_grad or self._metric_is_trained()
        )
        if self.posterior_family == "wrapped_normal":
            return (FrozenWrappedNormal if constant else RiemannianWrappedNormal)(loc, time, self.metric)
        kernel = FrozenHeatKernel if constant else PosteriorHeatKernel
        return kernel(loc, time, self.metric, num_steps=self.posterior_steps)

    def _metric_is_trained(self) -> bool:
        return torch.is_grad_enabled() and any(value.requires_grad for value in self.metric.parameters())

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
            pyro.sample("x", self.decoder.observation(z, warm_up=self.warm_up), obs=x)
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
            check_finite("x", x)
        return x


def make_vae(
    data_dim: int,
    latent_dim: int = 2,
    prior: str = "heat_kernel",
    posterior: str = "wrapped_normal",
    metric: str = "fixed",
    *,
    hidden: tuple[int, ...] = (300, 300),
    num_centers: int = 350,
    floor: float = 1e-2,
    min_scale: float = 1e-2,
    output: str = "linear",
    pseudo_inputs: Tensor | None = None,
    seed: int | None = None,
    **settings: Any,
) -> VAE:
    """A VAE with the networks of K20, appendix C, from plain arguments.

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        prior: ``"normal"``, ``"vamp"``, ``"heat_kernel"`` or ``"uniform"``.
        posterior: ``"normal"``, ``"wrapped_normal"`` or ``"heat_kernel"``.
        metric: ``"fixed"``, ``"grid"`` or ``"learned"``, see :class:`VAE`.
        hidden: widths of the hidden layers of encoder and decoder.
        num_centers: basis functions of the precision network.
        floor: least precision.
        min_scale: least standard deviation.
        output: of the decoder's mean, ``"linear"`` or ``"sigmoid"``, see :class:`GaussianDecoder`.
        pseudo_inputs: starting values of a VampPrior, ``(k, D)``.
        seed: seed of the weights; the global generator is left alone. Default: draws from the global one.
        **settings: further arguments of :class:`VAE`.

    Raises:
        ValueError: as the parts that it makes.

    Example:
        >>> vae = make_vae(data_dim=64, latent_dim=2, num_centers=50, seed=0)
        >>> vae.prior.riemannian, vae.posterior_family
        (True, 'wrapped_normal')
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        encoder = Encoder(data_dim, latent_dim, hidden, latent_dim if posterior == "normal" else 1)
        decoder = GaussianDecoder(latent_dim, data_dim, hidden, num_centers, floor, min_scale, output)
        module = make_prior(prior, encoder, pseudo_inputs)
        vae = VAE(encoder, decoder, module, posterior, metric, **settings)
    return vae
