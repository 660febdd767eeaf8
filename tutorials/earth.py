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
# # Places on the globe
#
# Where does the Earth quake? A density on the sphere must not know where a map was cut. Brownian motion on the sphere
# has such a density, the heat kernel, known exactly; a mixture of heat kernels is a density estimate of mass 1.

# %%
import math
import os

import matplotlib.pyplot as plt
import pyro
import torch
from pyro.distributions import constraints

from pyro_riemann import Sphere
from pyro_riemann.experiments.earth import load_places, split, to_chart
from pyro_riemann.mixtures import HeatKernelMixture, fit_kernels, fit_mixture

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer points
pyro.set_rng_seed(0)
pyro.clear_param_store()
sphere = Sphere(2)
try:
    places, what = load_places("earthquake", distinct=True), "earthquakes"
except FileNotFoundError as error:
    print(f"No data, so the page shows SIMULATED points on a wavy line. {error}")
    latitude = 120 * torch.rand(4000).double() - 60
    line = torch.stack([latitude + torch.randn(4000), 100 + 30 * (latitude / 20).sin() + torch.randn(4000)], -1)
    places, what = to_chart(line), "simulated points"
places = places[torch.randperm(len(places))[: 600 if SMALL else len(places)]]
train, validation, test = (places[part] for part in split(len(places), seed=0))
print(f"{len(train)} {what} to learn from, {len(test)} to test")


# %% [markdown]
# Densities of this package are for Lebesgue measure in the chart. The literature quotes negative log likelihoods for
# the area of the unit sphere, where the uniform law has $\log 4\pi = 2.53$; half of `logdet` is the difference.


# %%
def score(law: HeatKernelMixture) -> float:
    with torch.no_grad():
        return float((sphere.logdet(test) / 2 - law.log_prob(test)).mean())


# %% [markdown]
# **A few kernels by expectation maximisation**, with centres, times and weights of their own; the likelihood never
# falls. After time 40 the heat kernel is the uniform law: a background for lonely places.

# %%
few = fit_mixture(train, sphere, 30, background=40.0, num_steps=20)
print(f"log likelihood {few.log_likelihood[0]:.2f} to {few.log_likelihood[-1]:.2f}; score {score(few.mixture):.2f}")

# %% [markdown]
# **By SVI.** The mixture is an ordinary Pyro distribution: here its times are learned anew, from doubled ones.

# %%
start = few.mixture


def model(batch: torch.Tensor) -> HeatKernelMixture:
    time = pyro.param("time", 2 * start.time, constraint=constraints.positive)
    law = HeatKernelMixture(start.loc, time, start.logits, sphere)
    with pyro.plate("places", len(train), subsample_size=len(batch)):
        pyro.sample("place", law, obs=batch)
    return law


svi = pyro.infer.SVI(model, lambda batch: None, pyro.optim.ClippedAdam({"lr": 0.03}), pyro.infer.Trace_ELBO())
print(f"score with doubled times {score(model(train[:1])):.2f}")
for _ in range(30 if SMALL else 200):
    svi.step(train[torch.randint(len(train), (100,))])
print(f"after learning {score(model(train[:1])):.2f}")

# %% [markdown]
# **Kernels on all points**, of many times each; held-out folds say how much each time weighs.

# %%
times, multiples = torch.logspace(-7, -3, 5).double(), torch.tensor([0.05, 0.5, 5.0]).double()
dense = fit_kernels(train, sphere, times, multiples=multiples, background=40.0)
print(f"score {score(dense):.2f}")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
x, y = torch.meshgrid(*[torch.linspace(-1, 1, 60 if SMALL else 160).double()] * 2, indexing="xy")
inside = x**2 + y**2 < 0.999
for axis, east in zip(axes, (100.0, 280.0), strict=True):  # looking down on two points of the equator
    c, s = math.cos(math.radians(east)), math.sin(math.radians(east))
    frame = torch.tensor([[-s, c, 0.0], [0.0, 0.0, 1.0], [c, s, 0.0]]).double()  # right, up, towards us
    globe = torch.stack([x, y, (1 - x**2 - y**2).clamp(min=0).sqrt()], -1)[inside]
    z = sphere.from_ambient(globe @ frame)
    density = torch.full_like(x, torch.nan)
    density[inside] = (dense.log_prob(z) - sphere.logdet(z) / 2) / math.log(10)
    picture = axis.pcolormesh(x, y, density, cmap="magma", vmin=-3, vmax=2)
    seen = sphere.to_ambient(test) @ frame.T
    axis.plot(*seen[seen[:, 2] > 0, :2].T, ".", c="cyan", ms=2, label="test places")
    axis.set(title=f"seen from {east:.0f}° east", aspect="equal", frame_on=False, xticks=[], yticks=[])
axes[0].legend(loc="lower left")
figure.colorbar(picture, ax=axes, label="log10 of the density for the area", shrink=0.8)

# %% [markdown]
# [Four data sets, five splits each](../docs/results/earth.md), and what equal rows do to such scores.
