"""The page's own geometry, run in the browser, against pyro_riemann and against closed forms."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_riemann import ConstantMetric, EuclideanMetric, GridMetric, PullbackMetric, RiemannianMetric, WarpedMetric
from pyro_riemann.explorer import load_run, run_page
from pyro_riemann.explorer._payload import pack
from pyro_riemann.vae import VAE, encode_all
from tests.charts import shear, unshear, warped_sphere

PREPARE = """
window.tableOf = (low, high, size, entries) => {
  const part = unpack(entries).array;
  return new MetricTable(low, high, size, part, new Float32Array(part.length));
};
"""


@pytest.fixture(scope="module")
def vae(run_folder: Path) -> VAE:
    return load_run(run_folder).vae


@pytest.fixture(scope="module")
def codes(run_folder: Path) -> Tensor:
    run = load_run(run_folder)
    return encode_all(run.vae, run.images).double()


@pytest.fixture(scope="module")
def page(driver: Any, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The driver with the run's page open."""
    file = tmp_path_factory.mktemp("page") / "explorer.html"
    file.write_text(run_page(load_run(run_folder), resolution=100), encoding="utf-8")
    driver.get(file.as_uri())
    driver.execute_script(PREPARE)
    return driver


class Weighted(RiemannianMetric):
    """``J_mu^T J_mu + w J_sigma^T J_sigma + lambda I`` by forward mode through the decoder itself."""

    dim = 2

    def __init__(self, vae: VAE, weight: float, ridge: float) -> None:
        super().__init__()
        self.decoder, self.weight, self.ridge = copy.deepcopy(vae.decoder).double(), weight, ridge

    def metric(self, z: Tensor) -> Tensor:
        total = self.ridge * torch.eye(2).to(z)
        for part, weight in ((self.decoder.mean, 1.0), (self.decoder.std, self.weight)):
            slopes = torch.func.vmap(torch.func.jacfwd(part))(z)
            total = total + weight * slopes.mT @ slopes
        return total.detach()


def box_of(page: Any) -> Tensor:
    return torch.tensor(
        page.execute_script("return [explorer.payload.low, explorer.payload.high]"), dtype=torch.float64
    )


def entries(tensors: Tensor) -> Tensor:
    return torch.stack([tensors[..., 0, 0], tensors[..., 0, 1], tensors[..., 1, 1]], -1)


def relative(found: Any, expected: Tensor) -> Tensor:
    """Largest error of a metric's entries in units of its trace."""
    scale = expected[..., 0] + expected[..., 2]
    return (torch.tensor(found, dtype=torch.float64) - expected).abs().amax(-1) / scale


def table_arguments(metric: RiemannianMetric, low: float, high: float, resolution: int) -> list[Any]:
    """Arguments of the page's `tableOf` for a metric, in float32 like every payload."""
    axis = torch.linspace(low, high, resolution, dtype=torch.float64)
    nodes = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    return [[low, low], [high, high], [resolution] * 2, pack(entries(metric.metric(nodes)).float().numpy())]


# ------------------------------------------------------------------------------------ metric and decoder


@pytest.mark.parametrize("weight, ridge", [(1.0, 0.0), (0.2, 3.0)])
def test_metric_is_that_of_the_model(page: Any, vae: VAE, codes: Tensor, weight: float, ridge: float) -> None:
    low, high = box_of(page)
    points = low + (high - low) * torch.rand(50, 2, dtype=torch.float64)
    script = """
    explorer.table.setParameters(arguments[1], arguments[2]);
    const found = arguments[0].map((z) => [explorer.table.metric(...z), brownianDrift(explorer.table, ...z)]);
    explorer.table.setParameters(1, 0);
    return found;
    """
    own = Weighted(vae, weight, ridge + 1e-6)
    grid = GridMetric(own, low, high, 100)
    tensors, drifts = zip(*page.execute_script(script, points.tolist(), weight, ridge), strict=True)
    assert relative(tensors, entries(grid.metric(points))).max() < 2e-6
    expected = grid.drift(points)
    # the table is in single precision, which shows in derivatives where G is nearly singular
    error = (torch.tensor(drifts, dtype=torch.float64) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.median() < 1e-4
    assert error.max() < 0.05
    at_codes, _ = zip(*page.execute_script(script, codes[:50].tolist(), weight, ridge), strict=True)
    # between the nodes the table has an error of its own
    assert relative(at_codes, entries(own.metric(codes[:50]))).mean() < 0.02


def test_metric_at_one_is_the_pullback(page: Any, vae: VAE, codes: Tensor) -> None:
    found = page.execute_script("return arguments[0].map((z) => explorer.table.metric(...z))", codes[:50].tolist())
    expected = PullbackMetric(vae.decoder, 2).metric(codes[:50].float()).double().detach()
    assert relative(found, entries(expected)).mean() < 0.02


def test_decoder_is_torchs(page: Any, vae: VAE, codes: Tensor) -> None:
    found = page.execute_script(
        "return arguments[0].map((z) => [...explorer.decoder.decode(...z)])", codes[:20].tolist()
    )
    expected = vae.decoder.mean(codes[:20].float())
    torch.testing.assert_close(torch.tensor(found), expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (3, 2, 3)])
