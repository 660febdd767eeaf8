"""The grid of runs: what is kept, what is repeated, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_riemann.experiments._jobs import Job, is_done, load, pack, pack_images, run_jobs, unpack


def square(settings: dict[str, Any], device: str) -> dict[str, Any]:
    return {"square": settings["x"] ** 2, "device": device}


def fail_at_two(settings: dict[str, Any], device: str) -> dict[str, Any]:
    if settings["x"] == 2:
        raise KeyboardInterrupt
    return square(settings, device)


JOBS = [Job(f"job{x}", {"x": x}) for x in range(4)]


def test_each_result_is_a_file_with_its_settings(tmp_path: Path) -> None:
    run_jobs(JOBS, square, tmp_path)
    record = load(tmp_path / "job3.json")
    assert record["result"] == {"square": 9, "device": "cpu"}
    assert record["settings"] == {"x": 3}
    assert "torch" in record["versions"]


def test_an_interrupted_grid_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_jobs(JOBS, fail_at_two, tmp_path)
    assert [is_done(job, tmp_path) for job in JOBS] == [True, True, False, False]
    before = (tmp_path / "job0.json").stat().st_mtime_ns
    run_jobs(JOBS, square, tmp_path)
    assert all(is_done(job, tmp_path) for job in JOBS)
    assert (tmp_path / "job0.json").stat().st_mtime_ns == before


def test_processes_and_devices_share_the_open_jobs(tmp_path: Path) -> None:
    run_jobs(JOBS, square, tmp_path, processes=2, devices=("cpu", "meta"))
    assert [load(job.path(tmp_path))["result"]["device"] for job in JOBS] == ["cpu", "meta", "cpu", "meta"]


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    run_jobs(JOBS[:1], square, tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(x differ\)"):
        is_done(Job("job0", {"x": 5}), tmp_path)


def test_arrays_survive_json() -> None:
    values = torch.randn(3, 4, 2, dtype=torch.float64)
    packed = json.loads(json.dumps(pack(values, "float32")))
    np.testing.assert_array_equal(unpack(packed), values.float().double().numpy())
    images = torch.rand(2, 9)
    assert np.abs(unpack(pack_images(images)) / 255 - images.numpy()).max() <= 0.5 / 255 + 1e-6
