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
# # A VAE with a Riemannian prior in NumPyro
#
# A variational autoencoder learns a decoder, and the decoder bends its latent space: a step in latent space is as
# long as the change of the image that it makes. A standard normal prior knows nothing of that. Here the prior is
# the law of Brownian motion under the decoder's own metric (Kalatzis et al. 2020). The networks are
# [equinox](https://docs.kidger.site/equinox/) modules, training is `numpyro.infer.SVI`, and NUTS
# then asks what one image says about its code.
#
# With MNIST in the folder that `PYRO_RIEMANN_DATA` names, the page trains on it; otherwise on the 8 x 8 digits that
# come with scikit-learn.

# %%
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.contrib.module import eqx_module
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.optim import Adam

from pyro_riemann.datasets import load_dataset
from pyro_riemann.numpyro import (
    GridMetric,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    brownian_motion,
    summary,
)

SMALL = bool(os.environ.get("PYRO_RIEMANN_SMALL"))  # CI runs the page with fewer steps
MNIST = bool(os.environ.get("PYRO_RIEMANN_DATA")) and not SMALL
HIDDEN, FIRST, SECOND = (64, 800, 200) if SMALL else (200, 6000, 1500)
RESOLUTION, DRAWS, CURVES = (48, 100, 0) if SMALL else (128, 500, 200)

data = load_dataset("mnist" if MNIST else "digits")
images, tests, labels = (np.asarray(part) for part in (data.train, data.test, data.test_labels))
keys = iter(jax.random.split(jax.random.key(0), 12))

# %% [markdown]
# ## Networks
#
# The decoder gives every pixel a mean and a standard deviation. The deviation must grow where there are no data,
# or the geometry has no reason to stay near them: its inverse is a sum of bumps, which vanishes far from all of them.


# %%
def network(sizes: tuple[int, int], key: Array) -> eqx.nn.MLP:
    return eqx.nn.MLP(*sizes, HIDDEN, depth=2, activation=jax.nn.elu, key=key)


def batched(layer: eqx.nn.MLP, x: Array) -> Array:
    return jnp.vectorize(layer, signature="(i)->(j)")(x)


class Decoder(eqx.Module):
    mean: eqx.nn.MLP
    centres: Array
    log_weights: Array
    log_width: Array

    def __init__(self, pixels: int, key: Array, bumps: int = 64):
        first, second = jax.random.split(key)
        self.mean = network((2, pixels), first)
        self.centres = 1.5 * jax.random.normal(second, (bumps, 2))
        self.log_weights, self.log_width = jnp.zeros((bumps, pixels)), jnp.zeros(())

    def __call__(self, z: Array) -> tuple[Array, Array]:
        squared = ((z[..., None, :] - self.centres) ** 2).sum(-1)
        bumps = jnp.exp(-squared / (2 * jnp.exp(2 * self.log_width)))
        return batched(self.mean, z), 0.1 + 1 / (1 + bumps @ jnp.exp(self.log_weights))


class Encoder(eqx.Module):
    loc: eqx.nn.MLP
    log_scale: eqx.nn.MLP

    def __init__(self, pixels: int, key: Array):
        first, second = jax.random.split(key)
        self.loc, self.log_scale = network((pixels, 2), first), network((pixels, 2), second)

    def __call__(self, x: Array) -> dist.Distribution:
        return dist.Normal(batched(self.loc, x), 1e-3 + jnp.exp(batched(self.log_scale, x) - 2)).to_event(1)


# %% [markdown]
# ## Model and guide
#
# Nothing here is special to this package: `eqx_module` registers a network's weights with NumPyro, the plate draws
# minibatches. Prior and decoder are arguments: there is no geometry before there is a decoder, so the first phase
# trains all networks under a standard normal.


# %%
def model(images: Array, prior: Callable, decoder: Callable) -> None:
    decode = decoder()
    with numpyro.plate("images", len(images), subsample_size=250):
        x = numpyro.subsample(images, event_dim=1)
        z = numpyro.sample("z", prior())
        numpyro.sample("x", dist.Normal(*decode(z)).to_event(1), obs=x)


def guide(images: Array, prior: Callable, decoder: Callable) -> None:
    encode = eqx_module("encoder", encoder)
    with numpyro.plate("images", len(images), subsample_size=250):
        numpyro.sample("z", encode(numpyro.subsample(images, event_dim=1)))


def fit(steps: int, prior: Callable, decoder: Callable) -> Any:
    svi = SVI(model, guide, Adam(1e-3), Trace_ELBO())
    result = svi.run(next(keys), steps, images, prior, decoder, progress_bar=False)
    print(f"ELBO: {-np.mean(result.losses[-100:]) / len(images):.1f} nats per image")
    return result


decoder, encoder = Decoder(images.shape[1], next(keys)), Encoder(images.shape[1], next(keys))
flat = fit(FIRST, lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1), lambda: eqx_module("decoder", decoder))
decoder = eqx.combine(flat.params["decoder$params"], decoder)
encoder = eqx.combine(flat.params["encoder$params"], encoder)

