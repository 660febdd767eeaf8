"""What a VAE asks of an encoder and of a decoder."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor, nn


@runtime_checkable
class EncoderProtocol(Protocol):
    """An encoder: gives location and scale of the posterior of a datum.

    An encoder of your own is a subclass of ``nn.Module`` and of this class, or has all of its methods. It must have
    :meth:`__call__` (by ``forward``) and the three numbers; the other methods have defaults that suit any.

    Attributes:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        scale_dim: entries of the scale: d, or 1 for the posteriors with one time per datum.

    Example:
        >>> class Linear(nn.Module, EncoderProtocol):
        ...     data_dim, latent_dim, scale_dim = 6, 2, 2
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.network = nn.Linear(6, 4)
        ...     def forward(self, x):
        ...         loc, log_scale = self.network(x).chunk(2, -1)
        ...         return loc, log_scale.exp()
        >>> from pyro_riemann.vae import GaussianDecoder, NormalPosterior, NormalPrior, VAE
        >>> vae = VAE(Linear(), GaussianDecoder(2, 6, num_centers=5), NormalPrior(2), NormalPosterior())
        >>> vae.posterior(torch.zeros(3, 6)).event_shape
        torch.Size([2])
    """

    data_dim: int
    latent_dim: int
    scale_dim: int

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location ``(*batch, d)`` and positive scale ``(*batch, scale_dim)`` of data ``x`` ``(*batch, D)``."""
        ...

    def scale_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that describe the scale alone, which training may freeze by themselves; by default none."""
        return ()

    def standardize(self, data: Tensor) -> None:
        """Learn the units of the training ``data``, ``(n, D)``; by default nothing."""
        return


@runtime_checkable
class DecoderProtocol(Protocol):
    """A decoder: gives the likelihood of a code, and the immersion whose pullback is the metric.

    A decoder of your own is a subclass of ``nn.Module`` and of this class, or has all of its methods. It must have
    :meth:`__call__` (by ``forward``), :meth:`observation` and the two numbers; the other methods have defaults that
    suit any. Where the likelihood is one of :class:`Likelihood`, :class:`Decoder` has all of it.

    Attributes:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.

    Example:
        >>> class Laplace(nn.Module, DecoderProtocol):
        ...     data_dim, latent_dim = 6, 2
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.network = nn.Linear(2, 6)
        ...     def forward(self, z):
        ...         return self.network(z)
        ...     def observation(self, z, warm_up=False, exposure=None):
        ...         return dist.Laplace(self(z), 0.1).to_event(1)
        >>> from pyro_riemann.vae import VAE, Encoder, NormalPosterior, NormalPrior
        >>> vae = VAE(Encoder(6, 2), Laplace(), NormalPrior(2), NormalPosterior())
        >>> vae.model(torch.zeros(3, 6)).shape
        torch.Size([3, 2])
    """

    data_dim: int
    latent_dim: int

    def __call__(self, z: Tensor) -> object:
        """What :class:`~pyro_riemann.metrics.PullbackMetric` takes of codes ``z`` ``(*batch, d)``."""
        ...

    def observation(self, z: Tensor, warm_up: bool = False, exposure: Tensor | None = None) -> dist.TorchDistribution:
        """Likelihood p(x | z) with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: in phase 1 of the training, when the likelihood may be a simpler one.
            exposure: that of each datum, ``(*batch, 1)``, where :meth:`exposure` gives it.
        """
        ...

    def exposure(self, x: Tensor) -> Tensor | None:
        """What the likelihood takes as known of data ``x`` ``(*batch, D)``, ``(*batch, 1)``; None: nothing."""
        return None

    def check(self, name: str, x: Tensor) -> Tensor:
        """``x`` ``(*batch, D)``, the argument of that name, if the likelihood can give it; raises if not."""
        return x

    def standardize(self, data: Tensor) -> None:
        """Learn the units of the training ``data``, ``(n, D)``; by default nothing."""
        return

    def warm_up_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that only the warm-up has; by default none."""
        return ()

    def precision_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters of the spread of the likelihood that wait for phase 2; by default none."""
        return ()

    def start_warm_up(self, data: Tensor) -> None:
        """Set :meth:`warm_up_parameters` from the training ``data``, ``(n, D)``."""
        return

    def start_precision(self, codes: Tensor, data: Tensor, seed: int) -> None:
        """Set :meth:`precision_parameters`, at the start of phase 2.

        Args:
            codes: draws of the posteriors of ``data``, ``(n, d)``.
            data: training data, ``(n, D)``.
            seed: of what is drawn.
        """
        return

    def distance_immersion(self) -> Snapshot:
        """A frozen copy that gives the same distances; by default of the whole decoder."""
        return FrozenDecoder(self)


class Snapshot(nn.Module):
    """A frozen copy of a decoder, renewed from time to time."""

    def load_decoder(self, decoder: DecoderProtocol) -> None:
        """Copy the decoder's present weights."""
        raise NotImplementedError


class FrozenDecoder(Snapshot):
    """A decoder as it is now, without gradient.

    Args:
        decoder: a module.
    """

    def __init__(self, decoder: DecoderProtocol) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(_module(decoder)).requires_grad_(False)

    @torch.no_grad()
    def load_decoder(self, decoder: DecoderProtocol) -> None:
        self.decoder.load_state_dict(_module(decoder).state_dict())

    def forward(self, z: Tensor) -> object:
        """What the decoder gave at ``z`` ``(*batch, d)``."""
        return self.decoder(z)


def _module(decoder: object) -> nn.Module:
    if not isinstance(decoder, nn.Module):
        raise TypeError(f"`decoder` must be a torch.nn.Module, got {type(decoder).__name__}.")
    return decoder
