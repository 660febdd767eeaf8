"""A VAE in equinox, trained on scikit-learn's digits: its bare decoder makes a metric, and that a density, in JAX."""

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.optim import Adam
from sklearn.datasets import load_digits

from pyro_riemann.numpyro import PullbackMetric, RiemannianWrappedNormal

images = jnp.asarray(load_digits().data) / 16
keys = jax.random.split(jax.random.key(0), 502)
vae = eqx.nn.MLP(64, 4, 64, 1, key=keys[0]), eqx.nn.MLP(2, 64, 64, 1, jnp.tanh, key=keys[1])
(weights, rest), optimizer = eqx.partition(vae, eqx.is_array), Adam(0.01)


def step(state, key):
    def loss(weights):
        encoder, decoder = (jax.vmap(module) for module in eqx.combine(weights, rest))
        loc, log_scale = jnp.split(encoder(images), 2, -1)
        z = loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape)
        kl = (loc**2 + jnp.exp(2 * log_scale) - 1) / 2 - log_scale
        return (((decoder(z) - images) ** 2).sum(-1) / 0.1 + kl.sum(-1)).mean(), None

    return optimizer.eval_and_update(loss, state)[::-1]


encoder, decoder = eqx.combine(optimizer.get_params(jax.lax.scan(step, optimizer.init(weights), keys[2:])[0]), rest)
metric, codes = PullbackMetric(decoder, dim=2), jax.vmap(encoder)(images[:6])[:, :2]  # the module takes one point
print("distances", metric.dist(codes[:3], codes[3:]))
print("log densities", RiemannianWrappedNormal(codes[0], 4.0, metric).log_prob(codes[3:]))
