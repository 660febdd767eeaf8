"""Places on Earth: files, splits, the page and its JSON; no test needs the data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from pyro_riemann import Sphere
from pyro_riemann.experiments.earth import _fits as fits
from pyro_riemann.experiments.earth import load_places, report, run, split, to_chart, to_degrees
from pyro_riemann.experiments.earth._fits import GRID

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "earth"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """300 rows, a third of them twice, in the format of the files."""
    torch.manual_seed(0)
    rows = [f"{20 + 10 * a:.3f},{30 * b:.3f}" for a, b in torch.randn(200, 2).tolist()]
    (tmp_path / "earth").mkdir()
    (tmp_path / "earth" / "flood.csv").write_text("\n".join(["# a source", "lat,long", *rows, *rows[:100], ""]))
    return tmp_path


def test_the_page_is_that_of_the_results() -> None:
    assert RESULTS.with_suffix(".md").read_text() == report(RESULTS)


def test_results_are_those_of_the_grid() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= {"-".join(job) for job in GRID}
    for path in RESULTS.glob("*.json"):
        splits = json.loads(path.read_text())["splits"]
        assert [one["seed"] for one in splits] == [0, 1, 2, 3, 4]
        for one in splits:
            fresh, seen = one["test_fresh"], one["seen_share"]
            # rows with a twin in the training part have a density that is no lower
            assert (one["test"] == fresh) if seen == 0 else (one["test"] < fresh)


def test_degrees_and_back() -> None:
    degrees = torch.tensor([[0.0, 0.0], [-45.0, 90.0], [60.0, -179.5], [-90.0, 0.0]], dtype=torch.float64)
    z = to_chart(degrees)
    assert (to_degrees(z) - degrees).abs().max() < 1e-12
    assert abs(Sphere(2).dist(z[0], z[1]) - math.pi / 2) < 1e-12
    with pytest.raises(FileNotFoundError, match="oxcsml/riemannian-score-sde"):
        load_places("fire", "no such folder")


def test_rows_and_different_rows(data: Path) -> None:
    assert load_places("flood", data).shape == (300, 2)
    assert load_places("flood", data, distinct=True).shape == (200, 2)
    parts = split(300, 0)
    assert [len(part) for part in parts] == [240, 30, 30]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(300))


def test_a_job_is_run_once_and_says_how_many_rows_were_seen(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "COMPONENTS", (2, 5))
    monkeypatch.setattr(fits, "MULTIPLES", (0.15, 1.5))
    monkeypatch.setattr(fits, "SVI_STEPS", 20)
    results = tmp_path / "results"
    jobs = [("flood", "recorded", "kernels"), ("flood", "distinct", "em"), ("flood", "distinct", "svi")]
    run(results, data, jobs)
    written = {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert len(written) == 3
    run(results, data, jobs)
    assert {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")} == written
    recorded = json.loads((results / "flood-recorded-kernels.json").read_text())["splits"]
    assert all(0.2 < one["seen_share"] < 0.8 for one in recorded)
    for method in ("em", "svi"):
        splits = json.loads((results / f"flood-distinct-{method}.json").read_text())["splits"]
        assert all(one["test"] < math.log(4 * math.pi) for one in splits)  # better than the uniform law
        assert all(one["seen_share"] == 0 for one in splits)
