"""Encoder, decoder mean and precision network of the Riemannian VAE (Kalatzis et al. 2020, appendix C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.vae._layers import Linear, Rescale, Sequential, mlp


class Encoder(Pytree):
    """Location and scale of the approximate posterior, each an MLP of its own (K20, table 4).

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        scale_dim: entries of the scale: d for a diagonal Gaussian, 1 for the isotropic
            families (wrapped normal and heat kernel), whose only spread is their time.
        min_scale: floor of the scale, which keeps the density finite.
        units: of the data, for networks that see ``units.inverse(x)``: a :class:`Rescale` by their mean and standard
            deviation. None leaves the data as they are.
        key: of the initial weights.

    Raises:
        ValueError: for widths below 1, or ``scale_dim`` neither 1 nor d.

    Example:
        >>> encoder = Encoder(data_dim=64, latent_dim=2, key=jax.random.key(0))
        >>> loc, scale = encoder(jnp.zeros((5, 64)))
        >>> loc.shape, bool((scale > 0).all())
        ((5, 2), True)
    """

    pytree_data_fields = ("loc", "spread", "units")

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (300, 300),
        scale_dim: int | None = None,
        min_scale: float = 1e-4,
        units: Rescale | None = None,
        *,
        key: Array,
    ) -> None:
        self.data_dim, self.latent_dim, self.min_scale = data_dim, latent_dim, min_scale
        self.scale_dim = latent_dim if scale_dim is None else scale_dim
        if self.scale_dim not in (1, latent_dim):
            raise ValueError(f"`scale_dim` must be 1 or the latent dimension {latent_dim}, got {scale_dim}.")
        first, second = jax.random.split(key)
        self.units = Rescale(jnp.zeros(data_dim), jnp.ones(())) if units is None else units
        self.loc = mlp([data_dim, *hidden, latent_dim], key=first)
        *inner, last = mlp([data_dim, *hidden, self.scale_dim], key=second).layers
        assert isinstance(last, Linear)
        # start at scale 0.1: codes stay apart
        bias = jnp.full(self.scale_dim, math.log(math.expm1(0.1)))
        self.spread = Sequential([*inner, Linear(last.weight, bias)])

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Location ``(*batch, d)`` and positive scale ``(*batch, scale_dim)`` of data ``x`` ``(*batch, D)``."""
        inner = self.units.inverse(x)
        return self.loc(inner), jax.nn.softplus(self.spread(inner)) + self.min_scale


class RBFPrecision(Pytree):
    r"""Precision of the decoder by radial basis functions, small away from the data.

    .. math:: \beta(z) = W \exp\bigl(-|z - c_k|^2 / (2 h_k^2)\bigr) + \zeta, \qquad W > 0,

    so that the standard deviation :math:`\sigma = \beta^{-1/2}` rises to :math:`\zeta^{-1/2}` where
    there are no codes: the walls of the metric (K20, section 4 and figure 3; the form of the
    network is that of Que & Belkin, 2016, and Arvanitidis et al., 2018).

    Args:
        centers: :math:`c_k`, ``(K, d)``.
        bandwidth: :math:`h_k`, ``(K,)``.
        log_weight: logarithm of W, ``(D, K)``.
        floor: the :math:`\zeta` above. The default lets the standard deviation rise to 10.
        min_scale: least standard deviation, added in quadrature. Without it the likelihood of a
            constant pixel is unbounded.

    Raises:
        ValueError: if the shapes do not match, ``floor`` is not positive, or ``min_scale`` is out of range.

    Example:
        >>> precision = RBFPrecision(jnp.zeros((4, 2)), jnp.ones(4), jnp.zeros((3, 4)))
        >>> precision.scale(jnp.full(2, 1e3)).round(2).tolist()
        [10.0, 10.0, 10.0]
    """

    pytree_data_fields = ("bandwidth", "centers", "log_weight")
    has_jets: ClassVar[bool] = True

    def __init__(
        self, centers: Array, bandwidth: Array, log_weight: Array, floor: float = 1e-2, min_scale: float = 1e-2
    ) -> None:
        num_centers = centers.shape[0]
        if centers.ndim != 2 or bandwidth.shape != (num_centers,) or log_weight.shape[1:] != (num_centers,):
            raise ValueError(
                "`centers`, `bandwidth` and `log_weight` must have shapes (K, d), (K,) and (D, K), got "
                f"{centers.shape}, {bandwidth.shape} and {log_weight.shape}."
            )
        if not floor > 0:
            raise ValueError(f"`floor` must be positive (a zero precision has no standard deviation), got {floor}.")
        if not 0 <= min_scale < floor**-0.5:
            raise ValueError(f"`min_scale` must lie in [0, floor ** -0.5 = {floor**-0.5:.3g}), got {min_scale}.")
        self.centers, self.bandwidth, self.log_weight = centers, bandwidth, log_weight
        self.floor, self.min_scale = float(floor), float(min_scale)

    def precision(self, z: Array) -> Array:
        """Precision beta(z) before the least standard deviation: ``(*batch, d) -> (*batch, D)``."""
        rate = 0.5 / self.bandwidth**2
        # from differences, which XLA fuses, axis by axis: the expanded square cancels digits of float32
        exponent = sum(
            (rate * (z[..., axis, None] - self.centers[:, axis]) ** 2 for axis in range(z.shape[-1])), jnp.zeros(())
        )
        # below -80 single precision has subnormal numbers, which slow matrix products tenfold
        basis = jnp.exp(-jnp.minimum(exponent, 80.0))
        return basis @ jnp.exp(self.log_weight).mT + self.floor

    def scale(self, z: Array) -> Array:
        """Standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``, between ``min_scale`` and ``floor ** -0.5``."""
        return jnp.sqrt(1 / self.precision(z) + self.min_scale**2)

    def __call__(self, z: Array) -> Array:
        """The same as :meth:`scale`, ``(*batch, D)`` at ``z``."""
        return self.scale(z)


