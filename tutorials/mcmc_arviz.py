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
# # MCMC and ArviZ with a Riemannian prior
#
# The upper half of a handwritten digit is seen, the lower half is not. What was the digit? A decoder with two latent
# coordinates turns the question into a posterior in the plane, and NUTS draws from it. The posterior is bent and
# lumpy, as posteriors of decoders are, so the page is about trust: several chains, what ArviZ says of them, what the
# geometry says of them, what bad chains look like. In the plane the answer is also known by brute force, on a grid,
# and the chains are held against it.

# %%
import os
from typing import Any

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import init_to_value
from torch import Tensor

from pyro_riemann import (
    GridMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    summary,
    to_arviz,
)
from pyro_riemann.datasets import load_dataset
from pyro_riemann.plotting import plot_chains, plot_images, plot_latent_space
from pyro_riemann.vae import TrainingConfig, encode_all, make_vae, train

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer draws
EPOCHS, DRAWS, WARMUP, CHAINS, NODES = (20, 60, 60, 2, 100) if SMALL else (100, 1000, 300, 4, 400)
pyro.set_rng_seed(0)

# %% [markdown]
# ## A decoder and its metric
#
# A small autoencoder learns the 8 x 8 digits that come with scikit-learn. Training ends with a network for the
# decoder's standard deviation, which grows where there are no codes. The metric of the latent space is the pullback of
# mean and deviation; `GridMetric` tabulates it, so that no distance costs an evaluation of the decoder from then on.

# %%
digits = load_dataset("digits")
networks: dict[str, Any] = {"hidden": (64, 64), "num_centers": 60, "min_scale": 0.1, "seed": 0}
vae = make_vae(64, latent_dim=2, prior="normal", posterior="normal", **networks)
train(vae, digits.train, config=TrainingConfig(warm_up_epochs=EPOCHS, epochs=0), progress=False)
decoder = vae.decoder.requires_grad_(False)
codes = encode_all(vae, digits.train)
margin = 0.4 * (codes.amax(0) - codes.amin(0))
pullback = PullbackMetric(decoder, dim=2)
grid = GridMetric(pullback, codes.amin(0) - margin, codes.amax(0) + margin, resolution=160)
gap = (grid.logdet(codes) - pullback.logdet(codes)).abs() / 2
print(f"error of the log volume element at the codes: median {gap.median():.1e}, largest {gap.max():.1e}")

# %% [markdown]
# The prior is the law of Brownian motion from the middle of the codes. All its distances start there, and
# `distance_field` finds them at once; a metric that looks them up is a short subclass. The table ends at the box, and
# so does what is known: a metric's `support` becomes that of its distributions, and NUTS is mapped into it. If codes
# were data, the most likely time would be half their mean squared distance from the centre.


# %%
class Centred(RiemannianMetric):
    """The table, with distances from one centre looked up."""

    dim = 2

    def __init__(self, grid: GridMetric, centre: Tensor) -> None:
        super().__init__()
        self.grid, self.field = grid, grid.distance_field(centre)
        self.support = constraints.independent(constraints.interval(grid.table.low, grid.table.high), 1)

    def metric(self, z: Tensor) -> Tensor:
        return self.grid.metric(z)

    def logdet(self, z: Tensor) -> Tensor:
        return self.grid.logdet(z)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        return self.field.squared_dist(y)


centre = codes.median(0).values
metric = Centred(grid, centre)
prior = RiemannianHeatKernel(centre, metric.field.squared_dist(codes).mean() / 2, metric)

# %% [markdown]
# ## The model
#
# Half of the pixels is observed. The chains start at draws of the prior, all different: chains that start together can
# agree on something wrong. `target_accept_prob` near 1 makes steps small enough for the steep sides of a decoder's
# posterior, and a full mass matrix learns which way it is stretched. Pyro would put the chains of one `MCMC` into
# processes of their own; a list of single runs stays in this one, and `to_arviz` joins them.

# %%
image, label = digits.test[8], int(digits.test_labels[8])
seen = torch.arange(64) < 32


def model() -> None:
    z = pyro.sample("z", prior)
    mean, scale = decoder(z)
    pyro.sample("x", dist.Normal(mean[..., seen], scale[..., seen]).to_event(1), obs=image[seen])


def run_chains(starts: Tensor, draws: int = DRAWS, warmup: int = WARMUP, **settings: Any) -> list[MCMC]:
    runs = []
    for seed, start in enumerate(starts):
        pyro.set_rng_seed(seed)
        first = init_to_value(values={"z": start})
        kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True, init_strategy=first, **settings)
        run = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
        run.run()
        runs.append(run)
    return runs


starts = prior.sample((CHAINS,))
runs = run_chains(starts, target_accept_prob=0.9, full_mass=True)
chains = to_arviz(runs)
print({name: tuple(values.shape) for name, values in chains["posterior"].data_vars.items()})
print("mean acceptance:", [round(rate, 2) for rate in chains["sample_stats"].attrs["mean_acceptance_rate"]])

# %% [markdown]
# `to_arviz` gives what the installed ArviZ works with, `InferenceData` before its version 1 and a `DataTree` since;
# every function of ArviZ takes it. `summary` is ArviZ's table with the checks of the whole run below: divergences, and
# how many geodesics from the prior's centre to the draws the solver could close. R-hat compares the chains with each
# other and should be at most 1.01; the bulk ESS is the number of independent draws that the mean is worth, the tail
# ESS that of the 5 % and 95 % quantiles.

