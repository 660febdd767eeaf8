"""The page that compares: each cell of its table is checked against the packages that are installed.

Presence is shown by using the thing; absence by looking for its names in the package's source. Of the peers only
stochman comes with an extra; install the others to check their columns (geomstats 2.8 needs NumPy below 2.4,
latent-riemannian-world Python 3.12 or `--ignore-requires-python`). GEORCE is a checkout of its repository georce_fm,
which ``GEORCE_SOURCE`` names. A peer that is missing is skipped.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pyro_riemann

PAGE = Path(__file__).resolve().parents[1] / "docs" / "comparison.md"
PEERS = ("pyro_riemann", "geomstats", "geoopt", "stochman", "pythae", "GEORCE", "latent_riemannian_world")
PACKAGES = {"GEORCE": "geometry", "latent_riemannian_world": "lrw"}  # where the package has another name
Check = Callable[[], bool]


def table() -> tuple[list[str], dict[str, list[str]]]:
    """Head and rows of the page's table."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if "|" in line
    ]
    head, _, *rows = cells
    return head[1:], {name: answers for name, *answers in rows}


@cache
def source(package: str) -> str:
    """All of a package's Python, without importing it."""
    spec = importlib.util.find_spec(PACKAGES.get(package, package))
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    return "\n".join(path.read_text(errors="ignore") for path in sorted(folder.rglob("*.py")))


def mentions(package: str, pattern: str) -> Check:
    """Whether a name occurs in the package's source at all."""
    return lambda: re.search(pattern, source(package), re.IGNORECASE) is not None


def has(dotted: str) -> Check:
    """Whether ``module:attribute`` can be imported."""

    def check() -> bool:
        module, _, attribute = dotted.partition(":")
        return hasattr(importlib.import_module(module), attribute)

    return check


def paraboloid(z: Tensor) -> Tensor:
    return torch.cat([z, z.square().sum(-1, keepdim=True) / 2], -1)


POINTS = torch.tensor([-0.5, 0.2]), torch.tensor([0.5, 0.5])
OURS = pyro_riemann.PullbackMetric(paraboloid, 2)


def geomstats_surface() -> Any:
    """The paraboloid as an immersed set of geomstats, with the pullback metric."""
    base, euclidean, pullback = (
        importlib.import_module(f"geomstats.geometry.{name}") for name in ("base", "euclidean", "pullback_metric")
    )

    class Surface(base.ImmersedSet):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(dim=2)

        def _define_embedding_space(self) -> Any:
            return euclidean.Euclidean(3)

        def immersion(self, point: Tensor) -> Tensor:
            return paraboloid(point)

        def unused(self, *arguments: Any, **settings: Any) -> Any:
            raise NotImplementedError

        is_tangent = to_tangent = projection = random_point = belongs = unused

    surface = Surface()
    surface.equip_with_metric(pullback.PullbackMetric)
    return surface


def geomstats_pullback() -> bool:
    return torch.allclose(geomstats_surface().metric.metric_matrix(POINTS[0]), OURS.metric(POINTS[0]), atol=1e-4)


def geomstats_geodesic() -> bool:
    return abs(float(geomstats_surface().metric.dist(*POINTS)) - OURS.dist(*POINTS).item()) < 1e-2


def geomstats_drift() -> bool:
    """A step without noise is the drift alone: in the half-plane with log height it is -1/2 upwards."""
    backend = importlib.import_module("geomstats.backend")
    metrics = importlib.import_module("geomstats.geometry.riemannian_metric")
    euclidean = importlib.import_module("geomstats.geometry.euclidean")
    motion = importlib.import_module("geomstats.distributions.brownian_motion")

    class HalfPlane(metrics.RiemannianMetric):  # type: ignore[misc, name-defined]
        def metric_matrix(self, base_point: Tensor) -> Tensor:
            height = base_point[..., 1]
            return torch.diag_embed(torch.stack([(-2 * height).exp(), torch.ones_like(height)], -1))

    space = euclidean.Euclidean(2, equip=False)
    space.equip_with_metric(HalfPlane)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend.random, "normal", lambda size: torch.zeros(size))
        step = motion.BrownianMotion(space)._step(0.1, POINTS[1]) - POINTS[1]
    return torch.allclose(step, torch.tensor([0.0, -0.05]), atol=1e-5)


def stochman_surface() -> Any:
    manifold = importlib.import_module("stochman.manifold")

    class Surface(manifold.EmbeddedManifold):  # type: ignore[misc, name-defined]
        def embed(self, points: Tensor, jacobian: bool = False) -> Any:
            slope = torch.cat([torch.eye(2).expand(*points.shape, 2), points.unsqueeze(-2)], -2)
            return (paraboloid(points), slope) if jacobian else paraboloid(points)

    return Surface()


