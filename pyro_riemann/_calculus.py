"""torch as the algebra that both faces share asks for it, :class:`pyro_riemann._formulas.calculus.Calculus`."""

from __future__ import annotations

import torch as xp
from torch import Tensor
from torch import broadcast_tensors as broadcast
from torch.linalg import matrix_exp as expm

from pyro_riemann._autodiff import directional, jacobian, second_directional
from pyro_riemann._checks import check_point, check_positive, holds
from pyro_riemann._checks import check_tensor as check_array
from pyro_riemann._linalg import log_abs_det, solve

__all__ = ["broadcast", "cast", "check_array", "check_point", "check_positive", "cholesky", "directional", "double"]
__all__ += ["expm", "freeze", "holds", "jacobian", "log_abs_det", "second_directional", "solve", "xp"]

freeze = Tensor.detach
double = Tensor.double


def cast(value: float | Tensor, like: Tensor) -> Tensor:
    """A number or a tensor as one of the dtype and device of ``like``."""
    return xp.as_tensor(value, dtype=like.dtype, device=like.device)


def cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Lower Cholesky factor, and where it exists, ``(*batch)`` bool."""
    factor, info = xp.linalg.cholesky_ex(matrix)
    return factor, info == 0
