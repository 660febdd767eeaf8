"""What the sphere and hyperbolic space share: constant curvature, in whatever chart."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import jax
import numpy as np
from jax import Array

from pyro_riemann._formulas import exact_kernels, folding
from pyro_riemann._formulas import space_form as formulas
from pyro_riemann.numpyro._checks import check_point
from pyro_riemann.numpyro.manifolds._heat_kernel import ExactKernels
from pyro_riemann.numpyro.metrics._flat import ClosedForm

F = TypeVar("F", bound=Callable[..., Any])


def compiled(method: F, static_argnames: str | None = None) -> F:
    """The method as a program. Points are checked before they enter it: there values cannot be read."""
    program: Any = jax.jit(method, static_argnames=static_argnames)
    names = list(inspect.signature(method).parameters)[1:]

    def check(metric: SpaceForm, name: str, value: Any) -> Any:
        if name == "v":
            return check_point(name, value, metric.dim)
        return metric._check(name, value) if name in ("z", "y") else value

    @functools.wraps(method)
    def checked(self: SpaceForm, *args: Any, **named: Any) -> Any:
        given = (*args, *(named[name] for name in names[len(args) :]))
        return program(self, *(check(self, name, value) for name, value in zip(names, given, strict=True)))

    return cast(F, checked)


class SpaceForm(formulas.SpaceForm[Array], ClosedForm):
    """The charts of constant curvature on arrays."""

    kernels: ClassVar[exact_kernels.ExactKernels] = ExactKernels()

    squared_dist = compiled(formulas.SpaceForm.squared_dist)
    log_van_vleck = compiled(formulas.SpaceForm.log_van_vleck)
    _log_van_vleck_along = jax.jit(formulas.SpaceForm._log_van_vleck_along)
    _log_folded_density = compiled(formulas.SpaceForm._log_folded_density, static_argnames="turns")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim}, curvature={self.curvature:g})"

    def _num_turns(self, time: Array) -> int:
        """A power of two, since a new number compiles anew."""
        longest = math.inf if isinstance(time, jax.core.Tracer) or np.size(time) == 0 else float(np.asarray(time).max())
        return int(2 ** math.ceil(math.log2(folding.num_turns(longest, self.dim))))
