"""The programs and commands of the page *Beyond one machine*, each with two processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pyro_riemann.vae import load_checkpoint
from tests.benchmarks import beyond

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "docs" / "howto" / "programs"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(*command: str, folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**ENVIRONMENT, **variables}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_torchrun_stops_at_sigterm_and_goes_on(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [str(PROGRAMS / "torchrun_vae.py"), str(tmp_path / "run"), "40", "1"]
    manifest = tmp_path / "run" / "checkpoint.json"
    with subprocess.Popen([*launcher, *program], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE) as first:
        while not manifest.exists():
            assert first.poll() is None, first.stderr.read().decode()[-3000:] if first.stderr else ""
            time.sleep(0.1)
        first.send_signal(signal.SIGTERM)
        assert first.wait(120) != 0
    done = load_checkpoint(tmp_path / "run")[1]["history"]
    assert 0 < len(done) < 40, "it was stopped on the way"
    told = run(*launcher, *program, folder=tmp_path)
    bounds = [float(number) for number in re.findall(r"-?\d+\.\d+", told)]
    assert len(bounds) == 41
    assert bounds[: len(done)] == [round(epoch["validation"], 3) for epoch in done], "these epochs were not done again"
    assert bounds[39] > bounds[20] > bounds[10]


def test_an_array_of_slurm(tmp_path: Path) -> None:
    """Its body, as SLURM calls it; a part that is there is not made again, and a wrong one is refused."""
    (tmp_path / "many_pairs.py").symlink_to(PROGRAMS / "many_pairs.py")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for part in ("0", "1"):
        variables = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2", "PATH": path}
        told = run("bash", str(PROGRAMS / "array_pairs.sh"), "distances", folder=tmp_path, **variables)
        assert "390 distances" in told
    first, second = (load_file(file) for file in sorted((tmp_path / "distances").iterdir()))
    pairs = torch.cat([first["pairs"], second["pairs"]])
    assert torch.equal(pairs, torch.combinations(torch.arange(40)))
    assert bool(torch.cat([first["distance"], second["distance"]]).gt(0).all())
    stamp = {file: file.stat().st_mtime_ns for file in (tmp_path / "distances").iterdir()}
    command = [sys.executable, "many_pairs.py", "distances"]
    assert run(*command, "1", "2", folder=tmp_path) == ""
    assert stamp == {file: file.stat().st_mtime_ns for file in (tmp_path / "distances").iterdir()}
    refused = subprocess.run([*command, "2", "2"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "PART must be between 0 and 1" in refused.stderr


@pytest.mark.slow
def test_joblib_by_loky_and_on_a_cluster_of_dask(tmp_path: Path) -> None:
    program = [sys.executable, str(PROGRAMS / "cluster_draws.py")]
    here = run(*program, folder=tmp_path)
    assert here.startswith("200 distances")
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    common = [f"--scheduler-file={file}", "--no-dashboard"]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", *common]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers=2", "--nthreads=1", *common]
    with subprocess.Popen(scheduler, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as one:
        while not file.exists():
            assert one.poll() is None
            time.sleep(0.1)
        with subprocess.Popen(worker, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as two:
            try:
                address = json.loads(file.read_text())["address"]
                assert run(*program, address, folder=tmp_path) == here, "seeds belong to parts"
            finally:
                two.terminate()
                one.terminate()


def test_the_page_shows_the_costs_that_the_benchmarks_give() -> None:
    assert "\n".join(beyond.lines()) in (PROGRAMS.parent / "beyond.md").read_text()