class GaussianDecoder(Pytree):
    r"""Gaussian decoder :math:`N(\mu(z), \mathrm{diag}\,\sigma^2(z))` and the immersion that it defines.

    Calling it gives (mean, standard deviation), the immersion of K20 eq. 2.4, ready for
    :class:`~pyro_riemann.numpyro.PullbackMetric`. In the warm-up of the training the likelihood has one learned
    standard deviation for all entries instead.

    Args:
        mean: network of the mean, ending in a :class:`Linear` layer, a :class:`Rescale` after one, or an activation.
        std: the :class:`RBFPrecision`.
        log_warm_up_scale: logarithm of the standard deviation in the warm-up, a number.

    Example:
        >>> std = RBFPrecision(jnp.zeros((10, 2)), jnp.ones(10), jnp.zeros((64, 10)))
        >>> decoder = GaussianDecoder(mlp([2, 30, 64], key=jax.random.key(0)), std)
        >>> PullbackMetric(decoder, dim=2).metric(jnp.zeros((5, 2))).shape
        (5, 2, 2)
    """

    pytree_data_fields = ("log_warm_up_scale", "mean", "std")
    has_jets: ClassVar[bool] = True

    def __init__(self, mean: Sequential, std: RBFPrecision, log_warm_up_scale: float | Array = 0.0) -> None:
        self.mean, self.std = mean, std
        self.log_warm_up_scale = jnp.asarray(log_warm_up_scale, std.log_weight.dtype)

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at ``z`` ``(*batch, d)``, each ``(*batch, D)``."""
        return self.mean(z), self.std(z)

    def observation(self, z: Array, warm_up: bool = False) -> dist.Distribution:
        """Likelihood p(x | z) of ``z`` ``(*batch, d)`` with all its constants, event shape ``(D,)``.

        In the ``warm_up`` it has one learned standard deviation for all entries.
        """
        mean = self.mean(z)
        scale = jnp.broadcast_to(jnp.exp(self.log_warm_up_scale), mean.shape) if warm_up else self.std(z)
        return dist.Normal(mean, scale).to_event(1)

    def distance_immersion(self) -> DistanceImmersion:
        """An immersion with the same metric and chords and fewer outputs; no gradient reaches the decoder."""
        return DistanceImmersion(self)


class DistanceImmersion(Pytree):
    """A frozen decoder in fewer outputs, exactly isometric to the original.

    The mean's last layer ``W h + b`` with ``W = Q R`` (Q with orthonormal columns) spans the same distances as
    ``R h``: chord lengths and pullback metric are those of the full mean, at as many outputs as hidden units. The
    standard deviation is not linear in anything and stays as it is, and so does a mean that ends in an activation.

    Args:
        decoder: the decoder.

    Source: Golub & Van Loan (2013), *Matrix Computations*, chapter 5, for the QR decomposition.

    Example:
        >>> std = RBFPrecision(jnp.zeros((10, 2)), jnp.ones(10), jnp.zeros((500, 10)))
        >>> decoder = GaussianDecoder(mlp([2, 20, 20, 500], key=jax.random.key(0)), std)
        >>> reduced, _ = decoder.distance_immersion()(jnp.zeros((2, 2)))
        >>> reduced.shape
        (2, 20)
    """

    pytree_data_fields = ("mean", "std")
    has_jets: ClassVar[bool] = True

    def __init__(self, decoder: GaussianDecoder) -> None:
        self.mean, self.std = decoder.mean.distance_immersion(), jax.lax.stop_gradient(decoder.std)

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Reduced mean ``(*batch, rows)`` and standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``."""
        return self.mean(z), self.std(z)