# %% [markdown]
# ## The geometry of the decoder
#
# `PullbackMetric` takes the module as it is: its weights are data of the metric, which is a pytree as well. In two
# dimensions the metric can be tabulated, and no distance costs an evaluation of the decoder from then on. The volume
# element is large where the image changes fast, and where its standard deviation begins to rise: a wall around the
# data.

# %%
codes = encoder(tests).mean
low, high = codes.min(0) - 0.5, codes.max(0) + 0.5
table = GridMetric(PullbackMetric(decoder, dim=2), low, high, RESOLUTION)


def backdrop(title: str) -> None:
    """Log volume element on the box of the codes."""
    axes = [np.linspace(low[i], high[i], 150) for i in range(2)]
    points = jnp.stack(jnp.meshgrid(*axes), axis=-1)
    plt.pcolormesh(*axes, table.logdet(points) / 2, cmap="gray", shading="auto", rasterized=True)
    plt.xlim(low[0], high[0])
    plt.ylim(low[1], high[1])
    plt.title(title)


def dots(z: Array, **style: Any) -> None:
    plt.scatter(z[:, 0], z[:, 1], s=3, **style)


backdrop("log volume element and codes")
dots(codes, c=labels, cmap="tab10")

# %% [markdown]
# ## Second phase: Brownian motion as the prior
#
# The prior is the law of Brownian motion from the middle of the codes; its `time` is learned, together with the
# encoder. The decoder stays as it is, and with it the metric. `RiemannianHeatKernel` is a NumPyro distribution like any
# other.
#
# All its distances start from one centre, so they can be tabulated too: `distance_field` finds them at once. A metric
# of your own is a subclass; what it lists in `pytree_data_fields` is data to JAX. If codes were data, the most likely
# time would be half their mean squared distance from the centre: a good place to start.


# %%
class Centred(RiemannianMetric):
    dim = 2
    pytree_data_fields = ("table", "field")

    def __init__(self, table: GridMetric, centre: Array) -> None:
        self.table, self.field = table, table.distance_field(centre)

    def metric(self, z: Array) -> Array:
        return self.table.metric(z)

    def squared_dist(self, z: Array, y: Array) -> Array:
        return self.field.squared_dist(y)


centre = jnp.median(codes, axis=0)
metric = Centred(table, centre)
start = metric.field.squared_dist(codes).mean() / 2


def brownian() -> RiemannianHeatKernel:
    return RiemannianHeatKernel(centre, numpyro.param("time", start, constraint=constraints.positive), metric)


bent = fit(SECOND, brownian, lambda: decoder)
encoder = eqx.combine(bent.params["encoder$params"], encoder)
prior = RiemannianHeatKernel(centre, bent.params["time"], metric)
print(f"learned time: {prior.time:.2f}")

# %% [markdown]
# ## What one image says about its code
#
# The encoder answers with a Gaussian. NUTS asks the model itself: the same prior, the same decoder, one image. Four
# chains start at draws of the encoder and run side by side in one compiled program; ArviZ judges them.

# %%
image = tests[1]


def posterior() -> None:
    z = numpyro.sample("z", prior)
    numpyro.sample("x", dist.Normal(*decoder(z)).to_event(1), obs=image)


nuts = NUTS(posterior, target_accept_prob=0.95, dense_mass=True)
chains = MCMC(nuts, num_warmup=DRAWS, num_samples=DRAWS, num_chains=4, chain_method="vectorized", progress_bar=False)
chains.run(next(keys), init_params={"z": encoder(image).sample(next(keys), (4,))})
summary(chains, table, loc=centre, num_geodesics=CURVES)

# %%
figure = plt.figure(figsize=(11, 4.5))
figure.add_subplot(1, 2, 1)
backdrop("prior: draws and five Brownian paths")
paths = brownian_motion(table, jnp.tile(centre, (5, 1)), prior.time, 200, key=next(keys), return_path=True)
dots(prior.sample(next(keys), (300,)), c="C1")
for i in range(5):
    plt.plot(paths[:, i, 0], paths[:, i, 1], lw=0.7)
figure.add_subplot(1, 2, 2)
draws = chains.get_samples()["z"]
guesses = encoder(image).sample(next(keys), (500,))
spread = 4 * draws.std(0).max()
backdrop("posterior of one image: NUTS and encoder")
dots(guesses, c="C1", label="encoder")
dots(draws[::4], c="C0", label="NUTS")
middle = draws.mean(0)
plt.xlim(middle[0] - spread, middle[0] + spread)
plt.ylim(middle[1] - spread, middle[1] + spread)
legend = plt.legend()

# %% [markdown]
# The image, and what the decoder makes of five draws of its code:

# %%
figure, axes = plt.subplots(1, 6, figsize=(9, 1.7))
for axis, picture in zip(axes, [image, *decoder(draws[:: len(draws) // 5][:5])[0]], strict=True):
    axis.imshow(np.reshape(picture, data.shape), cmap="gray_r", vmin=0, vmax=1)
    axis.set_axis_off()
