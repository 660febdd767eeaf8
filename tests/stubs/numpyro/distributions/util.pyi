from collections.abc import Callable
from typing import Any, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., object])

def validate_sample(log_prob: _Method) -> _Method: ...
def __getattr__(name: str) -> Any: ...
