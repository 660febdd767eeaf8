"""The error of a quadrature from three of its refinements."""

from __future__ import annotations

ORDER = 6
"""Power of the width of a cell in the error of three Gauss-Legendre points in each, where the integrand is smooth."""


def finest_error(coarsest: float, middle: float, finest: float, order: int = ORDER) -> float:
    """Error of the finest of three values of a quadrature, the number of cells an axis doubling from one to the next.

    The last difference is the error of the middle one. It shrinks on by as much as it has shrunk from the first, but by
    no more than the order of the rule allows; nor is it taken for less than the first difference, shrunk twice by
    that, as the last may be small by chance.

    Example:
        >>> from pyro_riemann._formulas.refinement import finest_error
        >>> finest_error(64.0**2, 64.0, 1.0, order=6)  # errors that fall by 64 each time: 1 where the limit is 0
        0.984...
    """
    last, before, gain = abs(finest - middle), abs(middle - coarsest), 2.0**order
    ratio = last / before if before > 0 else 1.0
    return max(last * min(1.0, max(ratio, 1 / gain)), before / gain**2)
