"""What an immersion returns as images in a space: Euclidean, one of distributions, or one of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpyro.distributions as distributions
from jax import Array

from pyro_riemann._decoded import Output, OutputError, outputs
from pyro_riemann.numpyro.metrics._fisher import Chart, charts_of, unvarying

Law = distributions.Distribution
Immersion = Callable[[Array], object]


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
