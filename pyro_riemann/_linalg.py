"""Linear algebra of small matrices that every mode of differentiation takes right.

Up to torch 2.14 a derivative by forward mode (``torch.func.jvp``) of ``torch.linalg.solve`` or ``slogdet`` forgets,
in a backward pass that follows, that the matrix depends on anything. The gradient of the exponential map's Jacobian,
and with it that of a wrapped normal, was wrong for that reason alone. Inverses, products, factorisations and triangular
systems are right in all versions; what is differentiated here is made of these.
"""

from __future__ import annotations

import torch
from torch import Tensor


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix^{-1} right`` for ``(*batch, d, d)`` and vectors ``(*batch, d)``.

    Raises:
        torch.linalg.LinAlgError: if a matrix is singular.
    """
    return (torch.linalg.inv(matrix) @ right.unsqueeze(-1)).squeeze(-1)


def log_abs_det(matrix: Tensor) -> Tensor:
    """``log |det matrix|`` for ``(*batch, d, d)``, shape ``(*batch)``; ``-inf`` for a singular matrix."""
    factors: Tensor = torch.linalg.lu_factor_ex(matrix).LU
    return factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
