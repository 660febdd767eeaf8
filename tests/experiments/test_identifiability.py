"""Distances over retrainings: a run in a tiny setting, kept, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import scipy.stats
import torch

from pyro_riemann.evaluation import IdentifiabilityReport
from pyro_riemann.experiments import identifiability
from pyro_riemann.experiments._jobs import load
from pyro_riemann.experiments.identifiability import Protocol, report, run, write_report

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "identifiability"


def test_the_page_is_that_of_the_results() -> None:
    assert RESULTS.with_suffix(".md").read_text() == report(RESULTS)


def test_results_are_those_of_the_protocol() -> None:
    (job,) = identifiability.jobs(Protocol())
    record = load(RESULTS / f"{job.name}.json")
    assert record["settings"] == job.settings
    geodesic, straight = (torch.tensor(record["result"][name]).double() for name in ("geodesic", "euclidean"))
    assert geodesic.shape == straight.shape == (Protocol().models, Protocol().pairs)
    ours, theirs = (distances.std(0) / distances.mean(0) for distances in (geodesic, straight))
    test = scipy.stats.ttest_rel(ours.numpy(), theirs.numpy(), alternative="less")
    assert f"t = {test.statistic:.2f}, p = {test.pvalue:.2g}" in report(RESULTS)
    assert record["cpu_seconds"] < 300


def test_a_run_is_kept_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifiability, "DATASETS", ("digits",))
    tiny = Protocol(hidden=(4,), images=100, epochs=1, models=2, pairs=3)
    results, models = tmp_path / "results", tmp_path / "models"
    run(results, protocol=tiny, checkpoints=models)
    (path,) = results.glob("*.json")
    written, first = path.stat().st_mtime_ns, load(path)["result"]
    run(results, protocol=tiny, checkpoints=models)
    assert path.stat().st_mtime_ns == written
    path.unlink()
    run(results, protocol=tiny, checkpoints=models)  # from the models that are there
    assert load(path)["result"] == first
    page, figure = write_report(results, tmp_path / "results.md")
    measured = IdentifiabilityReport(
        torch.tensor(first["geodesic"]).double(), torch.tensor(first["euclidean"]).double()
    )
    assert str(measured) in page.read_text()
    assert figure.stat().st_size > 1000
    # the same figures by hand
    straight = torch.tensor(first["euclidean"]).double()
    variation = straight.std(0) / straight.mean(0)
    assert f"{float(variation.mean()):>8.3f}" in page.read_text()
