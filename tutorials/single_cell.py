# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Single cells: from counts to geodesics with error bars
#
# A VAE with negative binomial counts, its Fisher-Rao metric, and a check against known proportions: RNA of three cell
# lines, mixed before it was counted (Tian et al. 2019).

# %%
import os

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch

from pyro_riemann import GridMetric, PullbackMetric
from pyro_riemann.experiments.single_cell import load_cells, split
from pyro_riemann.vae import (
    NegativeBinomialLikelihood,
    TrainingConfig,
    encode_all,
    importance_log_likelihood,
    make_vae,
    train,
)

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with few genes and epochs
torch.manual_seed(0)
try:
    counts, proportions, _ = load_cells("RNAmix_celseq2", num_genes=200 if SMALL else 2000)
except FileNotFoundError as error:
    print(f"No data, so the page shows SIMULATED mixtures. {error}")
    parts = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 1, 1]])
    proportions = (parts / parts.sum(1, keepdim=True)).repeat(48, 1)
    profiles = torch.randn(3, 200 if SMALL else 1000).exp() * 2
    counts = torch.poisson(dist.Gamma(5.0, 5.0 / (proportions @ profiles)).sample())
learned, held_out = split(len(counts), seed=0)
print(f"{len(learned)} mixtures to learn from, {len(held_out)} held out, {counts.shape[1]} genes")

# %% [markdown]
# **The model.** The outputs of the decoder are log rates of each gene; a mixture's total is taken as known
# (`exposure="total"`), each gene has a learned dispersion. The VAE is never told a proportion.

# %%
likelihood = NegativeBinomialLikelihood(torch.full((counts.shape[1],), 10.0), exposure="total")
vae = make_vae(counts.shape[1], 2, "normal", "normal", likelihood=likelihood, hidden=(128, 128), seed=0)
config = TrainingConfig(warm_up_epochs=10 if SMALL else 100, epochs=0, batch_size=64)
train(vae, counts[learned], config=config, progress=False)
codes = encode_all(vae, counts)
bound = importance_log_likelihood(vae, counts[held_out], num_samples=20 if SMALL else 200)
print(f"log likelihood of a held-out mixture {bound.mean():.1f} nats")

# %% [markdown]
# **The metric.** A decoder that returns a distribution pulls back its Fisher metric: lengths count what can be told
# apart in data. A table makes every later distance cheap.

# %%
side = codes.amax(0) - codes.amin(0)
box = codes.amin(0) - side / 2, codes.amax(0) + side / 2
metric = GridMetric(PullbackMetric(vae.decoder, dim=2), *box, 24 if SMALL else 64, points=codes)
ends = torch.stack([codes[proportions[:, line] == 1].mean(0) for line in range(3)])
curves = metric.geodesic(ends, ends.roll(-1, 0), init="graph")
print("lengths between pure lines, in standard deviations of what can be told apart:", curves.length.round())

# %% [markdown]
# **The check.** At the curve's nearest point to a mixture, where is it, as a share of the length?


# %%
nodes = curves(torch.linspace(0, 1, 5 if SMALL else 17))  # (nodes, pairs, 2)
for pair, (a, b) in enumerate([(0, 1), (1, 2), (2, 0)]):
    fields = [metric.distance_field(node, 24) for node in nodes[:, pair]]
    shares = torch.stack([field.dist(codes) for field in fields]).argmin(0) / (len(nodes) - 1)
    known = proportions[:, b] / (proportions[:, a] + proportions[:, b])
    third = proportions[:, 3 - a - b]
    found = []
    for level in known.nan_to_num().unique().tolist():
        here = (known == level) & (third <= proportions[:, [a, b]].amax(1))
        found.append(f"{level:.2f}: {shares[here].mean():.2f} ± {shares[here].std():.2f}")
    print(f"line {a} to line {b}, known share: share of the length  ", ", ".join(found))

figure, axis = plt.subplots(figsize=(6, 5), layout="constrained")
axis.scatter(codes[:, 0], codes[:, 1], c=proportions.numpy(), s=14)
axis.plot(*curves.points.permute(2, 0, 1), c="black")
axis.set(title="mixtures of three lines, by colour, and the geodesics between the pure ones", aspect="equal")

# %% [markdown]
# [Four geometries, priors learned afterwards and NUTS on a held-out cell, with seeds](../docs/results/single_cell.md).
