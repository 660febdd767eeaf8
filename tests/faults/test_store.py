"""Writes that a crash cannot halve, one writer at a time, and what a disk refuses in one sentence."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pyro_riemann import KernelMetric, _store
from pyro_riemann._files import Kind, locked, read_file, write_file
from pyro_riemann._store import read_record, write_record
from pyro_riemann.cli import app
from pyro_riemann.vae import load_checkpoint, save_checkpoint, train
from tests.faults._cases import CONFIG, data, tiny_vae

KIND = Kind("note", version=1, remedy="Write it anew")


class Crash(BaseException):
    """The process ends here."""


def crash_at(patch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Let the ``number``-th call to the system of a write be its last; returns how many there were."""
    calls = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            if calls[0] >= number:
                raise Crash
            calls[0] += 1
            return function(*arguments, **settings)

        return call

    for name in ("open", "fsync", "replace"):
        patch.setattr(_store.os, name, counted(getattr(os, name)))
    patch.setattr(Path, "unlink", counted(Path.unlink))
    return lambda: calls[0]


def test_a_crash_at_any_call_leaves_the_old_checkpoint_or_the_new(tmp_path: Path) -> None:
    seen = set()
    for number in range(100):
        save_checkpoint(tmp_path, {"w": torch.full((3,), -1.0)}, {"epoch": -1})
        with pytest.MonkeyPatch.context() as patch:
            calls = crash_at(patch, number)
            try:
                save_checkpoint(tmp_path, {"w": torch.full((3,), float(number))}, {"epoch": number})
                crashed = False
            except Crash:
                crashed = True
        tensors, info = load_checkpoint(tmp_path)
        assert info["epoch"] in (-1, number)
        assert torch.equal(tensors["w"], torch.full((3,), float(info["epoch"])))
        seen.add("old" if info["epoch"] == -1 else "new")
        if not crashed:
            break
    assert calls() == number >= 8, "every call of a save was the last one once"
    assert seen == {"old", "new"}


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    ours, others = tmp_path / ".checkpoint.json.0a1b.partial", tmp_path / ".thesis.tex.partial"
    for path in (ours, others):
        path.write_text("half")
    train(tiny_vae(), data(), config=CONFIG, checkpoint=tmp_path, progress=False)
    assert not ours.exists()
    assert others.exists()
    assert sorted(path.suffix for path in tmp_path.iterdir() if path != others) == [".json", ".safetensors"]


# -------------------------------------------------------------------- links, and what is no file


def test_writing_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    link = tmp_path / "note.json"
    link.symlink_to("thesis.tex")
    with pytest.raises(ValueError, match="it is a link"):
        read_file(link, KIND)
    write_file(link, "text")
    assert not link.is_symlink()
    assert (tmp_path / "thesis.tex").read_text() == "ten years of work"


def test_a_pipe_does_not_hold_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "note.json")
    with pytest.raises(ValueError, match="not an ordinary file"):
        read_record(tmp_path / "note.json", KIND)


def test_a_folder_reached_by_a_link_is_as_good_as_any(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    save_checkpoint(tmp_path / "runs" / "first", {"w": torch.ones(1)}, {})
    assert torch.equal(load_checkpoint(tmp_path / "disk" / "first")[0]["w"], torch.ones(1))


@pytest.mark.parametrize("body", [{"x": [1, 2.5, None, "ö", {"y": 1e300}]}, {}, {"x": float("inf")}])
def test_records_come_back(body: dict[str, Any], tmp_path: Path) -> None:
    write_record(tmp_path / "note.json", KIND, body)
    assert read_record(tmp_path / "note.json", KIND) == body


# -------------------------------------------------------------------- one writer at a time

_HOLDER = (
    "import fcntl, os, sys; file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(file, fcntl.LOCK_EX); "
    "os.write(file, str(os.getpid()).encode()); print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path / "checkpoint.lock") as process:
        with pytest.raises(OSError, match=rf"{tmp_path} is in use by another process \({process.pid}\)"):
            train(tiny_vae(), data(), config=CONFIG, checkpoint=tmp_path, progress=False)
        with held_by_another_process(tmp_path / "result.lock") as process:
            outcome = CliRunner().invoke(app, ["quickstart", f"--output={tmp_path}", "--quiet"])
            assert outcome.exit_code == 2
            assert f"in use by another process ({process.pid})" in outcome.output
            assert outcome.output.count("\n") == 1
    # both were killed: what they held is free, though their files are there
    assert len(train(tiny_vae(), data(), config=CONFIG, checkpoint=tmp_path, progress=False)) == 3


def test_two_trainings_of_one_process_on_one_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "checkpoint.lock"), pytest.raises(OSError, match="is in use"):
        train(tiny_vae(), data(), config=CONFIG, checkpoint=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_lock_can_be_waited_for_while_its_file_comes_and_goes(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with locked(tmp_path / "job.lock", wait=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(1e-4)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_goes_while_it_is_looked_at_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lstat = tmp_path / "job.lock", os.lstat
    looked: list[Path] = []

    def gone(name: Path) -> os.stat_result:
        if name == path and not looked:
            looked.append(name)
            path.unlink()
        return lstat(name)

    monkeypatch.setattr(os, "lstat", gone)
    with locked(path), pytest.raises(OSError, match="in use"), locked(path):
        pass
    assert looked


# -------------------------------------------------------------------- what the disk refuses


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk or a quota: a longer write fails half way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [10, 300])  # fails at the tensors, at the manifest
def test_a_full_disk_keeps_the_last_checkpoint(size: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, {"epoch": 1})
    before = sorted(tmp_path.iterdir())
    with files_of_at_most(size), pytest.raises(OSError, match=r"cannot write .*: File too large") as refused:
        save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"epoch": 2, "history": [0.5] * 100})
    assert "What was saved before is as it was" in str(refused.value)
    assert load_checkpoint(tmp_path)[1] == {"epoch": 1}
    assert set(before) <= set(tmp_path.iterdir())
    assert not list(tmp_path.glob(".*")), "no half of a file stays"
    save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"epoch": 2})
    assert load_checkpoint(tmp_path)[1] == {"epoch": 2}


def test_a_metric_that_cannot_be_saved_leaves_the_one_that_is_there(tmp_path: Path) -> None:
    metric = KernelMetric(torch.zeros(3, 2), torch.ones(3, 2), bandwidth=1.0)
    metric.save(tmp_path)
    with files_of_at_most(10), pytest.raises(OSError, match="cannot write"):
        KernelMetric(torch.ones(9, 2), torch.ones(9, 2), bandwidth=1.0).save(tmp_path)
    assert KernelMetric.load(tmp_path).centroids.shape == (3, 2)


@pytest.mark.parametrize("where", ["/proc/run", "FILE", "FILE/run"])
def test_an_output_that_can_be_none_is_one_line(where: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("mine")
    output = where.replace("FILE", str(tmp_path / "a-file"))
    outcome = CliRunner().invoke(app, ["quickstart", f"--output={output}", "--quiet"])
    assert outcome.exit_code == 2
    assert outcome.output.startswith(f"Error: cannot make the folder {output}")
    assert outcome.output.count("\n") == 1
    assert (tmp_path / "a-file").read_text() == "mine"


def test_a_disk_that_fills_up_during_the_quickstart_is_one_line(tmp_path: Path) -> None:
    with files_of_at_most(5000):
        outcome = CliRunner().invoke(app, ["quickstart", f"--output={tmp_path}", "--quiet", "--limit=50"])
    assert outcome.exit_code == 2
    assert outcome.output.startswith("Error: cannot write")
    assert outcome.output.count("\n") == 1
