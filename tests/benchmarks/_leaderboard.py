"""What the leaderboard of geodesics compares: cases, and methods that give curves between pairs of points.

One row in a process of its own: ``python -m tests.benchmarks._leaderboard CASE METHOD PAIRS FILE`` writes lengths,
seconds and peak memory. All lengths are measured in one way: that of the images of 2,001 points of a curve.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_riemann import Hyperbolic, PullbackMetric, RiemannianMetric, Sphere
from pyro_riemann.geodesics import _graph, _spline, training_solver
from tests.benchmarks._decoder import CACHE_VARIABLE, mnist_vae

FINE = 2000
Curves = Callable[[Tensor, Tensor], Tensor]


class OnlyMetric(RiemannianMetric):
    """A metric of which nothing is known but its tensor."""

    def __init__(self, base: RiemannianMetric) -> None:
        super().__init__()
        self.exact, self.dim = base, base.dim

    def metric(self, z: Tensor) -> Tensor:
        return self.exact.metric(z)


@torch.enable_grad()
def conv_decoder(dim: int) -> nn.Sequential:
    """A small convolutional decoder, trained on 6,000 images of MNIST as an autoencoder; from the cache."""
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(dim, 16 * 49),
        nn.ELU(),
        nn.Unflatten(-1, (16, 7, 7)),
        nn.ConvTranspose2d(16, 8, 4, 2, 1),
        nn.ELU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1),
        nn.Sigmoid(),
    )
    folder = Path(os.environ.get(CACHE_VARIABLE, Path(tempfile.gettempdir()) / "pyro_riemann_benchmarks"))
    path = folder / f"conv_decoder_d{dim}.pt"
    if not path.exists():
        from pyro_riemann.datasets import load_dataset

        images = load_dataset("mnist").train[:6000]
        encoder = nn.Sequential(nn.Linear(784, 128), nn.ELU(), nn.Linear(128, dim))
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
        for _ in range(5):
            for x in images[torch.randperm(len(images))].split(100):
                optimizer.zero_grad()
                codes = encoder(x)
                loss = (decoder(codes + 0.1 * torch.randn_like(codes)).flatten(1) - x).square().sum(-1).mean()
                (loss + 0.1 * codes.square().sum(-1).mean()).backward()
                optimizer.step()
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            torch.save({"decoder": decoder.state_dict(), "codes": encoder(images)}, path)
    state = torch.load(path, weights_only=True)
    decoder.load_state_dict(state["decoder"])
    decoder.codes = state["codes"]
    return decoder.eval().requires_grad_(False)


def case(name: str, pairs: int) -> tuple[RiemannianMetric, Tensor, Tensor]:
    """Metric and pairs of points."""
    generator = torch.Generator().manual_seed(0)
    if name.startswith(("S^", "H^")):
        base: Any = Sphere(int(name[2])) if name[0] == "S" else Hyperbolic(int(name[2]))
        x = torch.randn(2, pairs, base.dim, generator=generator)
        z, y = 0.4 * x / (1 + 0.4 * x.norm(dim=-1, keepdim=True))  # within the ball, not near antipodes
        return OnlyMetric(base), z, y
    what, dim = name.split(", d = ")
    if what == "convolutions":
        decoder = conv_decoder(int(dim))
        metric, codes = PullbackMetric(decoder, int(dim)), decoder.codes
    else:
        vae, codes = mnist_vae(int(dim))
        vae.requires_grad_(False)
        metric = PullbackMetric(vae.decoder if what == "precision network" else vae.decoder.mean, int(dim))
    chosen = codes[torch.randint(len(codes), (2 * pairs,), generator=generator)]
    return metric, *chosen.reshape(2, pairs, -1).unbind()


# ---------------------------------------------------------------- methods


def ours(metric: RiemannianMetric, init: str, **settings: Any) -> Curves:
    """The default solver, or another."""

    def curves(z: Tensor, y: Tensor) -> Tensor:
        found = metric.geodesic(z, y, init=init, **settings)
        return found(torch.linspace(0, 1, FINE + 1)).movedim(0, 1)

    return curves


def rough(metric: RiemannianMetric) -> Curves:
    """The solver for trainings, which checks nothing."""
    solver = training_solver(metric.dim)

    def curves(z: Tensor, y: Tensor) -> Tensor:
        (piece,) = solver.pieces(metric, z, y)
        return _spline.uniform_basis(solver.num_knots, FINE, z) @ piece.control

    return curves


def moved(metric: RiemannianMetric) -> Any:
    """The twin of a metric."""
    from pyro_riemann import numpyro as twin

    if not isinstance(metric, OnlyMetric):
        return twin.to_numpyro(metric)
    exact = twin.to_numpyro(metric.exact)

    class Twin(twin.RiemannianMetric):  # type: ignore[misc]
        dim = exact.dim

        def metric(self, z: Any) -> Any:
            return exact.metric(z)

    return Twin()


def in_jax(metric: RiemannianMetric) -> Curves:
    """The default solver of the twin from the straight line."""
    import jax.numpy as jnp

    found = moved(metric)
    return on_arrays(lambda z, y: found.geodesic(z, y, init="line")(jnp.linspace(0, 1, FINE + 1)))


def compiled_in_jax(metric: RiemannianMetric, **settings: Any) -> Curves:
    """A solver of the twin in one compiled program, which looks for no shorter curve and tries nothing again."""
    import jax
    import jax.numpy as jnp

    found = moved(metric)
    found.solver = found.solver.replace(**settings)
    return on_arrays(jax.jit(lambda z, y: found.geodesic(z, y, init="line")(jnp.linspace(0, 1, FINE + 1))))


def on_arrays(solve: Callable[..., Any]) -> Curves:
    """A function of JAX's arrays as one of tensors."""
    import jax.numpy as jnp
    import numpy as np

    def curves(z: Tensor, y: Tensor) -> Tensor:
        points = np.array(solve(jnp.asarray(z.numpy()), jnp.asarray(y.numpy())))
        return torch.from_numpy(points).movedim(0, 1)

    return curves


