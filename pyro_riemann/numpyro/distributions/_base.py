"""What the distributions share: shapes, expansion and checks that name the argument."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from pyro_riemann.numpyro._box import check_metric
from pyro_riemann.numpyro._checks import check_array, check_finite, check_point, check_positive, guarded_law
from pyro_riemann.numpyro._memo import remember
from pyro_riemann.numpyro.metrics import RiemannianMetric

Shape = tuple[int, ...]
Intermediates = list[Array]  # what `sample_with_intermediates` kept for `log_prob`


class RiemannianDistribution(Distribution):
    """Base of distributions on a chart with a metric.

    A subclass lists its array parameters in ``arg_constraints`` and whatever else its constructor stores in
    ``pytree_aux_fields``. The metric is a pytree, not an array: it stays out of ``arg_constraints``, and is data all
    the same. Expansion is NumPyro's own, which keeps the distribution as it is: a normalising constant is computed
    once for all copies.

    As everywhere in NumPyro, wrong parameters raise and wrong values warn; neither can be seen under ``jit``.
    """

    pytree_data_fields: ClassVar[tuple[str, ...]] = ("metric",)
    arg_constraints: ClassVar[dict[str, Any]]
    reparametrized_params: ClassVar[list[str]]
    metric: RiemannianMetric
    loc: Array  # of the laws that have a centre

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        guarded_law(cls)

    def __init__(self, metric: RiemannianMetric, like: Array, validate_args: bool | None = None) -> None:
        """Finish construction once the parameters are set; ``like`` has shape ``(*batch, d)``."""
        self.metric = metric
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The chart: all of R^d unless the metric has a ``support`` of its own."""
        return self.metric.support

    @classmethod
    def tree_unflatten(cls, aux_data: tuple[Any, ...], params: tuple[Any, ...]) -> Self:
        """As in NumPyro, but with the batch shape of the arrays: ``vmap`` over a constructor makes a batch of laws.

        Args:
            aux_data: what is static, by NumPyro's order of fields.
            params: the arrays and the metric, likewise.
        """
        law: Self = super().tree_unflatten(aux_data, params)
        name, constraint = next(iter(cls.arg_constraints.items()))
        array = getattr(law, name)
        if isinstance(array, jax.Array | np.ndarray):
            law._batch_shape = array.shape[: array.ndim - constraint.event_dim]
        return law

    def validate_args(self, strict: bool = True) -> None:
        """Raise unless every parameter that is known is finite, and positive where it must be.

        Args:
            strict: refuse traced parameters, whose values cannot be checked, instead of passing over them.

        Raises:
            RuntimeError: if ``strict`` and a parameter is traced.
            ValueError: if a parameter is out of range.
        """
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            if value is None:  # the law has another parameter in its place
                continue
            if isinstance(value, jax.core.Tracer):
                if strict:
                    raise RuntimeError(f"`{name}` is traced: its values cannot be checked inside jitted code.")
                continue
            with jax.ensure_compile_time_eval():
                (check_positive if constraint is constraints.positive else check_finite)(name, value)

    @classmethod
    def infer_shapes(cls, *args: Shape, **kwargs: Shape) -> tuple[Shape, Shape]:
        """Batch and event shape from the shapes of the array arguments.

        Args:
            *args: shapes in the order of the constructor's arguments.
            **kwargs: shapes by name.
        """
        names = tuple(inspect.signature(cls).parameters)
        shapes = dict(zip(names, args, strict=False)) | kwargs
        batches: list[Shape] = []
        event: Shape = ()
        for name, constraint in cls.arg_constraints.items():
            shape = tuple(shapes.get(name) or ())
            split = max(0, len(shape) - constraint.event_dim)
            batches.append(shape[:split])
            event = shape[split:] if constraint.event_dim == 1 else event
        return jnp.broadcast_shapes(*batches), event

    def take(self, index: Array) -> Self:
        """The distributions at ``index (*sample, *batch[:-1])`` along the last batch axis, batched likewise."""
        leaves = {}
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            if value is None:
                continue
            axis = -1 - constraint.event_dim
            value = jnp.broadcast_to(value, index.shape[: index.ndim - len(self.batch_shape) + 1] + value.shape)
            where = index.reshape(*index.shape, *(1,) * -axis)
            leaves[name] = jnp.take_along_axis(value, where, axis, mode="clip").squeeze(axis)
        picked = jax.tree.map(lambda leaf: leaf, self)
        vars(picked).update(leaves)
        picked._batch_shape = index.shape
        return picked

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{name}: {jnp.shape(getattr(self, name))}"
            for name in self.arg_constraints
            if getattr(self, name) is not None
        )
        return f"{type(self).__name__}({sizes}, metric: {type(self.metric).__name__}(dim={self.metric.dim}))"

    def _at(self, value: Array) -> tuple[Array, Array, Array]:
        """``value`` and ``loc`` in one shape, and where ``value`` is finite: elsewhere ``loc`` stands in for it."""
        value = check_point("value", value, self.metric.dim)
        loc: Array = self.loc
        try:
            shape = jnp.broadcast_shapes(value.shape, loc.shape)
        except ValueError:
            raise ValueError(
                f"`value` of shape {value.shape} does not broadcast with batch shape {self.batch_shape} and event "
                f"shape {self.event_shape} of {type(self).__name__}."
            ) from None
        finite = jnp.isfinite(value).all(-1)
        loc = jnp.broadcast_to(loc, shape)
        return jnp.where(finite[..., None], value, loc), loc, finite


def broadcast_loc(loc: Array, name: str, spread: ArrayLike, metric: RiemannianMetric) -> tuple[Array, Array]:
    """Check ``loc (*batch, d)`` against the metric and broadcast it with ``spread (*batch)``.

    Known arrays stay known inside a traced program, so that their values can be checked there.

    Args:
        loc: centre.
        name: what the caller calls ``spread`` (``"time"``, ``"scale"``).
        spread: array or Python number.
        metric: the metric.

    Returns:
        Both with one batch shape and one dtype.

    Raises:
        TypeError, ValueError: naming the argument at fault.
    """
    check_metric(metric)
    loc = remember(lambda given: check_point("loc", given, metric.dim, metric), loc)
    if not isinstance(spread, jax.Array | np.ndarray | np.generic):
        if isinstance(spread, bool) or not isinstance(spread, int | float):
            raise TypeError(f"`{name}` must be an array or a number, got {type(spread).__name__}.")
        spread = np.asarray(spread, loc.dtype)
    spread = remember(lambda given: check_array(name, given), spread)
    try:
        batch_shape = jnp.broadcast_shapes(loc.shape[:-1], spread.shape)
    except ValueError:
        raise ValueError(
            f"`{name}` of shape {spread.shape} does not broadcast with the batch shape {loc.shape[:-1]} of `loc`; "
            f"`{name}` has one entry per distribution, shape (*batch)."
        ) from None
    dtype = jnp.promote_types(loc.dtype, spread.dtype)

    def fit(given: Array, shape: Shape) -> Array:
        return jnp.broadcast_to(given.astype(dtype), shape)

    return remember(lambda x: fit(x, (*batch_shape, metric.dim)), loc), remember(lambda x: fit(x, batch_shape), spread)
