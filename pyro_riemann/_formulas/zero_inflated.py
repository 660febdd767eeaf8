"""The Fisher information of negative binomials with more zeros than they have of their own.

Counts are 0 with probability pi, and else of a negative binomial of mean m and fixed dispersion r. Of its zeros, a
probability :math:`q = (1 + m / r)^{-r}`, nobody knows where they came from: with :math:`p = \\pi + (1 - \\pi) q` and
:math:`\\rho = m / (m + r)` the information in (log m, logit pi) is

.. math:: (1 - \\pi) \\begin{pmatrix} r\\rho\\,(1 - r\\rho\\,q\\,\\pi / p) & -r\\rho\\,q\\,\\pi / p \\\\
    -r\\rho\\,q\\,\\pi / p & \\pi^2 (1 - q) / p \\end{pmatrix} .

It is not flat, and its distances have no closed form.

Source: Lambert (1992), *Zero-inflated Poisson regression, with an application to defects in manufacturing*, for the
law; the information by its definition, the mean of products of scores.
"""

from __future__ import annotations

from pyro_riemann._formulas import Array, Namespace


def information(xp: Namespace, log_mean: Array, gate: Array, log_count: Array) -> tuple[Array, Array, Array]:
    """Entries for (log mean, log mean), (log mean, gate) and (gate, gate); ``gate`` is the logit of pi."""
    zero = xp.zeros_like(gate)
    odds = log_mean - log_count
    steep = xp.exp(log_count + odds - xp.logaddexp(zero, odds))  # r rho
    log_own = -xp.exp(log_count) * xp.logaddexp(zero, odds)  # log q
    keep = xp.exp(-xp.logaddexp(zero, gate))  # 1 - pi
    added = xp.exp(-xp.logaddexp(zero, log_own - gate))  # pi / p: how many zeros are added ones
    mixed = steep * xp.exp(log_own) * added
    pi = xp.exp(-xp.logaddexp(zero, -gate))
    return keep * steep * (1 - mixed), -keep * mixed, keep * pi * -xp.expm1(log_own) * added
