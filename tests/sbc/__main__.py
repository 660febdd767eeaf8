"""``python -m tests.sbc``: ranks of all laws by both faces, kept one file each, and their figure for the docs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np

from tests.precision import enable_x64
from tests.sbc import ranks as sbc

FIGURE = Path(__file__).parents[2] / "docs" / "figures" / "calibration.png"


def found(face: str, name: str, folder: Path) -> np.ndarray:
    """Ranks, read where they are there already."""
    path = folder / f"{face}-{name}.npy"
    if not path.exists():
        with enable_x64(True):
            rank = sbc.ranks(name) if face == "Pyro" else sbc.twin_ranks(name)
        np.save(path, rank.astype(np.int16))
    rank = np.load(path)
    left = sbc.outside(rank, 0.95)
    print(f"{face:8} {name:25} outside of the 95 % band: {', '.join(left) or 'none'}", flush=True)
    return rank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=Path, default=Path("sbc-ranks"), help="folder that keeps the ranks")
    folder = parser.parse_args().ranks
    folder.mkdir(parents=True, exist_ok=True)
    faces = ("Pyro", "NumPyro")
    figure, axes = plt.subplots(2, len(sbc.HERE), figsize=(13, 4.6), sharex=True, sharey=True, layout="constrained")
    points = sbc.shares()
    low, high = sbc.band(sbc.REPLICATES, 0.95)
    for row, face in zip(axes, faces, strict=True):
        for axis, name in zip(row, sbc.HERE, strict=True):
            rank = found(face, name, folder)
            axis.fill_between(points, low - points, high - points, color="0.88", lw=0)
            for column, quantity in zip(rank.T, sbc.QUANTITIES, strict=True):
                axis.plot(points, sbc.ecdf(column) - points, lw=1, drawstyle="steps-post", label=quantity)
            axis.set_title(f"{name}\n{face}" if face == "Pyro" else face, fontsize=9)
    axes[0, 0].set_ylabel("ECDF - uniform")
    axes[1, 0].set_ylabel("ECDF - uniform")
    for axis in axes[1]:
        axis.set_xlabel("rank / draws")
    axes[0, -1].legend(fontsize=7, frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    print(f"wrote {FIGURE.relative_to(Path(__file__).parents[2])}")


if __name__ == "__main__":
    main()
