"""What the algebra of metrics needs of a face: its derivatives, its solvers, its immersions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pyro_riemann._formulas import Array, Namespace

A = TypeVar("A")


class Calculus(Protocol):
    """What algebra needs of an array library beside the names that all of them share."""

    @property
    def xp(self) -> Namespace:
        """Namespace of the arrays."""
        ...

    def check_point(self, name: str, value: Any, dim: int) -> Array:
        """The value; raise unless it is a floating array ``(*batch, dim)``."""
        ...

    def broadcast(self, *arrays: Array) -> Any:
        """The arrays, expanded to one shape."""
        ...

    def solve(self, matrix: Array, right: Array) -> Array:
        """``matrix^{-1} right`` for ``(*batch, d, d)`` and vectors ``(*batch, d)``."""
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
