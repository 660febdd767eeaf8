"""Boundary-value solver."""
from __future__ import annotations
import dataclasses
from torch import Tensor
from typing import Any
from pyro_riemann.geodesics._curve import Geodesic


@dataclasses.dataclass(frozen=True)
class GeodesicSolver:
    num_knots: int = 8
    num_segments: int = 32
    max_iterations: int = 50
    tolerance: float = 1e-6
    init: str = "line"

    def replace(self, **settings: Any) -> GeodesicSolver:
        return dataclasses.replace(self, **settings)

    def solve(self, metric: Any, z: Tensor, y: Tensor) -> Geodesic:
        raise NotImplementedError

    def squared_dist(self, metric: Any, z: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def logmap(self, metric: Any, z: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError
