"""Counts of messenger RNA in single cells, and in mixtures of three cell lines in known proportions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann.datasets import DATA_VARIABLE

NAMES = ("RNAmix_celseq2", "sc_celseq2")
LINES = ("H2228", "H1975", "HCC827")


class Cells(NamedTuple):
    """Counts of cells.

    Attributes:
        counts: whole numbers ``(n, D)``, float32, of D genes.
        proportions: of the RNA of the lines :data:`LINES`, rows with the sum 1, ``(n, 3)``; a cell of one line has a 1.
        genes: names of the columns.

    Example:
        >>> cells = Cells(torch.ones(2, 1), torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0]]), ("GAPDH",))
        >>> cells.pure(0)
        tensor([ True, False])
    """

    counts: Tensor
    proportions: Tensor
    genes: tuple[str, ...]

    def pure(self, line: int) -> Tensor:
        """Which cells are of one line alone, ``(n,)`` bool.

        Args:
            line: its number.
        """
        return self.proportions[:, line] == 1


def load_cells(name: str, root: str | Path | None = None, *, num_genes: int = 2000) -> Cells:
    """Cells of one data set of Tian et al. (2019), *Benchmarking single cell RNA-sequencing analysis pipelines*.

    Args:
        name: ``"RNAmix_celseq2"``, 340 mixtures of the RNA of three lines in known proportions, or ``"sc_celseq2"``,
            274 cells of the three lines.
        root: folder with ``NAME.count.csv.gz`` and ``NAME.metadata.csv.gz`` in it or in its folder ``single-cell``;
            default: the environment variable ``PYRO_RIEMANN_DATA``. The files are those of the repository
            ``LuyiTian/sc_mixology``. Nothing is downloaded.
        num_genes: the most variable genes are kept, see :func:`most_variable`.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: if a file is missing; the message says what to do.
    """
    check_one_of("name", name, NAMES)
    table = pd.read_csv(_find(f"{name}.count.csv.gz", root), index_col=0)
    about = pd.read_csv(_find(f"{name}.metadata.csv.gz", root), index_col=0).loc[table.columns]
    if "cell_line" in about:
        shares = pd.DataFrame({line: (about["cell_line"] == line).astype(float) for line in LINES})
    else:
        shares = about[[f"{line}_prop" for line in LINES]]
        shares = shares.div(shares.sum(axis=1), axis=0)  # a third is written 0.33
    counts = torch.from_numpy(table.to_numpy().T.copy()).float()
    kept = most_variable(counts, num_genes)
    genes = tuple(str(table.index[i]) for i in kept.tolist())
    return Cells(counts[:, kept], torch.from_numpy(shares.to_numpy().copy()).float(), genes)


def most_variable(counts: Tensor, num_genes: int) -> Tensor:
    """Columns of the largest variance of the logarithm of 1 + counts scaled to one total, in ascending order.

    Args:
        counts: ``(n, D)`` of D genes; each row has a count.
        num_genes: how many.

    Returns:
        Integers, ``(num_genes,)``.

    Source: Luecken & Theis (2019), *Current best practices in single-cell RNA-seq analysis*, for the choice of genes.

    Example:
        >>> most_variable(torch.tensor([[1.0, 8.0, 1.0], [2.0, 8.0, 0.0], [1.0, 0.0, 9.0]]), 2)
        tensor([1, 2])
    """
    total = counts.sum(1, keepdim=True)
    spread = (counts / total * total.median()).log1p().var(0)
    return spread.topk(min(num_genes, counts.shape[1])).indices.sort().values


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of training and test part: 80 and 20 % of a random permutation.

    Args:
        count: number of cells n.
        seed: of the permutation; the global generator is left alone.

    Returns:
        Integers, each ``(k,)``.

    Example:
        >>> learned, test = split(10, seed=0)
        >>> len(learned), len(test)
        (8, 2)
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: int(0.8 * count)], order[int(0.8 * count) :]


def _find(file: str, root: str | Path | None) -> Path:
    root = root or os.environ.get(DATA_VARIABLE)
    candidates = [] if not root else [Path(root).expanduser() / part / file for part in ("single-cell", ".")]
    for path in candidates:
        if path.exists():
            return path
    where = f"is not in {root}" if root else "needs a folder"
    raise FileNotFoundError(
        f"{file} {where}: copy it from the folder data/csv of the repository LuyiTian/sc_mixology to DIR/single-cell, "
        f"and give DIR, or set the environment variable {DATA_VARIABLE} to it."
    )