def test_pixels_are_those_of_the_image(page: Any, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    painted = page.execute_script(
        "const canvas = document.createElement('canvas'); paintImage(canvas, arguments[0], arguments[1]);"
        "return [canvas.width, [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]]",
        image.flatten().tolist(),
        list(shape),
    )
    colours = image.reshape(-1, 2, 3).expand(3, 2, 3).permute(1, 2, 0) * 255
    assert painted[0] == 3
    torch.testing.assert_close(torch.tensor(painted[1]).reshape(2, 3, 4)[..., :3].float(), colours, atol=0.51, rtol=0.0)


# ------------------------------------------------------------------------------------ geodesics

SOLVE = """
const solve = (table, pairs) => {
  const graph = new PathGraph(table, GRAPH_NODES);
  return pairs.map(([a, b]) => {
    const found = geodesic(table, graph, a, b);
    return [found.length, found.converged, relax(table, [a, b]).length, found.reason];
  });
};
"""


def test_lengths_are_those_of_the_grid_metric(page: Any, vae: VAE, codes: Tensor) -> None:
    low, high = box_of(page)
    z, y = codes[:16], codes[16:32]
    grid = GridMetric(Weighted(vae, 1.0, 1e-6), low, high, 100)
    expected = grid.geodesic(z, y, init="graph", num_knots=16, num_segments=64)
    pairs = torch.stack([z, y], 1).tolist()
    lengths, converged, _, _ = zip(
        *page.execute_script(SOLVE + "return solve(explorer.table, arguments[0]);", pairs), strict=True
    )
    both = torch.tensor(converged) & expected.converged
    assert both.double().mean() > 0.8
    torch.testing.assert_close(
        torch.tensor(lengths, dtype=torch.float64)[both], expected.length[both], rtol=0.01, atol=0.0
    )


def test_lengths_on_the_sphere_are_exact(page: Any) -> None:
    sphere = warped_sphere()
    z, y = torch.rand(2, 8, 2, dtype=torch.float64) * 1.4 - 0.7
    pairs = torch.stack([z, y], 1).tolist()
    script = SOLVE + "return solve(tableOf(...arguments[1]), arguments[0]);"
    found = page.execute_script(script, pairs, table_arguments(sphere, -1.5, 1.5, 80))
    lengths, converged, _, _ = zip(*found, strict=True)
    assert all(converged)
    torch.testing.assert_close(torch.tensor(lengths, dtype=torch.float64), sphere.dist(z, y), rtol=1e-3, atol=0.0)


class Hill(RiemannianMetric):
    """A hill and a swamp beside it: the straight line rolls off the hill into the swamp."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        x, y = z[..., 0], z[..., 1]
        hill = torch.exp(-(((x.square() + (y - 0.1).square()) / 0.36) ** 2))
        swamp = torch.sigmoid((-0.3 - y) / 0.1) * torch.exp(-((x / 0.5) ** 4))
        return (1 + 40 * hill + 8 * swamp)[..., None, None] * torch.eye(2).to(z)


def test_shortest_path_escapes_a_local_minimum(page: Any) -> None:
    hill, ends = Hill(), torch.tensor([[-1.2, 0.0], [1.2, 0.0]], dtype=torch.float64)
    script = SOLVE + "return solve(tableOf(...arguments[1]), arguments[0]);"
    ((length, converged, from_line, _),) = page.execute_script(
        script, [ends.tolist()], table_arguments(hill, -2.0, 2.0, 100)
    )
    grid = GridMetric(hill, torch.tensor([-2.0, -2.0], dtype=torch.float64), 2.0, 100)
    settings = {"num_knots": 16, "num_segments": 64}
    best, local = (grid.geodesic(ends[0], ends[1], init=init, **settings) for init in ("graph", "line"))
    assert converged
    assert bool(best.converged & local.converged)
    assert length == pytest.approx(best.length.item(), rel=0.01)
    assert from_line == pytest.approx(local.length.item(), rel=0.01)
    assert from_line > 1.3 * length


def test_what_did_not_converge_says_so(page: Any) -> None:
    table = table_arguments(EuclideanMetric(2), -1.0, 1.0, 20)
    script = SOLVE + "return solve(tableOf(...arguments[1]), arguments[0]);"
    ((_, converged, _, reason),) = page.execute_script(script, [[[0.0, 0.0], [1.5, 0.0]]], table)
    assert (converged, reason) == (False, "it leaves the table")
    bent = "const t = tableOf(...arguments[0]); return minimise(t, resample(t, [[-1, 0], [1, 0.2]], 64), 2).stationary"
    assert page.execute_script(bent, table_arguments(Hill(), -2.0, 2.0, 60)) is False


# ------------------------------------------------------------------------------------ Brownian motion

WALK = """
const [start, count, steps, time, seed, table] = arguments;
const motion = new BrownianMotion(tableOf(...table), start, count, seed);
for (let k = 0; k < steps; k++) motion.step(time / steps);
return [[...motion.points], motion.left];
"""


def walk(page: Any, metric: RiemannianMetric, start: Tensor, time: float, half_width: float, seed: int = 1) -> Tensor:
    arguments = (start.tolist(), 6000, 200, time, seed, table_arguments(metric, -half_width, half_width, 100))
    points, left = page.execute_script(WALK, *arguments)
    assert left == 0, "a walker reached the edge: the law is another one"
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)


def assert_normal_moments(points: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Mean and covariance within four standard errors."""
    count = len(points)
    error = (covariance.diagonal() / count).sqrt()
    assert ((points.mean(0) - mean).abs() < 4 * error).all()
    variances = covariance.diagonal()
    error = ((variances[:, None] * variances + covariance.square()) / count).sqrt()
    assert ((points.T.cov() - covariance).abs() < 4 * error).all()


def test_motion_of_a_constant_metric_is_gaussian(page: Any) -> None:
    matrix = torch.tensor([[2.0, -0.9], [-0.9, 0.8]], dtype=torch.float64)
    start, time = torch.tensor([0.3, -0.2], dtype=torch.float64), 0.5
    ends = walk(page, ConstantMetric(matrix), start, time, half_width=12.0)
    assert_normal_moments(ends, start, time * torch.linalg.inv(matrix))


def test_motion_of_the_plane_in_a_bent_chart(page: Any) -> None:
    """In straight coordinates the law is N(start, t I); without the drift the mean would be far off."""
    plane = WarpedMetric(EuclideanMetric(2), (shear, unshear))
    start, time = torch.tensor([1.0, 0.5], dtype=torch.float64), 0.15
    ends = walk(page, plane, start, time, half_width=4.0)
    assert_normal_moments(shear(ends), shear(start), time * torch.eye(2, dtype=torch.float64))
    assert (time * plane.drift(start)).norm() > 8 * (time / len(ends)) ** 0.5, "the test has power"


def test_motion_on_the_sphere(page: Any) -> None:
    """The mean of the embedded points shrinks as exp(-t): their coordinates are eigenfunctions of the Laplacian."""
    sphere = warped_sphere()
    start, time = torch.tensor([0.2, 0.1], dtype=torch.float64), 0.1
    ends = walk(page, sphere, start, time, half_width=3.0)

    def embed(z: Tensor) -> Tensor:
        # the base chart is stereographic, of the unit sphere: its coordinates in space
        return sphere.base.to_ambient(shear(z))

    points = embed(ends)
    expected = np.exp(-time) * embed(start)
    assert ((points.mean(0) - expected).abs() < 4 * points.std(0) / len(points) ** 0.5).all()


def test_seed_decides_the_paths(page: Any) -> None:
    start = torch.zeros(2, dtype=torch.float64)
    first, again, other = (walk(page, ConstantMetric(torch.eye(2)), start, 0.2, 9.0, seed) for seed in (5, 5, 6))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert abs(torch.corrcoef(torch.stack([first[:, 0], other[:, 0]]))[0, 1]) < 4 / len(first) ** 0.5
