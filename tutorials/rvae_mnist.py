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
# # R-VAE on MNIST
#
# A step in the latent space of a VAE has a length: how much the decoded image changes. A standard normal prior knows
# nothing of it. The R-VAE of Kalatzis et al. (2020) takes the law of Brownian motion under that metric for its prior.
# The page trains one and a plain VAE beside it, looks at geodesics and Brownian paths, and compares the two by ELBO
# and IWAE on images that neither has seen.
#
# With MNIST in the folder that `PYRO_RIEMANN_DATA` names, the page trains on the first images of it; otherwise, and
# with fewer steps, on the 8 x 8 digits that come with scikit-learn. The whole of MNIST is the
# [quickstart](../docs/quickstart.md).

# %%
import os
from typing import Any

import matplotlib.pyplot as plt
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import Tensor

from pyro_riemann import GeodesicSolver, brownian_motion
from pyro_riemann.datasets import load_dataset
from pyro_riemann.plotting import (
    plot_brownian_paths,
    plot_decoded_curves,
    plot_geodesics,
    plot_images,
    plot_latent_space,
)
from pyro_riemann.vae import TrainingConfig, encode_all, evaluate, make_vae, prior_mass, train

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer steps
MNIST = bool(os.environ.get("PYRO_RIEMANN_DATA")) and not SMALL
HIDDEN, CENTRES, RESOLUTION = (200, 200, 160) if MNIST else (64, 50, 60 if SMALL else 120)
EPOCHS, PHASE_TWO, BATCH = (20, 3, 250) if MNIST else (10 if SMALL else 100, 1 if SMALL else 5, 250)
TRAIN, TEST, WEIGHTED, DRAWS = (10_000, 1000, 200, 200) if MNIST else (1498, 299, 20 if SMALL else 200, 50)

torch.manual_seed(0)
data = load_dataset("mnist" if MNIST else "digits")
images, tests, labels = data.train[:TRAIN], data.test[:TEST], data.test_labels[:TEST]
print(f"{len(images)} training and {len(tests)} test images of {data.shape[0]} x {data.shape[1]} pixels")

# %% [markdown]
# ## Model and guide
#
# A `VAE` is a pair of methods, `model` and `guide`, that Pyro takes as any other pair. They differ from those of a
# textbook VAE in two distributions: the prior is a `RiemannianHeatKernel` with learned centre and time, the posterior
# a `RiemannianWrappedNormal`. Their metric is the pullback of the decoder's mean and standard deviation, tabulated on
# the box of the codes (`metric="grid"`), since in two dimensions a table is cheaper than a decoder.

# %%
settings: dict[str, Any] = {"hidden": (HIDDEN, HIDDEN), "num_centers": CENTRES, "min_scale": 0.1, "seed": 0}
settings |= {"metric": "grid", "grid_resolution": RESOLUTION}
pixels = images.shape[1]
models = {
    "R-VAE": make_vae(pixels, prior="heat_kernel", posterior="wrapped_normal", name="rvae", **settings),
    "VAE": make_vae(pixels, prior="normal", posterior="normal", name="vae", **settings),
}

# %% [markdown]
# ## Two phases
#
# There is no geometry before there is a decoder. Phase 1 trains encoder and decoder mean as in a plain VAE, with one
# standard deviation for all pixels. Then the codes are clustered, a network for the standard deviation gets its
# centres, the metric is taken, the prior its starting values, and phase 2 trains deviation, posterior scale and prior.
# `train` is a loop around `pyro.infer.SVI` that does all that; with `checkpoint=` it resumes.

# %%
config = TrainingConfig(
    warm_up_epochs=EPOCHS, epochs=PHASE_TWO, batch_size=BATCH, phase_two=("posterior", "precision", "prior")
)
histories = {name: train(vae, images, tests, config, progress=False) for name, vae in models.items()}
rvae = models["R-VAE"].requires_grad_(False)

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for (name, history), color in zip(histories.items(), ("C1", "C0"), strict=True):
    axis.plot(range(1, len(history) + 1), history["validation"], "o-", ms=3, c=color, label=name)
axis.axvline(EPOCHS + 0.5, c="0.6", lw=0.8, ls="--")
axis.set(xlabel="epoch; phase 2 is right of the line", ylabel="test ELBO, nats per image")
legend = axis.legend()

# %% [markdown]
# Nothing hides behind `train`: the pair takes Pyro's own steps as well.

# %%
svi = SVI(rvae.model, rvae.guide, Adam({"lr": 1e-3}), Trace_ELBO())
some = tests[:200]
print(f"ELBO by hand: {-svi.evaluate_loss(some) / len(some):.1f} nats per image")

# %% [markdown]
# ## The latent space
#
# Grey is the log volume element. It is large where the image changes fast, between classes, and where the standard
# deviation rises: the codes are ringed by walls.

