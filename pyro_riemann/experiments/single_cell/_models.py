"""Counts of messenger RNA in single cells, and in mixtures of three cell lines; negative binomial VAEs of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann._seed import seeded
from pyro_riemann.experiments._jobs import find_file
from pyro_riemann.experiments._latent import frame, frozen
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import VAE, Decoder, NegativeBinomialLikelihood, TrainingConfig, make_vae, mlp, train

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
    source = "it from the folder data/csv of the repository LuyiTian/sc_mixology"
    paths = (find_file(f"{name}.{kind}.csv.gz", root, "single-cell", source) for kind in ("count", "metadata"))
    table, about = (pd.read_csv(path, index_col=0) for path in paths)
    about = about.loc[table.columns]
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


# -------------------------------------------------------------------- models


CPU = torch.device("cpu")


def fit_vae(
    counts: Tensor,
    held_out: Tensor,
    *,
    latent_dim: int,
    hidden: tuple[int, ...],
    epochs: int,
    kl_weight: float,
    seed: int,
) -> VAE:
    """A frozen VAE with the prior N(0, I), a diagonal normal posterior and counts that are given their total.

    Args:
        counts: training part, ``(n, genes)``.
        held_out: the weights are those of the epoch with the best ELBO of these cells, ``(m, genes)``.
        latent_dim: latent dimension d.
        hidden: widths of the hidden layers.
        epochs: of training, the weight of the KL divergence rises in the first third.
        kl_weight: its weight from then on.
        seed: of weights, order and noise.
    """
    dispersion = torch.full((counts.shape[1],), 10.0)
    likelihood = NegativeBinomialLikelihood(dispersion, exposure="total")
    vae = make_vae(counts.shape[1], latent_dim, "normal", "normal", likelihood=likelihood, hidden=hidden, seed=seed)
    settings = TrainingConfig(
        warm_up_epochs=epochs, epochs=0, batch_size=64, kl_ramp=0.3, kl_weight=kl_weight, seed=seed
    )
    train(vae, counts, held_out, settings, progress=False)
    frozen(vae)
    return vae


def fit_decoder(
    vae: VAE, counts: Tensor, *, hidden: tuple[int, ...], epochs: int, batch_size: int = 64, seed: int
) -> Decoder:
    """A further decoder of the codes of a VAE: from other weights, on a bootstrap sample of the cells.

    Args:
        vae: a trained VAE, whose encoder is kept.
        counts: training part, ``(n, genes)``.
        hidden: widths of the hidden layers.
        epochs: of the bootstrap sample.
        batch_size: cells a step.
        seed: of weights, sample, order and noise.
    """
    genes = counts.shape[1]
    with seeded(seed, CPU):
        likelihood = NegativeBinomialLikelihood(torch.full((genes,), 10.0), exposure="total")
        decoder = Decoder(mlp([vae.latent_dim, *hidden, genes]), vae.latent_dim, genes, likelihood)
        decoder.standardize(counts)
        sample = counts[torch.randint(len(counts), (len(counts),))]
        optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-3)
        for _ in range(epochs):
            for x in sample[torch.randperm(len(sample))].split(batch_size):
                with torch.no_grad():
                    z = vae.posterior(x).sample()
                loss = -decoder.observation(z, exposure=decoder.exposure(x)).log_prob(x).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    frozen(decoder)
    return decoder


def table(metric: RiemannianMetric, codes: Tensor, *, margin: float, resolution: int) -> GridMetric:
    """A metric on the box of the ``codes``, judged at these.

    Args:
        metric: of dimension 2.
        codes: ``(n, 2)``.
        margin: the box reaches beyond the codes by that share of its sides at each end.
        resolution: nodes an axis.
    """
    low, high = frame(codes, margin)
    return GridMetric(metric, low, high, resolution, points=codes)
