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
from pyro_riemann._formulas.rewritten import Warped
from pyro_riemann.numpyro._checks import check_point, holds
from pyro_riemann.numpyro._interface import Discretisation, Energy, Settings
from pyro_riemann.numpyro._pytree import Pytree, join, split
from pyro_riemann.numpyro.geodesics import Geodesic
from pyro_riemann.numpyro.geodesics._energy import ChordEnergy
from pyro_riemann.numpyro.metrics import RiemannianMetric

Map = Callable[[Array], Array]


class WarpedMetric(Warped[Array], RiemannianMetric):
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

    base: RiemannianMetric

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

    # ---------------------------------------------------------------- compiled here

    metric = jax.jit(Warped.metric)
    logdet = jax.jit(Warped.logdet)
    inner = jax.jit(Warped.inner)
    christoffel = jax.jit(Warped.christoffel)
    expmap = jax.jit(Warped.expmap)
    expmap_log_van_vleck = jax.jit(Warped.expmap_log_van_vleck)
    logmap = jax.jit(Warped.logmap)
    drift = jax.jit(Warped.drift)

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

    def geodesic(self, z: Array, y: Array, init: str = "graph", **settings: Unpack[Settings]) -> Geodesic:
        base = self.base.geodesic(self.to_base(z), self.to_base(y), init=init, **settings)
        points = self.from_base(base.points)
        return Geodesic(points, base.length, base.energy, base.converged, lambda t: self.from_base(base(t)))

    def immersed(self) -> Self | None:
        """This metric where ``base`` is a pullback, else None: a pullback in other coordinates is a pullback."""
        return None if self.base.immersed() is None else self

    def energy(self, settings: Discretisation, guide: Array | None = None) -> Energy:
        if self.immersed() is None:
            return super().energy(settings, guide)
        return ChordEnergy(self, settings.num_knots, settings.num_segments, settings.richardson, guide)


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
