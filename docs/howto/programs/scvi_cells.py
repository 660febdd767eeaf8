"""SCVI on cells of three lines (Tian et al. 2019): the Fisher-Rao metric of its counts, and distances between lines."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData

from pyro_riemann import PullbackMetric

folder = Path(os.environ["PYRO_RIEMANN_DATA"]) / "single-cell"  # the files of the repository LuyiTian/sc_mixology
counts = pd.read_csv(folder / "sc_celseq2.count.csv.gz", index_col=0).T
lines = pd.read_csv(folder / "sc_celseq2.metadata.csv.gz", index_col=0).loc[counts.index, "cell_line"].to_numpy()
shares = counts.div(counts.sum(axis=1), axis=0)
genes = (shares.var() / shares.mean()).nlargest(500).index
cells = AnnData(counts[genes].to_numpy(np.float32))
scvi.settings.seed = 0
scvi.model.SCVI.setup_anndata(cells)
model = scvi.model.SCVI(cells, n_latent=2, gene_likelihood="nb", extra_decoder_kwargs={"activation_fn": torch.nn.ELU})
model.train(max_epochs=100, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
usual = {"library": float(np.log(cells.X.sum(1)).mean()), "batch_index": 0}  # a cell of the usual number of counts
metric = PullbackMetric.from_vae(model, conditions=usual).requires_grad_(False)
codes = torch.as_tensor(model.get_latent_representation())
names, centres = zip(*((name, codes[torch.as_tensor(lines == name)].mean(0)) for name in np.unique(lines)), strict=True)
curves = metric.geodesic(torch.stack(centres), torch.stack(centres).roll(-1, 0))
print("Fisher-Rao,", names, "each to the next:", [f"{length:.1f}" for length in curves.length.tolist()])
print("converged:", curves.converged.tolist())
