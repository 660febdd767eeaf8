"""The pullback of the Euclidean metric through an immersion, such as a decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from pyro_riemann import _autodiff, _jets, _linalg
from pyro_riemann._checks import check_point
from pyro_riemann._interface import Discretisation, Energy
from pyro_riemann._jets import Jet
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.geodesics._energy import ChordEnergy
from pyro_riemann.metrics._base import RiemannianMetric

Immersion = Callable[[Tensor], Tensor | tuple[Tensor, ...]]


class PullbackMetric(RiemannianMetric):
    r"""Pullback metric :math:`G(z) = \sum_f J_f(z)^\top J_f(z) + \epsilon I` of an immersion f.

    With the tuple (mean, standard deviation) of a Gaussian decoder this is the expected
    metric of the random surface that the decoder defines (Kalatzis et al. 2020, eq. 2.5).
    Jacobians are taken by forward mode over the d latent axes. The jitter appends
    :math:`\sqrt\epsilon\, z` to the outputs, so that the regularised metric is still a pullback and
    an immersion whose Jacobian drops rank somewhere stays usable.

    Args:
        immersion: maps ``(*batch, dim)`` to one tensor ``(*batch, *out)`` or a tuple of such.
            Networks with batch normalisation or dropout must be in evaluation mode.
        dim: latent dimension d.
        jitter: the :math:`\epsilon` above.

    Raises:
        ValueError: if the outputs have the wrong batch shape, fewer entries than ``dim``, are not
            finite, or do not depend on z.

    Example:
        >>> sphere = PullbackMetric(lambda z: torch.stack([z[..., 0].sin() * z[..., 1].cos(),
        ...     z[..., 0].sin() * z[..., 1].sin(), z[..., 0].cos()], -1), dim=2)
        >>> sphere.metric(torch.tensor([torch.pi / 2, 0.0])).round(decimals=4).abs()
        tensor([[1., 0.],
                [0., 1.]])
    """

    def __init__(self, immersion: Immersion, dim: int, jitter: float = 1e-6) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        if not jitter >= 0:
            raise ValueError(f"`jitter` must be non-negative, got {jitter}.")
        self.dim, self.jitter, self.immersion = dim, jitter, immersion
        self.has_jets = _jets.is_sequential(immersion) or callable(getattr(immersion, "jet", None))
        if self._probe() > 1:  # the walls of a standard deviation need a finer curve
            self.solver = GeodesicSolver(num_knots=16, num_segments=64)

    def _probe_outputs(self) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Two points and their images, in the immersion's own dtype and device, if these can be told."""
        points = torch.linspace(-0.5, 0.7, 2 * self.dim, dtype=torch.float64, device="cpu").reshape(2, self.dim)
        parameters = self.immersion.parameters() if isinstance(self.immersion, nn.Module) else iter(())
        if (like := next(parameters, None)) is not None:
            return points.to(like), self._outputs(points.to(like))
        for dtype in (torch.get_default_dtype(), torch.float64):
            try:
                return points.to(dtype), self._outputs(points.to(dtype))
            except RuntimeError:  # a closure over tensors of another dtype or device: its first use will tell
                continue
        return None

    @torch.no_grad()
    def _probe(self) -> int:
        """Number of the immersion's outputs, after refusing one that cannot define a metric."""
        probed = self._probe_outputs()
        if probed is None:
            return 1
        points, outputs = probed
        if any(value.shape[:1] != (2,) for value in outputs):
            shapes = [tuple(value.shape) for value in outputs]
            raise ValueError(f"`immersion` must keep the batch shape: an input {tuple(points.shape)} gave {shapes}.")
        size = sum(value[0].numel() for value in outputs)
        if size < self.dim:
            raise ValueError(
                f"`immersion` has {size} outputs for a latent dimension of {self.dim}: its Jacobian is singular "
                "everywhere. Use a latent dimension of at most the number of outputs."
            )
        if not all(bool(torch.isfinite(value).all()) for value in outputs):
            raise ValueError("`immersion` returns NaN or infinite values near the origin.")
        if all(torch.equal(value[0], value[1]) for value in outputs):
            raise ValueError("`immersion` does not depend on z: it gave the same output at two points.")
        if (jets := self.jets(points)) is not None:
            if not torch.allclose(torch.cat([jet.value for jet in jets], -1), self.embed(points), atol=1e-4):
                raise ValueError("`immersion.jet(z)` has other values than `immersion(z)`.")
        return len(outputs)

    def _outputs(self, z: Tensor) -> tuple[Tensor, ...]:
        outputs = self.immersion(z)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def immersed(self) -> Self:
        """This metric."""
        return self

    def energy(self, settings: Discretisation, guide: Tensor | None = None) -> Energy:
        """The discrete energy that the solver minimises, by chords between the images, without a Jacobian.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)

    def embed(self, z: Tensor) -> Tensor:
        """The immersed points, all outputs side by side: z ``(*batch, d)`` gives ``(*batch, D)``."""
        check_point("z", z, self.dim)
        flat = [value.flatten(z.dim() - 1) for value in self._outputs(z)]
        if self.jitter > 0:
            flat.append(self.jitter**0.5 * z)
        return torch.cat(flat, dim=-1)

    def embed_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Immersed points ``(*batch, D)`` and their Jacobian ``(*batch, D, d)`` at ``z``."""
        jets = self.jets(z)
        if jets is None:
            return _autodiff.jacobian(self.embed, check_point("z", z, self.dim), self.dim)
        return torch.cat([jet.value for jet in jets], -1), torch.cat([jet.jacobian() for jet in jets], -2)

    def jets(self, z: Tensor) -> tuple[Jet, ...] | None:
        """Taylor propagation through the immersion at ``z``, ``(*batch, d)``, where it is on offer.

        Faster than forward mode; for an immersion with a method ``jet`` and for a plain ``nn.Sequential`` of linear
        layers and elementwise activations. None otherwise.
        """
        if not self.has_jets:
            return None
        check_point("z", z, self.dim)
        if isinstance(self.immersion, nn.Sequential):
            jets: tuple[Jet, ...] = (_jets.sequential(self.immersion, z, self.dim),)
        else:
            jets = self.immersion.jet(z)  # type: ignore[attr-defined]  # tested by has_jets
        return (*jets, _jets.variable(z, self.dim).scaled(self.jitter**0.5)) if self.jitter > 0 else jets

    def metric(self, z: Tensor) -> Tensor:
        return self.metric_and_force(z)[0]

    def metric_and_force(self, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""``G(z)``, ``(*batch, d, d)``, and the function :math:`v \mapsto J^\top D^2 f[v, v] = G\,\Gamma(v, v)`.

        One evaluation at ``z`` serves both; the direction ``(*batch, d)`` may depend on G.
        """
        jets = self.jets(z)
        if jets is not None:
            return _jets.metric_and_force(jets, z)
        _, jacobian = self.embed_jacobian(z)

        def force(v: Tensor) -> Tensor:
            acceleration = _autodiff.second_directional(self.embed, z, v)[2]
            return torch.einsum("...ai,...a->...i", jacobian, acceleration)

        return jacobian.mT @ jacobian, force

    def on_floor(self, z: Tensor) -> Tensor | None:
        """Where G is hardly more than the jitter: more than half of its eigenvalues are below ten of it.

        Shape ``(*batch)``; None without jitter. A few latent directions that an immersion does not use are no floor.

        Args:
            z: points, ``(*batch, d)``.
        """
        if self.jitter == 0:
            return None
        jacobian = self.embed_jacobian(z)[1].detach()
        # the square of a Jacobian in float32 has lost what a jitter of 1e-6 is compared with
        wide = jacobian if jacobian.device.type == "mps" else jacobian.double()
        return (torch.linalg.eigvalsh(wide.mT @ wide) < 10 * self.jitter).sum(-1) > self.dim / 2

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        metric, force = self.metric_and_force(z)
        return _linalg.solve(metric, force(v))
