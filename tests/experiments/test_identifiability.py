"""Distances over retrainings: a run in a tiny setting, kept, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyro_riemann.evaluation import IdentifiabilityReport
from pyro_riemann.experiments._jobs import load
from pyro_riemann.experiments.identifiability import Protocol, _run, run, write_report


def test_a_run_is_kept_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_run, "DATASETS", ("digits",))
    tiny = Protocol(hidden=(8,), images=200, epochs=2, models=2, pairs=5)
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
