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
# # Write your own metric
#
# A metric is a class with two things, `dim` and `metric(z)`. The example here is older than any decoder: normal
# distributions $\mathcal N(m, \sigma^2)$ form a surface, and Rao (1945) measured it by the Fisher information. On the
# chart $z = (m, s)$ with $s = \log\sigma$ it is
#
# $$G(z) = n \begin{pmatrix} e^{-2s} & 0 \\ 0 & 2 \end{pmatrix}$$
#
# for $n$ observations. Distance counts how well two normals can be told apart, whatever the units of the data. The
# page writes this metric, checks it, makes it fast, and puts it into a model of a few flowers, in Pyro and in NumPyro.

# %%
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as numpyro_dist
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from sklearn.datasets import load_iris
from torch import Tensor

import pyro_riemann.numpyro as twin
from pyro_riemann import (
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianWrappedNormal,
    WarpedMetric,
    summary,
)

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer draws
DRAWS, WARMUP, CHAINS, STEPS = (40, 40, 2, 30) if SMALL else (500, 300, 4, 500)
pyro.set_rng_seed(0)


# %% [markdown]
# ## The metric
#
# Points have shape `(*batch, 2)`, so `metric` must give `(*batch, 2, 2)`. A metric is an `nn.Module`: numbers that
# should move with it between devices are buffers, those that should be learned are parameters.


# %%
class Normals(RiemannianMetric):
    dim = 2
    count: Tensor

    def __init__(self, count: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(float(count)))

    def metric(self, z: Tensor) -> Tensor:
        s = z[..., 1]
        return self.count * torch.diag_embed(torch.stack([(-2 * s).exp(), torch.full_like(s, 2.0)], -1))


normals = Normals()
start, end = torch.tensor([-2.0, -0.7]), torch.tensor([2.0, -0.7])
curve = normals.geodesic(start, end)
print(f"distance {curve.length:.3f}, along the straight line {normals.norm(start, end - start):.3f}")

# %% [markdown]
# The shortest way from one narrow normal to another leads over wide ones, which are hard to tell apart.

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
line = torch.lerp(start, end, torch.linspace(0, 1, 9)[:, None])
steps = curve(torch.linspace(0, 1, 9))
axes[0].plot(*curve(torch.linspace(0, 1, 100)).T, c="C1")
axes[0].plot(*steps.T, "o", c="C1", ms=4, label="geodesic")
axes[0].plot(*line.T, "o-", c="C0", ms=4, label="straight line")
axes[0].set(xlabel="$m$", ylabel=r"$s = \log\sigma$")
axes[0].legend()
x = torch.linspace(-5, 5, 300)
for axis, points, title in zip(axes[1:], (line, steps), ("along the straight line", "along the geodesic"), strict=True):
    for step, (m, s) in enumerate(points):
        axis.plot(x, dist.Normal(m, s.exp()).log_prob(x).exp(), c=plt.get_cmap("viridis")(step / 8))
    axis.set(title=title, xlabel="$x$")

# %% [markdown]
# ## Check it
#
# Three mistakes are common. *A batch axis goes astray*: compare a batch with its points one by one. *The matrix is not
# positive definite*: every method that needs that says so, with a point. *The formula is wrong*: hold it against
# something that it must equal. Here the squared distance of neighbours is twice their Kullback-Leibler divergence.


# %%
class Wrong(RiemannianMetric):
    dim = 2

    def metric(self, z: Tensor) -> Tensor:  # indefinite where |z_2| > 1
        return torch.diag_embed(torch.stack([torch.ones_like(z[..., 1]), 1 - z[..., 1] ** 2], -1))


z = torch.randn(4, 5, 2)
print("batches:", torch.equal(normals.metric(z)[2, 3], normals.metric(z[2, 3])))
try:
    Wrong().logdet(torch.tensor([[0.0, 0.5], [0.0, 2.0]]))
except ValueError as error:
    print("wrong metric:", error)

z = torch.randn(1000, 2).double()
neighbours = z + 0.01 * torch.randn(1000, 2).double()
first, second = (dist.Normal(at[:, 0], at[:, 1].exp()) for at in (z, neighbours))
ratio = Normals().double().squared_dist(z, neighbours) / (2 * torch.distributions.kl_divergence(first, second))
print(f"squared distance / 2 KL: {ratio.min():.3f} to {ratio.max():.3f}")

# %% [markdown]
# ## Closed forms
#
# So far a distance is found by minimising the energy of a curve. Where you know better, override: any method of
# `RiemannianMetric` may be replaced. The normals are a hyperbolic plane, whose distances Rao's pupils knew by
#
# $$\ell^2 = 2n\,\mathrm{arcosh}^2(1 + u), \qquad u = \frac{(m - m')^2/2 + (\sigma - \sigma')^2}{2\sigma\sigma'} .$$
#
# Its autograd would give NaN where two points meet, so the square of the inverse hyperbolic cosine gets its series
# there. The inherited method is the test of the new one, values and gradients.


