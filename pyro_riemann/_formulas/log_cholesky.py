"""Metrics from unconstrained fields: ``G = U diag(exp(2 a)) U^T``, U unit lower triangular, positive definite for any.

Fields ``(*batch, d (d + 1) / 2)`` are the d entries of ``a``, then those of U below the diagonal, row by row. All is
written out entry by entry: batched products of 2 x 2 matrices cost ten times as much.
"""

from __future__ import annotations

import numpy as np

from pyro_riemann._formulas import Array, Namespace


def below_diagonal(dim: int) -> list[tuple[int, int]]:
    """Rows and columns of the entries of U, in the order of the fields."""
    return [(i, j) for i in range(dim) for j in range(i)]


def fields_of(factor: Array) -> Array:
    """Fields of the metrics with these lower Cholesky factors ``(n, d, d)``."""
    diagonal = np.diagonal(factor, axis1=-2, axis2=-1)
    rows, columns = np.tril_indices(factor.shape[-1], -1)
    unit = factor / diagonal[..., None, :]
    return np.concatenate([np.log(diagonal), unit[:, rows, columns]], -1)


def metric(xp: Namespace, fields: Array, dim: int, slope: Array | None = None) -> tuple[Array, ...]:
    """G ``(*batch, d, d)`` and, given the fields' derivatives, ``dG`` ``(*batch, d, d, d)``."""
    square = xp.exp(2 * fields[..., :dim])
    index = {pair: k for k, pair in enumerate(below_diagonal(dim), start=dim)}
    entries: dict[tuple[int, int], Array] = {}
    slopes: dict[tuple[int, int], Array] = {}
    for i in range(dim):
        for j in range(i + 1):
            for m in range(j + 1):
                # U_im U_jm exp(2 a_m), with U_mm = 1
                factors = [index[row, m] for row in (i, j) if row != m]
                term = square[..., m]
                for k in factors:
                    term = term * fields[..., k]
                entries[i, j] = entries[i, j] + term if m else term
                if slope is None:
                    continue
                rate = 2 * term[..., None] * slope[..., m, :]
                for position, k in enumerate(factors):
                    others = square[..., m]
                    for other in factors[:position] + factors[position + 1 :]:
                        others = others * fields[..., other]
                    rate = rate + others[..., None] * slope[..., k, :]
                slopes[i, j] = slopes[i, j] + rate if m else rate
    order = [(max(i, j), min(i, j)) for i in range(dim) for j in range(dim)]
    batch = fields.shape[:-1]
    tensor = xp.stack([entries[pair] for pair in order], -1).reshape(*batch, dim, dim)
    if slope is None:
        return (tensor,)
    return tensor, xp.stack([slopes[pair] for pair in order], -2).reshape(*batch, dim, dim, dim)


def speed_hessian(xp: Namespace, fields: Array, slope: Array, curve: Array, v: Array) -> Array:
    """Second derivative of ``v^T G v / 2`` from the fields' first and second derivatives, ``(*batch, d, d)``."""
    dim = v.shape[-1]
    total = xp.zeros_like(curve[..., 0, :, :])
    for m in range(dim):
        # v^T G v is the sum over m of r^2, r = exp(a_m) (v_m + sum_i U_im v_i)
        root = xp.exp(fields[..., m])[..., None, None]
        da, dda = slope[..., m, :], curve[..., m, :, :]
        p, dp, ddp = v[..., m], xp.zeros_like(da), xp.zeros_like(dda)
        for k, (i, j) in enumerate(below_diagonal(dim), start=dim):
            if j == m:
                p = p + fields[..., k] * v[..., i]
                dp = dp + slope[..., k, :] * v[..., i, None]
                ddp = ddp + curve[..., k, :, :] * v[..., i, None, None]
        dr = p[..., None] * da + dp
        cross = da[..., :, None] * dp[..., None, :]
        bend = da[..., :, None] * da[..., None, :] + dda
        ddr = p[..., None, None] * bend + cross + xp.swapaxes(cross, -1, -2) + ddp
        total = total + root * root * (dr[..., :, None] * dr[..., None, :] + p[..., None, None] * ddr)
    return total


def christoffel(xp: Namespace, fields: Array, slope: Array, v: Array) -> Array:
    r"""Contraction :math:`\Gamma^i_{jk} v^j v^k`, ``(*batch, d)``, from the fields and their derivatives.

    With p = exp(2 a) U^T v, so that G v = U p, it is ``G^{-1} (D_v (G v) - grad(v^T G v) / 2)``, and the inverse of G
    is two substitutions.
    """
    dim = v.shape[-1]
    pairs = list(enumerate(below_diagonal(dim), start=dim))
    square, rate = xp.exp(2 * fields[..., :dim]), (slope * v[..., None, :]).sum(-1)
    along = [v[..., m] for m in range(dim)]  # U^T v
    turn = [xp.zeros_like(v[..., 0]) for _ in range(dim)]  # its derivative along v
    for k, (i, m) in pairs:
        along[m] = along[m] + fields[..., k] * v[..., i]
        turn[m] = turn[m] + rate[..., k] * v[..., i]
    p = [square[..., m] * along[m] for m in range(dim)]
    dp = [square[..., m] * (2 * rate[..., m] * along[m] + turn[m]) for m in range(dim)]
    weights = [p[m] * along[m] for m in range(dim)] + [p[m] * v[..., i] for _, (i, m) in pairs]
    gradient = (xp.stack(weights, -1)[..., None] * slope).sum(-2)
    force = [dp[i] - gradient[..., i] for i in range(dim)]
    for k, (i, m) in pairs:
        force[i] = force[i] + fields[..., k] * dp[m] + rate[..., k] * p[m]
    for k, (i, m) in pairs:  # row by row
        force[i] = force[i] - fields[..., k] * force[m]
    force = [force[i] / square[..., i] for i in range(dim)]
    for k, (i, m) in reversed(pairs):
        force[m] = force[m] - fields[..., k] * force[i]
    return xp.stack(force, -1)
