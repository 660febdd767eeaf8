"""The variational autoencoder as a NumPyro model/guide pair, of replaceable parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.lax import stop_gradient
from jax.tree_util import keystr, tree_map_with_path
from numpyro import handlers

from pyro_riemann.numpyro._checks import check_finite
from pyro_riemann.numpyro._pytree import Pytree, fixed
from pyro_riemann.numpyro.geodesics import training_solver
from pyro_riemann.numpyro.metrics import PullbackMetric
from pyro_riemann.numpyro.vae._interface import DecoderProtocol, EncoderProtocol
from pyro_riemann.numpyro.vae._priors import NormalPrior, Prior


class VAE(Pytree):
    r"""Variational autoencoder of an encoder, a decoder with its likelihood, and a prior.

    :meth:`model` and :meth:`guide` are a NumPyro pair; the posterior is the normal :math:`N(loc, diag scale^2)`.
    Densities of codes are with respect to Lebesgue measure dz and the likelihood has all its constants, so ELBOs of
    different priors compare.

    *Parameters.* The model is a pytree of its weights, and as a whole one parameter of SVI: ``result.params[name]`` of
    ``SVI(vae.model, vae.guide, ...).run(...)`` is the trained model. :func:`train` returns it. Units of data and the
    places of basis functions are set, not learned: no gradient reaches them.

    *Two stages.* While :attr:`warm_up` is true (phase 1) there is no geometry yet: the likelihood of a
    :class:`GaussianDecoder` has one learned standard deviation, and a standard normal stands in for a Riemannian prior.

    Args:
        encoder: gives (loc, scale), such as :class:`Encoder`, see :class:`EncoderProtocol`.
        decoder: a :class:`Decoder` with any :class:`Likelihood`, or :class:`GaussianDecoder`, see
            :class:`DecoderProtocol`.
        prior: by default the standard normal.
        name: of the parameter.

    Attributes:
        warm_up: whether it is in phase 1.
        frozen: groups of parameters that :meth:`model` and :meth:`guide` take as they are, see :attr:`groups`.

    Raises:
        TypeError: for a part that is none; also by methods, if data are no array.
        ValueError: for parts that do not fit together; also by methods, if data have the wrong width, are not finite,
            or cannot come from the likelihood.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, section 2.

    Example:
        >>> from numpyro.infer import SVI, Trace_ELBO
        >>> from numpyro.optim import Adam
        >>> from pyro_riemann.numpyro.vae import BernoulliLikelihood, Decoder, Encoder, mlp
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> decoder = Decoder(mlp([2, 30, 64], key=first), 2, 64, BernoulliLikelihood())
        >>> vae = VAE(Encoder(64, 2, (30,), key=second), decoder)
        >>> svi = SVI(vae.model, vae.guide, Adam(1e-3), Trace_ELBO())
        >>> result = svi.run(jax.random.key(1), 10, jnp.ones((8, 64)), progress_bar=False)
        >>> result.params["vae"].encode(jnp.ones((8, 64))).shape
        (8, 2)
    """

    pytree_data_fields = ("decoder", "encoder", "prior")
    encoder: EncoderProtocol
    decoder: DecoderProtocol
    prior: Prior

    def __init__(
        self, encoder: EncoderProtocol, decoder: DecoderProtocol, prior: Prior | None = None, name: str = "vae"
    ) -> None:
        parts = {"encoder": (encoder, EncoderProtocol), "decoder": (decoder, DecoderProtocol)}
        for key, (part, kind) in parts.items():
            if not isinstance(part, kind):
                raise TypeError(f"`{key}` must be a `vae.{kind.__name__}`, got {part!r:.60}.")
        dim = encoder.latent_dim
        prior = NormalPrior(dim) if prior is None else prior
        if not isinstance(prior, Prior):
            raise TypeError(f"`prior` must be a `vae.Prior`, got {prior!r:.60}; names are for `make_vae`.")
        if decoder.latent_dim != dim or decoder.data_dim != encoder.data_dim:
            raise ValueError(
                f"`encoder` maps R^{encoder.data_dim} to latent dimension {dim}, `decoder` latent dimension "
                f"{decoder.latent_dim} to R^{decoder.data_dim}: they must be of the same spaces."
            )
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.latent_dim, self.name, self.warm_up = dim, name, False
        self.frozen: tuple[str, ...] = ()

    @property
    def metric(self) -> PullbackMetric:
        """Metric of the latent space: the pullback of the decoder as it is, to whose weights no gradient passes.

        Its distances are those of :func:`~pyro_riemann.numpyro.geodesics.training_solver`; set its ``solver`` to
        another, as ``GeodesicSolver()``, to evaluate.
        """
        metric = PullbackMetric(self.decoder.distance_immersion(), self.latent_dim)
        metric.solver = training_solver(self.latent_dim)
        return metric

    # ---------------------------------------------------------------- the distributions

    def prior_distribution(self) -> dist.Distribution:
        """Prior of a code, event shape ``(d,)``, a density with respect to dz."""
        if not self.prior.riemannian:
            return self.prior.distribution(None, self.encoder)
        if self.warm_up:
            return NormalPrior(self.latent_dim).distribution(None, self.encoder)
        return self.prior.distribution(self.metric, self.encoder)

    def posterior(self, x: Array) -> dist.Distribution:
        """Approximate posterior q(z | x): ``(*batch, D) ->`` batch shape ``(*batch)``, event shape ``(d,)``."""
        loc, scale = self.encoder(x)
        return dist.Normal(loc, scale).to_event(1)

    def observation(self, z: Array, x: Array | None = None) -> dist.Distribution:
        """Likelihood p(x | z) of codes ``z`` ``(*batch, d)``, event shape ``(D,)``.

        ``x`` are the data ``(*batch, D)`` themselves, of which a likelihood of counts may take the total as known.
        """
        exposure = None if x is None else self.decoder.exposure(x)
        return self.decoder.observation(z, self.warm_up, exposure)

    def encode(self, x: Array) -> Array:
        """Location ``(*batch, d)`` of the posterior of ``x`` ``(*batch, D)``."""
        return self.encoder(self.check("x", x))[0]

    # ---------------------------------------------------------------- model and guide

    def model(self, x: Array | None, size: int | None = None, kl_weight: float | Array = 1.0) -> Array:
        """Generative model: z from the prior, x from the decoder.

        Args:
            x: data ``(n, D)``, all of them or a minibatch; None draws ``size`` data (``Predictive``).
            size: size of the whole data set when ``x`` is a minibatch; scales the ELBO by size / n.
            kl_weight: factor of the KL term (deterministic warm-up), a number; 1 is the ELBO.

        Returns:
            Codes ``(n, d)``.
        """
        vae = self._parameter()
        count = size if x is None else len(self.check("x", x))
        if count is None:
            raise ValueError("`model(None)` draws data: say how many by `size=`.")
        with handlers.scale(scale=_share(count, size)), numpyro.plate("data", count):
            with handlers.scale(scale=kl_weight):
                z: Array = numpyro.sample("z", vae.prior_distribution())
            law = vae.observation(z, x)
            numpyro.sample("x", law, obs=None if x is None else _observed(law, x))
        return z

    def guide(self, x: Array, size: int | None = None, kl_weight: float | Array = 1.0) -> Array:
        """Approximate posterior of the codes.

        Args:
            x: data ``(n, D)``, all of them or a minibatch.
            size: as in :meth:`model`.
            kl_weight: as in :meth:`model`, a number.

        Returns:
            Codes ``(n, d)``.
        """
        vae, count = self._parameter(), len(self.check("x", x))
        with handlers.scale(scale=_share(count, size)), numpyro.plate("data", count), handlers.scale(scale=kl_weight):
            z: Array = numpyro.sample("z", vae.posterior(x))
        return z

    def _parameter(self) -> VAE:
        """This model, or the one that inference puts in its place; no gradient reaches what is frozen."""
        vae: VAE = fixed(numpyro.param(self.name, self))
        if not self.frozen:
            return vae
        return jax.tree.map(lambda at, group: stop_gradient(at) if group in self.frozen else at, vae, self.groups)

    @property
    def groups(self) -> VAE:
        """A pytree like this one that says of each array what it describes.

        That is ``"encoder"`` (the location), ``"posterior"`` (its scale), ``"decoder"``, ``"precision"`` (the spread of
        the likelihood), or ``"prior"``.
        """
        special = {
            "encoder": dict.fromkeys(self.encoder.scale_parameters, "posterior"),
            "decoder": dict.fromkeys(self.decoder.precision_parameters, "precision"),
        }

        def group(path: tuple[Any, ...], array: Array) -> str:
            part, name = (keystr((entry,), simple=True) for entry in (path[0], path[-1] if len(path) < 2 else path[1]))
            return special.get(part, {}).get(name, part)

        return tree_map_with_path(group, self)

    def check(self, name: str, x: Array) -> Array:
        """``x`` ``(*batch, D)``, the argument of that name, if it can be data of this model; raises if not."""
        if not isinstance(x, jax.Array | np.ndarray):
            raise TypeError(f"`{name}` must be a JAX or NumPy array, got {type(x).__name__}.")
        if x.ndim < 1 or x.shape[-1] != self.encoder.data_dim:
            raise ValueError(f"`{name}` must have shape (n, {self.encoder.data_dim}), got {x.shape}; flatten images.")
        return self.decoder.check(name, check_finite(name, jnp.asarray(x)))


def _share(count: int, size: int | None) -> float:
    """By how much a minibatch stands for all data."""
    if size is not None and size < count:
        raise ValueError(f"`size` is that of the whole data set: at least the {count} rows given, got {size}.")
    return 1.0 if size is None else size / count


def _observed(law: dist.Distribution, x: Array) -> Array:
    """Data as the law takes them: NumPyro's categories are indices, and other counts may be."""
    base = law.base_dist if isinstance(law, dist.Independent) else law  # in NumPyro 0.19 only the base is discrete
    return x.astype(int) if base.is_discrete else x