# %%
codes = encode_all(rvae, tests)
margin = 0.15 * (codes.amax(0) - codes.amin(0))
low, high = codes.amin(0) - margin, codes.amax(0) + margin
axes = plot_latent_space(rvae.metric, codes, labels, low=low, high=high)
prior: Any = rvae.prior_distribution()
star = axes.plot(*prior.loc, "*", c="k", ms=14, mec="w")

# %% [markdown]
# ## Geodesics against straight lines
#
# The shortest curve between two codes need not be straight in the chart. Of random pairs of different digits, the
# table below says how much longer the straight lines are; the pair with the longest detour is decoded along both.

# %%
metric = rvae.metric
metric.solver = GeodesicSolver(num_knots=16, num_segments=64, max_iterations=100)
first, second = torch.randint(len(codes), (2, 20 if SMALL else 200), generator=torch.Generator().manual_seed(0))
apart = labels[first] != labels[second]
z, y = codes[first[apart]], codes[second[apart]]


def straight_length(z: Tensor, y: Tensor) -> Tensor:
    times = (torch.arange(400) + 0.5)[:, None, None] / 400
    return metric.norm(torch.lerp(z, y, times), (y - z).expand(400, *z.shape)).mean(0)


curves = metric.geodesic(z, y)
longer = straight_length(z, y) / curves.length
print(f"{curves.converged.double().mean():.0%} of {len(z)} geodesics converged")
print(f"straight line / geodesic: median {longer.median():.2f}, largest {longer[curves.converged].max():.2f}")

best = int(torch.where(curves.converged, longer, 0).argmax())
axes = plot_latent_space(metric, low=low, high=high)
axes = plot_geodesics(metric.geodesic(z[[best, 0, 1, 2, 3]], y[[best, 0, 1, 2, 3]]), axes)

# %%
shown = metric.geodesic(z[best], y[best])
frames = plot_decoded_curves(lambda at: rvae.decoder.mean(at), shown, data.shape, limits=(0, 1))

# %% [markdown]
# ## Brownian motion, and the mass of its density
#
# A draw of the prior is the end of a Brownian path. The paths stay within the walls, where steps are short. The
# *density* of the prior is an approximation for short times, and its mass need not be one; a bound that uses it as it
# is, as the paper does, is none. The mass is integrated over the latent plane.

# %%
paths = brownian_motion(metric, prior.loc.expand(30, 2), prior.time, num_steps=200, return_path=True)
axes = plot_brownian_paths(paths, plot_latent_space(metric, low=low, high=high))
mass = prior_mass(rvae)
print(f"time {float(prior.time):.2f}; mass of the density {float(mass.value.exp()):.3f}, "
      f"error of its log {float(mass.standard_error):.0e}")  # fmt: skip

# %%
figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
plot_images(tests[:100], data.shape, limits=(0, 1), ax=panels[0])
panels[0].set_title("test images")
for (name, vae), panel in zip(models.items(), panels[1:], strict=True):
    with torch.no_grad():
        plot_images(vae.decoder.mean(vae.prior_distribution().sample((100,))), data.shape, limits=(0, 1), ax=panel)
    panel.set_title(f"{name}: decoded draws of the prior")

# %% [markdown]
# ## ELBO and IWAE
#
# Both in nats per test image, all constants included, so that the models compare. IWAE draws many codes an image and
# is the tighter bound. Only the row with the prior normalised is a bound for the R-VAE.

# %%
reports = {
    name: evaluate(vae, tests, num_importance=DRAWS, num_importance_data=WEIGHTED, num_pairs=20 if SMALL else 200)
    for name, vae in models.items()
}
print(f"{'':>23}  reconstruction      KL     ELBO  IWAE-{DRAWS}")
for name, report in reports.items():
    columns = (report["reconstruction"], report["kl"], report["elbo"], report["iwae"])
    print(f"{name:>23}  {columns[0]:14.1f}  {columns[1]:6.2f}  {columns[2]:7.1f}  {columns[3]:8.1f}")
    if "elbo_normalized" in report:
        columns = (columns[0], report["kl"] + report["log_mass"], report["elbo_normalized"], report["iwae_normalized"])
        print(f"{'R-VAE, normalised':>23}  {columns[0]:14.1f}  {columns[1]:6.2f}  {columns[2]:7.1f}  {columns[3]:8.1f}")
gap = reports["R-VAE"]["elbo_normalized"] - reports["VAE"]["elbo"]
error = (reports["R-VAE"]["elbo_standard_error"] ** 2 + reports["VAE"]["elbo_standard_error"] ** 2) ** 0.5
print(f"ELBO of the R-VAE minus that of the VAE: {gap:+.1f} +- {error:.1f}")
