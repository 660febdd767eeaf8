"""Metrics of both sides with the same weights: every local quantity and its gradients, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pyro_riemann as here
import pyro_riemann.numpyro as twin
from pyro_riemann.metrics import posterior_moments
from pyro_riemann.numpyro import metrics as twin_metrics
from pyro_riemann.vae import GaussianDecoder

QUANTITIES = ("metric", "logdet", "drift", "logdet_gradient", "cholesky", "metric_jacobian")
ALONG = ("christoffel", "metric_derivatives", "speed_hessian", "norm")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(diagonal: bool) -> here.KernelMetric:
    precisions = 0.5 + 3 * torch.rand(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if not diagonal:
        root = 0.5 * numbers(12, 3, 3)
        precisions = torch.diag_embed(precisions) + root @ root.mT
    return here.KernelMetric(numbers(12, 3, seed=2), precisions, 1.3, 0.05)


def decoder() -> here.PullbackMetric:
    module = GaussianDecoder(2, 20, hidden=(8, 8), num_centers=5).double()
    module.std.fit(numbers(60, 2))
    return here.PullbackMetric(module, 2)


def surface(dim: int) -> here.PullbackMetric:
    layers = nn.Sequential(nn.Linear(dim, 6), nn.Tanh(), nn.Linear(6, 6), nn.Softplus(), nn.Linear(6, 5)).double()
    return here.PullbackMetric(layers, dim, jitter=0.1)


METRICS: dict[str, Callable[[], here.RiemannianMetric]] = {
    "constant": lambda: here.ConstantMetric(torch.eye(3, dtype=torch.float64) + 0.3),
    "diagonal kernel": lambda: kernel(True),
    "full kernel": lambda: kernel(False),
    "decoder": decoder,
    "conformal kernel": lambda: kernel(True).conformal(0.7),
    "table on the line": lambda: here.GridMetric(surface(1), -1.5, 1.5, 20, outside="error"),
    "table in the plane": lambda: here.GridMetric(surface(2), -1.5, 1.5, (12, 15)),
    "table in space": lambda: here.GridMetric(surface(3), -1.5, 1.5, 8, outside="error"),
}


@cache
def pair(name: str) -> tuple[here.RiemannianMetric, twin.RiemannianMetric]:
    torch.manual_seed(0)
    metric = METRICS[name]()
    return metric, twin.to_numpyro(metric)


def points(dim: int) -> tuple[Tensor, Tensor]:
    inside = 1.4 * (2 * torch.rand(2, 3, dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 1)
    return inside, numbers(2, 3, dim, seed=4)


def functional(metric: Any, z: Any, v: Any) -> Any:
    """One number that depends on values and first derivatives of the metric."""
    return (metric.logdet(z) + (v * metric.christoffel(z, v)).sum(-1) + (v * metric.drift(z)).sum(-1)).sum()


# optimised machine code would take longer to make than it saves
@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def everything(metric: twin.RiemannianMetric, z: jax.Array, v: jax.Array) -> tuple[Any, Any]:
    values = {name: getattr(metric, name)(z) for name in QUANTITIES}
    values |= {name: getattr(metric, name)(z, v) for name in ALONG}
    return values, jax.grad(functional, argnums=(0, 1))(metric, z, v)


@cache
def ours(name: str) -> tuple[Any, Any]:
    metric = pair(name)[1]
    result: tuple[Any, Any] = everything(metric, *(jnp.asarray(x.numpy()) for x in points(metric.dim)))
    return result


def close(ours: Any, theirs: Any) -> None:
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize("name", METRICS)
def test_values_and_derivatives(name: str) -> None:
    metric, values = pair(name)[0], ours(name)[0]
    z, v = points(metric.dim)
    for quantity, arguments in [(q, (z,)) for q in QUANTITIES] + [(q, (z, v)) for q in ALONG]:
        theirs = getattr(metric, quantity)(*arguments)
        for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (values[quantity], theirs)), strict=True):
            assert a.shape == b.shape
            close(a, b)


def leaves(metric: Any) -> list[Any]:
    """Arrays of either side that the functional depends on, in one order."""
    if hasattr(metric, "table"):
        coefficients = metric.table.coefficients  # torch lays them out field by field
        return [jnp.moveaxis(coefficients, -1, 0) if isinstance(coefficients, jax.Array) else coefficients]
    if hasattr(metric, "immersion"):
        module = metric.immersion
        std = getattr(module, "std", None)
        layers = getattr(module, "mean", module)
        layers = [layer for layer in getattr(layers, "layers", layers) if hasattr(layer, "weight")]
        mean = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        return mean + ([] if std is None else [std.log_weight, std.centers, std.bandwidth])
    metric = getattr(metric, "base", metric)
    names = ("matrix", "centroids", "precisions", "bandwidth", "regularization")
    return [getattr(metric, name) for name in names if hasattr(metric, name)]


@pytest.mark.parametrize("name", METRICS)
def test_gradients_in_the_point_and_in_the_parameters(name: str) -> None:
    metric, (of_metric, of_point) = pair(name)[0], ours(name)[1]
    z, v = points(metric.dim)
    parameters = leaves(metric)
    for tensor in (*parameters, z):
        tensor.requires_grad_()
    gradients = torch.autograd.grad(
        functional(metric, z, v), [*parameters, z], allow_unused=True, materialize_grads=True
    )
    for tensor in parameters:
        tensor.requires_grad_(False)
    close(of_point, gradients[-1])
    for a, b in zip(leaves(of_metric), gradients[:-1], strict=True):
        if name in ("full kernel", "constant") and b.dim() > 1 and b.shape[-1] == b.shape[-2]:
            # of a symmetric matrix only the symmetric part of the gradient means something
            a, b = a + a.mT, b + b.mT
        close(a, b)


@pytest.mark.parametrize("name", ["diagonal kernel", "decoder"])
def test_hessian_of_the_log_volume(name: str) -> None:
    metric, other = pair(name)
    z = points(metric.dim)[0][0, 0]
    theirs = torch.autograd.functional.hessian(metric.logdet, z)
    hessian = jax.jit(jax.hessian(other.logdet), compiler_options={"xla_backend_optimization_level": 0})
    close(hessian(jnp.asarray(z.numpy())), theirs)


def test_the_same_codes_give_the_same_kernels_tables_and_fields() -> None:
    loc, scale = numbers(400, 2), 0.03 + 0.05 * torch.rand(400, 2, dtype=torch.float64)
    theirs = here.KernelMetric.from_posterior(loc, scale, num_centroids=20, bandwidth="mahalanobis", max_codes=100)
    mine = twin.KernelMetric.from_posterior(
        loc.numpy(), scale.numpy(), num_centroids=20, bandwidth="mahalanobis", max_codes=100
    )
    for name in ("centroids", "precisions", "bandwidth", "regularization"):
        close(getattr(mine, name), getattr(theirs, name))
    close(mine.coverage(jnp.asarray(loc.numpy())), theirs.coverage(loc))
    draws = numbers(200, 30, 3)
    loc, tril = posterior_moments(draws)
    close(twin_metrics.posterior_moments(jnp.asarray(draws.numpy()))[1], tril)
    for rule in ("posterior", "mahalanobis", "euclidean"):
        full = here.KernelMetric.from_posterior(loc, tril, 5, rule, factor=1.3)
        same = twin.KernelMetric.from_posterior(loc.numpy(), tril.numpy(), 5, rule, factor=1.3)
        for name in ("centroids", "precisions", "bandwidth", "bump_scale"):
            close(getattr(same, name), torch.as_tensor(getattr(full, name), dtype=torch.float64))
    table, other = (metric.tabulate(-1.0, 1.0, 12) for metric in (theirs, mine))
    close(other.table.coefficients, table.table.coefficients.movedim(0, -1))
    close(other.interpolation_error, table.interpolation_error)
    centre = torch.tensor([0.2, -0.1], dtype=torch.float64)
    field, mirrored = table.distance_field(centre), other.distance_field(jnp.asarray(centre.numpy()))
    z = 0.9 * (2 * torch.rand(20, 2, dtype=torch.float64) - 1)
    close(mirrored.dist(jnp.asarray(z.numpy())), field.dist(z))
    close(mirrored.eikonal_error, field.eikonal_error)


def test_floors() -> None:
    """A kernel's floor, alone and behind every kind of wrapper."""
    base = here.KernelMetric(torch.zeros(1, 2).double(), torch.ones(1, 2).double(), 1.0, 1e-3)
    z = 2.5 * numbers(40, 2)
    base_twin = twin.to_numpyro(base)
    wrapped = {
        "itself": (base, base_twin),
        "conformal": (base.conformal(), base_twin.conformal()),
        "table": (base.tabulate(-4.0, 4.0, 5), base_twin.tabulate(-4.0, 4.0, 5)),
        "warped": tuple(
            face.WarpedMetric(metric, (lambda z: 2 * z, lambda x: x / 2))
            for face, metric in ((here, base), (twin, base_twin))
        ),
    }
    for name, (ours, theirs) in wrapped.items():
        share = ours.on_floor(z).double().mean().item()
        assert 0.1 < share < 0.95, name
        np.testing.assert_array_equal(ours.on_floor(z).numpy(), np.asarray(theirs.on_floor(jnp.asarray(z.numpy()))))
