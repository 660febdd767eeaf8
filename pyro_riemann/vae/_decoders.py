"""Decoders: a network with a likelihood, and the Gaussian decoder of K20 (appendix C)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_riemann import _jets
from pyro_riemann._checks import check_one_of
from pyro_riemann._jets import Jet
from pyro_riemann._rescale import Rescale
from pyro_riemann.vae._encoders import mlp
from pyro_riemann.vae._interface import DecoderProtocol, Snapshot
from pyro_riemann.vae._likelihoods import Likelihood
from pyro_riemann.vae._precision import RBFPrecision

OUTPUTS = ("linear", "sigmoid")


class Decoder(nn.Module, DecoderProtocol):
    """A network and the likelihood whose parameters it gives.

    Calling it gives p(x | z) as a distribution, of which :class:`~pyro_riemann.metrics.PullbackMetric` takes the
    Fisher-Rao metric. The network counts in units in which the outputs start at the marginal law of the data, see
    :meth:`standardize`.

    Args:
        network: maps codes ``(n, d)`` to ``(n, likelihood.num_outputs(data_dim))``.
        latent_dim: latent dimension d.
        data_dim: number D of data entries.
        likelihood: the law of the data given the outputs.

    Raises:
        ValueError: by methods, for a network with another number of outputs.

    Source: Kingma & Welling (2014), *Auto-encoding variational Bayes*, appendix C.

    Example:
        >>> from pyro_riemann.vae import PoissonLikelihood, mlp
        >>> decoder = Decoder(mlp([2, 16, 5]), latent_dim=2, data_dim=5, likelihood=PoissonLikelihood())
        >>> decoder.standardize(torch.full((10, 5), 3.0))
        >>> counts = decoder.observation(torch.zeros(4, 2)).sample()
        >>> counts.shape, bool((counts == counts.round()).all())
        (torch.Size([4, 5]), True)
    """

    def __init__(self, network: nn.Module, latent_dim: int, data_dim: int, likelihood: Likelihood) -> None:
        super().__init__()
        self.latent_dim, self.data_dim = latent_dim, data_dim
        self.network, self.likelihood = network, likelihood
        self.units = Rescale(likelihood.num_outputs(data_dim))

    def output(self, z: Tensor) -> Tensor:
        """What the likelihood takes, ``(*batch, num_outputs)``, at codes ``z`` ``(*batch, d)``."""
        inner = self.network(z.reshape(-1, self.latent_dim))
        if inner.shape[1:] != self.units.loc.shape:
            raise ValueError(
                f"`network` must give {len(self.units.loc)} outputs a code for this likelihood, got shape "
                f"{tuple(inner.shape[1:])}."
            )
        return self.units(inner).reshape(*z.shape[:-1], -1)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """The same as :meth:`observation`, at ``z`` ``(*batch, d)``."""
        return self.observation(z)

    def mean(self, z: Tensor) -> Tensor:
        """Mean of the data, ``(*batch, D)``, at ``z`` ``(*batch, d)``; of categories the most probable."""
        return self.likelihood.mean(self.output(z))

    def observation(self, z: Tensor, warm_up: bool = False, exposure: Tensor | None = None) -> dist.TorchDistribution:
        """Likelihood p(x | z) of codes with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: changes nothing here.
            exposure: that of each datum, ``(*batch, 1)``, where the likelihood has one.
        """
        return self.likelihood.distribution(self.output(z), exposure)

    def exposure(self, x: Tensor) -> Tensor | None:
        return self.likelihood.exposure(x)

    def check(self, name: str, x: Tensor) -> Tensor:
        return self.likelihood.check(name, x)

    def standardize(self, data: Tensor) -> None:
        """Start at the marginal law of the training ``data``, ``(n, D)``; the first call counts.

        Raises:
            ValueError: for data that the likelihood cannot give.
        """
        if not self.units.fitted:
            self.units.start(*self.likelihood.standardize(self.check("data", data)))


class GaussianDecoder(nn.Module, DecoderProtocol):
    r"""Gaussian decoder :math:`N(\mu(z), \mathrm{diag}\,\sigma^2(z))` and the immersion that it defines.

    Calling it gives (mean, standard deviation), the immersion of K20 eq. 2.4, ready for
    :class:`~pyro_riemann.metrics.PullbackMetric`. In the warm-up of the training the likelihood has one learned
    standard deviation for all entries instead. Mean and standard deviation are in the units of the data, whatever the
    units within, see :meth:`standardize`.

    Args:
        latent_dim: latent dimension d.
        data_dim: number D of data entries.
        hidden: widths of the hidden layers of the mean.
        num_centers: basis functions of the :class:`RBFPrecision`.
        floor: least precision, see :class:`RBFPrecision`.
        min_scale: least standard deviation, see :class:`RBFPrecision`.
        output: ``"linear"`` (K20) or, for data in [0, 1], ``"sigmoid"``: images of any code are then within the
            range of the data. Test ELBOs of the two were within 5 nats on digits, MNIST and Fashion-MNIST; distances
            cost more with a sigmoid: all D outputs instead of as many as hidden units.

    Raises:
        ValueError: as :func:`mlp` and :class:`RBFPrecision`, or for another output.

    Example:
        >>> from pyro_riemann import PullbackMetric
        >>> decoder = GaussianDecoder(latent_dim=2, data_dim=64, num_centers=10)
        >>> mean, std = decoder(torch.zeros(5, 2))
        >>> PullbackMetric(decoder, dim=2).metric(torch.zeros(5, 2)).shape
        torch.Size([5, 2, 2])
    """

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        hidden: Sequence[int] = (300, 300),
        num_centers: int = 350,
        floor: float = 1e-2,
        min_scale: float = 1e-2,
        output: str = "linear",
    ) -> None:
        super().__init__()
        self.latent_dim, self.data_dim, self.output = latent_dim, data_dim, check_one_of("output", output, OUTPUTS)
        ends = [Rescale(data_dim), nn.Sigmoid()][: 1 + (output == "sigmoid")]
        self.mean = nn.Sequential(*mlp([latent_dim, *hidden, data_dim]), *ends)
        self.std = RBFPrecision(latent_dim, data_dim, num_centers, floor, min_scale)
        self.log_warm_up_scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation at ``z`` ``(*batch, d)``, each ``(*batch, D)``."""
        return self.mean(z), self.std(z)

    def jet(self, z: Tensor) -> tuple[Jet, Jet]:
        """Both outputs at ``z`` ``(*batch, d)`` with their derivatives.

        :class:`~pyro_riemann.metrics.PullbackMetric` uses this where it finds it.
        """
        return _jets.sequential(self.mean, z, self.latent_dim), self.std.jet(z)

    def observation(self, z: Tensor, warm_up: bool = False, exposure: Tensor | None = None) -> dist.TorchDistribution:
        """Likelihood p(x | z) of codes with all its constants, event shape ``(D,)``.

        Args:
            z: codes ``(*batch, d)``.
            warm_up: with one learned standard deviation for all entries, as in phase 1 of the training.
            exposure: not used: Gaussian data have none, ``(*batch, 1)`` or None.
        """
        mean = self.mean(z)
        scale = self.log_warm_up_scale.exp().expand_as(mean) if warm_up else self.std(z)
        return dist.Normal(mean, scale).to_event(1)

    def standardize(self, data: Tensor) -> None:
        """Start at the mean image of training ``data`` ``(n, D)``, and let the network count in their deviations.

        The first call counts, see :meth:`Encoder.standardize`.

        Raises:
            ValueError: for data outside [0, 1] if the output is ``"sigmoid"``.
        """
        for layer in self.mean:
            if isinstance(layer, Rescale):
                (layer.fit_logits if self.output == "sigmoid" else layer.fit)(data)

    def warm_up_parameters(self) -> Iterable[nn.Parameter]:
        return (self.log_warm_up_scale,)

    def precision_parameters(self) -> Iterable[nn.Parameter]:
        return self.std.parameters()

    @torch.no_grad()
    def start_warm_up(self, data: Tensor) -> None:
        """Start the standard deviation of the warm-up at that of the training ``data``, ``(n, D)``.

        From 1 it would take Adam thousands of steps to the data's; until then the KL term, too strong in
        comparison, collapses the posterior onto the prior.
        """
        variance = float((data - data.mean(0)).square().mean())
        self.log_warm_up_scale.fill_(0.5 * math.log(max(variance, 1e-12)))

    @torch.no_grad()
    def start_precision(self, codes: Tensor, data: Tensor, seed: int) -> None:
        """Place the centres by k-means, and start at the precision of each cluster, see :meth:`RBFPrecision.fit`.

        Args:
            codes: draws of the posteriors of ``data``, ``(n, d)``.
            data: training data, ``(n, D)``.
            seed: of k-means.

        Raises:
            ValueError: if there are fewer distinct codes than centres.
        """
        pairs = zip(data.split(2000), codes.split(2000), strict=True)
        residuals = torch.cat([(x - self.mean(z)).square() for x, z in pairs])
        self.std.fit(codes, residuals, seed=seed)

    def distance_immersion(self) -> DistanceImmersion:
        """An immersion with the same metric and chords and fewer outputs; shares no weights."""
        return DistanceImmersion(self)


