"""Symmetric positive definite matrices with the affine-invariant metric."""

from __future__ import annotations

from torch import Tensor

from pyro_riemann._formulas.positive_definite import PositiveDefinite
from pyro_riemann.manifolds._heat_kernel import ExactKernels
from pyro_riemann.metrics._flat import ClosedForm


class SPD(PositiveDefinite[Tensor], ClosedForm):
    r"""Symmetric positive definite n x n matrices, :math:`|\dot P|^2 = \mathrm{tr}(P^{-1} \dot P P^{-1} \dot P)`.

    The affine-invariant metric, which is also the Fisher-Rao metric of normal laws with covariance P, times 2. It is
    that of a symmetric space without positive curvature: two points have one geodesic, and congruence
    :math:`P \mapsto C P C^\top` and inversion are isometries. The scalar curvature is ``-n (n - 1) (n + 2) / 8``.

    The chart is all of :math:`\mathbb{R}^d`, d = n (n + 1) / 2: with :math:`P = L L^\top`, the entries of the Cholesky
    factor L below the diagonal, row by row, followed by the logarithms of those on it. 0 is the identity matrix.

    The heat kernel is known for n = 1, a line, and n = 2, the product of a line and the hyperbolic plane of
    curvature -1/2.

    Args:
        size: number n of rows.

    Raises:
        ValueError: if ``size`` is less than 1.

    Source: Pennec, Fillard & Ayache (2006), *A Riemannian framework for tensor computing*; Moakher (2005), *A
    differential geometric approach to the geometric mean of symmetric positive-definite matrices*; Lin (2019),
    *Riemannian geometry of symmetric positive definite matrices via Cholesky decomposition*, for the chart.

    Example:
        >>> spd = SPD(2)
        >>> z = spd.from_matrix(torch.eye(2))
        >>> y = spd.from_matrix(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
        >>> round(spd.dist(z, y).item(), 4)  # sqrt 2 log 2
        0.9803
        >>> spd.to_matrix(spd.expmap(z, 0.5 * spd.logmap(z, y))).round(decimals=4)
        tensor([[1.4142, 0.0000],
                [0.0000, 0.7071]])
    """

    kernels = ExactKernels()

    def extra_repr(self) -> str:
        return f"size={self.size}"
