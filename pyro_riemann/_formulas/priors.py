"""Where priors start."""

from __future__ import annotations

from collections.abc import Callable

from pyro_riemann._formulas import Array


def heat_kernel_start(
    squared_dist: Callable[[Array, Array], Array], codes: Array, candidates: int, sample: int
) -> tuple[Array, Array]:
    """A code with small mean squared distance to the others, ``(d,)``, and that distance over d, the time.

    Args:
        squared_dist: of batches of points.
        codes: ``(n, d)``.
        candidates: how many codes in the middle are tried.
        sample: how many codes stand for all.
    """
    probes = codes[:: max(1, len(codes) // sample)][:sample]
    middle = ((probes - probes.mean(0)) ** 2).sum(-1).argsort()[:candidates]
    mean = squared_dist(probes[middle, None], probes[None]).mean(-1)
    best = int(mean.argmin())
    return probes[middle[best]], mean[best] / codes.shape[-1]