class DistanceImmersion(Snapshot):
    """A frozen decoder in fewer outputs, exactly isometric to the original.

    The mean's last layer ``W h + b`` with ``W = Q R`` (Q with orthonormal columns) spans the same distances as
    ``R h``: chord lengths and pullback metric are those of the full mean, at as many outputs as hidden units. The
    standard deviation is not linear in anything and stays as it is, and so does a mean that ends in a sigmoid.
    Its weights are copies without gradient, a snapshot of the decoder.

    Args:
        decoder: the decoder.

    Raises:
        ValueError: as :class:`RBFPrecision`.

    Source: Golub & Van Loan (2013), *Matrix Computations*, chapter 5, for the QR decomposition.

    Example:
        >>> decoder = GaussianDecoder(latent_dim=2, data_dim=500, hidden=(20, 20), num_centers=10)
        >>> reduced, _ = decoder.distance_immersion()(torch.randn(2, 2))
        >>> reduced.shape
        torch.Size([2, 20])
    """

    def __init__(self, decoder: GaussianDecoder) -> None:
        super().__init__()
        self.latent_dim = decoder.latent_dim
        self.mean = self._reduced(decoder)
        self.std = RBFPrecision(
            decoder.latent_dim, decoder.data_dim, len(decoder.std.centers), decoder.std.floor, decoder.std.min_scale
        )
        self.to(next(decoder.parameters()))
        self.load_decoder(decoder)
        self.requires_grad_(False)

    @staticmethod
    @torch.no_grad()
    def _reduced(decoder: GaussianDecoder) -> nn.Sequential:
        """A copy of the mean, its linear output in the fewest entries that have the same distances."""
        copied = copy.deepcopy(decoder.mean)
        *inner, last = copied
        scale = 1.0
        if isinstance(last, Rescale):
            scale, last = float(last.scale), inner.pop()
        if not isinstance(last, nn.Linear):
            return copied
        reduced = torch.linalg.qr(scale * last.weight, mode="r").R
        output = nn.utils.skip_init(nn.Linear, last.in_features, len(reduced)).to(last.weight)  # draws no numbers
        output.weight.copy_(reduced)
        output.bias.zero_()
        return nn.Sequential(*inner, output)

    @torch.no_grad()
    def load_decoder(self, decoder: DecoderProtocol) -> None:
        """Copy the decoder's present weights into this snapshot.

        Raises:
            TypeError: for a decoder that is no :class:`GaussianDecoder`.
        """
        if not isinstance(decoder, GaussianDecoder):
            raise TypeError(f"`decoder` must be a GaussianDecoder, got {type(decoder).__name__}.")
        self.mean.load_state_dict(self._reduced(decoder).state_dict())
        self.std.load_state_dict(decoder.std.state_dict())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Reduced mean ``(*batch, rows)`` and standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``."""
        return self.mean(z), self.std(z)

    def jet(self, z: Tensor) -> tuple[Jet, Jet]:
        """Both outputs at ``z`` ``(*batch, d)`` with their derivatives."""
        return _jets.sequential(self.mean, z, self.latent_dim), self.std.jet(z)
