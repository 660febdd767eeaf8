"""The immersion of a pullback: how it is called and read, and what it is asked before it is believed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array

from pyro_riemann._decoded import Output, OutputError, outputs
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro._pytree import Structure, join
from pyro_riemann.numpyro.metrics import _door
from pyro_riemann.numpyro.metrics._ambient import Ambient, Flat, Of, Product
from pyro_riemann.numpyro.metrics._base import RiemannianMetric
from pyro_riemann.numpyro.metrics._fisher import Chart, charts_of, unvarying

Immersion = Callable[[Array], object]


class ProbedImmersion(RiemannianMetric):
    """What :class:`PullbackMetric` knows of its immersion, by a few points and their images."""

    pytree_data_fields: ClassVar[tuple[str, ...]] = ("arrays", "ambient")
    arrays: tuple[Any, ...]
    structure: Structure
    numbers: int
    jitter: float
    images: Images
    ambient: RiemannianMetric | None
    by_reverse: bool

    def embed(self, z: Array) -> Array:
        """The immersed points, ``(*batch, d)`` to ``(*batch, D)``."""
        raise NotImplementedError

    @property
    def immersion(self) -> Immersion:
        """The immersion, put together from the metric's present arrays."""
        immersion: Immersion = join(self.arrays, self.structure)
        return immersion

    @property
    def has_jets(self) -> bool:
        """Whether the immersion is one of our networks, for which exact second derivatives are cheap."""
        return bool(getattr(self.immersion, "has_jets", False))

    def _probe(self) -> bool:
        """Whether the immersion has a scale with walls, after refusing one that cannot define a metric."""
        points = _door.probe_points(self.dim)
        self.images = self.images.reading(self.immersion, points)
        if self.images.charts is not None and self.ambient is not None:
            raise OutputError(
                "`immersion` returns a distribution, whose ambient metric is Fisher's: leave out `ambient`."
            )
        against = _door.takes_batches(self._outputs, points)
        if against is None:
            return self._checked(points)
        self.images = dataclasses.replace(self.images, of_one_point=True)
        if (error := _door.takes_batches(self._outputs, points)) is not None:
            raise ValueError(f"{against} With one point: {error.__cause__ or error}") from error
        try:
            return self._checked(points)
        except ValueError as error:
            raise ValueError(f"{against} With one point: {error}") from error

    def _checked(self, points: Array) -> bool:
        values = self._outputs(points)
        _door.check_values(values, self.dim)
        self.numbers = _door.numbers_held(self._outputs, points)
        if not self.has_jets:  # our own networks are known to be functions of one point, with their derivatives
            again = self._outputs if self.images.charts is None else partial(_compiled_outputs, self)
            _door.check_repeatable(again, points, values)
        if not any(holds(jnp.any(value[1:] != value[:1])) for value in values):
            raise ValueError(f"`immersion` does not depend on z: it gave the same output at {len(points)} points.")
        are_pair = self.images.charts is None and self.ambient is None
        if not self.has_jets:
            if are_pair:
                _door.check_deviation(values)
            self.by_reverse = not _door.has_forward_mode(partial(embed, self), points)
            sizes = [*_door.sizes_of(values), self.dim][: len(values) + (self.jitter > 0)]
            _door.check_slopes(partial(embed, self), sizes, points)
        return self._check_space(points) or (are_pair and len(values) > 1)

    def _check_space(self, points: Array) -> bool:
        """Whether the images lie in a space that is not Euclidean, after comparing its metric with its distances."""
        if (space := self.space) is None:
            return False
        size, expected = self.embed(points).shape[-1] - space.sizes[-1], sum(space.sizes[:-1])
        if size != expected:
            raise ValueError(f"`immersion` has {size} outputs for an ambient metric of dimension {expected}.")
        if space.has_distance:
            step = 1e-2 * _door.direction(points)
            ends = self.embed(points - step / 2), self.embed(points + step / 2)
            middle, slope = _autodiff.directional(partial(embed, self), points, step)
            _door.check_distance(space, (*ends, middle), slope)
        return True

    def _outputs(self, z: Array) -> tuple[Array, ...]:
        """Outputs at ``z``, ``(n, d)``, each ``(n, *out)``."""
        return self.images.of(self.immersion, z)

    @property
    def space(self) -> Product | None:
        """Where the immersed points are; None for Euclidean space."""
        charts = self.images.charts
        if self.ambient is not None:
            parts: list[tuple[Ambient, int]] = [(Of(self.ambient), self.ambient.dim)]
        elif charts is None or all(chart.is_flat for chart in charts):
            return None
        else:
            parts = [(chart.space, chart.size) for chart in charts]
        return Product([*parts, (Flat(), self.dim if self.jitter > 0 else 0)])


# ---------------------------------------------------------------- compiled, the metric as an argument


@jax.jit
def _compiled_outputs(metric: ProbedImmersion, z: Array) -> tuple[Array, ...]:
    return metric._outputs(z)