# %%
table = summary(chains, grid, loc=centre, num_geodesics=20 if SMALL else 200)
print(table)
print("R-hat <= 1.01, bulk ESS >= 400, no divergence:", table.passed())

# %% [markdown]
# The ranks of each chain's draws among all draws should look like those of any other chain: flat, up to noise.

# %%
panels = plot_chains(chains)

# %% [markdown]
# ## Against the truth
#
# In two dimensions the posterior can be summed over a grid of nodes. This costs more evaluations with every dimension,
# and NUTS does not, but here it is the truth to within the grid. An estimate from chains should differ from it by
# about its Monte Carlo standard error, `mcse_mean`.

# %%
low, high = grid.table.low, grid.table.high
axes = [torch.linspace(float(low[i]), float(high[i]), NODES) for i in range(2)]
nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
mean, scale = decoder(nodes)
log_posterior = prior.log_prob(nodes) + dist.Normal(mean, scale).log_prob(image)[:, seen].sum(-1)
weights = log_posterior.double().softmax(0)
truth = weights @ nodes.double()
spread = (weights @ (nodes - truth).square()).sqrt()
for i, row in enumerate(table.itertuples()):
    error = (row.mean - float(truth[i])) / row.mcse_mean
    print(f"z[{i}]: NUTS {row.mean:.3f} +- {row.mcse_mean:.3f}, grid {truth[i]:.3f} ({error:+.1f} standard errors); "
          f"standard deviation {row.sd:.3f}, grid {spread[i]:.3f}")  # fmt: skip


# %%
def level(density: Tensor, share: float) -> float:
    """Height of the contour that holds this share of the posterior."""
    values = density.sort(descending=True).values
    return float(values[int((values.cumsum(0) < share).sum())])


def show(draws: Tensor, axis: Any, title: str) -> None:
    levels = [level(weights, share) for share in (0.99, 0.9, 0.5)]
    axis.contour(*axes, weights.reshape(NODES, NODES).T, levels=levels, colors="k", linewidths=0.8)
    for chain in draws:
        axis.scatter(*chain.T, s=1.5, alpha=0.5)
    axis.set(xlim=box[0], ylim=box[1], xlabel="$z_1$", ylabel="$z_2$", title=title)


draws = torch.stack([run.get_samples()["z"] for run in runs])
flat = draws.flatten(0, 1)
edges = torch.stack([flat.amin(0), flat.amax(0)])
box = (edges + 0.3 * torch.tensor([[-1.0], [1.0]]) * (edges[1] - edges[0])).T.tolist()
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
plot_latent_space(grid, codes, digits.train_labels, ax=left)
left.scatter(*starts.T, c="k", marker="*", s=60, label="starts")
show(draws, right, "draws of all chains; contours hold 50, 90, 99 %")

# %% [markdown]
# And the answer: the seen half, what the decoder makes of draws, and the whole image at the end.

# %%
shown = decoder(flat[torch.linspace(0, len(flat) - 1, 10).long()])[0]
strip = plot_images(torch.cat([(image * seen)[None], shown, image[None]]), digits.shape, columns=12, limits=(0, 1))
title = strip.set_title(f"seen, ten draws, the truth (a {label})")

# %% [markdown]
# ## Bad chains
#
# A common mistake: no warm-up, so that the step is the one that was guessed. It is too long for the steep sides of
# this posterior. Chains stand still for long stretches, transitions diverge (red ticks), the ranks of the chains
# disagree.

# %%
careless = run_chains(starts, DRAWS // 2, warmup=0, step_size=0.4, adapt_step_size=False)
print(summary(careless))
panels = plot_chains(careless)

# %% [markdown]
# What helps is what the first run did: adapt step and mass, and ask for a high acceptance. As a hard test, these
# chains start near the corners of the table, where the decoder has learned nothing. A chain may stay there, in a
# pocket behind a wall of the metric: all its draws look healthy, none diverges, and only the comparison with other
# chains gives it away. Here the grid tells as well: the box of such a chain's draws would hold next to nothing of the
# posterior.

# %%
far = torch.cartesian_prod(*torch.stack([torch.lerp(centre, low, 0.95), torch.lerp(centre, high, 0.95)]).T)[:CHAINS]
repaired = run_chains(far, DRAWS // 2, target_accept_prob=0.9, full_mass=True)
print(summary(repaired))
for number, run in enumerate(repaired):
    z = run.get_samples()["z"]
    inside = ((nodes >= z.amin(0)) & (nodes <= z.amax(0))).all(-1)
    print(f"chain {number}: the box of its draws holds {weights[inside].sum():.1%} of the posterior")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
show(torch.stack([run.get_samples()["z"] for run in careless]), left, "a step too long")
show(torch.stack([run.get_samples()["z"] for run in repaired]), right, "adapted, starts in the corners")

# %% [markdown]
# In short:
#
# - Never look at one chain. R-hat of several, started apart, finds one that is stuck.
# - Divergences: raise `target_accept_prob`, let the warm-up last, turn on `full_mass`. Coordinates in which the
#   posterior is rounder help more than any setting.
# - Large R-hat without divergences: chains sit in different places, and more draws do not help. Start at draws of the
#   prior or of an encoder. If chains still disagree, compare the log densities of their places: where these are
#   comparable, the posterior has several modes, which NUTS does not weigh.
# - Few effective draws but all else in order: now more draws help.
# - Geodesics that do not converge: the density itself is in doubt. Take a finer table, or a `GeodesicSolver` with more
#   knots and iterations.
