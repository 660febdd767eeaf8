from collections.abc import Callable
from typing import Any, TypeVar

from jax import Array
from numpyro.distributions.distribution import Distribution

_Rule = TypeVar("_Rule", bound=Callable[..., Array])

class _Dispatched:
    def __call__(self, p: Distribution, q: Distribution) -> Array: ...
    def register(self, *types: type) -> Callable[[_Rule], _Rule]: ...
    def dispatch(self, *types: type) -> Callable[..., Array]: ...

kl_divergence: _Dispatched

def __getattr__(name: str) -> Any: ...