def _embed_plainly(metric: ProbedImmersion, z: Array) -> Array:
    rows = z.reshape(math.prod(z.shape[:-1]), metric.dim)
    flat = [value.astype(rows.dtype) for value in _door.flattened(metric._outputs(rows))]
    if metric.jitter > 0:
        flat.append(metric.jitter**0.5 * rows)
    embedded = jnp.concatenate(flat, axis=-1)
    return embedded.reshape(*z.shape[:-1], embedded.shape[-1])


_embed_by_reverse = jax.custom_jvp(_embed_plainly)


@_embed_by_reverse.defjvp
def _slope_by_reverse(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    """Forward mode by two reverse passes: the first is linear in its covector, the second differentiates in that."""
    value, pull = jax.vjp(_embed_plainly, *primals)
    return value, jax.vjp(pull, jnp.zeros_like(value))[1](tangents)[0]


@jax.jit
def embed(metric: ProbedImmersion, z: Array) -> Array:
    return _embed_by_reverse(metric, z) if metric.by_reverse else _embed_plainly(metric, z)


@jax.jit
def embed_jacobian(metric: ProbedImmersion, z: Array) -> tuple[Array, Array]:
    return _autodiff.jacobian(partial(embed, metric), z, metric.dim)


Law = distributions.Distribution


@dataclasses.dataclass(frozen=True)
class Images:
    """How the results of an immersion are read.

    Attributes:
        output: which entries of a result are meant.
        fisher: whether a pair of arrays is the parameters of normals, and normals have a scale of their own.
        of_one_point: whether the immersion takes one point ``(d,)``, not ``(n, d)``.
        charts: in what coordinates distributions are; None for arrays.
    """

    output: Output
    fisher: bool
    of_one_point: bool = False
    charts: tuple[Chart, ...] | None = None

    def of(self, immersion: Immersion, z: Array) -> tuple[Array, ...]:
        """The images of points ``(n, d)``, each ``(n, *out)``; NaN where what must be fixed depends on z."""
        if self.charts is not None:
            return self._coordinates(immersion, z, self.charts)

        def at(point: Array) -> tuple[Array, ...]:
            return cast(tuple[Array, ...], self._entries(immersion(point)))

        return jax.vmap(at)(z) if self.of_one_point else at(z)

    @property
    def fixed(self) -> str:
        """The parameters that must not depend on z, for a message; empty if there are none."""
        charts = self.charts or ()
        return " or ".join(f"`{name}` of {chart.name}" for chart in charts for name in chart.fixed)

    def _entries(self, result: object) -> tuple[Array, ...] | tuple[Law, ...]:
        found = outputs(result, self.output, jax.Array, Law)
        if not self.fisher or isinstance(found[0], Law):
            return found
        arrays = found
        if len(arrays) != 2:
            raise OutputError(
                f'`ambient="fisher"` takes distributions or (mean, scale); `immersion` returns {len(arrays)} arrays.'
            )
        return (distributions.Normal(*arrays, validate_args=False),)

    def _laws(self, immersion: Immersion, point: Array) -> tuple[Law, ...]:
        """The distributions at one point ``(d,)``."""
        return cast(tuple[Law, ...], self._entries(immersion(point if self.of_one_point else point[None])))

    def _coordinates(self, immersion: Immersion, z: Array, charts: tuple[Chart, ...]) -> tuple[Array, ...]:
        def at(point: Array) -> tuple[list[Array], list[Array]]:
            pairs = list(zip(charts, self._laws(immersion, point), strict=True))
            return [chart.image(law) for chart, law in pairs], [c.constants(law) for c, law in pairs if c.fixed]

        # by a single point no parameter is seen to depend on z
        rows = jnp.concatenate([z, jnp.zeros_like(z)]) if len(z) == 1 and self.fixed else z
        images, constants = jax.vmap(at)(rows)
        if len(z) == 0 or not constants:
            return tuple(images)
        fixed = jnp.stack([unvarying(values) for values in constants]).all()
        # a factor: a selection would leave derivatives of 0
        return tuple(image[: len(z)] * jnp.where(fixed, 1.0, jnp.nan).astype(image.dtype) for image in images)

    def reading(self, immersion: Immersion, points: Array) -> Images:
        """How to read an immersion that returns distributions, or normals' parameters; the same where it does not.

        Args:
            immersion: that of a metric.
            points: where to look, ``(n, d)``.

        Raises:
            OutputError: if the Fisher metric of a distribution is not known.
        """
        for of_one_point in (False, True):
            try:
                result = immersion(points[0] if of_one_point else points)
            except Exception:  # the door will say it
                continue
            reading = dataclasses.replace(self, of_one_point=of_one_point)
            laws = [entry for entry in reading._entries(result) if isinstance(entry, Law)]
            if not laws:
                return self
            if of_one_point or all(_rows(law) == len(points) for law in laws):
                samples = [reading._laws(immersion, point) for point in points]
                return dataclasses.replace(reading, charts=charts_of(samples, self.fisher))
        return self


def _rows(law: Law) -> int | None:
    while isinstance(law, distributions.Independent):
        law = law.base_dist
    return law.batch_shape[0] if law.batch_shape else None
