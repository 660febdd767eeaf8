"""Scalar curvature."""
from torch import Tensor
from typing import Any


def scalar_curvature(metric: Any, z: Tensor) -> Tensor:
    raise NotImplementedError
