"""The pullback of the Euclidean metric through an immersion, such as a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from pyro_riemann import _autodiff, _jets, _linalg
from pyro_riemann._checks import check_point
from pyro_riemann._formulas.quasi_newton import MANY
from pyro_riemann._interface import Discretisation, Energy
from pyro_riemann._jets import Jet
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.geodesics._energy import ChordEnergy
from pyro_riemann.metrics import _door, _modules
from pyro_riemann.metrics._ambient import AmbientEnergy
from pyro_riemann.metrics._base import RiemannianMetric
from pyro_riemann.metrics._from_vae import decoding
from pyro_riemann.metrics._probed import Images, Immersion, ProbedImmersion


class PullbackMetric(ProbedImmersion):
    r"""Pullback metric :math:`G(z) = \sum_f J_f(z)^\top J_f(z) + \epsilon I` of an immersion f.

    With the tuple (mean, standard deviation) of a Gaussian decoder this is the expected
    metric of the random surface that the decoder defines (Kalatzis et al. 2020, eq. 2.5). With a distribution it is the
    pullback :math:`J^\top F J` of the family's Fisher metric F (Arvanitidis et al. 2022), in units of what can be told
    apart in data: f is followed by an isometric immersion where one is known (:func:`register_immersion`); a normal
    whose scale depends on z has hyperbolic planes for its F, any other family the second derivative of its KL
    divergence.
    Jacobians are taken by forward mode over the d latent axes. The jitter appends
    :math:`\sqrt\epsilon\, z` to the outputs, so that the regularised metric is still a pullback and
    an immersion whose Jacobian drops rank somewhere stays usable.

    The immersion is called with points ``(n, dim)`` (``torch.jit.trace`` alone, which cannot record shapes within a
    derivative, passes batches on as they come) and in evaluation mode, whatever the training flag of its module; a
    closure over a module must see to this itself. The weights of a module, also of one whose bound method is given, are
    those of the metric; those in a closure are not.

    Args:
        immersion: maps ``(n, dim)`` to ``(n, *out)``, point by point: a tensor, a tuple of such, a mapping or dataclass
            with one tensor in it, or a distribution of batch shape ``(n, *batch)``, or several in a tuple or mapping,
            which are independent. A pair of tensors is (mean, standard deviation).
        dim: latent dimension d.
        jitter: the :math:`\epsilon` above.
        output: which entries of what the immersion returns are meant, where this is not obvious: the key, attribute or
            position of one, or a tuple of such, as ``("mean", "scale")``; of a distribution ``"mean"``, or
            ``("mean", "stddev")`` for the metric of a tuple.
        ambient: where the immersion maps to, if not to Euclidean space: a metric in whose chart its entries are, for
            :math:`G = J^\top A J`, or ``"fisher"``: pairs of tensors are normals, and normals have a scale of their own
            also where it seems constant. The energy of a curve is then the sum of squared distances of successive
            images, where the ambient metric has these in closed form.

    Raises:
        ValueError: if the outputs have the wrong batch shape, fewer entries than ``dim``, are complex, of half
            precision, not finite, or do not depend on z; if they are random or depend on the rest of the batch; if the
            derivative is not the slope of the values, or there is none (then with the layer's name); if a standard
            deviation is negative, as a log-variance is.
        OutputError: a ValueError, if what the immersion returns cannot be read as its output, ``output`` is wrong, or
            the Fisher metric of a distribution is not known; also later, if a parameter that must be fixed is not.
        TypeError: if the immersion is not callable.

    Example:
        >>> sphere = PullbackMetric(lambda z: torch.stack([z[..., 0].sin() * z[..., 1].cos(),
        ...     z[..., 0].sin() * z[..., 1].sin(), z[..., 0].cos()], -1), dim=2)
        >>> sphere.metric(torch.tensor([torch.pi / 2, 0.0])).round(decimals=4).abs()
        tensor([[1., 0.],
                [0., 1.]])
    """

    def __init__(
        self,
        immersion: Immersion,
        dim: int,
        jitter: float = 1e-6,
        output: str | int | tuple[str | int, ...] | None = None,
        ambient: RiemannianMetric | str | None = None,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        if not jitter >= 0:
            raise ValueError(f"`jitter` must be non-negative, got {jitter}.")
        if not callable(immersion):
            raise TypeError(f"`immersion` must be callable, got {type(immersion).__name__}.")
        self.dim, self.jitter, self.immersion, self.output, self.ambient = dim, jitter, immersion, output, ambient
        self.images = Images(output, ambient, dim if jitter > 0 else 0)
        if not isinstance(immersion, nn.Module) and (owners := _modules.modules_of(immersion)):
            self.held = nn.ModuleList(map(_modules.Held, owners))
        self.is_plain = output is None and _jets.is_sequential(immersion)
        self.has_jets = self.is_plain or (output is None and callable(getattr(immersion, "jet", None)))
        self.kernels = "fused"
        modules = _modules.modules_of(immersion)
        with torch.no_grad(), _modules.evaluating(modules), _modules.buffers_kept(modules):
            walls = self._probe(modules)
        if walls:  # the walls of a standard deviation need a finer curve
            self.solver = GeodesicSolver(num_knots=16, num_segments=64)

    @classmethod
    def from_vae(
        cls,
        model: object,
        dim: int | None = None,
        *,
        latent_shape: Sequence[int] | None = None,
        conditions: Mapping[str, float] | None = None,
        jitter: float = 1e-6,
        output: str | int | tuple[str | int, ...] | None = None,
        ambient: RiemannianMetric | str | None = None,
    ) -> Self:
        """The metric of a trained model of pythae, diffusers, scvi-tools or Lightning, or of any with a decoder.

        A model is known by what it has: ``module.generative`` (scvi-tools; the metric is Fisher's of its counts), a
        method ``decode`` (diffusers, most others), or ``decoder`` (pythae).

        Args:
            model: the model; its weights are the metric's.
            dim: latent dimension d, if no ``latent_dim``, ``hparams.latent_dim`` or the like tells it.
            latent_shape: shape of a code that is no vector, such as (channels, height, width); by default that of
                diffusers' configuration. Points are flattened codes, ``(*batch, d)``.
            conditions: numbers that the decoder takes besides z, by name, each as a column ``(n, 1)``. For scvi-tools
                by default ``{"library": log(10_000), "batch_index": 0}``: a cell of 10,000 counts of the first batch.
            jitter: as for the class.
            output: as for the class.
            ambient: as for the class.

        Raises:
            TypeError: if the model has none of these.
            ValueError: if it does not tell d; and as the class.

        Example:
            >>> class Model(torch.nn.Module):
            ...     latent_dim = 2
            ...     def decode(self, z):
            ...         return torch.cat([z, 2 * z], -1)
            >>> PullbackMetric.from_vae(Model(), jitter=0.0).metric(torch.zeros(2))
            tensor([[5., 0.],
                    [0., 5.]])
        """
        immersion, size = decoding(model, dim, latent_shape, conditions, as_law=output is None)
        return cls(immersion, size, jitter, output, ambient)

    def immersed(self) -> Self | None:
        """This metric; None where its ambient space is not Euclidean."""
        return self if self.space is None else None

    def energy(self, settings: Discretisation, guide: Tensor | None = None) -> Energy:
        """The discrete energy that the solver minimises, by chords between the images, without a Jacobian.

        In an ambient metric without closed distances it is that of any metric.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        if (space := self.space) is None:
            return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)
        if not space.has_distance or torch.jit.is_tracing():  # which cannot record a reverse pass within a function
            return super().energy(settings, guide)
        return AmbientEnergy(self, space, settings.num_knots, settings.num_segments, settings.richardson, guide)

    def embed(self, z: Tensor) -> Tensor:
        """The immersed points, all outputs side by side: z ``(*batch, d)`` gives ``(*batch, D)``.

        Raises:
            OutputError: a ValueError, if what the immersion returns cannot be read as its output.
            TypeError: for points of a dtype that the immersion does not take.
        """
        check_point("z", z, self.dim)
        as_it_is = z.dim() == 2 or torch.jit.is_tracing()  # which cannot record shapes within a derivative
        rows = z if as_it_is else z.reshape(-1, self.dim)
        flat = _door.flattened(self._at(rows, self._outputs), rows.dim() - 1)
        if self.jitter > 0:
            flat.append(self.jitter**0.5 * rows)
        embedded = torch.cat(flat, dim=-1)
        return embedded if as_it_is else embedded.reshape(*z.shape[:-1], embedded.shape[-1])

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
        if self.is_plain and isinstance(layers := self.immersion, nn.Sequential):
            jets: tuple[Jet, ...] = self._at(z, lambda z: (_jets.sequential(layers, z, self.dim),))
        else:
            jets = self._at(z, self.immersion.jet)  # type: ignore[attr-defined]  # tested by has_jets
        return (*jets, _jets.variable(z, self.dim).scaled(self.jitter**0.5)) if self.jitter > 0 else jets

    def metric(self, z: Tensor) -> Tensor:
        return self.metric_and_force(z)[0]

    def metric_and_force(self, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""``G(z)``, ``(*batch, d, d)``, and the function :math:`v \mapsto J^\top D^2 f[v, v] = G\,\Gamma(v, v)`.

        One evaluation at ``z`` serves both; the direction ``(*batch, d)`` may depend on G.
        """
        if (space := self.space) is not None:
            return space.pull(*self.embed_jacobian(z)), partial(self._ambient_force, z)
        jets = self.jets(z)
        if jets is not None:
            return _jets.metric_and_force(jets, z)
        _, jacobian = self.embed_jacobian(z)

        def force(v: Tensor) -> Tensor:
            acceleration = _autodiff.second_directional(self.embed, z, v)[2]
            return torch.einsum("...ai,...a->...i", jacobian, acceleration)

        return jacobian.mT @ jacobian, force

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Inner product ``u^T G(z) v``, shape ``(*batch)``: by the derivatives along u and v, where G is not shared.

        Args:
            z: points, ``(*batch, d)``.
            u: tangent vectors at ``z``, ``(*batch, d)``.
            v: tangent vectors at ``z``, ``(*batch, d)``.
        """
        one = z.shape[:-1] != torch.broadcast_shapes(z.shape[:-1], u.shape[:-1], v.shape[:-1]) or z.dim() == 1
        if one or self.space is not None or (self.has_jets and self.dim < MANY) or torch.jit.is_tracing():
            return super().inner(z, u, v)
        # G for each product would take derivatives along d axes
        slope = _autodiff.directional(self.embed, z, u)[1]
        return (slope * (slope if u is v else _autodiff.directional(self.embed, z, v)[1])).sum(-1)

    def footprint(self, order: int) -> int:
        """Numbers held at one point: what the immersion computes there, with its derivatives along d axes.

        Once where Taylor propagation gives them, which passes on no more than a layer needs; else as tangents, as the
        Jacobian that is collected from them, and as its copy in the order of a product.

        Args:
            order: of the derivatives of G, -1 for images alone.
        """
        copies = 2 if order else 1 if self.has_jets else 3
        return copies * self.numbers * (self.dim + 1) ** (order + 1)

    def _ambient_force(self, z: Tensor, v: Tensor) -> Tensor:
        slope = self.metric_derivatives(z, v)[1]
        return torch.einsum("...ij,...j->...i", slope - 0.5 * slope.mT, v)

    def on_floor(self, z: Tensor) -> Tensor | None:
        """Where G is hardly more than the jitter: more than half of its eigenvalues are below ten of it.

        Shape ``(*batch)``; None without jitter. A few latent directions that an immersion does not use are no floor.

        Args:
            z: points, ``(*batch, d)``.
        """
        if self.jitter == 0:
            return None
        images, jacobian = (part.detach() for part in self.embed_jacobian(z))
        if (
            jacobian.device.type != "mps"
        ):  # the square of one in float32 has lost what a jitter of 1e-6 is compared with
            images, jacobian = images.double(), jacobian.double()
        tensor = jacobian.mT @ jacobian if (space := self.space) is None else space.pull(images, jacobian)
        return (torch.linalg.eigvalsh(tensor) < 10 * self.jitter).sum(-1) > self.dim / 2

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        metric, force = self.metric_and_force(z)
        return _linalg.solve(metric, force(v))