def stochman_pullback() -> bool:
    return torch.allclose(stochman_surface().metric(POINTS[0][None])[0], OURS.metric(POINTS[0]), atol=1e-4)


def stochman_geodesic() -> bool:
    surface = stochman_surface()
    curve, _ = surface.connecting_geodesic(POINTS[0][None], POINTS[1][None])
    return (
        abs(float(surface.curve_length(curve(torch.linspace(0, 1, 100)).detach())) - OURS.dist(*POINTS).item()) < 1e-2
    )


def georce_surface() -> Any:
    jnp = importlib.import_module("jax.numpy")
    manifolds = importlib.import_module("geometry.riemannian.manifolds")
    return manifolds.RiemannianManifold(f=lambda z: jnp.append(z, (z**2).sum() / 2))


def georce_pullback() -> bool:
    point = importlib.import_module("jax.numpy").asarray(POINTS[0].numpy())
    return torch.allclose(torch.tensor(georce_surface().G(point).tolist()), OURS.metric(POINTS[0]), atol=1e-4)


def georce_geodesic() -> bool:
    jnp = importlib.import_module("jax.numpy")
    start, end = (jnp.asarray(point.numpy()) for point in POINTS)
    curve = importlib.import_module("geometry.riemannian.geodesics").GEORCE(georce_surface())(start, end)
    points = torch.cat([POINTS[0][None], torch.tensor(curve.tolist()), POINTS[1][None]])  # it returns those between
    return abs(float(paraboloid(points).diff(dim=0).norm(dim=-1).sum()) - OURS.dist(*POINTS).item()) < 1e-2


def lrw_pullback() -> bool:
    metric = importlib.import_module("lrw.metric").PullbackMetric(paraboloid)
    return torch.allclose(metric.metric_tensor(POINTS[0][None])[0], OURS.metric(POINTS[0]), atol=1e-4)


def lrw_geodesic() -> bool:
    metric = importlib.import_module("lrw.metric").PullbackMetric(paraboloid)
    solver = importlib.import_module("lrw.geodesic.bvp").BVPSolver(metric, n_steps=10, step_size=0.1)
    path = solver.geodesic_path(POINTS[0][None], POINTS[1][None])[0][:, 0].detach()
    length = float(paraboloid(path).diff(dim=0).norm(dim=-1).sum())
    return abs(length - OURS.dist(*POINTS).item()) < 2e-2 and bool((path[-1] - POINTS[1]).norm() < 2e-2)


def lrw_drift() -> bool:
    """As :func:`geomstats_drift`: a step without noise at a flat density."""
    base = importlib.import_module("lrw.metric.base")

    class HalfPlane(base.RiemannianMetric):  # type: ignore[misc, name-defined]
        def metric_tensor(self, z: Tensor) -> Tensor:
            return torch.diag_embed(torch.stack([(-2 * z[..., 1]).exp(), torch.ones_like(z[..., 1])], -1))

    sampler = importlib.import_module("lrw.bayes").RiemannianSGLD(
        HalfPlane(), lambda z: 0 * z.sum(-1), step_size=0.1, noise_scale=0.0
    )
    step = sampler.step(POINTS[1][None])[0] - POINTS[1]
    return torch.allclose(step, torch.tensor([0.0, -0.05]), atol=1e-5)


def geoopt_draws() -> bool:
    ball = importlib.import_module("geoopt").PoincareBall()
    draws = ball.wrapped_normal(20, 2, mean=torch.zeros(2), std=torch.tensor(0.1))
    return draws.shape == (20, 2) and bool((draws.norm(dim=-1) < 1).all())


def pythae_density() -> bool:
    """Its wrapped normal has a `log_prob` on the Poincare ball, with respect to dM: ours, less log det / 2."""
    utils = importlib.import_module("pythae.models.pvae.pvae_utils")
    value = utils.WrappedNormal(torch.zeros(1, 2), torch.full((1, 2), 0.3), utils.PoincareBall(2)).log_prob(
        POINTS[0][None]
    )
    space = pyro_riemann.Hyperbolic(2)
    ours = pyro_riemann.RiemannianWrappedNormal(torch.zeros(2), torch.tensor(0.09), space).log_prob(POINTS[0])
    return torch.allclose(value.reshape(()), ours - space.logdet(POINTS[0]) / 2, atol=1e-3)


def ours_is_a_pyro_distribution() -> bool:
    pyro = importlib.import_module("pyro")
    return pyro.sample("z", pyro_riemann.RiemannianHeatKernel(torch.zeros(2), torch.tensor(0.1), OURS)).shape == (2,)


