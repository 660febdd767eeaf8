"""The experiments of Kalatzis et al. (2020), on scikit-learn's digits: formulas, resumption, report."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_riemann import ConstantMetric, PullbackMetric, RiemannianHeatKernel
from pyro_riemann.experiments import kalatzis2020
from pyro_riemann.experiments._centred import tabulated_prior
from pyro_riemann.experiments._jobs import is_done, load
from pyro_riemann.experiments.kalatzis2020._calibration import calibrate, uniformity
from pyro_riemann.experiments.kalatzis2020._formulas import SEGMENTS, StraightLineMetric
from pyro_riemann.experiments.kalatzis2020._protocol import MODELS, PROTOCOLS, grid
from pyro_riemann.experiments.kalatzis2020._report import report
from pyro_riemann.experiments.kalatzis2020._scenes import draw_tabulated
from pyro_riemann.experiments.kalatzis2020._train import load_images, trained
from pyro_riemann.vae import VAE

TINY = dataclasses.replace(PROTOCOLS["smoke"], warm_up_epochs=6, epochs=2, train_images=200)


def test_a_grid_has_one_run_for_each_model_dimension_and_seed() -> None:
    jobs = kalatzis2020.grid("mnist", [2, 5], ["vae", "rvae"], 3, PROTOCOLS["paper"])
    models = [job for job in jobs if job.settings["kind"] == "model"]
    assert len(models) == len({job.name for job in models}) == 12
    assert all(job.settings["protocol"]["epochs"] == 200 for job in jobs)
    json.dumps([job.settings for job in jobs])
    with pytest.raises(ValueError, match="`model` must be one of"):
        kalatzis2020.grid("mnist", [2], ["gan"], 1, PROTOCOLS["paper"])


def test_the_authors_distance_is_a_thirtieth_of_the_chord() -> None:
    """On a flat metric line and geodesic agree, so that the divisor is all that is left."""
    metric = ConstantMetric(torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    z, y = torch.randn(2, 7, 2)
    torch.testing.assert_close(StraightLineMetric(metric).squared_dist(z, y), metric.squared_dist(z, y))
    ratio = metric.squared_dist(z, y) / StraightLineMetric(metric, SEGMENTS).squared_dist(z, y)
    torch.testing.assert_close(ratio, torch.full((7,), 30.0))


def test_a_straight_line_is_never_shorter_than_the_geodesic() -> None:
    metric = PullbackMetric(lambda z: torch.cat([z, (2 * z).sin()], -1), 2)
    z, y = torch.randn(2, 20, 2, dtype=torch.float64)
    # energy of the line at constant coordinate speed bounds the squared length from above
    assert bool((StraightLineMetric(metric).squared_dist(z, y) >= metric.squared_dist(z, y) * (1 - 1e-3)).all())


@pytest.fixture(scope="module")
def rvae(tmp_path_factory: pytest.TempPathFactory) -> tuple[VAE, RiemannianHeatKernel]:
    """A trained model and its prior with tabulated distances."""
    data = load_images("digits", TINY, "cpu")
    folder = tmp_path_factory.mktemp("models")
    vae, _ = trained("rvae", data, "digits", 2, dataclasses.replace(TINY, warm_up_epochs=30), 0, folder, "cpu")
    return vae, tabulated_prior(vae.metric, vae.prior.loc, vae.prior.time, 60)


def test_tabulated_draws_have_the_law_of_the_density(rvae: tuple[VAE, RiemannianHeatKernel]) -> None:
    vae, prior = rvae
    table: Any = vae.metric.table
    box = torch.stack([table.low, table.high])
    draws = draw_tabulated(prior, box, 4000, seed=1)
    unit = (torch.arange(200) + 0.5) / 200
    nodes = box[0] + torch.stack(torch.meshgrid(unit, unit, indexing="ij"), -1).reshape(-1, 2) * (box[1] - box[0])
    weight = prior.log_prob(nodes).double().softmax(0)
    mean, square = (weight[:, None] * nodes).sum(0), (weight[:, None] * nodes.square()).sum(0)
    error = (square - mean.square()).sqrt() / 4000**0.5
    assert bool(((draws.double().mean(0) - mean).abs() < 4 * error).all())


def test_ranks_are_uniform_for_draws_of_the_prior_alone(rvae: tuple[VAE, RiemannianHeatKernel]) -> None:
    """Without data the posterior is the prior; a truth far out has the extreme rank, and too many of them show."""
    vae, prior = rvae
    table: Any = vae.metric.table
    box = torch.stack([table.low, table.high])
    points = draw_tabulated(prior, box, 400 * 20, seed=2).reshape(400, 20, 2)
    result = uniformity(prior, points[:, 0], points[:, 1:])
    assert all(len(ranks) == 400 and 0 <= min(ranks) <= max(ranks) <= 19 for ranks in result["ranks"].values())
    assert min(result["p_values"].values()) > 1e-4
    outliers = uniformity(prior, box[1].expand(400, 2), points[:, 1:])
    assert outliers["ranks"]["first coordinate"] == [19] * 400
    assert max(outliers["p_values"].values()) < 1e-4


def test_calibration_samples_the_posterior_of_every_simulated_image(rvae: tuple[VAE, RiemannianHeatKernel]) -> None:
    result = calibrate(*rvae, runs=2, warmup=30)
    assert all(len(ranks) == 2 and max(ranks) <= result["kept_draws"] for ranks in result["ranks"].values())


COMMAND = [
    *(sys.executable, "-m", "pyro_riemann", "reproduce", "kalatzis2020", "--dataset", "digits", "--protocol", "smoke"),
    *("--latent-dim", "3", "--model", "vae", "--threads", "1"),
]
ENVIRONMENT = {**os.environ, "MPLBACKEND": "Agg"}


def command(folder: Path) -> list[str]:
    return [*COMMAND, "--results", str(folder / "results"), "--checkpoints", str(folder / "models")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the command, not disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run(command(folder), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    return folder / "results"


def test_killed_and_started_again_it_ends_with_the_same_numbers(tmp_path: Path, finished: Path) -> None:
    """SIGKILL after some epochs; what is left is the checkpoint of the last one."""
    manifest = tmp_path / "models" / "digits-d3-vae-seed0" / "checkpoint.json"
    process = subprocess.Popen(command(tmp_path), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (manifest.exists() and len(json.loads(manifest.read_text())["history"]) >= 3):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(json.loads(manifest.read_text())["history"])
    result = tmp_path / "results" / "digits-d3-vae-seed0.json"
    assert not result.exists()
    subprocess.run(command(tmp_path), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    resumed, whole = (load(path)["result"] for path in (result, finished / result.name))
    history = json.loads(manifest.read_text())["history"]
    assert 3 <= done < len(history) == 42
    timings = "wall_seconds_per_epoch"
    assert {k: v for k, v in resumed.items() if k != timings} == {k: v for k, v in whole.items() if k != timings}


def test_the_report_is_made_from_the_saved_results_alone(finished: Path, tmp_path: Path) -> None:
    """Every table cell is a number of a result file; figures need no model."""
    text = report(finished, finished.with_suffix(".md"))
    bounds = load(finished / "digits-d3-vae-seed0.json")["result"]["bounds"]
    assert f"| 3 | VAE | {-bounds['elbo']:.2f} | {-bounds['reconstruction']:.2f} | {bounds['kl']:.2f} |" in text
    assert abs(bounds["elbo"] - (bounds["reconstruction"] - bounds["kl"])) < 1e-9
    page = tmp_path / "docs" / "page.md"
    assert kalatzis2020.write_report(finished, page) == [page]
    assert page.read_text() == report(finished, page)


COMMITTED = Path(__file__).parents[2] / "docs" / "results"


def test_the_published_page_is_that_of_the_published_results() -> None:
    page = COMMITTED / "kalatzis2020.md"
    assert page.read_text() == report(COMMITTED / "kalatzis2020", page)


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_published_results_are_the_whole_grid(dataset: str) -> None:
    jobs = grid(dataset, [2, 5, 10], MODELS, 2, PROTOCOLS["reduced"])
    assert [job.name for job in jobs if not is_done(job, COMMITTED / "kalatzis2020")] == []


def test_published_columns_add_up() -> None:
    """Neg. ELBO is Rec + KL in every run."""
    for path in (COMMITTED / "kalatzis2020").glob("*-seed*.json"):
        bounds = load(path)["result"]["bounds"]
        assert bounds["elbo"] == pytest.approx(bounds["reconstruction"] - bounds["kl"], abs=1e-3), path.name