# %%
def squared_arcosh(u: Tensor) -> Tensor:
    """arcosh(1 + u)^2, smooth at u = 0."""
    small = u < 1e-4
    large = torch.where(small, torch.ones_like(u), u)
    return torch.where(small, 2 * u - u**2 / 3, (2 * torch.asinh((large / 2).sqrt())) ** 2)


class FastNormals(Normals):
    flow_steps = 6  # of the exponential map; its default, 16, is meant for vectors longer than those of a guide

    def logdet(self, z: Tensor) -> Tensor:
        return 2 * self.count.log() + torch.tensor(2.0).log() - 2 * z[..., 1]

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        (m, s), (n, t) = z.unbind(-1), y.unbind(-1)
        u = ((m - n) ** 2 / 2 + (s.exp() - t.exp()) ** 2) / (2 * (s + t).exp())
        return 2 * self.count * squared_arcosh(u)

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        (dm, ds), s = v.unbind(-1), z[..., 1]
        return torch.stack([-2 * dm * ds, (-2 * s).exp() * dm**2 / 2], -1)


fast = FastNormals()
z, y = torch.randn(2, 200, 2).requires_grad_()
for name in ("squared_dist", "logdet", "christoffel"):
    arguments = (z,) if name == "logdet" else (z, y)
    mine, inherited = getattr(fast, name)(*arguments), getattr(normals, name)(*arguments)
    slopes = [torch.autograd.grad(value.sum(), z)[0] for value in (mine, inherited)]
    worst = [((a - b).abs() / (1 + b.abs())).max().item() for a, b in ((mine, inherited), slopes)]
    print(f"{name:>12}: relative difference of values {worst[0]:.0e}, of gradients {worst[1]:.0e}")

for label, metric in (("inherited", normals), ("closed form", fast)):
    began = time.perf_counter()
    for _ in range(5):
        torch.autograd.grad(metric.squared_dist(z, y).sum(), z)
    print(f"{label:>12}: {(time.perf_counter() - began) / 5 * 1e3:.2f} ms for 200 distances and their gradient")

# %% [markdown]
# ## Other coordinates
#
# Who prefers $(m, \sigma^2)$ need not derive a new matrix: `WarpedMetric` takes the map from the new chart to the old.
# A law of the manifold then stays the same law; its density in the new chart is that of the old times the Jacobian of
# the map.


# %%
def to_log_scale(z: Tensor) -> Tensor:
    return torch.stack([z[..., 0], z[..., 1].log() / 2], -1)


def to_variance(z: Tensor) -> Tensor:
    return torch.stack([z[..., 0], (2 * z[..., 1]).exp()], -1)


variances = WarpedMetric(fast, (to_log_scale, to_variance))
old = RiemannianHeatKernel(torch.zeros(2), torch.tensor(0.3), fast)
new = RiemannianHeatKernel(to_variance(torch.zeros(2)), torch.tensor(0.3), variances)
z = old.sample((1000,))
jacobian = -torch.log(2 * to_variance(z)[:, 1])  # log of ds / d(sigma^2)
gap = new.log_prob(to_variance(z)) - old.log_prob(z) - jacobian
print(f"largest difference of the log densities: {gap.abs().max():.0e}")

# %% [markdown]
# ## In a model
#
# Five flowers of each of three species of iris: what are the mean and the spread of their sepals? The prior says that
# the three normals are steps of Brownian motion from a common one, which is fitted to all flowers together; how far
# the steps go, `time`, is unknown. The guide for SVI is a wrapped normal a species, NUTS needs none.

# %%
iris = load_iris()
flowers = torch.tensor(iris.data[:, 0].reshape(3, 50)[:, :5], dtype=torch.float32)  # sepal length in cm
centre = torch.stack([flowers.mean(), flowers.std().log()])


def model(flowers: Tensor) -> None:
    time = pyro.sample("time", dist.LogNormal(0.0, 1.0))
    with pyro.plate("species", 3):
        z = pyro.sample("z", RiemannianHeatKernel(centre, time, fast))
        pyro.sample("x", dist.Normal(z[..., :1] + torch.zeros(5), z[..., 1:].exp()).to_event(1), obs=flowers)


def guide(flowers: Tensor) -> None:
    loc, scale = pyro.param("loc", torch.tensor(0.0)), pyro.param("scale", torch.tensor(0.3), dist.constraints.positive)
    pyro.sample("time", dist.LogNormal(loc, scale))
    centres = pyro.param("centres", centre.repeat(3, 1))
    times = pyro.param("times", torch.full((3,), 0.1), dist.constraints.positive)
    with pyro.plate("species", 3):
        pyro.sample("z", RiemannianWrappedNormal(centres, times, fast))


pyro.clear_param_store()
svi = SVI(model, guide, ClippedAdam({"lr": 0.05, "lrd": 0.995}), Trace_ELBO(num_particles=4, vectorize_particles=True))
losses = [svi.step(flowers) for _ in range(STEPS)]
print(f"ELBO {-np.mean(losses[-50:]):.2f}, at the first steps {-np.mean(losses[:10]):.2f}")

