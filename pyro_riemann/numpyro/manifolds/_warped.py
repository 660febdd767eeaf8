"""Any metric in other coordinates."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions.transforms import Transform

from pyro_riemann._formulas.peaks import Peaks, pulled_back
from pyro_riemann._formulas.radial import RadialLaw
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import check_point, holds
from pyro_riemann.numpyro._interface import Discretisation, Energy, Settings
from pyro_riemann.numpyro._partition import join, split
from pyro_riemann.numpyro._pytree import Pytree
from pyro_riemann.numpyro.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy
from pyro_riemann.numpyro.metrics import RiemannianMetric

Map = Callable[[Array], Array]


class WarpedMetric(RiemannianMetric):
    r"""The metric of ``base`` rewritten in other coordinates, :math:`G(z) = J^\top G_{base}(F(z))\, J`.

    F maps the new chart to the chart of ``base`` and J is its Jacobian. The manifold stays the same, so
    everything goes through F to ``base`` and back: what is a closed form there is one here, and what
    is solved numerically there (on a decoder, say) is solved there.

    Args:
        base: metric in the old coordinates.
        diffeomorphism: F, as a ``numpyro.distributions`` transform, whose ``inv`` is used for the
            way back, or as a pair of functions ``(forward, inverse)``. Both map ``(*batch, d)`` to
            ``(*batch, d)``, point by point. The arrays of functions that are pytrees (modules of equinox,
            ``jax.tree_util.Partial(function, parameters)``) are data of the metric, traced and differentiated.

    Raises:
        TypeError: if ``diffeomorphism`` is neither.
        ValueError: if the inverse does not undo the forward map.

    Source: Lee (2018), *Introduction to Riemannian Manifolds*, chapter 2, for pullbacks by diffeomorphisms.

    Example:
        >>> from numpyro.distributions.transforms import ExpTransform
        >>> metric = WarpedMetric(EuclideanMetric(1), ExpTransform())  # log coordinates
        >>> metric.metric(jnp.zeros(1)).item()
        1.0
        >>> round(metric.dist(jnp.zeros(1), jnp.ones(1)).item(), 4)  # e - 1
        1.7183
        >>> shear = WarpedMetric(Sphere(2), (lambda z: z + z[..., ::-1] * jnp.array([0.0, 1.0]),
        ...                                  lambda x: x - x[..., ::-1] * jnp.array([0.0, 1.0])))
        >>> shear.scalar_curvature(jnp.zeros(2)).item()
        2.0
    """

    pytree_data_fields = ("base", "_to", "_back")

    def __init__(self, base: RiemannianMetric, diffeomorphism: Transform | tuple[Map, Map]) -> None:
        if not isinstance(base, RiemannianMetric):
            raise TypeError(f"`base` must be a RiemannianMetric, got {type(base).__name__}.")
        self.dim, self.base = base.dim, base
        if isinstance(diffeomorphism, Transform):
            self._to, self._back = _PytreeMap(diffeomorphism), _PytreeMap(diffeomorphism.inv)
        elif isinstance(diffeomorphism, tuple) and len(diffeomorphism) == 2 and all(map(callable, diffeomorphism)):
            self._to, self._back = map(_PytreeMap, diffeomorphism)
        else:
            raise TypeError(
                "`diffeomorphism` must be a numpyro.distributions Transform or a pair of functions "
                f"(forward, inverse), got {type(diffeomorphism).__name__}."
            )
        self._probe()

    def _probe(self) -> None:
        """Refuse a pair that are not each other's inverse, as far as one call at two points can tell."""
        point = jnp.linspace(0.1, 0.7, 2 * self.dim).reshape(2, self.dim)
        there = self.to_base(point)
        back = self.from_base(there)
        if not holds(jnp.allclose(back, point, atol=1e-2, rtol=1e-2) | ~jnp.isfinite(back).all()):
            raise ValueError(
                f"The inverse of `diffeomorphism` does not undo it: {point[0].tolist()} goes to {there[0].tolist()} "
                f"and comes back as {back[0].tolist()}."
            )

    # solver settings act where the solving is done
    @property
    def solver(self) -> GeodesicSolver:
        """Settings of the boundary-value solver: those of ``base``, where the solving is done."""
        return self.base.solver

    @solver.setter
    def solver(self, value: GeodesicSolver) -> None:
        self.base.solver = value

    # ---------------------------------------------------------------- the map

    def to_base(self, z: Array) -> Array:
        """F(z): the points ``z`` in the chart of ``base``, ``(*batch, d)``."""
        z = check_point("z", z, self.dim)
        x = self._to(z)
        if np.shape(x) != z.shape:
            raise ValueError(f"`diffeomorphism` must keep the shape: {z.shape} became {np.shape(x)}.")
        return x

    def from_base(self, x: Array) -> Array:
        """The points ``x`` of the chart of ``base`` in this chart, ``(*batch, d)``."""
        return self._back(x)

    def _jacobian(self, z: Array) -> tuple[Array, Array]:
        return _autodiff.jacobian(self.to_base, check_point("z", z, self.dim), self.dim)

    def _push(self, z: Array, v: Array) -> tuple[Array, Array]:
        z, v = jnp.broadcast_arrays(z, v)
        return _autodiff.directional(self.to_base, z, v)

    def _pull(self, jacobian: Array, v: Array) -> Array:
        return jnp.linalg.solve(jacobian, v[..., None])[..., 0]

    # ---------------------------------------------------------------- pointwise

    @jax.jit
    def metric(self, z: Array) -> Array:
        x, jacobian = self._jacobian(z)
        return jacobian.mT @ self.base.metric(x) @ jacobian

    @jax.jit
    def logdet(self, z: Array) -> Array:
        x, jacobian = self._jacobian(z)
        return self.base.logdet(x) + 2 * jnp.linalg.slogdet(jacobian).logabsdet

    @jax.jit
    def inner(self, z: Array, u: Array, v: Array) -> Array:
        (x, first), (_, second) = self._push(z, u), self._push(z, v)
        return self.base.inner(x, first, second)

    @jax.jit
    def christoffel(self, z: Array, v: Array) -> Array:
        z, v = jnp.broadcast_arrays(z, v)
        x, jacobian = self._jacobian(z)
        _, pushed, acceleration = _autodiff.second_directional(self.to_base, z, v)
        return self._pull(jacobian, self.base.christoffel(x, pushed) + acceleration)

    @jax.jit
    def drift(self, z: Array) -> Array:
        """Ito drift at ``z`` by Ito's formula, ``(*batch, d)``.

        That of ``base`` less half the trace of F's second derivative, pulled back.
        """
        x, jacobian = self._jacobian(z)
        factor = jnp.linalg.cholesky(jacobian.mT @ self.base.metric(x) @ jacobian)
        frame = jnp.moveaxis(jnp.linalg.solve(factor.mT, jnp.eye(self.dim, dtype=z.dtype)), -1, 0)
        _, _, bend = _autodiff.second_directional(self.to_base, jnp.broadcast_to(z, frame.shape), frame)
        return self._pull(jacobian, self.base.drift(x) - bend.sum(0) / 2)

    def radial_law(self) -> RadialLaw | None:
        """What ``base`` knows of the volume around every point; periods of a torus are of the axes of ``base``."""
        return self.base.radial_law()

    @property
    def is_symmetric(self) -> bool:  # type: ignore[override]  # others hold it
        """Whether ``base`` is symmetric."""
        return self.base.is_symmetric

    @property
    def is_uniquely_geodesic(self) -> bool | None:  # type: ignore[override]  # others hold it
        """Whether ``base`` is."""
        return self.base.is_uniquely_geodesic

    def injectivity_radius(self, z: Array) -> Array | None:
        return self.base.injectivity_radius(self.to_base(z))

    def scalar_curvature(self, z: Array) -> Array:
        return self.base.scalar_curvature(self.to_base(z))

    @property
    def landmarks(self) -> Array | None:  # type: ignore[override]  # others hold it
        """The landmarks of ``base`` in this chart, ``(k, d)``, without gradient."""
        if self.base.landmarks is None:
            return None
        return jax.lax.stop_gradient(self.from_base(self.base.landmarks))

    def peaks(self) -> Peaks | None:
        known = self.base.peaks()
        if known is None:
            return None
        loc = self.from_base(known.loc)
        return jax.lax.stop_gradient(pulled_back(jnp, loc, self._jacobian(loc)[1], known.covariance))

    def on_floor(self, z: Array) -> Array | None:
        return self.base.on_floor(self.to_base(z))

    def covers(self, z: Array) -> Array | None:
        return self.base.covers(self.to_base(z))

    # ---------------------------------------------------------------- geodesics

    @jax.jit
    def expmap(self, z: Array, v: Array) -> Array:
        return self.from_base(self.base.expmap(*self._push(z, v)))

    @jax.jit
    def expmap_log_van_vleck(self, z: Array, v: Array) -> tuple[Array, Array]:
        x, log_van_vleck = self.base.expmap_log_van_vleck(*self._push(z, v))
        return self.from_base(x), log_van_vleck

    @jax.jit
    def logmap(self, z: Array, y: Array) -> Array:
        x, jacobian = self._jacobian(z)
        return self._pull(jacobian, self.base.logmap(x, self.to_base(y)))

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self.base.squared_dist(self.to_base(z), self.to_base(y))

    def dist(self, z: Array, y: Array) -> Array:
        return self.base.dist(self.to_base(z), self.to_base(y))

    def log_van_vleck(self, z: Array, y: Array) -> Array:
        return self.base.log_van_vleck(self.to_base(z), self.to_base(y))

    def log_folded_density(self, z: Array, y: Array, time: Array) -> Array | None:
        return self.base.log_folded_density(self.to_base(z), self.to_base(y), time)

    def log_folded_normal(self, z: Array, y: Array, factor: Array) -> Array | None:
        x, jacobian = self._jacobian(z)
        return self.base.log_folded_normal(x, self.to_base(y), jacobian @ factor)

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(self.to_base(z), self.to_base(y), init=init, **settings)
        points = self.from_base(base.points)
        return Geodesic(points, base.length, base.energy, base.converged, lambda t: self.from_base(base(t)))

    def log_heat_kernel(self, z: Array, y: Array, time: float | Array) -> Array:
        """Log heat kernel of ``base``, ``(*batch)``, with respect to dM, which no change of coordinates touches.

        Args:
            z: points, ``(*batch, d)``.
            y: points, ``(*batch, d)``; the kernel is a density in ``y``.
            time: variance of small steps, positive, a number or ``(*batch)``.

        Raises:
            NotImplementedError: if the heat kernel of ``base`` has no closed form.
        """
        return self.base.log_heat_kernel(self.to_base(z), self.to_base(y), time)

    # ---------------------------------------------------------------- pullbacks only

    has_jets = False

    def immersed(self) -> Self | None:
        """This metric where ``base`` is a pullback, else None: a pullback in other coordinates is a pullback."""
        return None if self.base.immersed() is None else self

    def energy(self, settings: Discretisation, guide: Array | None = None) -> Energy:
        if self.immersed() is None:
            return super().energy(settings, guide)
        return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)

    def embed(self, z: Array) -> Array:
        """The immersed points of ``base``, ``(*batch, D)`` at ``z``.

        Raises:
            TypeError: if ``base`` is no pullback, so that :meth:`immersed` is None.
        """
        surface = self.base.immersed()
        if surface is None:
            raise TypeError(f"{type(self.base).__name__} is no pullback: it has no immersion.")
        return surface.embed(self.to_base(z))

    def embed_jacobian(self, z: Array) -> tuple[Array, Array]:
        """Immersed points ``(*batch, D)`` and their Jacobian ``(*batch, D, d)`` at ``z``.

        Raises:
            TypeError: as :meth:`embed`.
        """
        return _autodiff.jacobian(self.embed, z, self.dim)


class _PytreeMap(Pytree):
    """A function as a pytree: the arrays that it holds are data, its code is static."""

    pytree_data_fields = ("arrays",)

    def __init__(self, function: Any) -> None:
        if inspect.ismethod(function) and isinstance(function.__self__, Pytree):
            function = jax.tree_util.Partial(function.__func__, function.__self__)
        self.arrays, self.structure = split("diffeomorphism", function)

    def __call__(self, z: Array) -> Array:
        return join(self.arrays, self.structure)(z)

    def __reduce__(self) -> Any:
        return _PytreeMap, (join(self.arrays, self.structure),)  # the structure of a custom node has no pickle
