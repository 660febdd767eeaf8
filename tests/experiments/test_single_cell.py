"""Single cells: files, the test of a geometry, priors on a box, the page and its JSON; no test needs the data."""

from __future__ import annotations

import gzip
import math
import statistics
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pyro_riemann import EuclideanMetric, GridMetric, PullbackMetric, RiemannianNormal, Sphere
from pyro_riemann.experiments._jobs import load
from pyro_riemann.experiments.single_cell import _mixtures as mixtures
from pyro_riemann.experiments.single_cell import _priors as priors
from pyro_riemann.experiments.single_cell import _run as grid
from pyro_riemann.experiments.single_cell import _solved as solved
from pyro_riemann.experiments.single_cell import load_cells, most_variable, report, run, split
from pyro_riemann.experiments.single_cell._models import LINES
from pyro_riemann.vae import Decoder, PoissonLikelihood

CURVES = ("mean", "fisher", "ensemble")
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "single_cell"
MEANS = ("mean", "encoder_mean")
KINDS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.68, 0.16, 0.16], [0.16, 0.68, 0.16], [0.33, 0.33, 0.33]])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Counts of 60 mixtures of three Poisson profiles over 30 genes, in the format of the files."""
    torch.manual_seed(0)
    shares = KINDS.repeat(10, 1)
    counts = torch.poisson(shares @ torch.randn(3, 30).exp() * 20 + 1).int()
    names = [f"A{i}" for i in range(len(shares))]
    rows = [f'"GENE{j}",' + ",".join(map(str, counts[:, j].tolist())) for j in range(30)]
    (tmp_path / "single-cell").mkdir()
    files = {
        "count": [",".join(f'"{name}"' for name in names), *rows],
        "metadata": [
            ",".join(f'"{line}_prop"' for line in LINES),
            *(f'"{name}",{a:.2f},{b:.2f},{c:.2f}' for name, (a, b, c) in zip(names, shares.tolist(), strict=True)),
        ],
    }
    for kind, lines in files.items():
        with gzip.open(tmp_path / "single-cell" / f"RNAmix_celseq2.{kind}.csv.gz", "wt") as file:
            file.write("\n".join([*lines, ""]))
    return tmp_path


@pytest.fixture
def flat() -> GridMetric:
    return GridMetric(EuclideanMetric(2), torch.tensor([-6.0, -6.0]), torch.tensor([6.0, 6.0]), 24)


def test_the_page_is_that_of_the_results() -> None:
    assert RESULTS.with_suffix(".md").read_text() == report(RESULTS)


def test_results_are_those_of_the_grid() -> None:
    known = {job.name: job for job in grid.jobs(grid.Protocol(), grid.SolvedProtocol())}
    records = [load(path) for path in RESULTS.glob("*.json")]
    assert records
    for record in records:
        assert record["settings"] == known[record["name"]].settings
        result = record["result"]
        # differences of means are means of differences
        for name, (gain, _) in result["gain"].items():
            assert abs(gain - (result["iwae"]["heat_kernel"] - result["iwae"][name])) < 1e-6
        # a learned Gaussian includes the isotropic ones, which include N(0, I); held-out cells need not agree
        assert result["iwae"]["full"] > result["iwae"]["standard"]


def test_findings_are_those_of_the_results() -> None:
    records = [load(path) for path in RESULTS.glob("*.json")]
    results = [record["result"] for record in records if "latent_dim" not in record["settings"]]
    mixed = [result for result in results if "mixtures" in result]

    def means(name: str, key: str) -> list[float]:
        return [statistics.mean(result["mixtures"][name][key]) for result in mixed]

    straight, fisher = means("straight", "error"), means("fisher", "error")
    spread = statistics.stdev(fisher)
    for name in ("mean", "fisher", "ensemble"):
        error = means(name, "error")
        assert all(mine < line for mine, line in zip(error, straight, strict=True))
        assert statistics.mean(straight) - statistics.mean(error) < spread
        assert abs(statistics.mean(error) - statistics.mean(fisher)) < spread
        bare = statistics.mean(mixed[0]["profiles"]["rank"])
        assert statistics.mean(means(name, "rank")) < bare
    for result in results:
        assert result["gain"]["standard"][0] > 0
        assert all(-1.1 < result["gain"][name][0] < 0 for name in ("isotropic", "full", "mixture"))
        if "nuts" in result:
            nuts = result["nuts"]
            assert max(nuts["r_hat"]) < 1.02
            assert nuts["divergences"] == 0
            deviation = torch.tensor(nuts["lattice_sd"])
            off = [(torch.tensor(nuts[key]) - torch.tensor(nuts["lattice_mean"])).abs() / deviation for key in MEANS]
            assert off[0].max() < 0.2
            assert off[1].max() > 1


def test_findings_in_ten_dimensions_are_those_of_the_results() -> None:
    records = [load(path) for path in RESULTS.glob("*.json")]
    results = [record["result"] for record in records if "latent_dim" in record["settings"]]
    assert len(results) == 4
    mixed = [result for result in results if "mixtures" in result]
    rank = {
        name: [statistics.mean(result["mixtures"][name]["rank"]) for result in mixed] for name in ("straight", *CURVES)
    }
    assert all(mine < line + 0.01 for name in CURVES for mine, line in zip(rank[name], rank["straight"], strict=True))
    for result in mixed:
        bare = {key: statistics.mean(result["profiles"][key]) for key in ("rank", "error")}
        assert abs(statistics.mean(result["mixtures"]["straight"]["rank"]) - bare["rank"]) < 0.01
        error = {name: statistics.mean(result["mixtures"][name]["error"]) for name in ("straight", *CURVES)}
        assert error["ensemble"] < min(error["straight"], bare["error"])
        assert error["straight"] < min(error["mean"], error["fisher"])
    for result in results:
        assert result["gain"]["standard"][0] < 0
        assert result["gain"]["mixture"][0] < -5


def test_files_are_read(data: Path) -> None:
    cells = load_cells("RNAmix_celseq2", data, num_genes=12)
    assert cells.counts.shape == (60, 12)
    assert len(cells.genes) == 12
    assert (cells.proportions.sum(1) - 1).abs().max() < 1e-6
    assert torch.equal(cells.pure(1), KINDS.repeat(10, 1)[:, 1] == 1)
    learned, test = split(60, 0)
    assert torch.equal(torch.cat([learned, test]).sort().values, torch.arange(60))
    with pytest.raises(FileNotFoundError, match="LuyiTian/sc_mixology"):
        load_cells("sc_celseq2", data)
    with pytest.raises(ValueError, match="name"):
        load_cells("pbmc", data)


def test_most_variable_genes_are_those_that_vary_beyond_the_total() -> None:
    total = torch.tensor([10.0, 20.0, 40.0, 80.0])
    share = torch.tensor([0.5, 0.4, 0.1, 0.0])
    counts = torch.stack([total * share[i] for i in range(3)] + [total * torch.tensor([0.0, 1.0, 0.0, 1.0])], 1)
    assert most_variable(counts, 1).tolist() == [3]


def test_mixtures_between_two_lines() -> None:
    index, share = mixtures.between(torch.cat([KINDS, torch.tensor([[0.16, 0.16, 0.68]])]), 0, 2)
    assert index.tolist() == [3, 5, 6]  # not the pure ones, nor that with most of the line between
    assert (share - torch.tensor([0.16 / 0.84, 0.5, 0.68 / 0.84])).abs().max() < 1e-6


def test_nearest_point_is_the_foot_of_the_perpendicular(flat: GridMetric) -> None:
    torch.manual_seed(1)
    start, end = torch.tensor([-2.0, -1.0]), torch.tensor([2.5, 1.5])
    points = 2 * torch.randn(30, 2)
    foot = (((points - start) @ (end - start)) / (end - start).square().sum()).clamp(0, 1)
    curve = torch.lerp(start, end, torch.linspace(0, 1, 7)[:, None])
    assert (mixtures.nearest_times(None, curve, points) - foot).abs().max() < 1e-4
    assert (mixtures.nearest_times(flat, curve, points) - foot).abs().max() < 1e-3


def test_decoded_share_of_a_linear_mean_is_the_time() -> None:
    class Exponents(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.stack([2 + z[:, 0], 3 - 0.5 * z[:, 0], torch.ones_like(z[:, 0])], 1).log()

    decoder = Decoder(Exponents(), 2, 3, PoissonLikelihood())
    curve, times = torch.stack([torch.linspace(0, 2, 5), torch.zeros(5)], 1), torch.tensor([0.0, 0.3, 0.77, 1.0])
    assert (mixtures.decoded_shares(decoder, curve, times) - times).abs().max() < 1e-6


def test_rank_correlation_of_a_perfect_order_with_ties() -> None:
    known = torch.tensor([0.2, 0.5, 0.8]).repeat_interleave(torch.tensor([5, 12, 7]))
    ties = sum(size**3 - size for size in (5, 12, 7)) / (24**3 - 24)  # Kendall's correction, one side without ties
    assert abs(mixtures.best_correlation(known) - math.sqrt(1 - ties)) < 1e-12
    assert mixtures.scores(1 - known, known)[0] == pytest.approx(-1)


def test_without_a_model_mixtures_of_profiles_are_read_off_exactly() -> None:
    profiles = torch.tensor([[6.0, 3.0, 1.0], [1.0, 8.0, 1.0], [2.0, 2.0, 6.0]])
    shares = torch.cat([torch.eye(3), torch.tensor([[0.7, 0.3, 0.0], [0.5, 0.5, 0.0], [0.2, 0.0, 0.8]])])
    shares = torch.cat([shares, torch.tensor([[0.6, 0.0, 0.4], [0.0, 0.1, 0.9], [0.0, 0.4, 0.6]])])
    found = mixtures.profile_test(shares @ profiles * 100, shares)
    assert max(found["error"]) < 1e-6
    assert min(found["rank"]) > 0.99


def test_box_kernel_in_flat_space_is_a_normal_cut_to_the_box(flat: GridMetric) -> None:
    loc, time = torch.tensor([2.0, -3.0]), 4.0
    law = priors.BoxKernel(flat, loc, 24, time=time)
    normal = torch.distributions.Normal(loc.double(), 2.0)
    inside = (normal.cdf(torch.tensor(6.0).double()) - normal.cdf(torch.tensor(-6.0).double())).log().sum()
    z = 5 * (2 * torch.rand(200, 2) - 1)
    assert (law.log_prob(z) - (normal.log_prob(z.double()).sum(-1) - inside)).abs().max() < 5e-3
    assert law.log_prob(torch.tensor([6.5, 0.0])) == -math.inf
    draws = law.sample(torch.Size([4000]))
    mean = torch.distributions.Normal(0.0, 1.0)
    low, high = (-6 - loc) / 2, (6 - loc) / 2
    ratio = (mean.log_prob(low).exp() - mean.log_prob(high).exp()) / (mean.cdf(high) - mean.cdf(low))
    assert (draws.mean(0) - (loc + 2 * ratio)).abs().max() < 4 * 2 / math.sqrt(4000)


def test_the_fitted_kernel_in_flat_space_is_the_isotropic_gaussian(flat: GridMetric) -> None:
    torch.manual_seed(0)
    codes = torch.randn(400, 2) * torch.tensor([0.6, 0.9]) + torch.tensor([0.4, -0.3])
    law = priors.fit_kernel(flat, codes, resolution=16, evaluations=25)
    gaussian = priors.fit_gaussians(codes, seed=0)["isotropic"]
    assert (law.loc - gaussian.mean).abs().max() < 0.02
    assert law.time == pytest.approx(float(gaussian.variance[0]), rel=0.02)
    assert abs(law.log_prob(codes).mean() - gaussian.log_prob(codes).mean()) < 2e-3
    with pytest.raises(ValueError, match="time"):
        priors.BoxKernel(flat, law.loc, 12)


def test_the_kernel_with_solved_distances_in_flat_space_is_the_isotropic_gaussian() -> None:
    torch.manual_seed(0)
    codes = torch.randn(400, 4) * torch.tensor([0.6, 0.9, 1.2, 0.5]) + torch.tensor([0.4, -0.3, 1.0, 0.0])
    box = solved.box_of(codes, 2.0)
    fit = solved.fit_solved_kernel(EuclideanMetric(4), codes, box, draws=4000, steps=6, seed=0)
    gaussian = priors.fit_gaussians(codes, seed=0)["isotropic"]
    assert fit.share > 0.2
    assert fit.error < 0.02
    assert fit.kernel.time == pytest.approx(float(gaussian.variance[0]), rel=4 * fit.error)
    assert (fit.kernel.loc - gaussian.mean).abs().max() < 4 * (float(gaussian.variance[0]) / 4000 / 0.2) ** 0.5
    assert (fit.kernel.log_prob(codes) - gaussian.log_prob(codes)).mean().abs() < 4 * fit.error
    assert all(later >= before for before, later in pairwise(fit.likelihood))
    assert fit.kernel.log_prob(box.high + 1) == -math.inf


def test_a_curved_kernel_is_fitted_better_than_one_that_is_not_moved() -> None:
    """The sphere, away from the pole of its chart: the mass by quadrature, the centre near that of the law."""
    torch.manual_seed(0)
    sphere, loc = Sphere(2), torch.tensor([0.6, 0.2])
    codes = RiemannianNormal(loc, 0.3, sphere).sample((400,))
    box = solved.Box(torch.tensor([-3.0, -3.0]), torch.tensor([3.0, 3.0]))
    fit = solved.fit_solved_kernel(sphere, codes, box, draws=4000, steps=6, seed=0)
    assert sphere.dist(fit.kernel.loc, loc) < 4 * 0.3 / 400**0.5
    nodes = torch.cartesian_prod(*[(torch.arange(400) + 0.5) / 400 * 6 - 3] * 2)
    assert float(fit.kernel.log_prob(nodes).exp().mean() * 36) == pytest.approx(1, abs=4 * fit.error)


def test_a_window_of_the_curve_is_enough(flat: GridMetric) -> None:
    surface = PullbackMetric(lambda z: torch.cat([z, 0.3 * z.sin()], -1), 2)
    torch.manual_seed(1)
    points, times = 2 * torch.randn(20, 2), torch.linspace(0, 1, 9)[:, None]
    curve = torch.lerp(torch.tensor([-2.0, -1.0]), torch.tensor([2.5, 1.5]), times)
    found = mixtures.nearest_times(surface, curve, points)
    squared = surface.squared_dist(points, curve[:, None])
    assert ((found * 8).round() - squared.argmin(0)).abs().max() <= 1
    ends = mixtures.nearest_times(surface, curve, curve[[0, -1]] + torch.tensor([[-0.5, -0.3], [0.5, 0.3]]))
    assert ends.tolist() == [0, 1]


def test_gaussians_are_nested(flat: GridMetric) -> None:
    torch.manual_seed(0)
    codes = torch.randn(300, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]) + 1
    fits = {name: float(law.log_prob(codes).mean()) for name, law in priors.fit_gaussians(codes, 0).items()}
    assert fits["standard"] < fits["isotropic"] < fits["full"]
    assert fits["full"] <= fits["mixture"] + 1e-3


@pytest.mark.filterwarnings("ignore:.*interpolat.*:UserWarning")  # a model of five epochs
@pytest.mark.filterwarnings("ignore:.*no converged geodesic:UserWarning")  # in three dimensions, of 42 cells
def test_a_run_is_kept_and_reported(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "GRID", (("RNAmix_celseq2", 1.0, (0, 1)),))
    monkeypatch.setattr(grid, "SOLVED_GRID", (("RNAmix_celseq2", 1.0, (0,)),))
    tiny = {"resolution": 16, "field": 12, "nodes": 5, "evaluations": 4, "importance": 5}
    chains = {"chains": 2, "warmup": 5, "draws": 10}
    protocol = grid.Protocol(genes=20, hidden=(8,), epochs=5, members=2, **tiny, **chains)
    small = {"nodes": 5, "importance": 3, "mass_draws": 200, "steps": 1}
    many = grid.SolvedProtocol(latent_dim=3, genes=20, hidden=(8,), epochs=5, members=2, **small)
    results = tmp_path / "results"
    run(results, data, protocol, many)
    written = {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert len(written) == 3
    run(results, data, protocol, many)
    assert {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")} == written
    for path in results.glob("*.json"):
        result = load(path)["result"]
        assert result["cells"] == [42, 6, 12]
        assert ("nuts" in result) == (path.stem == "RNAmix_celseq2-kl1-seed0")
        assert ("mass_error" in result) == ("d3" in path.stem)
    page = report(results)
    assert page.count("| Fisher-Rao, ensemble |") == 4
    assert "### With 3 dimensions" in page
    assert "nan" not in page
