"""The experiments of C22 on scikit-learn's digits: the grid, resumption after a kill, the report from results alone."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pyro_riemann._store import write_record
from pyro_riemann.autoencoders import MODELS
from pyro_riemann.cli import app
from pyro_riemann.experiments._jobs import RUN, load
from pyro_riemann.experiments.chadebec2022 import PARTS, PROTOCOLS, grid, write_report
from pyro_riemann.experiments.chadebec2022._report import report
from pyro_riemann.experiments.chadebec2022._results import TABLE_1, Results
from pyro_riemann.experiments.chadebec2022._runs import task
from pyro_riemann.experiments.chadebec2022._study import Study

ROOT = Path(__file__).resolve().parents[2]
TINY = PROTOCOLS["tiny"]
COMMAND = ["reproduce", "chadebec2022", "--protocol=tiny", "--seeds=1", "--quiet"]
PARTS_TESTED = ["--part=table", "--part=ablation", "--part=scale", "--part=augmentation", "--part=curves"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one whole tiny run, but for the toy set."""
    folder = tmp_path_factory.mktemp("chadebec2022") / "results"
    outcome = CliRunner().invoke(app, [*COMMAND, *PARTS_TESTED, f"--results={folder}"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output == "", "--quiet prints nothing"
    return folder


def numbers(result: Any) -> Any:
    """A result without the times, which differ from run to run."""
    if isinstance(result, dict):
        return {key: numbers(value) for key, value in result.items() if "seconds" not in key}
    return [numbers(entry) for entry in result] if isinstance(result, list) else result


def test_every_model_of_the_paper_is_in_the_grid() -> None:
    jobs = grid(PROTOCOLS["full"])
    assert len({job.name for job in jobs}) == len(jobs)
    table = [job.settings for job in jobs if job.settings["part"] == "table"]
    assert {(row["model"], row["seed"]) for row in table} == {(model, seed) for model in MODELS for seed in range(3)}
    assert {row["size"] for row in table} == {50_000}
    assert {job.settings["size"] for job in jobs if job.settings["part"] == "curves"} == {1_000, 5_000, 10_000}
    assert {key[0] for key in TABLE_1} == set(MODELS)
    assert {job.settings["part"] for job in jobs} == set(PARTS)
    with pytest.raises(ValueError, match="parts"):
        grid(TINY, ("tables",))


def test_results_do_not_depend_on_what_else_is_run() -> None:
    alone = next(job for job in grid(TINY, ("table",)) if job.name == "table-vae-seed1")
    assert alone in grid(TINY)


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the grid, then the same command again."""
    folder = tmp_path / "results"
    command = [sys.executable, "-W", "ignore", "-m", "pyro_riemann", *COMMAND, "--part=table", f"--results={folder}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        # the first model is saved, the second has begun: its checkpoint is there, its result is not
        while not list(folder.glob("checkpoints/vae-*/checkpoint.json")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint of the second model within five minutes"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / "table-ae-seed0.json").exists()
    missing = {f"table-{model}-seed0.json" for model in TINY.models} - {path.name for path in folder.glob("*.json")}
    assert missing
    kept = (folder / "table-ae-seed0.json").read_bytes()
    outcome = CliRunner().invoke(app, [*COMMAND, "--part=table", f"--results={folder}"])
    assert outcome.exit_code == 0, outcome.output
    assert (folder / "table-ae-seed0.json").read_bytes() == kept
    for name in missing:
        assert numbers(load(folder / name)["result"]) == numbers(load(finished / name)["result"])


def test_results_add_up(finished: Path) -> None:
    results = Results(finished)
    assert len(results.records) == len([job for job in grid(TINY) if "seed1" not in job.name]) - 1  # no toy set
    rows = results.table()
    assert {("ae", "normal"), ("ae", "gmm"), ("vae", "paper"), ("vae", "uniform"), ("rhvae", "prior")} <= set(rows)
    for row in rows.values():
        assert row["fid"].mean >= -1e-6
        assert all(0 <= row[name].mean <= 1 for name in ("f8", "f1_8", "precision", "recall"))
    shares = load(finished / "table-vae-seed0.json")["result"]["samplers"]["paper"]["class_shares"]
    assert sum(shares) == pytest.approx(1)
    for points in results.curves().values():
        assert set(points) <= {100, 600}
    for scores in results.augmentation().values():
        assert 0 <= scores["balanced_accuracy"].mean <= 1
        recalls = (scores["recall_0"].mean + scores["recall_1"].mean) / 2
        assert scores["balanced_accuracy"].mean == pytest.approx(recalls)


def test_report_is_made_of_the_results_alone(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_report(finished, page)
    text = page.read_text()
    vae = Results(finished).table()["vae", "gmm"]["fid"].mean
    assert f"| VAE | GMM-10 | {vae:.1f} |" in text
    assert "not Inception" in text, "the report says which features"
    for name in ("samples", "nearest", "curves", "ablations"):
        assert (finished / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"figures/{name}.png" in text
    assert "toy" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(re.fullmatch(r"\|.*\|", row) for row in rows)
    assert "nan" not in text


def test_one_model_alone_gives_its_rows(tmp_path: Path) -> None:
    command = [*COMMAND, "--part=table", "--model=vae", f"--results={tmp_path / 'results'}"]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0, outcome.output
    assert {model for model, _ in Results(tmp_path / "results").table()} == {"vae"}
    text = (tmp_path / "results.md").read_text()
    assert "*Authentic*" in text
    assert "| VAE | GMM-10 |" in text


@pytest.mark.parametrize("name", ["chadebec2022", "chadebec2022-eighth"])
def test_the_published_page_is_that_of_the_published_results(name: str) -> None:
    docs = Path(__file__).parents[2] / "docs" / "results"
    page, folder = docs / f"{name}.md", docs / name
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert page.read_text() == report(folder, page, drawn)


def test_a_protocol_of_ones_own_has_a_page(tmp_path: Path) -> None:
    published = Path(__file__).parents[2] / "docs" / "results" / "chadebec2022-eighth"
    record = load(published / "table-vae-seed0.json")
    record["settings"]["protocol"]["name"] = "mine"
    write_record(tmp_path / "table-vae-seed0.json", RUN, record)
    assert "Protocol `mine`" in report(tmp_path, tmp_path / "page.md", ())


def test_report_of_nothing_says_what_to_do(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, [*COMMAND, "--report", f"--results={tmp_path}"])
    assert outcome.exit_code == 2
    assert "run the grid first" in outcome.output


def test_results_of_two_protocols_do_not_mix(finished: Path, tmp_path: Path) -> None:
    for name in ("table-ae-seed0.json", "table-vae-seed0.json"):
        (tmp_path / name).write_text((finished / name).read_text())
    record = load(tmp_path / "table-ae-seed0.json")
    record["settings"]["protocol"]["latent_dim"] = 7
    write_record(tmp_path / "table-ae-seed0.json", RUN, record)
    with pytest.raises(ValueError, match="2 protocols"):
        Results(tmp_path)
    outcome = CliRunner().invoke(app, [*COMMAND, "--part=table", f"--results={tmp_path}"])
    assert outcome.exit_code == 2
    assert "other settings" in outcome.output


def test_splits_are_disjoint_and_by_seed(tmp_path: Path) -> None:
    study = Study(TINY, None, tmp_path)
    train, validation = study.split(600, seed=0)
    assert (len(train), len(validation)) == (600, 100)
    assert float(torch.cdist(train.double(), validation.double()).min()) > 0
    assert not torch.equal(train, study.split(600, seed=1)[0])
    with pytest.raises(ValueError, match="digits has 1498"):
        study.split(1_490, seed=0)


def test_task_is_imbalanced_and_judged_on_the_test_set(tmp_path: Path) -> None:
    problem = task(Study(TINY, None, tmp_path))
    assert torch.bincount(problem.train[1]).tolist() == [20, 60]
    held_out = torch.cat([problem.validation[0], problem.test[0]]).double()
    assert float(torch.cdist(problem.train[0].double(), held_out).min()) > 0


def test_toy_curves_keep_to_the_volume(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, [*COMMAND, "--part=toy", f"--results={tmp_path / 'results'}"])
    assert outcome.exit_code == 0, outcome.output
    result = load(tmp_path / "results" / "toy.json")["result"]
    assert len(result["curves"]) == 2
    for curve in result["curves"]:
        assert curve["curved"]["least_log_volume_element"] >= curve["straight"]["least_log_volume_element"] - 1e-3
    assert (tmp_path / "results" / "figures" / "toy.png").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--protocol=huge"], "protocol"),
        (["--part=tables"], "parts"),
        (["--model=gan"], "model"),
        (["--seeds=0"], "--seeds"),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["reproduce", "chadebec2022", *arguments, f"--results={tmp_path}", "--quiet"])
    assert outcome.exit_code == 2
    assert message in " ".join(outcome.output.split())
    assert "Traceback" not in outcome.output
