"""Traces and ranks of Markov chains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from pyro_riemann.diagnostics import to_arviz
from pyro_riemann.plotting._style import DIVERGENCE_COLOR, sequence


def plot_chains(result: Any, *, var_names: Sequence[str] | None = None, bins: int = 20, axes: Any = None) -> np.ndarray:
    """Trace and rank plot of every scalar of a run.

    Chains that explore the same law have flat rank histograms (Vehtari et al. 2021); draws after a divergent
    transition are ticked in red on the trace's floor.

    Args:
        result: anything that :func:`pyro_riemann.to_arviz` takes.
        var_names: variables to show, all by default.
        bins: bins of the rank histograms.
        axes: array ``(number of scalars, 2)`` of axes to draw on.

    Returns:
        That array of axes: traces left, ranks right.

    Raises:
        TypeError, ValueError, ImportError: as :func:`pyro_riemann.to_arviz`, or for a name in ``var_names`` that is
            not there.

    Example:
        >>> plot_chains({"z": torch.randn(4, 100, 2)}).shape
        (2, 2)
    """
    data = to_arviz(result)
    known = list(data["posterior"].data_vars)
    if missing := [name for name in var_names or () if name not in known]:
        raise ValueError(f"`var_names` has {missing}, but the chains have {known}.")
    scalars: dict[str, np.ndarray] = {}
    for name in var_names or known:
        array = data["posterior"][name].values
        for index in np.ndindex(array.shape[2:]):
            scalars[f"{name}{list(index) if index else ''}"] = array[(slice(None), slice(None), *index)]
    if axes is None:
        size = (9.0, 1.9 * len(scalars) + 0.4)
        axes = plt.subplots(len(scalars), 2, figsize=size, squeeze=False, layout="constrained")[1]
    axes = np.asarray(axes, dtype=object).reshape(len(scalars), 2)
    recorded = hasattr(data, "sample_stats") and "diverging" in data["sample_stats"]
    diverging = data["sample_stats"]["diverging"].values.any(0) if recorded else None
    for (trace, rank), (name, draws) in zip(axes, scalars.items(), strict=True):
        _draw_trace(trace, draws, diverging)
        _draw_ranks(rank, draws, bins)
        trace.set_ylabel(name)
    axes[0, 0].set_title("trace", fontsize="medium")
    axes[0, 1].set_title("ranks by chain", fontsize="medium")
    axes[-1, 0].set_xlabel("draw")
    axes[-1, 1].set_xlabel("rank among the draws of all chains")
    return axes


def _draw_trace(ax: Axes, draws: np.ndarray, diverging: np.ndarray | None) -> None:
    for chain, color in zip(draws, sequence(len(draws)), strict=True):
        ax.plot(chain, color=color, lw=0.5, alpha=0.8)
    if diverging is not None and diverging.any():
        ticks = np.flatnonzero(diverging)
        ax.plot(ticks, np.full(ticks.shape, draws.min()), "|", ls="", color=DIVERGENCE_COLOR, ms=8, label="divergence")
    ax.margins(x=0)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_ranks(ax: Axes, draws: np.ndarray, bins: int) -> None:
    ranks = draws.reshape(-1).argsort().argsort().reshape(draws.shape)
    edges = np.linspace(0, draws.size, bins + 1)
    for chain, color in zip(ranks, sequence(len(draws)), strict=True):
        counts, _ = np.histogram(chain, edges)
        ax.stairs(counts, edges, baseline=None, color=color, lw=1.1)
    ax.axhline(draws.shape[1] / bins, color="black", lw=0.8, ls="--")
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    ax.spines[["top", "right"]].set_visible(False)
