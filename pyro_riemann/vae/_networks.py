"""Encoder, decoder mean and precision network of the Riemannian VAE (Kalatzis et al. 2020, appendix C)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_riemann import _jets
from pyro_riemann._checks import check_finite, check_one_of
from pyro_riemann._jets import Jet
from pyro_riemann._rescale import Rescale

OUTPUTS = ("linear", "sigmoid")


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ELU) -> nn.Sequential:
    """Fully connected network with a linear output: ``(*batch, sizes[0]) -> (*batch, sizes[-1])``.

    Weights and biases start as torch's own. From larger ones, such as He's, an encoder learns a rougher map, and a VAE
    generalises worse.

    Args:
        sizes: widths of input, hidden layers and output.
        activation: class of the activations between them.

    Raises:
        ValueError: for fewer than two sizes, or one below 1.

    Source: Goodfellow, Bengio & Courville (2016), *Deep Learning*, chapter 6.

    Example:
        >>> mlp([4, 8, 2])(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """
    if len(sizes) < 2 or any(size < 1 for size in sizes):
        raise ValueError(f"`sizes` must hold at least two positive layer widths, got {list(sizes)}.")
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def last_layer(network: nn.Sequential) -> nn.Linear:
    """The linear output of :func:`mlp`."""
    layer = network[-1]
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"the network must end in a linear layer, got {type(layer).__name__}.")
    return layer


def standardize(module: nn.Module, data: Tensor) -> None:
    """Let an encoder or decoder learn the units of the training data ``(n, D)``, once; others are left alone."""
    learn = getattr(module, "standardize", None)
    if learn is not None:
        learn(data)


class Encoder(nn.Module):
    """Location and scale of the approximate posterior, each an MLP of its own (K20, table 4).

    The networks see data in their own units, see :meth:`standardize`.

    Args:
        data_dim: number D of data entries.
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        scale_dim: entries of the scale: d for a diagonal Gaussian, 1 for the isotropic
            families (wrapped normal and heat kernel), whose only spread is their time.
        min_scale: floor of the scale, which keeps the density finite.

    Raises:
        ValueError: for widths below 1, or ``scale_dim`` neither 1 nor d.

    Example:
        >>> encoder = Encoder(data_dim=64, latent_dim=2)
        >>> loc, scale = encoder(torch.zeros(5, 64))
        >>> loc.shape, bool((scale > 0).all())
        (torch.Size([5, 2]), True)
    """

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (300, 300),
        scale_dim: int | None = None,
        min_scale: float = 1e-4,
    ) -> None:
        super().__init__()
        self.data_dim, self.latent_dim, self.min_scale = data_dim, latent_dim, min_scale
        self.scale_dim = latent_dim if scale_dim is None else scale_dim
        if self.scale_dim not in (1, latent_dim):
            raise ValueError(f"`scale_dim` must be 1 or the latent dimension {latent_dim}, got {scale_dim}.")
        self.units = Rescale(data_dim)
        self.loc = mlp([data_dim, *hidden, latent_dim])
        self.spread = mlp([data_dim, *hidden, self.scale_dim])
        nn.init.constant_(
            last_layer(self.spread).bias, math.log(math.expm1(0.1))
        )  # start at scale 0.1: codes stay apart

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location ``(*batch, d)`` and positive scale ``(*batch, scale_dim)`` of data ``x`` ``(*batch, D)``."""
        inner = self.units.inverse(x)
        return self.loc(inner), functional.softplus(self.spread(inner)) + self.min_scale

    def standardize(self, data: Tensor) -> None:
        """Subtract the mean of training ``data`` ``(n, D)`` from now on, and divide by their one standard deviation.

        The first call counts: later training does not change what the weights mean.
        """
        self.units.fit(data)


class RBFPrecision(nn.Module):
    r"""Precision of the decoder by radial basis functions, small away from the data.

    .. math:: \beta(z) = W \exp\bigl(-|z - c_k|^2 / (2 h_k^2)\bigr) + \zeta, \qquad W > 0,

    so that the standard deviation :math:`\sigma = \beta^{-1/2}` rises to :math:`\zeta^{-1/2}` where
    there are no codes: the walls of the metric (K20, section 4 and figure 3; the form of the
    network is that of Que & Belkin, 2016, and Arvanitidis et al., 2018).

    K20 sets a "bandwidth of 0.01 in all cases" and does not say of what. A length of 0.01 leaves
    350 isolated spikes among codes that spread over units; read as the factor of the squared distance,
    :math:`\exp(-0.01 |z - c|^2)`, it is a length of 7. Neither knows the scale of the codes, so
    :meth:`fit` chooses :math:`h_k` from the data: ``bandwidth_factor`` times the mean distance of the
    codes of cluster k to their centre. ``bandwidth=`` of :meth:`fit` sets a length of your own
    (``0.5 ** 0.5 / 0.1`` for K20's number as a factor).

    Args:
        latent_dim: latent dimension d.
        data_dim: number D of data entries.
        num_centers: number of basis functions; K20 uses 350.
        floor: the :math:`\zeta` above. The default lets the standard deviation rise to 10.
        min_scale: least standard deviation, added in quadrature. Without it the likelihood of a
            constant pixel is unbounded.

    Raises:
        ValueError: if ``num_centers`` is less than 1, ``floor`` is not positive, or ``min_scale`` is out of range.

    Example:
        >>> precision = RBFPrecision(latent_dim=2, data_dim=3, num_centers=4)
        >>> precision.fit(torch.randn(100, 2))
        >>> far = precision.scale(torch.full((2,), 1e3))
        >>> far.detach().round(decimals=2)
        tensor([10., 10., 10.])
    """

    centers: Tensor
    bandwidth: Tensor

    def __init__(
        self,
        latent_dim: int,
        data_dim: int,
        num_centers: int = 350,
        floor: float = 1e-2,
        min_scale: float = 1e-2,
    ) -> None:
        super().__init__()
        if num_centers < 1:
            raise ValueError(f"`num_centers` must be at least 1, got {num_centers}.")
        if not floor > 0:
            raise ValueError(f"`floor` must be positive (a zero precision has no standard deviation), got {floor}.")
        if not 0 <= min_scale < floor**-0.5:
            raise ValueError(f"`min_scale` must lie in [0, floor ** -0.5 = {floor**-0.5:.3g}), got {min_scale}.")
        self.latent_dim, self.data_dim, self.floor, self.min_scale = latent_dim, data_dim, floor, min_scale
        self.register_buffer("centers", torch.linspace(-1, 1, num_centers)[:, None].repeat(1, latent_dim))
        self.register_buffer("bandwidth", torch.ones(num_centers))
        # log weights: one optimiser step is the same relative change for a precision of 1 and of 1000
        self.log_weight = nn.Parameter(torch.zeros(data_dim, num_centers))

    def precision(self, z: Tensor) -> Tensor:
        """Precision beta(z) before the least standard deviation: ``(*batch, d) -> (*batch, D)``."""
        rate = 0.5 / self.bandwidth.square()
        # expanded square: no array of n * k * d entries
        exponent = z.square().sum(-1, keepdim=True) * rate - 2 * functional.linear(z, self.centers * rate[:, None])
        basis = _bump(exponent + self.centers.square().sum(-1) * rate)
        return functional.linear(basis, self.log_weight.exp()) + self.floor

    def scale(self, z: Tensor) -> Tensor:
        """Standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``, between ``min_scale`` and ``floor ** -0.5``."""
        if self.min_scale == 0:
            return self.precision(z).rsqrt()
        return (self.precision(z).reciprocal() + self.min_scale**2).sqrt()

    def jet(self, z: Tensor) -> Jet:
        """Standard deviation at ``z`` ``(*batch, d)`` with its derivatives, for fast pullback metrics."""
        rate = 0.5 / self.bandwidth.square()
        offsets = [self.centers[:, axis] - z[..., axis, None] for axis in range(self.latent_dim)]
        exponent = rate * torch.stack([offset.square() for offset in offsets]).sum(0)
        basis = _bump(exponent)
        tangents = torch.stack([2 * rate * offset * basis for offset in offsets])
        spread = [2 * rate * offset for offset in offsets]

        def bend(v: Tensor) -> Tensor:
            slope = spread[0] * v[..., :1]
            for axis in range(1, self.latent_dim):
                slope = torch.addcmul(slope, spread[axis], v[..., axis : axis + 1])
            return basis * (slope.square() - 2 * rate * v.square().sum(-1, keepdim=True))

        precision = Jet(basis, tangents, bend).linear(self.log_weight.exp())
        inverse = (precision.value + self.floor).reciprocal()
        variance = inverse + self.min_scale**2
        root = variance.rsqrt()
        first = -0.5 * inverse.square() * root
        return precision.elementwise(
            lambda: variance * root, first, lambda: torch.add(first * root, inverse, alpha=2).neg(), relative=True
        )

    def forward(self, z: Tensor) -> Tensor:
        """The same as :meth:`scale`, ``(*batch, D)`` at ``z``."""
        return self.scale(z)

    @torch.no_grad()
    def fit(
        self,
        codes: Tensor,
        residuals: Tensor | None = None,
        bandwidth: float | None = None,
        bandwidth_factor: float = 1.5,
        seed: int = 0,
        max_codes: int = 20_000,
    ) -> None:
        """Place the centres by k-means on encoded training data and set bandwidths and weights.

        Args:
            codes: encoded training data, ``(n, d)``.
            residuals: squared residuals of the decoder mean at the codes, ``(n, D)``. Given these, the
                weights start at the inverse mean residual of each cluster; else they stay.
            bandwidth: one length for all centres, instead of the rule above.
            bandwidth_factor: multiple of the clusters' mean radius.
            seed: seed of k-means.
            max_codes: k-means sees at most this many codes (evenly spaced rows).

        Raises:
            ValueError: if there are fewer distinct codes than centres, or codes of the wrong shape.
        """
        from sklearn.cluster import KMeans

        if codes.dim() != 2 or codes.shape[-1] != self.latent_dim:
            raise ValueError(f"`codes` must have shape (n, {self.latent_dim}), got {tuple(codes.shape)}.")
        check_finite("codes", codes)
        if bandwidth is not None and not bandwidth > 0:
            raise ValueError(f"`bandwidth` must be positive, got {bandwidth}.")
        num_centers = len(self.centers)
        every = max(1, len(codes) // max_codes)
        sample = codes[::every]
        if len(torch.unique(sample, dim=0)) < num_centers:
            raise ValueError(
                f"{num_centers} centres need as many distinct codes, got {len(torch.unique(sample, dim=0))}: "
                "lower `num_centers` or encode more data."
            )
        means = KMeans(num_centers, n_init=1, random_state=seed).fit(sample.cpu().double().numpy())
        self.centers.copy_(torch.from_numpy(means.cluster_centers_))
        distance, nearest = torch.cdist(codes.to(self.centers), self.centers).min(-1)
        counts = torch.zeros_like(self.bandwidth).index_add_(0, nearest, torch.ones_like(distance))
        radius = torch.zeros_like(self.bandwidth).index_add_(0, nearest, distance) / counts.clamp(min=1)
        # a cluster of one code has radius 0: a spike, not a bump
        radius = radius.clamp(min=float(radius[radius > 0].median()) * 0.5)
        self.bandwidth.copy_(torch.full_like(radius, bandwidth) if bandwidth is not None else bandwidth_factor * radius)
        if residuals is not None:
            self._fit_weights(codes.to(self.centers), residuals.to(self.centers), nearest)

    def _fit_weights(self, codes: Tensor, residuals: Tensor, nearest: Tensor) -> None:
        """Weights for which the precision at a centre is the inverse mean residual of its cluster."""
        if residuals.shape != (len(codes), self.data_dim):
            raise ValueError(
                f"`residuals` must have shape {(len(codes), self.data_dim)}, got {tuple(residuals.shape)}."
            )
        total = torch.zeros_like(self.log_weight.mT).index_add_(0, nearest, residuals)
        counts = torch.zeros_like(self.bandwidth).index_add_(0, nearest, torch.ones_like(residuals[:, 0]))
        overall = residuals.mean(0)
        variance = (total + 5 * overall) / (counts[:, None] + 5)  # shrunk: a small cluster knows little
        target = 1 / (variance + max(self.min_scale, 1e-3) ** 2)
        # basis functions overlap: divide by their sum at each centre, so that they add up to the target
        overlap = torch.exp(-0.5 * (torch.cdist(self.centers, self.centers) / self.bandwidth).square()).sum(-1)
        self.log_weight.copy_((target / overlap[:, None]).clamp(min=1e-6).log().mT)


def _bump(exponent: Tensor) -> Tensor:
    """``exp(-exponent)``, cut off where single precision has subnormal numbers, which slow matrix products tenfold."""
    return torch.exp(-exponent.clamp(max=80))


class GaussianDecoder(nn.Module):
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

    def observation(self, z: Tensor, warm_up: bool = False) -> dist.TorchDistribution:
        """Likelihood p(x | z) of ``z`` ``(*batch, d)`` with all its constants, event shape ``(D,)``.

        In the ``warm_up`` it has one learned standard deviation for all entries.
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

    def distance_immersion(self) -> DistanceImmersion:
        """An immersion with the same metric and chords and fewer outputs; shares no weights."""
        return DistanceImmersion(self)


class DistanceImmersion(nn.Module):
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
    def load_decoder(self, decoder: GaussianDecoder) -> None:
        """Copy the decoder's present weights into this snapshot."""
        self.mean.load_state_dict(self._reduced(decoder).state_dict())
        self.std.load_state_dict(decoder.std.state_dict())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Reduced mean ``(*batch, rows)`` and standard deviation ``(*batch, D)`` at ``z`` ``(*batch, d)``."""
        return self.mean(z), self.std(z)

    def jet(self, z: Tensor) -> tuple[Jet, Jet]:
        """Both outputs at ``z`` ``(*batch, d)`` with their derivatives."""
        return _jets.sequential(self.mean, z, self.latent_dim), self.std.jet(z)
