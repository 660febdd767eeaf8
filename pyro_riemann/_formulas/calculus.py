"""What the algebra of metrics needs of a face: its derivatives, its solvers, its immersions."""

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
