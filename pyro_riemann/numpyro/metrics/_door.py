"""Immersions as users have them: called in one way, and refused where they cannot define a metric.

Each check is a second route to what the metric relies on: a second call, a smaller batch, differences of values against
derivatives, and forward against reverse mode. Values are checked where they are known, outside JAX's transformations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr

from pyro_riemann._decoded import OutputError
from pyro_riemann.numpyro import _autodiff
from pyro_riemann.numpyro._checks import holds
from pyro_riemann.numpyro.metrics._ambient import Ambient

Outputs = Callable[[Array], tuple[Array, ...]]
_STEPS = (0.4, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
_MODES = "`equinox.nn.inference_mode(module)`, `module.eval()` of flax.nnx, or the flags of flax.linen"
_NO_SLOPE = (
    "Something on the way is not differentiated: `stop_gradient`, rounding, an index or a callback. Give the part "
    "of the decoder that is differentiable."
)


def probe_points(dim: int) -> Array:
    """Some points ``(n, d)``: n is not d, so that a matrix times a point is not a matrix times a batch."""
    count = 3 if dim != 3 else 5
    return jnp.linspace(-0.5, 0.7, count * dim).reshape(count, dim)


def takes_batches(call: Outputs, points: Array) -> Exception | None:
    """What speaks against a function of ``(n, d)``: the error of its call, or of the shapes that it gives."""
    for part in (points, points[:-1]):
        try:
            shapes = [value.shape for value in jax.eval_shape(call, part)]
        except OutputError:
            raise
        except Exception as error:
            return fails(part, error)
        if any(shape[:1] != part.shape[:1] for shape in shapes):
            return ValueError(
                f"`immersion` must keep the batch shape: it is called with (n, d) and returns (n, *out), or with one "
                f"point (d,) where it takes but one; an input {part.shape} gave {shapes}."
            )
    return None


def fails(points: Array, error: Exception) -> ValueError:
    """The error for an immersion that takes neither points ``(n, d)`` nor a point ``(d,)``."""
    failure = ValueError(
        f"`immersion` fails on a batch of points {points.shape}: {_said(error)} Called with (n, d) it must return "
        f"(n, *out), or with one point (d,); is `dim` its latent dimension? For a layer that asks for a key: {_MODES}."
    )
    failure.__cause__ = error
    return failure


def check_values(values: tuple[Array, ...], dim: int) -> None:
    """Refuse outputs that are no immersed points, by types, shapes and values.

    Raises:
        ValueError: if they are not.
    """
    for value in values:
        if value.dtype not in (jnp.float32, jnp.float64):
            complex_ = jnp.issubdtype(value.dtype, jnp.complexfloating)
            hint = "stack real and imaginary part" if complex_ else "convert its weights or its result"
            raise ValueError(f"`immersion` must return float32 or float64, got {value.dtype}: {hint}.")
    size = sum(sizes_of(values))
    if size < dim:
        raise ValueError(
            f"`immersion` has {size} outputs for a latent dimension of {dim}: its Jacobian is singular "
            "everywhere. Use a latent dimension of at most the number of outputs."
        )
    if not all(holds(jnp.isfinite(value)) for value in values):
        raise ValueError("`immersion` returns NaN or infinite values near the origin.")


def numbers_held(call: Outputs, points: Array) -> int:
    """How many numbers an immersion computes at a point, its layers included: what a second point adds."""
    few, many = (_sizes(jax.make_jaxpr(call)(rows).jaxpr) for rows in (points[:-1], points))
    pairs = zip(few, many, strict=False)  # another way for another number of points: then about
    return points.shape[-1] + max(1, sum(max(0, after - before) for before, after in pairs))


def _sizes(program: Jaxpr) -> list[int]:
    """Sizes of all that a program computes."""
    found: list[int] = []
    for step in program.eqns:
        inner = [part for part in jax.tree.leaves(list(step.params.values())) if isinstance(part, Jaxpr | ClosedJaxpr)]
        for part in inner:
            found += _sizes(part.jaxpr if isinstance(part, ClosedJaxpr) else part)
        if not inner:
            found.append(sum(value.aval.size for value in step.outvars if isinstance(value.aval, jax.core.ShapedArray)))
    return found


def check_repeatable(call: Outputs, points: Array, values: tuple[Array, ...]) -> None:
    """Refuse outputs that differ from call to call, or with the other points of the batch.

    Raises:
        ValueError: if they do.
    """
    if not _near(call(points), values, 1e3 * float(jnp.finfo(values[0].dtype).eps)):
        raise ValueError(
            "`immersion` is random: two calls at the same points differ. Dropout in training mode, or a "
            f"draw of noise? Use {_MODES}, or return the mean."
        )
    for part in (slice(None, None, -1), slice(1)):
        if not _near(call(points[part]), tuple(value[part] for value in values), 1e-3):
            raise ValueError(
                "`immersion` depends on the batch: the image of a point changes with the other points. Batch "
                f"normalisation or dropout in training mode? Use {_MODES}."
            )


def _near(first: tuple[Array, ...], second: tuple[Array, ...], tolerance: float) -> bool:
    return all(
        a.shape == b.shape and holds(jnp.abs(a - b).max() <= tolerance * jnp.maximum(jnp.abs(b).max(), 1e-30))
        for a, b in zip(first, second, strict=True)
    )


def check_distance(space: Ambient, images: tuple[Array, Array, Array], slope: Array) -> None:
    """Refuse a space whose metric is not the second derivative of its squared distance.

    Args:
        space: where the images are.
        images: of points before and after a short step and in its middle, ``(n, D)``.
        slope: derivative of the middle along the step, ``(n, D)``.

    Raises:
        ValueError: if it is not.
    """
    before, after, middle = images
    values, squares = space.squared_dist(before, after), space.pull(middle, slope[..., None])[..., 0, 0]
    noise = 100 * jnp.finfo(values.dtype).eps * jnp.maximum(1.0, jnp.abs(middle).max())
    if not holds(jnp.abs(values - squares) <= 0.05 * values + noise):
        raise ValueError(
            f"`immersion` maps to a space whose squared distances of near points, {values.tolist()}, are not those of "
            f"its metric, {squares.tolist()}: a KL divergence that is not smooth where both are equal, or infinite? "
            "Give an immersion of the family by `register_immersion`."
        )


def check_deviation(values: tuple[Array, ...]) -> None:
    """Refuse a pair (mean, standard deviation) whose deviation is negative somewhere.

    Raises:
        ValueError: if it is.
    """
    if len(values) == 2 and not holds(values[1] >= 0):
        raise ValueError(
            f"`immersion` returns (mean, standard deviation), the second negative, {float(values[1].min()):.3g}. Is "
            "it a log-variance? Return (mean, jnp.exp(log_variance / 2))."
        )


def has_forward_mode(embed: Callable[[Array], Array], points: Array) -> bool:
    """Whether an immersion has forward mode; functions with a rule for reverse mode alone do not."""
    try:
        jax.jvp(embed, (points,), (points,))  # run: to trace it is not enough
    except (TypeError, ValueError, NotImplementedError):
        return False
    return True


def check_slopes(embed: Callable[[Array], Array], sizes: list[int], points: Array) -> None:
    """Refuse derivatives that are not the slopes of the values, by differences, or differ between the two modes.

    An output that changes from point to point and is flat at each of them, such as an index, has no slopes either.

    Args:
        embed: outputs side by side, ``(n, d) -> (n, D)``.
        sizes: of each output, which sum to D.
        points: where, ``(n, d)``.

    Raises:
        ValueError: if they are not, or there is no derivative.
    """
    v = direction(points)
    try:
        slope = _autodiff.directional(embed, points, v)[1]
        pulled = jax.vjp(embed, points)[1](slope)[0]
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"`immersion` cannot be differentiated: a function in it has no derivative in forward mode or by two "
            f"reverse passes ({_said(error)}) {_NO_SLOPE}"
        ) from error
    value = embed(points)
    if isinstance(slope, jax.core.Tracer) or isinstance(value, jax.core.Tracer):
        return
    cut = partial(jnp.split, indices_or_sections=list(accumulate(sizes))[:-1], axis=-1)
    steps = enumerate(zip(cut(slope), cut(value), strict=True))
    wrong = {index for index, (ours, at) in steps if not ours.any() and bool((at != at[:1]).any())}
    right: set[int] = set()
    for step in _STEPS:
        after, before = embed(points + step * v), embed(points - step * v)
        difference, noise = (after - before) / (2 * step), 4 * jnp.finfo(points.dtype).eps * jnp.abs(after) / step
        for index, (ours, other, rounding) in enumerate(zip(cut(slope), cut(difference), cut(noise), strict=True)):
            scale = float(jnp.linalg.norm(other))
            if not float(jnp.linalg.norm(rounding)) <= 0.1 * scale:  # flat, or lost in rounding: says nothing
                continue
            (right if float(jnp.linalg.norm(ours - other)) <= 0.2 * scale else wrong).add(index)
    if wrong - right:
        raise ValueError(f"`immersion` has a derivative that is not the slope of its values. {_NO_SLOPE}")
    square = float(jnp.square(slope).sum())
    if not abs(float((pulled * v).sum()) - square) <= 0.02 * square:
        raise ValueError(f"`immersion` has other derivatives in reverse than in forward mode. {_NO_SLOPE}")


def direction(points: Array) -> Array:
    """A unit vector ``(d,)`` that no symmetry prefers."""
    v = jnp.cos(jnp.arange(1, points.shape[-1] + 1, dtype=points.dtype))
    return v / jnp.linalg.norm(v)


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else text[:197] + "..."
    return f"{type(error).__name__}: {text}" + ("" if text.endswith(".") else ".")


def flattened(values: tuple[Array, ...]) -> list[Array]:
    """Each output as ``(n, size)``."""
    return [value.reshape(len(value), size) for value, size in zip(values, sizes_of(values), strict=True)]


def sizes_of(values: tuple[Array, ...]) -> list[int]:
    """The number of entries of each output at one point."""
    return [math.prod(value.shape[1:]) for value in values]
