"""What a VAE asks of an encoder and of a decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, Self, runtime_checkable

import jax
import numpyro.distributions as dist
from jax import Array


@runtime_checkable
class EncoderProtocol(Protocol):
    """An encoder: gives location and scale of the posterior of a datum.

    An encoder of your own is a pytree of arrays whose class is a subclass of this one, or has all of its methods. It
    must have :meth:`__call__` and the two numbers; the rest has defaults that suit any.

    Attributes:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        scale_parameters: attributes that describe the scale alone, which training may freeze by themselves.

    Example:
        >>> from dataclasses import dataclass
        >>> from jax.tree_util import register_dataclass
        >>> @register_dataclass
        ... @dataclass
        ... class Linear(EncoderProtocol):
        ...     weight: jax.Array
        ...     data_dim, latent_dim = 6, 2
        ...     def __call__(self, x):
        ...         loc, log_scale = jnp.split(x @ self.weight, 2, -1)
        ...         return loc, jnp.exp(log_scale)
        >>> isinstance(Linear(jnp.zeros((6, 4))), EncoderProtocol)
        True
    """

    data_dim: int
    latent_dim: int
    scale_parameters: ClassVar[tuple[str, ...]] = ()

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Location ``(*batch, d)`` and positive scale ``(*batch, d)`` or ``(*batch, 1)`` of data ``(*batch, D)``.

        Args:
            x: data, ``(*batch, D)``.
        """
        ...

    def standardize(self, data: Array) -> Self:
        """The encoder with the units of the training ``data``, ``(n, D)``; by default itself."""
        return self


@runtime_checkable
class DecoderProtocol(Protocol):
    """A decoder: gives the likelihood of a code, and the immersion whose pullback is the metric.

    A decoder of your own is a pytree of arrays whose class is a subclass of this one, or has all of its methods. It
    must have :meth:`__call__`, :meth:`observation` and the two numbers; the rest has defaults that suit any. Where the
    likelihood is one of :class:`Likelihood`, :class:`Decoder` has all of it.

    Attributes:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        precision_parameters: attributes with the spread of the likelihood that wait for phase 2.

    Example:
        >>> from dataclasses import dataclass
        >>> from jax.tree_util import register_dataclass
        >>> @register_dataclass
        ... @dataclass
        ... class Laplace(DecoderProtocol):
        ...     weight: jax.Array
        ...     data_dim, latent_dim = 6, 2
        ...     def __call__(self, z):
        ...         return z @ self.weight
        ...     def observation(self, z, warm_up=False, exposure=None):
        ...         return dist.Laplace(self(z), 0.1).to_event(1)
        >>> isinstance(Laplace(jnp.zeros((2, 6))), DecoderProtocol)
        True
    """

    data_dim: int
    latent_dim: int
    precision_parameters: ClassVar[tuple[str, ...]] = ()

    def __call__(self, z: Array) -> object:
        """What :class:`~pyro_riemann.numpyro.metrics.PullbackMetric` takes of codes ``z`` ``(*batch, d)``."""
        ...

    def observation(self, z: Array, warm_up: bool = False, exposure: Array | None = None) -> dist.Distribution:
        """Likelihood p(x | z) with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: in phase 1 of the training, when the likelihood may be a simpler one.
            exposure: that of each datum, ``(*batch, 1)``, where :meth:`exposure` gives it.
        """
        ...

    def exposure(self, x: Array) -> Array | None:
        """What the likelihood takes as known of data ``x`` ``(*batch, D)``, ``(*batch, 1)``; None: nothing."""
        return None

    def check(self, name: str, x: Array) -> Array:
        """``x`` ``(*batch, D)``, the argument of that name, if the likelihood can give it; raises if not."""
        return x

    def standardize(self, data: Array) -> Self:
        """The decoder with the units of the training ``data``, ``(n, D)``; by default itself."""
        return self

    def start_warm_up(self, data: Array) -> Self:
        """The decoder with what only the warm-up has set from the training ``data``, ``(n, D)``."""
        return self

    def start_precision(self, codes: Array, data: Array, key: Array) -> Self:
        """The decoder with the spread of its likelihood set, at the start of phase 2.

        Args:
            codes: draws of the posteriors of ``data``, ``(n, d)``.
            data: training data, ``(n, D)``.
            key: one key of ``jax.random``, of what is drawn.
        """
        return self

    def distance_immersion(self) -> Callable[[Array], object]:
        """A frozen copy that gives the same distances; by default of the whole decoder."""
        return jax.lax.stop_gradient(self)
