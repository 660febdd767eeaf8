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
# # A Riemannian prior in ten minutes
#
# Two models whose unknowns live on a manifold, a sphere and a torus, fitted by NUTS and by SVI. There is no
# neural network here: the point is what a metric does to a prior. Everything carries over to the latent space of
# a decoder, where the metric is `PullbackMetric(decoder, dim)`.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch import Tensor

from pyro_riemann import (
    FlatTorus,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    WarpedMetric,
    brownian_motion,
    summary,
)

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer draws
DRAWS, WARMUP, CHAINS, STEPS = (40, 40, 2, 120) if SMALL else (500, 200, 4, 600)
pyro.set_rng_seed(0)

# %% [markdown]
# ## A metric and what follows from it
#
# `Sphere(2)` is the unit sphere in stereographic coordinates: a chart $z\in\mathbb R^2$ with the metric $G(z) =
# 4I/(1+|z|^2)^2$. The origin is the south pole, $|z| = 1$ the equator. Distances are lengths on the sphere:

# %%
sphere = Sphere(2)
pole, equator = torch.zeros(2), torch.tensor([1.0, 0.0])
print("a quarter turn:", sphere.dist(pole, equator).item())

# %% [markdown]
# The bell curve of a manifold is the law of Brownian motion after some time. `RiemannianHeatKernel` draws from it
# by simulation, and evaluates its short-time density. That density is taken with respect to $dz$ in the chart,
# which is what Pyro's inference expects.

# %%
prior = RiemannianHeatKernel(pole, torch.tensor(0.5), sphere, correction="van_vleck_curvature")
draws = prior.sample((2000,))
height = sphere.to_ambient(draws)[:, 2]
print(f"mean height {height.mean():.3f}, exact {-torch.tensor(-0.5).exp():.3f}")  # E cos(theta_t) = e^{-t}
print(f"mass of the density: {prior.log_normalizer().value.exp():.4f}")

# %%
paths = sphere.to_ambient(brownian_motion(sphere, pole.expand(5, 2), time=0.5, num_steps=400, return_path=True))
figure = plt.figure(figsize=(9, 4))
left = figure.add_subplot(1, 2, 1, projection="3d")
left.scatter(*sphere.to_ambient(draws).T, s=1)
left.set_title("2000 draws")
right = figure.add_subplot(1, 2, 2, projection="3d")
for path in paths.unbind(1):
    right.plot(*path.T, lw=0.7)
right.set_title("5 Brownian paths")
for axes in (left, right):
    axes.set_box_aspect((1, 1, 1))
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))  # type: ignore[call-arg, unused-ignore]

# %% [markdown]
# ## NUTS on the sphere
#
# A direction is seen five times with noise in $\mathbb R^3$. Its prior is the heat kernel around the south pole.
# Nothing about the model is special; the prior is a Pyro distribution.

# %%
truth = torch.tensor([0.9, -0.4])
data = sphere.to_ambient(truth) + 0.4 * torch.randn(5, 3)


def direction_model(data: Tensor, metric: RiemannianMetric, time: float = 0.5) -> None:
    z = pyro.sample("z", RiemannianHeatKernel(torch.zeros(2), torch.tensor(time), metric, correction="van_vleck"))
    to_sphere = metric.to_base(z) if isinstance(metric, WarpedMetric) else z
    with pyro.plate("views", len(data)):
        pyro.sample("x", dist.Normal(sphere.to_ambient(to_sphere), 0.4).to_event(1), obs=data)


