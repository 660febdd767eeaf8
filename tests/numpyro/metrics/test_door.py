"""Which immersions the twin takes, as people have them, and by what words it refuses the others."""

from __future__ import annotations

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as distributions
import pytest
from jax import Array

from pyro_riemann.numpyro import PullbackMetric

RANDOM = np.random.default_rng(0)
FIRST, SECOND = RANDOM.normal(size=(2, 8)), RANDOM.normal(size=(8, 5))
Z = np.array([[0.3, -0.4], [-1.1, 0.2]])


def base(z: Array) -> Array:
    return jnp.tanh(z @ FIRST) @ SECOND


def deviation(z: Array) -> Array:
    return jax.nn.softplus(jnp.sin(z @ FIRST) @ SECOND)


@jax.custom_vjp
def tanh(x: Array) -> Array:
    """Reverse mode as people write it: no forward mode."""
    return jnp.tanh(x)


tanh.defvjp(lambda x: (jnp.tanh(x), x), lambda x, grad: (grad * (1 - jnp.tanh(x) ** 2),))


def mlp() -> Any:
    module = importlib.import_module("equinox").nn.MLP(2, 5, 8, 1, jnp.tanh, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(float) if isinstance(leaf, jax.Array) else leaf, module)


def test_a_bare_module_of_one_point() -> None:
    module = mlp()
    metric, batched = PullbackMetric(module, 2), PullbackMetric(lambda z: jax.vmap(module)(z), 2)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(metric))
    np.testing.assert_allclose(metric.metric(Z), batched.metric(Z), rtol=1e-5)
    np.testing.assert_allclose(metric.metric(Z[0]), metric.metric(Z)[0], rtol=1e-5)
    assert metric.embed(Z[None]).shape == (1, 2, 7)
    np.testing.assert_allclose(metric.dist(Z[0], Z[1]), batched.dist(Z[0], Z[1]), rtol=1e-5)
    corner = PullbackMetric(lambda z: jnp.stack([z[0], z[1], z[0] * z[1]]), 2, jitter=0.0)
    np.testing.assert_allclose(corner.logdet(Z), jnp.log1p((Z * Z).sum(-1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("immersion", "output", "pair"),
    [
        (lambda z: {"x": base(z), "steps": 3}, None, False),
        (lambda z: {"x": base(z), "h": z}, "x", False),
        (lambda z: (base(z), None), 0, False),
        (lambda z: distributions.Laplace(base(z), 1.0).to_event(1), None, False),
        (lambda z: distributions.Gumbel(base(z) - 0.5772156649015329, 1.0).to_event(1), "mean", False),
        (lambda z: {"mean": base(z), "std": deviation(z)}, ("mean", "std"), True),
    ],
)
def test_outputs_however_they_are_returned(immersion: Any, output: Any, pair: bool) -> None:
    metric = PullbackMetric(immersion, 2, output=output)
    plain = PullbackMetric((lambda z: (base(z), deviation(z))) if pair else base, 2)
    np.testing.assert_allclose(metric.metric(Z), plain.metric(Z), rtol=1e-10)
    assert metric.solver.num_knots == (16 if pair else 8)


def test_two_reverse_passes_where_there_is_no_forward_mode() -> None:
    ours, plain = PullbackMetric(lambda z: tanh(z @ FIRST) @ SECOND, 2), PullbackMetric(base, 2)
    assert ours.by_reverse
    assert not plain.by_reverse
    for found, expected in (
        (ours.metric(Z), plain.metric(Z)),
        (ours.christoffel(Z, Z), plain.christoffel(Z, Z)),
        (jax.grad(lambda z: ours.dist(z, Z[1]))(Z[0]), jax.grad(lambda z: plain.dist(z, Z[1]))(Z[0])),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


REFUSED: dict[str, tuple[Any, str]] = {
    "noise": (lambda z: base(z) + RANDOM.normal(size=5), "random"),
    "the batch": (lambda z: base(z) - base(z).mean(0), "depends on the batch"),
    "stop_gradient": (lambda z: jax.lax.stop_gradient(base(z)), "not the slope"),
    "a stopped deviation": (lambda z: (base(z), jax.lax.stop_gradient(deviation(z))), "not the slope"),
    "rounding": (lambda z: jnp.round(4 * base(z)), "not the slope"),
    "an index": (lambda z: jax.nn.one_hot(base(z).argmax(-1), 5), "not the slope"),
    "a callback": (lambda z: jax.pure_callback(np.tanh, jax.ShapeDtypeStruct(z.shape, z.dtype), z), "callback"),
    "complex": (lambda z: base(z) + 1j, "complex.*imaginary"),
    "half": (lambda z: base(z).astype(jnp.float16), "float16"),
    "log-variance": (lambda z: (base(z), base(z)), "negative.*log-variance"),
    "several entries": (lambda z: {"x": base(z), "h": z}, "'x', 'h'.*`output=`"),
    "nothing": (lambda z: None, "NoneType"),
    "an array beside a distribution": (lambda z: (base(z), distributions.Normal(base(z), 1.0)), "beside.*`output=`"),
    "a family without metric": (lambda z: distributions.Cauchy(base(z), 2.0), "register_immersion"),
    "a dispersion of z's": (
        lambda z: distributions.NegativeBinomial2(jnp.exp(base(z)), deviation(z)),
        "`concentration` depends on z.*register_immersion",
    ),
    "another dimension": (lambda z: jnp.tanh(z @ jnp.ones((5, 3))), "`dim`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    immersion, says = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s)`immersion`.*{says}"):
        PullbackMetric(immersion, 2)


def test_dropout_names_its_mode() -> None:
    nn = importlib.import_module("equinox").nn
    network = nn.Sequential([mlp(), nn.Dropout(0.4)])
    with pytest.raises(ValueError, match=r"inference_mode.*Dropout"):
        PullbackMetric(network, 2)
    assert PullbackMetric(nn.inference_mode(network), 2).metric(Z).shape == (2, 2, 2)