def georce(metric: RiemannianMetric, init: str, segments: int = 100, steps: int = 1000, tolerance: float = 1e-4) -> Any:
    r"""GEORCE's step on a batch of curves: T segments, until the energy's gradient is small.

    With u the segments, the step solves :math:`u_t = -G_t^{-1}(\mu + \sum_{j > t} \nu_j) / 2`, where
    :math:`\nu_j = \partial_x\,u_j^\top G(x) u_j` at the last curve and mu makes the curve end where it must.

    Source: Rygaard and Hauberg (2025), *GEORCE: a fast new control algorithm for computing geodesics*, algorithm 1.
    Written anew because its authors' package starts from straight segments alone; `authors_georce` is that package.
    Here a line search by halves; curves that are done leave the batch.
    """

    def begin(z: Tensor, y: Tensor) -> Tensor:
        times = torch.linspace(0, 1, segments + 1)
        if init == "line":
            return torch.lerp(z[:, None], y[:, None], times[:, None])
        if metric.dim > _graph.MAX_GRID_DIM:
            control = _graph.neighbour_curves(metric, z, y, 16)
        else:
            table = _graph.table_around(metric, z, y, 96)
            control = _graph.grid_curves(table, z, y, 16, 96)
        return _spline.uniform_basis(16, segments, control) @ control

    def terms(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            at = x[:, :-1].detach().requires_grad_()
            tensor = metric.metric(at)
            squares = torch.einsum("pti,ptij,ptj->pt", u, tensor, u)
            (slope,) = torch.autograd.grad(squares.sum(), at)
        return squares.sum(-1).detach(), tensor.detach(), slope

    def curves(z: Tensor, y: Tensor) -> Tensor:
        x, rows = begin(z, y), torch.arange(len(z))
        for _ in range(steps):
            u = x[rows].diff(dim=1)
            energy, tensor, slope = terms(x[rows], u)
            momentum = 2 * torch.einsum("ptij,ptj->pti", tensor, u)
            gradient = slope[:, 1:] + momentum[:, :-1] - momentum[:, 1:]
            rest = gradient.flatten(1).norm(dim=-1) > tolerance
            if not bool(rest.any()):
                break
            rows, u, energy, tensor, slope = (part[rest] for part in (rows, u, energy, tensor, slope))
            inverse = torch.linalg.inv(tensor)
            later = slope.flip(1).cumsum(1).flip(1) - slope  # the sum over j > t
            right = 2 * (z - y)[rows] - torch.einsum("ptij,ptj->pi", inverse, later)
            multiplier = torch.linalg.solve(inverse.sum(1), right)
            new = -0.5 * torch.einsum("ptij,ptj->pti", inverse, multiplier[:, None] + later)
            share, found = torch.ones(len(rows)), x[rows]
            waiting = torch.ones_like(share, dtype=torch.bool)
            for _ in range(20):
                at = waiting.nonzero().squeeze(-1)
                mixed = torch.lerp(u[at], new[at], share[at, None, None])
                trial = torch.cat([z[rows[at], None], z[rows[at], None] + mixed.cumsum(1)], 1)
                value = metric.inner(trial[:, :-1], mixed, mixed).sum(-1)
                better = value < energy[at]
                found[at[better]] = trial[better]
                waiting[at[better]] = False
                share[at[~better]] *= 0.5
                if not bool(waiting.any()):
                    break
            x[rows] = found
            rows = rows[~waiting]  # no step lowers the energy: this is all that the dtype gives
            if len(rows) == 0:
                break
        return finer(x)

    return curves


def authors_georce(metric: RiemannianMetric) -> Curves:
    """GEORCE by its authors' package with its defaults, one pair after the other in one compiled program."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from georce import GEORCE_R

    twin = moved(metric)
    solve = jax.jit(lambda pairs: jax.lax.map(lambda pair: GEORCE_R(twin.metric)(*pair), pairs))
    programs: dict[int, Any] = {}

    class Authors:
        def __call__(self, z: Tensor, y: Tensor) -> Tensor:
            return finer(torch.from_numpy(np.array(programs[len(z)]((jnp.asarray(z.numpy()), jnp.asarray(y.numpy()))))))

        def compile(self, z: Tensor, y: Tensor) -> None:
            programs[len(z)] = solve.lower((jnp.asarray(z.numpy()), jnp.asarray(y.numpy()))).compile()

    return Authors()


def geomstats(metric: RiemannianMetric) -> Curves:
    """Path straightening with geomstats' defaults, which takes one pair after the other."""
    import numpy as np

    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # noqa: NPY201 (geomstats 2.8 does not import without the name)
    from geomstats.geometry.euclidean import Euclidean
    from geomstats.geometry.riemannian_metric import RiemannianMetric as Metric
    from geomstats.numerics.geodesic import PathStraightening

    class Ours(Metric):  # type: ignore[misc]
        def metric_matrix(self, base_point: Tensor) -> Tensor:
            return metric.metric(base_point.float()).double()

    space = Euclidean(metric.dim, equip=False)
    space.equip_with_metric(Ours)
    solver = PathStraightening(space)

    def curves(z: Tensor, y: Tensor) -> Tensor:
        pairs = zip(y.double(), z.double(), strict=True)
        return finer(torch.stack([solver.discrete_geodesic_bvp(end, start) for end, start in pairs]).float())

    return curves


def stochman(metric: RiemannianMetric) -> Curves:
    """stochman's defaults, all pairs in one batch."""
    from stochman.curves import CubicSpline
    from stochman.geodesic import geodesic_minimizing_energy
    from stochman.manifold import Manifold

    surface = metric.immersed()

    class Surface(Manifold):  # type: ignore[misc]
        def curve_energy(self, curve: Tensor, reduction: str = "sum") -> Tensor:
            curve = curve if curve.dim() == 3 else curve[None]
            if surface is not None:
                return surface.embed(curve).diff(dim=1).square().sum() * (curve.shape[1] - 1)
            step = curve.diff(dim=1)
            return metric.inner(curve[:, :-1], step, step).sum() * (curve.shape[1] - 1)

        def metric(self, points: Tensor) -> Tensor:
            return metric.metric(points)

    def curves(z: Tensor, y: Tensor) -> Tensor:
        curve = CubicSpline(z, y)
        geodesic_minimizing_energy(curve, Surface())
        found: Tensor = curve(torch.linspace(0, 1, FINE + 1)).detach()
        return found if found.dim() == 3 else found[None]

    return curves


def finer(x: Tensor) -> Tensor:
    """Points of polygons ``(P, T + 1, d)``, 2,001 of each."""
    return nn.functional.interpolate(x.mT, FINE + 1, mode="linear", align_corners=True).mT


def methods(metric: RiemannianMetric) -> dict[str, Callable[[], Curves]]:
    """By name; each asks for its package when it is called."""
    return {
        "ours, torch": lambda: ours(metric, "line"),
        "ours, torch, graph": lambda: ours(metric, "graph"),
        "ours, torch, training": lambda: rough(metric),
        "ours, JAX": lambda: in_jax(metric),
        "ours, JAX, compiled": lambda: compiled_in_jax(metric),
        "ours, JAX, compiled, 4 knots": lambda: compiled_in_jax(metric, num_knots=4, num_segments=16),
        "GEORCE": lambda: authors_georce(metric),
        "GEORCE from our graph": lambda: georce(metric, "graph"),
        "stochman": lambda: stochman(metric),
        "geomstats": lambda: geomstats(metric),
        "reference": lambda: ours(metric, "graph", num_knots=32, num_segments=128),
    }


def lengths(metric: RiemannianMetric, points: Tensor) -> Tensor:
    """Lengths ``(P,)`` of curves, by the images of all points, or the norms of all steps; in doubles."""
    found = []
    for part in points.split(8):
        if (surface := metric.immersed()) is not None:
            found.append(surface.embed(part).double().diff(dim=1).norm(dim=-1).sum(-1))
        else:
            step = part.diff(dim=1)
            found.append(metric.norm(part[:, :-1] + step / 2, step).double().sum(-1))
    return torch.cat(found)


def main() -> None:
    """Measure what the command line names."""
    name, method, count, file = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with torch.no_grad():
        metric, z, y = case(name, int(count))
        metric.solver = metric.solver.replace(on_failure="warn")
        solve = methods(metric)[method]()
        ours(metric, "line")(z[:1], y[:1])  # libraries load at their first use
        first = 0.0
        if "JAX" in method or method == "GEORCE":  # compiled before
            start = time.process_time()
            (solve.compile if method == "GEORCE" else solve)(z, y)
            first = time.process_time() - start
        start = time.process_time()
        with torch.set_grad_enabled(method in ("stochman", "geomstats")):
            points = solve(z, y)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        if "JAX" in method:  # which has run as well
            first = max(0.0, first - seconds)
        row: dict[str, Any] = {"seconds": seconds, "compile_seconds": first, "peak_mib": peak}
        row["lengths"] = lengths(metric, points).tolist()
        if isinstance(metric, OnlyMetric):
            row["exact"] = metric.exact.dist(z.double(), y.double()).tolist()
    Path(file).write_text(json.dumps(row))


if __name__ == "__main__":
    main()
