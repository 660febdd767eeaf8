"""Where the metric of the codes comes from: the decoder as it was or as it is, a table, or a metric of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.vae._interface import DecoderProtocol, Snapshot
from pyro_riemann.vae._shortcuts import LastCall


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


class LatentMetric(nn.Module):
    """Makes the metric of a VAE from its decoder, and keeps it until its weights change.

    A rule of your own is a subclass that implements :meth:`build`.

    Args:
        solver: solver settings of distances while training; the default is cheap and deterministic.
        flow_steps: Runge-Kutta steps of a draw from a wrapped normal posterior, whose vectors are short; more are taken
            where they do not keep the speed.

    Example:
        >>> class MeanMetric(LatentMetric):
        ...     def build(self, decoder):
        ...         return PullbackMetric(decoder.mean, decoder.latent_dim)
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> MeanMetric().metric(GaussianDecoder(2, 5, num_centers=3)).dim
        2
    """

    _kept: RiemannianMetric | None

    def __init__(self, solver: GeodesicSolver | None = None, flow_steps: int = 2) -> None:
        super().__init__()
        self.solver, self.flow_steps = solver, flow_steps
        self._forget()

    def build(self, decoder: DecoderProtocol) -> RiemannianMetric:
        """The metric of the decoder's codes, with its present weights."""
        raise NotImplementedError(f"{type(self).__name__} must implement `build(decoder)`.")

    def attach(self, decoder: DecoderProtocol, refreshed: bool = True) -> None:
        """Called once by the VAE.

        Args:
            decoder: its decoder.
            refreshed: whether its training asks for the metric and so calls :meth:`refresh`.

        Raises:
            ValueError: if the two do not fit together.
        """

    def metric(self, decoder: DecoderProtocol) -> RiemannianMetric:
        """The metric, made when it is first asked for.

        Args:
            decoder: the decoder of the VAE.
        """
        if self._kept is None:
            metric = self.build(decoder)
            metric.solver, metric.flow_steps = self.solver or training_solver(metric.dim), self.flow_steps
            object.__setattr__(self, "_kept", metric)
            return metric
        return self._kept

    def refresh(self, decoder: DecoderProtocol, codes: Tensor | None = None, margin: float = 0.3) -> None:
        """Renew the metric from the decoder's present weights.

        Args:
            decoder: the decoder.
            codes: encoded training data, ``(n, d)``.
            margin: how far beyond the codes a table reaches, as a share of their extent on each side.
        """
        self._forget()

    # kept outside nn.Module's registry: the metric shares its tensors with the snapshot or the decoder
    def _forget(self) -> None:
        object.__setattr__(self, "_kept", None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LatentMetric:
        self._forget()  # a table would stay on the old device
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class DecoderMetric(LatentMetric):
    """The pullback of the decoder itself, with gradients into its weights.

    Args:
        solver: see :class:`LatentMetric`.
        flow_steps: see :class:`LatentMetric`.

    Source: K20, section 2.2.

    Example:
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> metric = DecoderMetric().metric(GaussianDecoder(2, 5, num_centers=3))
        >>> metric.logdet(torch.zeros(2)).requires_grad
        True
    """

    def build(self, decoder: DecoderProtocol) -> RiemannianMetric:
        return PullbackMetric(decoder, decoder.latent_dim)


class SnapshotMetric(LatentMetric):
    """The pullback of a frozen copy of the decoder, renewed by :meth:`refresh`.

    The copy of a :class:`GaussianDecoder` has fewer outputs, by QR, and the same distances.

    Args:
        solver: see :class:`LatentMetric`.
        flow_steps: see :class:`LatentMetric`.

    Source: K20, section 4 and appendix C.

    Example:
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> metric = SnapshotMetric().metric(GaussianDecoder(2, 5, num_centers=3).requires_grad_(False))
        >>> metric.logdet(torch.zeros(2)).requires_grad
        False
    """

    def __init__(self, solver: GeodesicSolver | None = None, flow_steps: int = 2) -> None:
        super().__init__(solver, flow_steps)
        self.snapshot: Snapshot | None = None

    def attach(self, decoder: DecoderProtocol, refreshed: bool = True) -> None:
        self.snapshot = decoder.distance_immersion() if refreshed else None

    def build(self, decoder: DecoderProtocol) -> RiemannianMetric:
        metric = PullbackMetric(self.snapshot or decoder, decoder.latent_dim)
        _remember(metric, "cholesky", "logdet", "metric_and_force")
        return metric

    def refresh(self, decoder: DecoderProtocol, codes: Tensor | None = None, margin: float = 0.3) -> None:
        if self.snapshot is not None:
            self.snapshot.load_decoder(decoder)
        super().refresh(decoder, codes, margin)


class TabulatedMetric(SnapshotMetric):
    """The same, tabulated on the box of the codes (d <= 3): no distance asks for the decoder.

    Args:
        resolution: points per axis of the table.
        solver: see :class:`LatentMetric`.
        flow_steps: see :class:`LatentMetric`.

    Raises:
        ValueError: by :meth:`attach`, for more than three dimensions.

    Source: Keys (1981), *Cubic convolution interpolation for digital image processing*.

    Example:
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> decoder = GaussianDecoder(2, 5, num_centers=3)
        >>> rule = TabulatedMetric(resolution=16)
        >>> rule.attach(decoder)
        >>> rule.metric(decoder).table.low
        tensor([-5., -5.])
    """

    box: Tensor
    _codes: Tensor | None

    def __init__(self, resolution: int = 64, solver: GeodesicSolver | None = None, flow_steps: int = 2) -> None:
        super().__init__(solver, flow_steps)
        self.resolution = resolution
        self.register_buffer("box", torch.empty(2, 0))
        object.__setattr__(self, "_codes", None)

    def attach(self, decoder: DecoderProtocol, refreshed: bool = True) -> None:
        if decoder.latent_dim > 3:
            raise ValueError(f"a table needs d <= 3, got {decoder.latent_dim}; use `metric='fixed'`, a SnapshotMetric.")
        self.box = torch.tensor([[-5.0], [5.0]]).repeat(1, decoder.latent_dim)
        super().attach(decoder, refreshed)

    def build(self, decoder: DecoderProtocol) -> RiemannianMetric:
        pullback = PullbackMetric(self.snapshot or decoder, decoder.latent_dim)
        # judged at the codes, by `train` at its end: tables of its first epochs are of decoders that change
        metric = GridMetric(pullback, self.box[0], self.box[1], self.resolution, points=self._codes, max_error=None)
        _remember(metric, "cholesky", "logdet")
        return metric

    def refresh(self, decoder: DecoderProtocol, codes: Tensor | None = None, margin: float = 0.3) -> None:
        """Renew the table.

        Args:
            decoder: the decoder.
            codes: encoded training data ``(n, d)``: the box of the table is theirs, and its error that at these codes.
            margin: how far the box reaches beyond the codes, as a share of their extent on each side.

        Raises:
            ValueError: for codes that are not finite.
        """
        if codes is not None:
            check_finite("codes", codes)
            low, high = codes.detach().amin(0), codes.detach().amax(0)
            object.__setattr__(self, "_codes", codes.detach()[:: max(1, len(codes) // 512)].clone())
            self.box.copy_(torch.stack([low - margin * (high - low), high + margin * (high - low)]))
        super().refresh(decoder, codes, margin)


class GivenMetric(LatentMetric):
    """A metric that does not come from the decoder.

    Args:
        given: the metric, with solver settings of its own.

    Raises:
        ValueError: by :meth:`attach`, for another latent dimension.

    Source: C22, section 4, whose metric is one of the encoder's posteriors.

    Example:
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> GivenMetric(EuclideanMetric(2)).metric(GaussianDecoder(2, 5, num_centers=3))
        EuclideanMetric()
    """

    def __init__(self, given: RiemannianMetric) -> None:
        super().__init__()
        self.given = given

    def attach(self, decoder: DecoderProtocol, refreshed: bool = True) -> None:
        if self.given.dim != decoder.latent_dim:
            raise ValueError(f"`metric` has dimension {self.given.dim}, the latent space {decoder.latent_dim}.")

    def metric(self, decoder: DecoderProtocol) -> RiemannianMetric:
        return self.given


def _remember(metric: RiemannianMetric, *names: str) -> None:
    """Let the metric of frozen weights remember its last results: a step asks for each of them several times."""
    for name in names:
        setattr(metric, name, LastCall(getattr(metric, name)))
