from collections.abc import Callable
from typing import Any

from jax import Array
from jax.typing import ArrayLike

class Constraint:
    is_discrete: bool
    event_dim: int
    def __call__(self, x: ArrayLike) -> Array: ...
    def check(self, value: ArrayLike) -> Array: ...

real: Constraint
real_vector: Constraint
positive: Constraint

def independent(base_constraint: Constraint, reinterpreted_batch_ndims: int) -> Constraint: ...
def interval(lower_bound: ArrayLike, upper_bound: ArrayLike) -> Constraint: ...

# a decorator that makes a property
def dependent_property(
    *, is_discrete: bool | None = None, event_dim: int | None = None
) -> Callable[[Callable[..., Constraint]], property]: ...
def __getattr__(name: str) -> Any: ...
