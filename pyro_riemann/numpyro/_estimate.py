"""A Monte Carlo or quadrature estimate with its error."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array


class Estimate(NamedTuple):
    """An estimated quantity.

    Attributes:
        value: the estimate, ``(*batch)``.
        standard_error: its standard error (Monte Carlo) or error bound (quadrature), ``(*batch)``.

    Example:
        >>> Estimate(jnp.array(1.0), jnp.array(0.1)).value.item()
        1.0
    """

    value: Array
    standard_error: Array
