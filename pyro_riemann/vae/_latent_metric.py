"""Where the metric of the codes comes from: the decoder as it was or as it is, a table, or a metric of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite
from pyro_riemann.geodesics import GeodesicSolver, training_solver
from pyro_riemann.metrics import GridMetric, PullbackMetric, RiemannianMetric
from pyro_riemann.vae._interface import DecoderProtocol, Snapshot


class LatentMetric(nn.Module):
    """Where the metric of a VAE's codes comes from.

    A rule of your own is a subclass that implements :meth:`metric`; the two others do nothing by default.

    Example:
        >>> class MeanMetric(LatentMetric):
        ...     def metric(self, decoder):
        ...         return PullbackMetric(decoder.mean, decoder.latent_dim)
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> MeanMetric().metric(GaussianDecoder(2, 5, num_centers=3)).dim
        2
    """

    def metric(self, decoder: DecoderProtocol) -> RiemannianMetric:
        """The metric of the codes of this decoder.

        Args:
            decoder: the decoder of the VAE.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `metric(decoder)`.")

    def attach(self, decoder: DecoderProtocol, refreshed: bool = True) -> None:
        """Called once by the VAE.

        Args:
            decoder: its decoder.
            refreshed: whether its training asks for the metric and so calls :meth:`refresh`.

        Raises:
            ValueError: if the two do not fit together.
        """

    def refresh(self, decoder: DecoderProtocol, codes: Tensor | None = None, margin: float = 0.3) -> None:
        """Renew the metric from the decoder's present weights.

        Args:
            decoder: the decoder.
            codes: encoded training data ``(n, d)``: the box of a table is theirs, and its error that at these codes.
            margin: how far the box reaches beyond the codes, as a share of their extent on each side.

        Raises:
            ValueError: for codes that are not finite.
        """


class GivenMetric(LatentMetric):
    """A metric that does not come from the decoder.

    Args:
        given: the metric, with solver settings of its own.

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


class DecoderMetric(LatentMetric):
    """The pullback of the decoder: of a frozen copy, of a table of that, or of the decoder itself.

    Args:
        frozen: of a copy, renewed by :meth:`refresh`; that of a :class:`GaussianDecoder` has fewer outputs, by QR, and
            the same distances. Otherwise gradients reach the decoder's weights.
        resolution: tabulate the copy with so many points per axis on the box of the codes (d <= 3): no distance then
            asks for the decoder.
        solver: solver settings of distances while training; the default is cheap and deterministic.
        flow_steps: Runge-Kutta steps of a draw from a wrapped normal posterior, whose vectors are short; more are taken
            where they do not keep the speed.

    Raises:
        ValueError: for a table of a decoder that is not frozen; by :meth:`attach`, of more than three dimensions.

    Source: K20, section 4 and appendix C.

    Example:
        >>> from pyro_riemann.vae import GaussianDecoder
        >>> decoder, rule = GaussianDecoder(2, 5, num_centers=3), DecoderMetric(resolution=16)
        >>> rule.attach(decoder)
        >>> rule.metric(decoder).table.low
        tensor([-5., -5.])
    """

    box: Tensor
    _kept: RiemannianMetric | None
    _codes: Tensor | None

    def __init__(
        self,
        frozen: bool = True,
        resolution: int | None = None,
        solver: GeodesicSolver | None = None,
        flow_steps: int = 2,
    ) -> None:
        super().__init__()
        if resolution is not None and not frozen:
            raise ValueError("`resolution` asks for a table, which no gradient passes: it needs `frozen=True`.")
        self.frozen, self.resolution, self.solver, self.flow_steps = frozen, resolution, solver, flow_steps
        self.snapshot: Snapshot | None = None
        object.__setattr__(self, "_codes", None)
        self._forget()

    def attach(self, decoder: DecoderProtocol, refreshed: bool = True) -> None:
        dim = decoder.latent_dim
        if self.resolution is not None:
            if dim > 3:
                raise ValueError(f"a table (`metric='grid'`) needs d <= 3, got {dim}; use 'fixed'.")
            self.register_buffer("box", torch.tensor([[-5.0], [5.0]]).repeat(1, dim))
        self.snapshot = decoder.distance_immersion() if refreshed and self.frozen else None

    def metric(self, decoder: DecoderProtocol) -> RiemannianMetric:
        if self._kept is None:
            object.__setattr__(self, "_kept", metric := self._build(decoder))
            return metric
        return self._kept

    def _build(self, decoder: DecoderProtocol) -> RiemannianMetric:
        metric: RiemannianMetric = PullbackMetric(self.snapshot or decoder, decoder.latent_dim)
        remembered = ["cholesky", "logdet", "metric_and_force"] if self.frozen else []
        if self.resolution is not None:
            # judged at the codes, by `train` at its end: tables of its first epochs are of decoders that change
            metric = GridMetric(metric, self.box[0], self.box[1], self.resolution, points=self._codes, max_error=None)
            remembered = remembered[:2]
        metric.solver, metric.flow_steps = self.solver or training_solver(metric.dim), self.flow_steps
        for name in remembered:  # a step asks for each of them several times
            setattr(metric, name, LastCall(getattr(metric, name)))
        return metric

    def refresh(self, decoder: DecoderProtocol, codes: Tensor | None = None, margin: float = 0.3) -> None:
        if codes is not None and self.resolution is not None:
            check_finite("codes", codes)
            low, high = codes.detach().amin(0), codes.detach().amax(0)
            object.__setattr__(self, "_codes", codes.detach()[:: max(1, len(codes) // 512)].clone())
            self.box.copy_(torch.stack([low - margin * (high - low), high + margin * (high - low)]))
        if self.snapshot is not None:
            self.snapshot.load_decoder(decoder)
        self._forget()

    # kept outside nn.Module's registry: the metric shares its tensors with the snapshot or the decoder
    def _forget(self) -> None:
        object.__setattr__(self, "_kept", None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DecoderMetric:
        self._forget()  # a table would stay on the old device
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class LastCall:
    """A function of one tensor that remembers its last result.

    Prior and posterior ask for log det G at the same draw, and a draw of the posterior starts at its location, where
    log det G set its time: each costs d decoder evaluations a point.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function
        self.key: tuple[Any, ...] | None = None
        self.kept: tuple[Tensor, Any] | None = None
        self.with_grad = False

    def __call__(self, z: Tensor) -> Any:
        key, with_grad = self._key(z), torch.is_grad_enabled()
        if key is None:
            return self.function(z)
        # a result that gradients may flow through serves also where none are wanted
        if self.kept is None or self.key != key or (with_grad and not self.with_grad):
            # the argument is kept too: its memory cannot be given to another tensor meanwhile
            self.key, self.with_grad, self.kept = key, with_grad, (z, self.function(z))
        return self.kept[1]

    @staticmethod
    def _key(z: Tensor) -> tuple[Any, ...] | None:
        """What identifies the values of a tensor and the graph behind them; None inside a transform or trace."""
        if torch.jit.is_tracing() or z.is_inference():
            return None
        try:
            place = z.data_ptr()
        except RuntimeError:  # inside a function transform
            return None
        return (place, z.shape, z.stride(), z.dtype, z._version, z.requires_grad, id(z.grad_fn))