def run_chains(metric: RiemannianMetric) -> Tensor:
    """Draws of several chains, (chains, draws, 2)."""
    chains = []
    for seed in range(CHAINS):
        pyro.set_rng_seed(seed)
        mcmc = MCMC(NUTS(direction_model), num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
        mcmc.run(data, metric)
        chains.append(mcmc.get_samples()["z"])
    return torch.stack(chains)


chains = run_chains(sphere)
summary({"z": chains}, sphere)

# %% [markdown]
# ## The same model in other coordinates
#
# A prior that is a property of the manifold does not care about the chart. `WarpedMetric` rewrites the sphere in
# coordinates $y$ with $z = F(y)$; the posterior, mapped back to the sphere, must stay the same. A Gaussian prior
# $\mathcal N(0, tI)$ in the chart would fail this test: it is another law in each chart.


# %%
def bend(y: Tensor) -> Tensor:
    return torch.stack([y[..., 0], y[..., 1] + 0.5 * y[..., 0].square()], -1)


def unbend(z: Tensor) -> Tensor:
    return torch.stack([z[..., 0], z[..., 1] - 0.5 * z[..., 0].square()], -1)


warped = WarpedMetric(sphere, (bend, unbend))
warped_chains = run_chains(warped)
for name, points in (("stereographic", chains), ("bent", warped.to_base(warped_chains))):
    mean = sphere.to_ambient(points).mean((0, 1))
    print(f"{name:>13}: posterior mean direction {[round(value, 2) for value in mean.tolist()]}")

# %% [markdown]
# ## SVI with a Riemannian guide
#
# `RiemannianWrappedNormal` is the natural guide: a Gaussian in the tangent space at `loc`, carried to the
# manifold by the exponential map. Its density is exact, and its draws are reparametrised, so that the ELBO has
# low-variance gradients.


# %%
def direction_guide(data: Tensor, metric: RiemannianMetric) -> None:
    loc = pyro.param("loc", torch.zeros(2))
    time = pyro.param("time", torch.tensor(0.1), constraint=dist.constraints.positive)
    pyro.sample("z", RiemannianWrappedNormal(loc, time, metric))


pyro.clear_param_store()
svi = SVI(direction_model, direction_guide, Adam({"lr": 0.02}), Trace_ELBO(num_particles=4))
losses = [svi.step(data, sphere) for _ in range(STEPS)]
print("SVI centre ", [round(value, 2) for value in pyro.param("loc").tolist()])
print("NUTS median", [round(value, 2) for value in chains.flatten(0, 1).median(0).values.tolist()])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.plot(losses, lw=0.5)
left.set(xlabel="step", ylabel="- ELBO")
chain_points = chains.flatten(0, 1)
right.scatter(chain_points[:, 0], chain_points[:, 1], s=2, label="NUTS")
guide = RiemannianWrappedNormal(pyro.param("loc").detach(), pyro.param("time").detach(), sphere)
guide_points = guide.sample((500,))
right.scatter(guide_points[:, 0], guide_points[:, 1], s=2, label="guide")
right.plot(*truth.tolist(), "kx", label="truth")
right.legend()
_ = right.set_title("posterior in the chart")
# %% [markdown]
# ## A torus: angles that wrap
#
# Pairs of angles, such as the dihedrals of a protein, live on a flat torus. The data below straddle the seam at
# $\pm\pi$ of the first angle; an ordinary mean would land on the opposite side. The prior of the centre is
# uniform over one period (any will do); the law of the data is the heat kernel, whose `time` is their variance.

# %%
torus = FlatTorus(2)
angles = torus.wrap(torch.tensor([3.1, 0.5]) + 0.3 * torch.randn(40, 2))
print("ordinary mean:", [round(value, 2) for value in angles.mean(0).tolist()])


def torus_model(angles: Tensor) -> None:
    centre = pyro.sample("centre", RiemannianUniform(torus, torch.zeros(2) - 1.0, torch.full((2,), 2 * torch.pi - 1.0)))
    time = pyro.sample("time", dist.LogNormal(-1.0, 1.0))
    with pyro.plate("data", len(angles)):
        pyro.sample("theta", RiemannianHeatKernel(centre, time, torus), obs=angles)


pyro.clear_param_store()
guide_normal = AutoNormal(torus_model)
svi = SVI(torus_model, guide_normal, Adam({"lr": 0.03}), Trace_ELBO())
for _ in range(STEPS):
    svi.step(angles)
estimate = guide_normal.median(angles)
print("SVI centre:   ", [round(value, 2) for value in torus.wrap(estimate["centre"]).tolist()])
print("SVI spread:   ", round(estimate["time"].sqrt().item(), 2), "(true 0.3)")

# %%
figure, axes = plt.subplots(figsize=(4, 4))
axes.scatter(angles[:, 0], angles[:, 1], s=8)
axes.plot(*torus.wrap(estimate["centre"]).tolist(), "kx", label="SVI centre")
axes.plot(*angles.mean(0).tolist(), "rx", label="ordinary mean")
axes.set(xlim=(-torch.pi, torch.pi), ylim=(-torch.pi, torch.pi))
_ = axes.legend()

# %% [markdown]
# ## A metric of your own
#
# A subclass with `dim` and `metric(z)` is all that the distributions need. This is the Poincaré half-plane with
# logarithmic height; distances, geodesics and Brownian motion are found numerically.


# %%
class HalfPlane(RiemannianMetric):
    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack([(-2 * z[..., 1]).exp(), torch.ones_like(z[..., 1])], -1))


plane = HalfPlane()
start, end = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.0])
curve = plane.geodesic(start, end)
print(f"length {curve.length:.4f}, exact {2 * torch.asinh(torch.tensor(1.0)):.4f}, converged: {bool(curve.converged)}")
print(RiemannianHeatKernel(start, torch.tensor(0.2), plane).log_prob(end))
