"""The grid of runs: what is kept, what is repeated, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from joblib import parallel_config

from pyro_riemann.experiments._jobs import (
    MEASURED,
    Job,
    in_stages,
    is_done,
    load,
    pack,
    pack_images,
    run_jobs,
    start_over,
    unpack,
)


def square(settings: dict[str, Any], device: str) -> dict[str, Any]:
    return {"square": settings["x"] ** 2, "device": device, "process": os.getpid()}


def fail_at_two(settings: dict[str, Any], device: str) -> dict[str, Any]:
    if settings["x"] == 2:
        raise KeyboardInterrupt
    return square(settings, device)


JOBS = [Job(f"job{x}", {"x": x}) for x in range(4)]


def test_each_result_is_a_file_with_its_settings(tmp_path: Path) -> None:
    run_jobs(JOBS, square, tmp_path)
    record = load(tmp_path / "job3.json")
    assert record["result"] == {"square": 9, "device": "cpu", "process": os.getpid()}
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


def test_an_interrupt_in_one_of_two_processes_ends_the_grid_and_keeps_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_jobs(JOBS, fail_at_two, tmp_path, processes=2)
    assert not is_done(JOBS[2], tmp_path)
    run_jobs(JOBS, square, tmp_path, processes=2)
    assert all(is_done(job, tmp_path) for job in JOBS)


def test_a_cluster_of_dask_does_the_grid(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")
        ) as cluster,
        Client(cluster),
        parallel_config("dask"),
    ):
        run_jobs(JOBS, square, tmp_path / "results")
        seen = {load(job.path(tmp_path / "results"))["result"]["process"] for job in JOBS}
        assert os.getpid() not in seen
    assert [load(job.path(tmp_path / "results"))["result"]["square"] for job in JOBS] == [0, 1, 4, 9]


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    run_jobs(JOBS[:1], square, tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(x differ\)"):
        is_done(Job("job0", {"x": 5}), tmp_path)


def test_a_result_with_more_parts_than_asked_for_is_as_good(tmp_path: Path) -> None:
    run_jobs([Job("timing", {"x": 2, "models": ["a", "b"]}, parts="models")], square, tmp_path)
    assert is_done(Job("timing", {"x": 2, "models": ["b"]}, parts="models"), tmp_path)
    for settings in ({"x": 2, "models": ["b", "c"]}, {"x": 3, "models": ["b"]}):
        with pytest.raises(ValueError, match="other settings"):
            is_done(Job("timing", settings, parts="models"), tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        is_done(Job("timing", {"x": 2, "models": ["b"]}), tmp_path)


def test_stages_are_kept_for_what_they_are_of_and_until_all_are_there(tmp_path: Path) -> None:
    path, calls = tmp_path / "model" / f"{MEASURED.name}-x.json", []
    path.parent.mkdir()

    def count(value: int) -> int:
        calls.append(value)
        return value

    def fail() -> None:
        raise KeyboardInterrupt

    def interrupted(seed: int) -> None:
        with pytest.raises(KeyboardInterrupt):
            in_stages(path, {"seed": seed}, {"one": lambda: count(seed), "two": fail})

    def ended(seed: int) -> dict[str, Any]:
        return in_stages(path, {"seed": seed}, {"one": lambda: count(seed), "two": lambda: 2})

    interrupted(0)
    interrupted(0)
    assert calls == [0]
    assert ended(1) == {"one": 1, "two": 2}
    assert calls == [0, 1]
    assert not path.exists()
    interrupted(2)
    start_over(tmp_path)
    assert ended(2) == {"one": 2, "two": 2}
    assert calls == [0, 1, 2, 2]
    interrupted(3)
    path.write_text(path.read_text().replace("3", "4"))
    with pytest.raises(ValueError, match="Remove that file"):
        ended(4)


def test_arrays_survive_json() -> None:
    values = torch.randn(3, 4, 2, dtype=torch.float64)
    packed = json.loads(json.dumps(pack(values, "float32")))
    np.testing.assert_array_equal(unpack(packed), values.float().double().numpy())
    images = torch.rand(2, 9)
    assert np.abs(unpack(pack_images(images)) / 255 - images.numpy()).max() <= 0.5 / 255 + 1e-6