runs = []
for seed in range(CHAINS):
    pyro.set_rng_seed(seed)
    kernel = NUTS(model, target_accept_prob=0.9, jit_compile=True, ignore_jit_warnings=True)  # traced: half the time
    run = MCMC(kernel, num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
    run.run(flowers)
    runs.append(run)
summary(runs)

# %% [markdown]
# ## The same in NumPyro
#
# The twin of a metric has the same names, with JAX arrays. A metric there is a pytree, so that it can pass through
# `jit`, `vmap` and `grad`; subclassing registers it, and `pytree_data_fields` names the attributes that hold arrays.
# Everything else is static.


# %%
class JaxNormals(twin.RiemannianMetric):
    dim = 2
    pytree_data_fields = ("count",)

    def __init__(self, count: float = 1.0) -> None:
        self.count = jnp.asarray(count)

    def metric(self, z: jax.Array) -> jax.Array:
        s = z[..., 1]
        return self.count * jnp.stack([jnp.exp(-2 * s), jnp.full_like(s, 2.0)], -1)[..., None] * jnp.eye(2)

    def squared_dist(self, z: jax.Array, y: jax.Array) -> jax.Array:
        m, s, n, t = z[..., 0], z[..., 1], y[..., 0], y[..., 1]
        u = ((m - n) ** 2 / 2 + (jnp.exp(s) - jnp.exp(t)) ** 2) / (2 * jnp.exp(s + t))
        large = jnp.where(u < 1e-4, 1.0, u)
        return 2 * self.count * jnp.where(u < 1e-4, 2 * u - u**2 / 3, (2 * jnp.arcsinh(jnp.sqrt(large / 2))) ** 2)


jax_normals = JaxNormals()
ends = jnp.asarray(start.numpy()), jnp.asarray(end.numpy())
print(f"distance {jax.jit(lambda metric: metric.dist(*ends))(jax_normals):.3f}")
slope = jax.grad(lambda metric: metric.dist(*ends))(JaxNormals(4.0))  # a metric again, its entry a derivative
print(f"d distance / d count at 4 observations: {slope.count:.3f}")


def jax_model(flowers: np.ndarray) -> None:
    time = numpyro.sample("time", numpyro_dist.LogNormal(0.0, 1.0))
    with numpyro.plate("species", 3):
        z = numpyro.sample("z", twin.RiemannianHeatKernel(jnp.asarray(centre.numpy()), time, jax_normals))
        likelihood = numpyro_dist.Normal(z[..., :1], jnp.exp(z[..., 1:])).expand([3, 5])
        numpyro.sample("x", likelihood.to_event(1), obs=flowers)


jax_run = numpyro.infer.MCMC(
    numpyro.infer.NUTS(jax_model, target_accept_prob=0.9),
    num_warmup=WARMUP,
    num_samples=DRAWS,
    num_chains=CHAINS,
    chain_method="vectorized",
    progress_bar=False,
)
jax_run.run(jax.random.key(0), flowers.numpy())
twin.summary(jax_run)

# %% [markdown]
# Both samplers and the guide tell the same story; the guide is round in each tangent space and misses the tail of the
# posterior of setosa. A maximum-likelihood fit takes five flowers at their word. The posterior does not: it puts the
# spread of setosa, whose five flowers happen to be alike, well above that fit, and its tail bends towards the common
# normal.

# %%
draws = torch.cat([run.get_samples()["z"] for run in runs])
jax_draws = np.asarray(jax_run.get_samples()["z"])
with torch.no_grad():
    guesses = RiemannianWrappedNormal(pyro.param("centres"), pyro.param("times"), fast).sample((len(draws),))
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
for species, axis in enumerate(axes):
    axis.scatter(*guesses[:, species].T, s=2, c="C2", alpha=0.3, label="SVI")
    axis.scatter(*draws[:, species].T, s=2, c="C0", alpha=0.3, label="NUTS")
    sample = flowers[species]
    axis.plot(sample.mean(), sample.std(correction=0).log(), "k+", ms=9, label="maximum likelihood")
    axis.plot(*centre, "kx", ms=7, label="all flowers")
    axis.set(title=f"Iris {iris.target_names[species]}", xlabel="mean, cm")
axes[0].set(ylabel="log standard deviation", xlim=(4, 8.5), ylim=(-2.5, 1.5))
axes[0].legend(fontsize="small")
fits = {"Pyro, NUTS": draws.mean(0), "NumPyro, NUTS": jax_draws.mean(0), "SVI": guesses.mean(0)}
fits["maximum likelihood"] = torch.stack([flowers.mean(1), flowers.std(1, correction=0).log()], -1)
for name, fit in fits.items():
    print(
        f"{name:>18}: "
        + ", ".join(f"{iris.target_names[i]} m = {fit[i, 0]:.2f}, s = {fit[i, 1]:.2f}" for i in range(3))
    )
