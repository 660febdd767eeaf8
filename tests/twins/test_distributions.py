"""The distributions of both twins at the same points, with the same weights and the same noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_riemann as here
import pyro_riemann.numpyro as twin

F64 = torch.float64
TOLERANCE = 1e-9
GENERATOR = np.random.default_rng(0)
LOC = 0.3 * GENERATOR.normal(size=(2, 2))
TIME = np.array([0.04, 0.09])
Z = LOC + 0.2 * GENERATOR.normal(size=(3, 2, 2))


class Pair(NamedTuple):
    """One metric twice, and the arrays that it depends on, in one order."""

    here: here.RiemannianMetric
    twin: twin.RiemannianMetric
    parameters: list[Tensor]
    leaves: Callable[[Any], list[jax.Array]]


class Twist(nn.Module):
    """A shear with one parameter."""

    def __init__(self, strength: float, sign: float) -> None:
        super().__init__()
        self.strength, self.sign = nn.Parameter(torch.tensor(strength, dtype=F64)), sign

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack([z[..., 0] + self.sign * self.strength * torch.sin(z[..., 1]), z[..., 1]], -1)


def twist(sign: float, strength: jax.Array, z: jax.Array) -> jax.Array:
    return jnp.stack([z[..., 0] + sign * strength * jnp.sin(z[..., 1]), z[..., 1]], -1)


def twist_forward(strength: jax.Array, z: jax.Array) -> jax.Array:
    return twist(1.0, strength, z)


def twist_back(strength: jax.Array, x: jax.Array) -> jax.Array:
    return twist(-1.0, strength, x)


def warped(base: here.RiemannianMetric, twin_base: twin.RiemannianMetric) -> Pair:
    forward, back = Twist(0.4, 1.0), Twist(0.4, -1.0)
    back.strength = forward.strength
    strength = jnp.asarray(0.4)
    maps = tuple(jax.tree_util.Partial(f, strength) for f in (twist_forward, twist_back))
    return Pair(
        here.WarpedMetric(base, (forward, back)),
        twin.WarpedMetric(twin_base, maps),
        [forward.strength],
        lambda gradient: [jnp.stack(jax.tree.leaves(gradient)).sum(0)],  # of both maps
    )


def constant() -> Pair:
    matrix = np.array([[2.0, 0.3], [0.3, 1.0]])
    metric = here.ConstantMetric(torch.tensor(matrix).requires_grad_())
    return Pair(metric, twin.ConstantMetric(jnp.asarray(matrix)), [metric.matrix], lambda gradient: [gradient.matrix])


def kernel() -> Pair:
    centroids, precisions = np.array([[0.0, 0.0], [1.0, 0.5]]), np.array([[2.0, 1.0], [1.0, 3.0]])
    metric = here.KernelMetric(torch.tensor(centroids), torch.tensor(precisions), 2.0, 0.5)
    parameters = [metric.centroids.requires_grad_(), metric.precisions.requires_grad_()]
    other = twin.KernelMetric(jnp.asarray(centroids), jnp.asarray(precisions), 2.0, 0.5)
    return Pair(metric, other, parameters, lambda gradient: [gradient.centroids, gradient.precisions])


def decode(weights: dict[str, jax.Array], z: jax.Array) -> jax.Array:
    hidden = jnp.tanh(z @ weights["first"].T + weights["bias"])
    return jnp.concatenate([hidden @ weights["second"].T, z], -1)


class Decoder(nn.Module):
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def forward(self, z: Tensor) -> Tensor:
        hidden = torch.tanh(z @ self.first.T + self.bias)
        return torch.cat([hidden @ self.second.T, z], -1)


def decoder() -> Pair:
    draw = np.random.default_rng(1)
    weights = {"bias": draw.normal(size=6), "first": draw.normal(size=(6, 2)), "second": draw.normal(size=(4, 6)) / 2}
    module = Decoder(weights)
    apply = jax.tree_util.Partial(decode, {name: jnp.asarray(value) for name, value in weights.items()})
    return Pair(
        here.PullbackMetric(module, 2),
        twin.PullbackMetric(apply, 2),
        [getattr(module, name) for name in sorted(weights)],
        jax.tree.leaves,
    )


PAIRS: dict[str, Callable[[], Pair]] = {
    "constant": constant,
    "warped sphere": lambda: warped(here.Sphere(2), twin.Sphere(2)),
    "warped hyperboloid": lambda: warped(here.Hyperbolic(2), twin.Hyperbolic(2)),
    "torus": lambda: Pair(here.FlatTorus(2), twin.FlatTorus(2), [], lambda gradient: []),
    "kernel": kernel,
    "decoder": decoder,
}
pair_of = cache(lambda name: PAIRS[name]())
# a metric without closed forms has a solver in every density: a minute of compilation each
METRICS = [pytest.param(name, marks=pytest.mark.slow if name in ("kernel", "decoder") else ()) for name in PAIRS]


def laws(side: Any, loc: Any, time: Any, metric: Any) -> list[Any]:
    """Every law, with every correction, on one side."""
    return [
        side.RiemannianHeatKernel(loc, time, metric, "van_vleck_curvature"),
        side.RiemannianHeatKernel(loc, time, metric, "van_vleck", normalize=True, num_directions=16),
        side.RiemannianHeatKernel(loc, time, metric, "kalatzis2020"),
        side.RiemannianWrappedNormal(loc, time, metric),
        side.RiemannianNormal(loc, time**0.5, metric, num_directions=16),
    ]


def close(ours: Any, theirs: Tensor) -> None:
    expected = theirs.detach().numpy()
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    assert np.abs(np.asarray(ours) - expected).max(initial=0.0) < TOLERANCE * scale


def torch_gradients(value: Tensor, parameters: list[Tensor]) -> tuple[Tensor, ...]:
    weighted = torch.sin(value).sum()  # tells the entries apart
    return torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("metric", METRICS)
def test_log_densities_and_their_gradients(metric: str) -> None:
    pair = pair_of(metric)

    def log_probs(z: jax.Array, loc: jax.Array, time: jax.Array, of: Any) -> tuple[jax.Array, jax.Array]:
        values = jnp.stack([law.log_prob(z) for law in laws(twin, loc, time, of)])
        return jnp.sin(values).sum((1, 2)), values

    arguments = (jnp.asarray(Z), jnp.asarray(LOC), jnp.asarray(TIME), pair.twin)
    gradients, values = jax.jit(jax.jacrev(log_probs, (0, 1, 2, 3), has_aux=True))(*arguments)
    z, loc, time = (torch.tensor(x, requires_grad=True) for x in (Z, LOC, TIME))
    for index, law in enumerate(laws(here, loc, time, pair.here)):
        expected = law.log_prob(z)
        close(values[index], expected)
        exact = torch_gradients(expected, [z, loc, time, *pair.parameters])
        for ours, theirs in zip([*gradients[:3], *pair.leaves(gradients[3])], exact, strict=True):
            close(ours[index], theirs)


def test_a_density_whose_distance_is_solved() -> None:
    """The short case of the test above for the metric of an encoder."""
    pair = pair_of("kernel")

    def log_prob(z: jax.Array, time: jax.Array, of: Any) -> tuple[jax.Array, jax.Array]:
        value = twin.RiemannianHeatKernel(jnp.asarray(LOC), time, of).log_prob(z)
        return jnp.sin(value).sum(), value

    arguments = (jnp.asarray(Z), jnp.asarray(TIME), pair.twin)
    (_, value), gradients = jax.jit(jax.value_and_grad(log_prob, (0, 1, 2), has_aux=True))(*arguments)
    z, time = torch.tensor(Z, requires_grad=True), torch.tensor(TIME, requires_grad=True)
    expected = here.RiemannianHeatKernel(torch.tensor(LOC), time, pair.here).log_prob(z)
    close(value, expected)
    exact = torch_gradients(expected, [z, time, *pair.parameters])
    for ours, theirs in zip([*gradients[:2], *pair.leaves(gradients[2])], exact, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("metric", METRICS)
def test_normalisers_and_moments(metric: str) -> None:
    pair = pair_of(metric)

    @jax.jit
    def numbers(loc: jax.Array, time: jax.Array, of: Any) -> list[Any]:
        _, kernel, paper, wrapped, normal = laws(twin, loc, time, of)
        moments = [(law.mean, law.variance) for law in (kernel, wrapped, normal)]
        return [*moments, *[law.log_normalizer() for law in (kernel, paper, normal)]]

    _, kernel, paper, wrapped, normal = laws(here, torch.tensor(LOC), torch.tensor(TIME), pair.here)
    theirs = [*[(law.mean, law.variance) for law in (kernel, wrapped, normal)]]
    # with a gradient, torch too keeps to the rule in the tangent space
    paper, normal = (law.expand(law.batch_shape) for law in (paper, normal))
    paper.loc, normal.loc = (torch.tensor(LOC, requires_grad=True) for _ in range(2))
    theirs += [law.log_normalizer() for law in (kernel, paper, normal)]
    for ours, expected in zip(numbers(jnp.asarray(LOC), jnp.asarray(TIME), pair.twin), theirs, strict=True):
        close(ours[0], expected[0])
        close(ours[1], expected[1])


@pytest.mark.parametrize("metric", METRICS)
def test_draws_from_the_same_noise(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wrapped normal with their densities, and their gradients."""
    pair, key = pair_of(metric), jax.random.key(3)
    noise = torch.tensor(np.asarray(jax.random.normal(key, (3, 2, 2))))
    monkeypatch.setattr(torch, "randn", lambda *shape, **settings: noise)

    def draw(loc: jax.Array, time: jax.Array, of: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        z, log_prob = twin.RiemannianWrappedNormal(loc, time, of).rsample_with_log_prob(key, (3,))
        return jnp.sin(z).sum() + jnp.sin(log_prob).sum(), (z, log_prob)

    arguments = (jnp.asarray(LOC), jnp.asarray(TIME), pair.twin)
    (_, ours), gradients = jax.jit(jax.value_and_grad(draw, (0, 1, 2), has_aux=True))(*arguments)
    loc, time = torch.tensor(LOC, requires_grad=True), torch.tensor(TIME, requires_grad=True)
    z, log_prob = here.RiemannianWrappedNormal(loc, time, pair.here).rsample_with_log_prob((3,))
    close(ours[0], z)
    close(ours[1], log_prob)
    exact = torch_gradients(torch.cat([z.flatten(), log_prob.flatten()]), [loc, time, *pair.parameters])
    for one, other in zip([*gradients[:2], *pair.leaves(gradients[2])], exact, strict=True):
        close(one, other)


@pytest.mark.parametrize("metric", ["Sphere", "Hyperbolic"])
def test_constants_of_space_forms(metric: str) -> None:
    loc, scale = 0.1 * np.ones(9), np.array([0.3, 1.7])
    ours = twin.RiemannianNormal(jnp.asarray(loc), jnp.asarray(scale), getattr(twin, metric)(9)).log_normalizer()
    theirs = here.RiemannianNormal(torch.tensor(loc), torch.tensor(scale), getattr(here, metric)(9)).log_normalizer()
    close(ours.value, theirs.value)


def test_mixtures_of_normals_have_textbook_numbers() -> None:
    """Two mixtures of three; of their masses 2, 6 and 1 with relative errors a weighted mean of each is left."""
    loc, logits = np.random.default_rng(0).normal(size=(2, 3, 2)), np.log([[1.0, 3.0, 4.0], [2.0, 1.0, 1.0]])
    components = dist.Normal(jnp.asarray(loc), 0.4).to_event(1)
    mixture = twin.VampPrior(components, jnp.asarray(logits))
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    z = np.array([0.2, -0.1])
    density = np.exp(-0.5 * np.square(z - loc).sum(-1) / 0.16) / (2 * np.pi * 0.16)
    np.testing.assert_allclose(mixture.log_prob(jnp.asarray(z)), np.log((weights * density).sum(-1)))
    mean = np.einsum("bk,bkd->bd", weights, loc)
    np.testing.assert_allclose(mixture.mean, mean)
    np.testing.assert_allclose(mixture.variance, 0.16 + np.einsum("bk,bkd->bd", weights, loc**2) - mean**2)
    masses = twin.Estimate(jnp.log(jnp.array([2.0, 6.0, 1.0])), jnp.array([0.1, 0.3, 0.2]))
    components.log_mass = lambda: masses
    value, error = mixture.log_normalizer()
    np.testing.assert_allclose(value, np.log([24 / 8, 11 / 4]))
    np.testing.assert_allclose(error, [(0.2 + 5.4 + 0.8) / 24, (0.4 + 1.8 + 0.2) / 11])
