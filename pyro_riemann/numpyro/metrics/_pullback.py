"""The pullback of the Euclidean metric through an immersion, such as a decoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from pyro_riemann._decoded import OutputError
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import check_point, holds
from pyro_riemann.numpyro._interface import Discretisation, Energy
from pyro_riemann.numpyro._pytree import split
from pyro_riemann.numpyro.geodesics import GeodesicSolver
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy
from pyro_riemann.numpyro.metrics import _probed
from pyro_riemann.numpyro.metrics._ambient import AmbientEnergy
from pyro_riemann.numpyro.metrics._base import RiemannianMetric
from pyro_riemann.numpyro.metrics._probed import Images, Immersion, ProbedImmersion


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

    The immersion is always called with points ``(n, dim)``, or with one point ``(dim,)`` under ``jax.vmap`` where it
    takes but one, as modules of equinox do.

    Args:
        immersion: maps ``(n, dim)`` to ``(n, *out)``, or ``(dim,)`` to ``(*out)``: an array, a tuple of such, a mapping
            or dataclass with one array in it, or a distribution of batch shape ``(n, *batch)``, or several in a tuple
            or mapping, which are independent. A pair of arrays is (mean, standard deviation). A plain function, whose
            closure is part of the program, or a callable pytree, whose arrays become data of the metric: a module of
            equinox or flax (of ``linen`` bound to its variables) or ``jax.tree_util.Partial(apply, parameters)``.
            Networks with batch normalisation or dropout must be in evaluation mode.
        dim: latent dimension d.
        jitter: the :math:`\epsilon` above.
        output: which entries of what the immersion returns are meant, where this is not obvious: the key, attribute or
            position of one, or a tuple of such, as ``("mean", "scale")``; of a distribution ``"mean"``.
        ambient: where the immersion maps to, if not to Euclidean space: a metric in whose chart its entries are, for
            :math:`G = J^\top A J`, or ``"fisher"``: pairs of arrays are normals, and normals have a scale of their own
            also where it seems constant. The energy of a curve is then the sum of squared distances of successive
            images, where the ambient metric has these in closed form.

    Raises:
        ValueError: if the outputs have the wrong batch shape, fewer entries than ``dim``, are complex, of half
            precision, not finite, or do not depend on z; if they are random or depend on the rest of the batch; if the
            derivative is not the slope of the values, or there is none; if a standard
            deviation is negative, as a log-variance is.
        OutputError: a ValueError, if what the immersion returns cannot be read as its output, ``output`` is wrong, or
            the Fisher metric of a distribution is not known; also later, if a parameter that must be fixed is not
            (where values cannot be read, under ``jit`` and the like, results are NaN).
        TypeError: if the immersion is not callable, or holds what is neither an array nor hashable.

    Example:
        >>> sphere = PullbackMetric(lambda z: jnp.stack([jnp.sin(z[..., 0]) * jnp.cos(z[..., 1]),
        ...     jnp.sin(z[..., 0]) * jnp.sin(z[..., 1]), jnp.cos(z[..., 0])], -1), dim=2)
        >>> jnp.abs(sphere.metric(jnp.array([jnp.pi / 2, 0.0]))).round(4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        immersion: Immersion,
        dim: int,
        jitter: float = 1e-6,
        output: str | int | tuple[str | int, ...] | None = None,
        ambient: RiemannianMetric | str | None = None,
    ) -> None:
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        if not jitter >= 0:
            raise ValueError(f"`jitter` must be non-negative, got {jitter}.")
        if not (ambient in (None, "fisher") or isinstance(ambient, RiemannianMetric)):
            raise ValueError(f"`ambient` must be a metric, 'fisher' or None, got {ambient!r}.")
        self.dim, self.jitter, self.output, self.by_reverse = dim, float(jitter), output, False
        self.arrays, self.structure = split("immersion", immersion)
        self.ambient = ambient if isinstance(ambient, RiemannianMetric) else None
        self.images = Images(output, fisher=ambient == "fisher")
        if self._probe():  # the walls of a standard deviation need a finer curve
            self.solver = GeodesicSolver(num_knots=16, num_segments=64)

    @property
    def condensed(self) -> PullbackMetric:
        """The same metric with the same chords through fewer outputs, where the immersion has a ``distance_immersion``.

        Made anew in every program, from the present weights; no gradient reaches these.
        """
        shorter = getattr(self.immersion, "distance_immersion", None)
        if shorter is None or self.space is not None:
            return self
        metric: PullbackMetric = object.__new__(type(self))
        vars(metric).update(vars(self))
        metric.arrays, metric.structure = split("immersion", shorter())
        return metric

    def immersed(self) -> Self | None:
        """This metric; None where its ambient space is not Euclidean."""
        return self if self.space is None else None

    def energy(self, settings: Discretisation, guide: Array | None = None) -> Energy:
        """The discrete energy that the solver minimises, by chords between the images, without a Jacobian.

        In an ambient metric without closed distances it is that of any metric.

        Args:
            settings: a :class:`GeodesicSolver`, or whatever has its ``num_knots``, ``num_segments`` and ``richardson``.
            guide: control points ``(P, num_knots + 3, d)`` of curves that set the pace of time; None for the chart's.
        """
        if (space := self.space) is None:
            return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)
        if not space.has_distance:
            return super().energy(settings, guide)
        return AmbientEnergy(self, space, settings.num_knots, settings.num_segments, settings.richardson, guide)

    def embed(self, z: Array) -> Array:
        """The immersed points, all outputs side by side: z ``(*batch, d)`` gives ``(*batch, D)``.

        Raises:
            OutputError: a ValueError, if a parameter of a distribution that must be fixed depends on z.
        """
        return self._known(_probed.embed(self, check_point("z", z, self.dim)))

    def _known(self, value: Array) -> Array:
        """Results, unless NaN tells, where it can be read, that a parameter is not fixed."""
        if self.images.fixed and not holds(~jnp.isnan(value)):
            raise OutputError(
                f"`immersion` returns distributions of which {self.images.fixed} is the same at the points at which "
                "the metric was made and depends on z elsewhere (or it returns NaN). For normals, "
                '`ambient="fisher"` is the metric with a scale of their own; for others, let all of it depend on z, '
                'give an immersion by `register_immersion`, or return an array, such as the mean (`output="mean"`).'
            )
        return value

    def embed_jacobian(self, z: Array) -> tuple[Array, Array]:
        """Immersed points ``(*batch, D)`` and their Jacobian ``(*batch, D, d)`` at ``z``."""
        return _probed.embed_jacobian(self, check_point("z", z, self.dim))

    def metric(self, z: Array) -> Array:
        """Metric tensor G(z): ``(*batch, d) -> (*batch, d, d)``, symmetric positive definite.

        Raises:
            OutputError: a ValueError, if a parameter of a distribution that must be fixed depends on z.
        """
        return self._known(_metric(self, check_point("z", z, self.dim)))

    def inner(self, z: Array, u: Array, v: Array) -> Array:
        """Inner product ``u^T G(z) v``, shape ``(*batch)``: by the derivatives along u and v, where G is not shared.

        Args:
            z: points, ``(*batch, d)``.
            u: tangent vectors at ``z``, ``(*batch, d)``.
            v: tangent vectors at ``z``, ``(*batch, d)``.

        Raises:
            OutputError: a ValueError, if a parameter of a distribution that must be fixed depends on z.
        """
        one = z.ndim == 1 or z.shape[:-1] != jnp.broadcast_shapes(z.shape[:-1], u.shape[:-1], v.shape[:-1])
        if one or self.space is not None:
            return super().inner(z, u, v)
        # G for each product would take derivatives along d axes
        return self._known(_inner(self, check_point("z", z, self.dim), u, None if u is v else v))

    def metric_and_force(self, z: Array) -> tuple[Array, Callable[[Array], Array]]:
        r"""``G(z)``, ``(*batch, d, d)``, and the function :math:`v \mapsto J^\top D^2 f[v, v] = G\,\Gamma(v, v)`.

        The function keeps the Jacobian at ``z``; the direction ``(*batch, d)`` may depend on G.
        """
        z = check_point("z", z, self.dim)
        if self.space is not None:
            return _metric(self, z), partial(_ambient_force, self, z)
        _, jacobian = _probed.embed_jacobian(self, z)
        return jacobian.mT @ jacobian, partial(_force, self, z, jacobian)

    def footprint(self, order: int) -> int:
        """Numbers held at one point: what the immersion computes there, with its derivatives along d axes, twice.

        Args:
            order: of the derivatives of G, -1 for images alone.
        """
        return 2 * self.numbers * (self.dim + 1) ** (order + 1)

    def on_floor(self, z: Array) -> Array | None:
        """Where G is hardly more than the jitter: more than half of its eigenvalues are below ten of it.

        Shape ``(*batch)``; None without jitter. A few latent directions that an immersion does not use are no floor.

        Args:
            z: points, ``(*batch, d)``.
        """
        return None if self.jitter == 0 else _on_floor(self, check_point("z", z, self.dim))

    def christoffel(self, z: Array, v: Array) -> Array:
        return _christoffel(self, check_point("z", z, self.dim), v)

    def drift(self, z: Array) -> Array:
        if self.space is not None:
            return super().drift(z)
        return _drift(self, check_point("z", z, self.dim))

    def __getstate__(self) -> dict[str, Any]:
        """The immersion as it was given: its structure, once taken apart, has no pickle."""
        state = {name: value for name, value in vars(self).items() if name not in ("arrays", "structure")}
        return state | {"immersion": self.immersion}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays, structure = split("immersion", state.pop("immersion"))
        vars(self).update(state, arrays=arrays, structure=structure)

    def __repr__(self) -> str:
        return f"PullbackMetric({self.structure.name}, dim={self.dim}, jitter={self.jitter:g})"


# ---------------------------------------------------------------- compiled, the metric as an argument


@jax.jit
def _metric(metric: PullbackMetric, z: Array) -> Array:
    images, jacobian = _probed.embed_jacobian(metric, z)
    return jacobian.mT @ jacobian if (space := metric.space) is None else space.pull(images, jacobian)


@jax.jit
def _inner(metric: PullbackMetric, z: Array, u: Array, v: Array | None) -> Array:
    def along(v: Array) -> Array:
        return _autodiff.directional(partial(_probed.embed, metric), z, v)[1]

    slope = along(u)
    return (slope * (slope if v is None else along(v))).sum(-1)


@jax.jit
def _ambient_force(metric: PullbackMetric, z: Array, v: Array) -> Array:
    slope = metric.metric_derivatives(z, v)[1]
    return jnp.einsum("...ij,...j->...i", slope - 0.5 * slope.mT, v)


@jax.jit
def _on_floor(metric: PullbackMetric, z: Array) -> Array:
    if metric.space is not None:
        return (jnp.linalg.eigvalsh(_metric(metric, z)) < 10 * metric.jitter).sum(-1) > metric.dim / 2
    # singular values: the square of a Jacobian in float32 has lost what a jitter of 1e-6 is compared with
    values = jnp.linalg.svd(_probed.embed_jacobian(metric, z)[1], compute_uv=False)
    return (jnp.square(values) < 10 * metric.jitter).sum(-1) > metric.dim / 2


@jax.jit
def _force(metric: PullbackMetric, z: Array, jacobian: Array, v: Array) -> Array:
    acceleration = _autodiff.second_directional(partial(_probed.embed, metric), z, v)[2]
    return jnp.einsum("...ai,...a->...i", jacobian, acceleration)


@jax.jit
def _christoffel(metric: PullbackMetric, z: Array, v: Array) -> Array:
    tensor, force = metric.metric_and_force(z)
    return jnp.linalg.solve(tensor, force(v)[..., None])[..., 0]


@jax.jit
def _drift(metric: PullbackMetric, z: Array) -> Array:
    """``-1/2 sum_a Gamma(e_a, e_a)`` over an orthonormal frame: d second derivatives, not the d^2 of G's Jacobian."""
    tensor, force = metric.metric_and_force(z)
    root = jnp.linalg.cholesky(tensor)
    axes = jnp.broadcast_to(jnp.eye(metric.dim, dtype=z.dtype), root.shape)
    frame = jax.lax.linalg.triangular_solve(root, axes, left_side=True, lower=True, transpose_a=True)
    total = jax.vmap(force, in_axes=-1)(frame).sum(0)
    return -0.5 * jnp.linalg.solve(tensor, total[..., None])[..., 0]
