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
from pyro_riemann._store import write_record
from pyro_riemann.experiments import kalatzis2020
from pyro_riemann.experiments._jobs import RUN, is_done, load
from pyro_riemann.experiments._latent import fitted_prior, tabulated_prior
from pyro_riemann.experiments._report import Records
from pyro_riemann.experiments.kalatzis2020 import _work
from pyro_riemann.experiments.kalatzis2020._findings import _verdict, normalised
from pyro_riemann.experiments.kalatzis2020._measure import SEGMENTS, StraightLineMetric
from pyro_riemann.experiments.kalatzis2020._protocol import MODELS, PROTOCOLS, grid
from pyro_riemann.experiments.kalatzis2020._report import report
from pyro_riemann.experiments.kalatzis2020._scenes import draw_tabulated
from pyro_riemann.experiments.kalatzis2020._work import build, calibrate, load_images, trained, uniformity
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


def test_what_was_measured_before_an_interrupt_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measurement is made once; the result is that of a run in one go, and nothing is left of the parts."""
    (settings,) = (
        job.settings for job in kalatzis2020.grid("digits", [2], ["vae"], 1, TINY) if job.settings["kind"] == "model"
    )
    whole = _work.work(settings, "cpu", tmp_path / "whole")
    bounds, classification = _work._measure.bounds, _work._measure.classification
    calls: list[object] = []

    def counted(*args: Any) -> dict[str, Any]:
        calls.append(args)
        return bounds(*args)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_work._measure, "bounds", counted)
    monkeypatch.setattr(_work._measure, "classification", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _work.work(settings, "cpu", tmp_path / "parts")
    assert list(tmp_path.glob("parts/*/measurement-vae.json"))
    monkeypatch.setattr(_work._measure, "classification", classification)
    again = _work.work(settings, "cpu", tmp_path / "parts")
    assert len(calls) == 1
    assert not list(tmp_path.glob("parts/*/measurement-*"))
    for result in (whole, again):
        del result["wall_seconds_per_epoch"]
    assert again == whole


def test_times_are_those_of_models_to_compare() -> None:
    """A model by itself, with the others' times there already, has none to take."""
    several = kalatzis2020.grid("mnist", [2], ["vae", "vae-fitted", "rvae"], 1, PROTOCOLS["smoke"])
    assert [job.settings["models"] for job in several if job.settings["kind"] == "timing"] == [["vae", "rvae"]]
    for models in (["vamp128"], ["vae", "vae-fitted"]):
        alone = kalatzis2020.grid("mnist", [2], models, 1, PROTOCOLS["smoke"])
        assert "timing" not in {job.settings["kind"] for job in alone}


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


def test_calibration_samples_the_posterior_of_every_simulated_image(
    rvae: tuple[VAE, RiemannianHeatKernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_work, "_KEPT", 9)
    result = calibrate(*rvae, runs=2, warmup=15)
    assert result["kept_draws"] == 9
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


def other_protocol(folder: Path, name: str) -> Path:
    """The same results as if of another protocol, with a better bound."""
    target = folder.parent / name
    target.mkdir()
    for path in folder.glob("*.json"):
        record = load(path)
        record["settings"]["protocol"]["name"] = name
        if "bounds" in record["result"]:
            record["result"]["bounds"]["elbo"] += 1000
        write_record(target / path.name, RUN, {key: record[key] for key in RECORD})
    return target


RECORD = ("name", "settings", "result", "seconds", "cpu_seconds", "device", "versions")


def test_two_protocols_stand_on_one_page(finished: Path, tmp_path: Path) -> None:
    other = other_protocol(finished, "elsewhere")
    page = finished.parent / "both.md"
    text = report(finished, page, [other])
    bounds = load(finished / "digits-d3-vae-seed0.json")["result"]["bounds"]
    assert f"| 3 | VAE | {-bounds['elbo']:.2f} |" in text
    assert f"| 3 | VAE | {-bounds['elbo'] - 1000:.2f} |" in text
    assert text.count("### Bounds") == 1
    assert text.count("protocol `smoke`:") == text.count("protocol `elsewhere`:") > 0
    assert "--results results --beside elsewhere --page both.md" in text
    assert kalatzis2020.write_report(finished, page, [other]) == [page]
    assert page.read_text() == text


def test_nothing_is_said_of_the_mass_of_a_prior_that_has_none_to_tell() -> None:
    """And what a run says of it is what counts."""
    bounds = {"elbo": 1.0, "iwae": 2.0}
    plain, weighed = bounds, bounds | {"log_mass": -1.5, "log_mass_error": 0.01}
    found = normalised(Records([{"settings": {}, "result": {"bounds": each}} for each in (plain, weighed)]))
    assert [each["bounds"]["log_mass"] for each in found] == [None, -1.5]
    assert [each["bounds"]["log_mass_error"] for each in found] == [None, 0.01]
    assert found[0]["bounds"]["elbo_normalized"] == 1.0


def test_a_verdict_is_of_the_sign_and_its_error() -> None:
    assert _verdict(-5.0, 2.0, -1.0) == "as K20"
    assert _verdict(5.0, 2.0, -1.0) == "against K20"
    assert _verdict(-3.0, 2.0, -1.0) == _verdict(3.0, 2.0, -1.0) == "undecided"
    assert _verdict(-3.0, None, -1.0) == "as K20"
    assert _verdict(-3.0, 0.1, None) == "not in K20"
    assert _verdict(-30.0, 3.4, -1.0, mass=3.4) == "undecided"
    assert _verdict(-30.0, 0.1, -1.0, mass=0.1) == "as K20"


def test_no_normal_prior_of_one_scale_has_a_better_bound_than_the_fitted() -> None:
    data = load_images("digits", TINY, "cpu")
    vae = build("vae", data, 2, TINY, 0).eval()
    fitted: Any = fitted_prior(vae, data.train).base_dist
    with torch.no_grad():
        loc, scale = fitted.loc.double().requires_grad_(), fitted.scale[0].double().log().requires_grad_()
        q = vae.posterior(data.train)
        mean, variance = q.mean.double(), q.variance.double()
    # E_q log p, by hand
    square = (mean - loc).square() + variance
    bound = (-scale - 0.5 * square / (2 * scale).exp()).sum()
    slopes = torch.autograd.grad(bound, (loc, scale))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-3 * len(mean)
    assert float(fitted.scale.std()) == 0


COMMITTED = Path(__file__).parents[2] / "docs" / "results"


def test_the_published_page_is_that_of_the_published_results() -> None:
    page = COMMITTED / "kalatzis2020.md"
    assert page.read_text() == report(COMMITTED / "kalatzis2020", page, [COMMITTED / "kalatzis2020-paper"])


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_published_results_are_the_whole_grid(dataset: str) -> None:
    models = [model for model in MODELS if model != "vae-fitted"]  # came later
    jobs = grid(dataset, [2, 5, 10], models, 2, PROTOCOLS["reduced"])
    assert [job.name for job in jobs if not is_done(job, COMMITTED / "kalatzis2020")] == []


def test_published_columns_add_up() -> None:
    """Neg. ELBO is Rec + KL in every run."""
    for path in COMMITTED.glob("kalatzis2020*/*-seed*.json"):
        bounds = load(path)["result"]["bounds"]
        assert bounds["elbo"] == pytest.approx(bounds["reconstruction"] - bounds["kl"], abs=1e-3), path.name
