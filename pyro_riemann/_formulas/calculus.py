"""What the algebra of metrics needs of a face: derivatives, solvers, immersions; and the curvature that these give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pyro_riemann._formulas import Array, Namespace

A = TypeVar("A", bound=Any)


class Ambient(Protocol):
    """A metric that may know where points of the wrong shape come from."""

    def ambient_hint(self, shape: tuple[int, ...]) -> str:
        """What to do with points of this shape; empty where that is not known."""
        ...


class Calculus(Protocol):
    """What algebra needs of an array library beside the names that all of them share."""

    @property
    def xp(self) -> Namespace:
        """Namespace of the arrays."""
        ...

    def check_point(self, name: str, value: Any, dim: int, metric: Ambient | None = None) -> Array:
        """The value; raise unless it is a floating array ``(*batch, dim)``, with the hint of ``metric``."""
        ...

    def check_array(self, name: str, value: Any) -> Array:
        """The value; raise unless it is a floating array."""
        ...

    def check_positive(self, name: str, value: Array) -> Array:
        """The value; raise unless all of it that can be read is positive and finite."""
        ...

    def holds(self, mask: Array) -> bool:
        """Whether a mask is true everywhere, or cannot be read."""
        ...

    def cast(self, value: Any, like: Array) -> Array:
        """A number or an array as one of the dtype and device of ``like``."""
        ...

    def double(self, value: Array, /) -> Array:
        """The value in the widest dtype."""
        ...

    def freeze(self, value: Array, /) -> Array:
        """The value without derivatives."""
        ...

    def broadcast(self, *arrays: Array) -> Any:
        """The arrays, expanded to one shape."""
        ...

    def solve(self, matrix: Array, right: Array) -> Array:
        """``matrix^{-1} right`` for ``(*batch, d, d)`` and vectors ``(*batch, d)``."""
        ...

    def cholesky(self, matrix: Array) -> tuple[Array, Array]:
        """Lower Cholesky factor, and where it exists, ``(*batch)`` bool."""
        ...

    def expm(self, matrix: Array, /) -> Array:
        """The exponential of matrices."""
        ...

    def log_abs_det(self, matrix: Array) -> Array:
        """``log |det matrix|`` for ``(*batch, d, d)``, shape ``(*batch)``."""
        ...

    def jacobian(self, function: Callable[[Array], Array], z: Array, dim: int) -> tuple[Array, Array]:
        """Value ``(*batch, *out)`` and Jacobian ``(*batch, *out, d)`` of a function of points."""
        ...

    def directional(self, function: Callable[[Array], Array], z: Array, v: Array) -> tuple[Array, Array]:
        """Its value and its derivative along ``v``."""
        ...

    def second_directional(self, function: Callable[[Array], Array], z: Array, v: Array) -> tuple[Array, Array, Array]:
        """The same with the second derivative."""
        ...


class Surface(Protocol[A]):
    """An immersed surface: what algebra needs of a pullback metric."""

    @property
    def has_jets(self) -> bool:
        """Whether second derivatives of the immersion are cheap."""
        ...

    def embed(self, z: A) -> A:
        """The immersed points, ``(*batch, D)``."""
        ...

    def embed_jacobian(self, z: A) -> tuple[A, A]:
        """These and their Jacobian, ``(*batch, D, d)``."""
        ...


def gauss_curvature(
    face: Calculus, embed_jacobian: Callable[[Array], tuple[Array, Array]], z: Array, dim: int
) -> Array:
    r"""Scalar curvature of a pullback metric, :math:`|\mathrm{tr}\, II|^2 - |II|^2` (Gauss equation).

    II is the second fundamental form in an orthonormal frame: the second derivatives of the
    immersion, projected on the normal space. Shape ``(*batch, d) -> (*batch)``.
    """
    xp = face.xp
    hessian = face.jacobian(lambda point: embed_jacobian(point)[1], z, dim)[1]
    _, jacobian = embed_jacobian(z)
    factor = xp.linalg.cholesky(jacobian.mT @ jacobian)
    frame = xp.linalg.inv(factor).mT
    tangents = jacobian @ frame
    form = xp.einsum("...aij,...ik,...jl->...akl", hessian, frame, frame)
    form = form - xp.einsum("...am,...bm,...bkl->...akl", tangents, tangents, form)
    trace = xp.linalg.diagonal(form).sum(-1)
    return xp.square(trace).sum(-1) - xp.square(form).sum((-3, -2, -1))


def riemann_curvature(
    face: Calculus, metric_jacobian: Callable[[Array], tuple[Array, Array]], z: Array, dim: int
) -> Array:
    r"""Scalar curvature of any metric from the first and second derivatives of G.

    .. math:: R = g^{ik} g^{jl} \big(\partial_j \partial_k g_{il} - \partial_i \partial_k g_{jl}
        + g_{mn} (\Gamma^m_{jk} \Gamma^n_{il} - \Gamma^m_{jl} \Gamma^n_{ik})\big)

    Shape ``(*batch, d) -> (*batch)``.
    """
    xp = face.xp
    tensor, slope = metric_jacobian(z)
    second = face.jacobian(lambda point: metric_jacobian(point)[1], z, dim)[1]
    inverse = xp.linalg.inv(tensor)
    # symbols[..., m, j, k] = Christoffel symbols of the first kind
    symbols = 0.5 * (slope + slope.mT - xp.moveaxis(slope, -1, -3))
    # symbols of the second kind with one lower index raised
    linear = xp.einsum("...ik,...jl,...iljk->...", inverse, inverse, second) - xp.einsum(
        "...ik,...jl,...jlik->...", inverse, inverse, second
    )
    contracted = xp.einsum("...mjl,...jl->...m", symbols, inverse)
    raised = xp.einsum("...mjk,...mn,...jl,...ki->...nli", symbols, inverse, inverse, inverse)
    mixed = xp.einsum("...nli,...nil->...", raised, symbols)
    return linear + mixed - xp.einsum("...m,...mn,...n->...", contracted, inverse, contracted)