IMMERSION = r"\bpullback|\bimmersion|EmbeddedManifold"
SOLVER = r"connecting_geodesic|geodesic_bvp|\w*LogSolver|boundary.value"
HEAT = r"heat.?kernel"
LAW = r"class \w*(?:Normal|Gaussian|Distribution)|def \w*(?:random|sample)\w*normal"
BROWNIAN = r"brownian"
MATRIX_MANIFOLDS = r"class \w*Stiefel"
FISHER = r"fisher.?rao|class \w*Fisher"
EM = r"class (?:Riemannian)?(?:EM|ExpectationMaximi[sz]ation)\b"
PYRO = r"^\s*(?:import|from) (?:pyro|numpyro)\b(?!_)"

CHECKS: dict[str, tuple[Check, ...]] = {  # one check for each of PEERS
    "pullback metric of an immersion or decoder": (
        has("pyro_riemann:PullbackMetric"),
        geomstats_pullback,
        mentions("geoopt", IMMERSION),
        stochman_pullback,
        mentions("pythae", IMMERSION),
        georce_pullback,
        lrw_pullback,
    ),
    "metric from a trained encoder's precisions": (
        has("pyro_riemann:KernelMetric"),
        *(mentions(peer, r"class \w*Encoder|centroids_tens") for peer in PEERS[1:4]),
        has("pythae.models:RHVAE"),
        *(mentions(peer, r"class \w*Encoder|centroids_tens") for peer in PEERS[5:]),
    ),
    "Fisher metric of a family of distributions": (
        has("pyro_riemann.metrics:register_immersion"),
        has("geomstats.information_geometry.fisher_rao_metric:FisherRaoMetric"),
        *(mentions(peer, FISHER) for peer in PEERS[2:5]),
        has("geometry.riemannian.manifolds:FisherRaoGeometry"),
        has("lrw.metric.fisher:FisherMetric"),
    ),
    "expected metric of an ensemble of decoders": (
        has("pyro_riemann.metrics:EnsembleMetric"),
        *(mentions(peer, r"\bensemble") for peer in PEERS[1:6]),
        has("lrw.metric.bayesian:BayesianMetric"),
    ),
    "geodesic between two points, for any metric": (
        lambda: bool(OURS.geodesic(*POINTS).converged),
        geomstats_geodesic,
        mentions("geoopt", SOLVER),
        stochman_geodesic,
        mentions("pythae", SOLVER),
        georce_geodesic,
        lrw_geodesic,
    ),
    "Brownian motion with the drift": (
        has("pyro_riemann:brownian_motion"),
        geomstats_drift,
        *(mentions(peer, BROWNIAN) for peer in PEERS[2:6]),
        lrw_drift,
    ),
    "`log_prob` of a heat kernel": (
        has("pyro_riemann:RiemannianHeatKernel"),
        *(mentions(peer, HEAT) for peer in PEERS[1:]),
    ),
    "draws of a normal law on a manifold": (
        has("pyro_riemann:RiemannianWrappedNormal"),
        lambda: hasattr(
            importlib.import_module("geomstats.geometry.hypersphere").Hypersphere, "random_riemannian_normal"
        ),
        geoopt_draws,
        mentions("stochman", LAW),
        has("pythae.models.pvae.pvae_utils:WrappedNormal"),
        *(mentions(peer, LAW) for peer in PEERS[5:]),
    ),
    "density of a wrapped or Riemannian normal": (
        has("pyro_riemann.distributions:RiemannianNormal"),
        lambda: hasattr(
            importlib.import_module("geomstats.learning.expectation_maximization").GaussianMixtureModel, "pdf"
        ),
        *(mentions(peer, r"def (?:\w*log_prob|\w*pdf)\b|wrapped_normal_log") for peer in PEERS[2:4]),
        pythae_density,
        *(mentions(peer, r"def (?:log_prob|pdf)\b|wrapped_normal_log") for peer in PEERS[5:]),
    ),
    "the same for any metric": (
        lambda: bool(pyro_riemann.RiemannianNormal(POINTS[0], 0.1, OURS).log_prob(POINTS[1]).isfinite()),
        *(mentions(peer, r"def (?:\w*log_prob|log_?pdf)\b") for peer in PEERS[1:4]),
        mentions("pythae", r"class (?:RiemannianNormal|WrappedNormal)\((?!.*(?:Distribution|dist\.))|metric\.logdet"),
        *(mentions(peer, r"def (?:log_prob|pdf)\b") for peer in PEERS[5:]),
    ),
    "mixtures of normals on a manifold, by EM": (
        has("pyro_riemann.mixtures:fit_normals"),
        has("geomstats.learning.expectation_maximization:RiemannianEM"),
        *(mentions(peer, EM) for peer in PEERS[2:]),
    ),
    "distributions for `pyro.sample`": (
        ours_is_a_pyro_distribution,
        *(mentions(peer, rf"(?m){PYRO}") for peer in PEERS[1:]),
    ),
    "JAX": (
        has("pyro_riemann.numpyro:RiemannianHeatKernel"),
        *(mentions(peer, r"(?m)^\s*(?:import|from) jax\b") for peer in PEERS[1:]),
    ),
    "variational autoencoders to train": (
        has("pyro_riemann.vae:make_vae"),
        *(mentions(peer, r"class \w*VAE\b|variational.autoencoder\w*\(") for peer in PEERS[1:4]),
        has("pythae.models:VAE"),
        *(mentions(peer, r"class \w*VAE\b|variational.autoencoder\w*\(") for peer in PEERS[5:]),
    ),
    "symmetric positive definite matrices": (
        has("pyro_riemann.manifolds:SPD"),
        has("geomstats.geometry.spd_matrices:SPDMatrices"),
        has("geoopt:SymmetricPositiveDefinite"),
        mentions("stochman", r"class (?:SPD|\w*PositiveDefinite)"),
        mentions("pythae", r"class (?:SPD|\w*PositiveDefinite)"),
        has("geometry.riemannian.manifolds:SPDN"),
        mentions("latent_riemannian_world", r"class (?:SPD|\w*PositiveDefinite)"),
    ),
    "Stiefel manifolds, Lie groups": (
        mentions("pyro_riemann", MATRIX_MANIFOLDS),
        has("geomstats.geometry.stiefel:Stiefel"),
        has("geoopt:Stiefel"),
        mentions("stochman", MATRIX_MANIFOLDS),
        *(mentions(peer, MATRIX_MANIFOLDS) for peer in PEERS[4:]),
    ),
    "optimisers on a manifold": (
        mentions("pyro_riemann", r"class Riemannian(?:Adam|SGD|GradientDescent)"),
        has("geomstats.learning.geodesic_regression:RiemannianGradientDescent"),
        has("geoopt.optim:RiemannianAdam"),
        mentions("stochman", r"class Riemannian(?:Adam|SGD)"),
        *(mentions(peer, r"class Riemannian(?:Adam|SGD)\b") for peer in PEERS[4:]),
    ),
    "Fréchet means and other statistics": (
        mentions("pyro_riemann", r"def frechet_mean|class FrechetMean"),
        has("geomstats.learning.frechet_mean:FrechetMean"),
        *(mentions(peer, r"frechet_?mean|karcher") for peer in PEERS[2:5]),
        has("geometry.riemannian.frechet_mean:GEORCE_FM"),
        mentions("latent_riemannian_world", r"frechet_?mean|karcher"),
    ),
    "Langevin or Hamiltonian samplers of points that stay on a manifold": (
        mentions("pyro_riemann", r"class (?:RHMC|RSGLD|SGRHMC)"),
        mentions("geomstats", r"class (?:RHMC|RSGLD|SGRHMC)|langevin|hamiltonian.monte"),
        has("geoopt.samplers:RHMC"),
        mentions("stochman", r"class (?:RHMC|RSGLD|SGRHMC)|langevin|hamiltonian.monte"),
        mentions("pythae", r"class (?:RHMC|RSGLD|SGRHMC)|langevin"),
        *(mentions(peer, r"class (?:RHMC|RSGLD|SGRHMC)|hamiltonian.monte") for peer in PEERS[5:]),
    ),
}


@pytest.mark.parametrize("row", CHECKS)
@pytest.mark.parametrize("peer", PEERS)
def test_cell_is_true(peer: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOMSTATS_BACKEND", "pytorch")
    dtype = torch.get_default_dtype()
    if peer == "GEORCE":
        if "GEORCE_SOURCE" not in os.environ:
            pytest.skip("GEORCE_SOURCE names no checkout of georce_fm")
        monkeypatch.syspath_prepend(os.environ["GEORCE_SOURCE"])
    pytest.importorskip(PACKAGES.get(peer, peer), exc_type=ImportError)
    torch.set_default_dtype(dtype)  # geomstats sets another one on import
    column = PEERS.index(peer)
    answer = table()[1][row][column].split(",")[0]
    assert answer in ("yes", "no")
    assert CHECKS[row][column]() == (answer == "yes")


def test_every_row_is_checked() -> None:
    head, rows = table()
    assert [name.split()[0].replace("-", "_") for name in head] == list(PEERS)
    assert list(rows) == list(CHECKS)
    assert all(len(answers) == len(PEERS) for answers in rows.values())
