"""Van Vleck-Morette determinant of a solved curve."""
from torch import Tensor
from typing import Any


def log_van_vleck(metric: Any, z: Tensor, y: Tensor) -> Tensor:
    raise NotImplementedError
