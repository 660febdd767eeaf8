"""Trained torch objects and their twins agree; what has no twin is refused with a way out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import transforms

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann import vae
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from pyro_riemann.numpyro import to_numpyro
from tests.precision import enable_x64


def points(*shape: int) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def close(ours: Any, theirs: torch.Tensor) -> None:
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=1e-9)


def kernel() -> here.KernelMetric:
    return here.KernelMetric(points(6, 2), 1 + points(6, 2).abs(), 0.9, 0.2)


class Squash(here.KernelMetric):
    """A user's subclass, whose meaning no table knows."""


LAYERS = [
    nn.ELU(0.7),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.Identity(),
    nn.LeakyReLU(0.2),
    nn.ReLU(),
    nn.SiLU(),
    nn.Sigmoid(),
    nn.Softplus(2.0, 5.0),
    nn.Tanh(),
    nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 2, bias=False))).double(),
]


def test_layers_and_their_slopes() -> None:
    z, wide = 10 * points(20, 2), jnp.array([[-1e3, 1e3]])
    converted = [to_numpyro(layer) for layer in LAYERS]

    @jax.jit
    def apply(layers: list[Any], z: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        return [jax.jvp(layer, (z,), (jnp.ones_like(z),)) for layer in layers]

    for layer, ours in zip(LAYERS, apply(converted, jnp.asarray(z.numpy())), strict=True):
        theirs = torch.func.jvp(layer, (z,), (torch.ones_like(z),))
        for a, b in zip(ours, theirs, strict=True):
            close(a, b)
    assert all(bool(jnp.isfinite(value).all()) for pair in apply(converted, wide) for value in pair)


def test_decoders() -> None:
    decoder = vae.GaussianDecoder(2, 12, hidden=(7, 6), num_centers=4, floor=0.02, min_scale=0.03).double()
    decoder.std.fit(points(50, 2))
    z = points(5, 2)
    at = jnp.asarray(z.numpy())
    for module in (decoder, decoder.distance_immersion()):
        for ours, theirs in zip(to_numpyro(module)(at), module(z), strict=True):
            close(ours, theirs)
    x = points(5, 12)
    for warm_up in (False, True):
        ours = to_numpyro(decoder).observation(at, warm_up).log_prob(jnp.asarray(x.numpy()))
        close(ours, decoder.observation(z, warm_up).log_prob(x))
    metric = here.PullbackMetric(decoder, 2)
    mine = to_numpyro(metric).immersion.distance_immersion()
    close(twin.PullbackMetric(mine, 2).metric(at), metric.metric(z))


@pytest.mark.parametrize(
    "metric",
    [
        here.EuclideanMetric(2).double(),
        here.ConstantMetric(torch.eye(2, dtype=torch.float64) + 0.5),
        here.Sphere(2),
        here.Hyperbolic(2),
        here.FlatTorus(2, [1.0, 3.0]),
        Hyperboloid(2),
        HalfSpace(2),
        kernel(),
        kernel().conformal(0.4),
        kernel().tabulate(-1.0, 1.0, 8),
        here.GridMetric(kernel(), -1.0, 1.0, 8, outside="error"),
        here.WarpedMetric(kernel(), transforms.AffineTransform(0.1, points(2).abs() + 1)),
        here.WarpedMetric(here.Sphere(2), transforms.ExpTransform().inv.inv),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_metrics(metric: here.RiemannianMetric) -> None:
    converted, z = to_numpyro(metric), points(4, 2)
    assert type(converted).__name__ == type(metric).__name__
    close(converted.metric(jnp.asarray(z.numpy())), metric.metric(z))
    if isinstance(metric, here.GridMetric):
        assert converted.outside == metric.outside
        assert (converted.base is None) == (metric.base is None)


def test_settings_of_geodesics_come_along() -> None:
    metric = kernel()
    metric.solver, metric.flow_steps = GeodesicSolver(num_knots=4, num_segments=16, tolerance=1e-8), 5
    converted = to_numpyro(metric)
    assert (converted.solver.num_knots, converted.solver.num_segments) == (4, 16)
    assert (converted.solver.tolerance, converted.flow_steps) == (1e-8, 5)
    assert to_numpyro(kernel()).solver == twin.KernelMetric.solver


def test_distributions_with_their_settings() -> None:
    metric = here.ConstantMetric(torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64))
    loc, time = points(3, 2), 0.2 + points(3).abs()
    heat = here.RiemannianHeatKernel(loc, time, metric, "kalatzis2020", num_steps=7, num_directions=32)
    laws = [
        heat,
        here.RiemannianWrappedNormal(loc, time, metric),
        here.RiemannianNormal(loc, time, metric, num_directions=32),
        here.RiemannianUniform(metric, -torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)),
        here.VampPrior(here.RiemannianWrappedNormal(loc, time, metric), points(3)),
        torch.distributions.Independent(torch.distributions.Normal(loc, 1 + loc.abs()), 1),
    ]
    z = points(5, 1, 2)
    for law in laws:
        converted = to_numpyro(law)
        assert converted.batch_shape == tuple(law.batch_shape)
        for name in ("loc", "time", "scale", "low", "high", "logits", "num_directions"):
            if isinstance(expected := vars(law).get(name), torch.Tensor):
                close(getattr(converted, name), expected)
            elif expected is not None:
                assert getattr(converted, name) == expected
    for law in (heat, laws[-1]):
        close(to_numpyro(law).log_prob(jnp.asarray(z.numpy())), law.log_prob(z))
    mine = to_numpyro(heat)
    assert (mine.correction, mine.num_steps, mine.normalize, mine.num_directions) == ("kalatzis2020", 7, False, 32)


def test_a_metric_of_your_own_is_handed_over() -> None:
    immersion = here.PullbackMetric(lambda z: torch.cat([z, z.sin()], -1), 2)
    law = here.RiemannianUniform(immersion, -torch.ones(2), torch.ones(2))
    with pytest.raises(TypeError, match=r"no twin of builtins.function.*PullbackMetric\(immersion, dim, jitter\)"):
        to_numpyro(law)
    mine = twin.PullbackMetric(lambda z: jnp.concatenate([z, jnp.sin(z)], -1), 2)
    assert to_numpyro(law, metric=mine).metric is mine


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Squash(torch.zeros(1, 2), torch.ones(1, 2), 1.0), "no twin of .*Squash.*implements `metric"),
        (
            here.PullbackMetric(nn.Sequential(nn.Linear(2, 3), nn.CELU()), 2),
            "no twin of .*CELU.*nn.Sequential of linear",
        ),
        (here.WarpedMetric(here.Sphere(2), (lambda z: 2 * z, lambda z: z / 2)), "no twin of builtins.function"),
        (torch.zeros(2), "no twin of torch.Tensor"),
        (3, "no twin of builtins.int"),
    ],
    ids=str,
)
def test_unknown_objects(value: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        to_numpyro(value)


def test_precision() -> None:
    assert to_numpyro(kernel(), dtype=jnp.float32).centroids.dtype == jnp.float32
    assert to_numpyro(kernel().float()).metric(jnp.zeros(2, jnp.float32)).dtype == jnp.float32
    with enable_x64(False):
        with pytest.raises(ValueError, match="jax_enable_x64"):
            to_numpyro(kernel())
        assert to_numpyro(kernel(), dtype=jnp.float32).logdet(jnp.zeros(2)).dtype == jnp.float32
