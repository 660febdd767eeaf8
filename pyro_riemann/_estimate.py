"""A Monte Carlo or quadrature estimate with its error."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """An estimated quantity.

    Attributes:
        value: the estimate, ``(*batch)``.
        standard_error: its standard error (Monte Carlo) or error bound (quadrature), ``(*batch)``.

    Example:
        >>> Estimate(torch.tensor(1.0), torch.tensor(0.1)).value
        tensor(1.)
    """

    value: Tensor
    standard_error: Tensor
