"""Initial-value problem."""
from torch import Tensor
from typing import Any


def expmap(metric: Any, z: Tensor, v: Tensor, num_steps: int = 16) -> Tensor:
    raise NotImplementedError


def expmap_log_van_vleck(metric: Any, z: Tensor, v: Tensor, num_steps: int = 16) -> tuple[Tensor, Tensor]:
    raise NotImplementedError
