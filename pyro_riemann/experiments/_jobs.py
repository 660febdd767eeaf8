"""A grid of runs, each kept as one JSON file as soon as it ends; called again, it does what is missing."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console

PACKAGES = ("torch", "pyro-ppl", "numpy", "scikit-learn")
Work = Callable[[dict[str, Any], str], dict[str, Any]]
Item = TypeVar("Item")
Result = TypeVar("Result")
Record = dict[str, Any]
"""A run as it is kept: ``name``, ``settings``, ``result``, ``seconds``, ``cpu_seconds``, ``device``, ``versions``."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: stem of its file, unique in the grid.
        settings: all that its result depends on, JSON-able.
    """

    name: str
    settings: dict[str, Any]

    def path(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / f"{self.name}.json"


def is_done(job: Job, folder: Path) -> bool:
    """Whether the result is there.

    Raises:
        ValueError: if the file is of other settings: results of two protocols must not mix.
    """
    if not job.path(folder).exists():
        return False
    kept = load(job.path(folder))["settings"]
    changed = sorted(key for key in job.settings.keys() | kept.keys() if job.settings.get(key) != kept.get(key))
    if changed:
        raise ValueError(
            f"{job.path(folder)} was made with other settings ({', '.join(changed)} differ): "
            "choose another folder of results, or remove the file."
        )
    return True


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    folder: Path,
    *,
    processes: int = 1,
    devices: Sequence[str] = ("cpu",),
    console: Console | None = None,
) -> None:
    """Do the jobs whose result is not there yet, in the order given, and write each result at once.

    Args:
        jobs: the grid.
        work: maps settings and device to a JSON-able result; a module-level function if ``processes > 1``.
        folder: of the results.
        processes: that many jobs at a time, each in a process of its own with a share of the processor's threads.
        devices: job i of the open ones runs on device ``i % len(devices)``.
        console: where to report.
    """
    console = console or Console(quiet=True)
    open_jobs = [job for job in jobs if not is_done(job, folder)]
    done = len(jobs) - len(open_jobs)
    console.print(f"{done} of {len(jobs)} runs are there: {folder}")
    one = partial(_run_one, work=work, folder=folder)
    for job, seconds in distribute(one, open_jobs, processes=processes, devices=devices):
        done += 1
        console.print(f"[{done}/{len(jobs)}] {job.name}: {seconds:.0f} s", highlight=False)


def distribute(
    function: Callable[[Item, str], Result], items: Sequence[Item], *, processes: int, devices: Sequence[str]
) -> Iterator[tuple[Item, Result]]:
    """Each item with ``function(item, device)``, as the results come; arguments as in :func:`run_jobs`."""
    placed = [(item, devices[index % len(devices)]) for index, item in enumerate(items)]
    if processes == 1:
        for item, device in placed:
            yield item, function(item, device)
        return
    threads = max(1, torch.get_num_threads() // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        running = {pool.submit(function, item, device): item for item, device in placed}
        try:
            for finished in as_completed(running):
                yield running[finished], finished.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_one(job: Job, device: str, *, work: Work, folder: Path) -> float:
    started, processor = time.perf_counter(), time.process_time()
    result = work(job.settings, device)
    seconds = time.perf_counter() - started
    record = {
        "name": job.name,
        "settings": job.settings,
        "result": result,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - processor, 2),
        "device": device,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{job.name}.json.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, job.path(folder))
    return seconds


def load(path: Path) -> Record:
    """A record written by :func:`run_jobs`."""
    record: Record = json.loads(path.read_text())
    return record


# -------------------------------------------------------------------- arrays in JSON


def pack(array: Any, dtype: str = "float16") -> dict[str, Any]:
    """An array as a JSON object: figures are drawn from the results alone, without the models."""
    values = np.ascontiguousarray(np.asarray(array.detach().cpu() if isinstance(array, torch.Tensor) else array), dtype)
    return {"dtype": dtype, "shape": list(values.shape), "base64": base64.b64encode(values.tobytes()).decode()}


def pack_images(images: torch.Tensor) -> dict[str, Any]:
    """Images with values around [0, 1] in one byte a pixel."""
    return pack((images.clamp(0, 1) * 255).round(), "uint8")


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Inverse of :func:`pack`, in double precision."""
    values = np.frombuffer(base64.b64decode(packed["base64"]), packed["dtype"]).reshape(packed["shape"])
    return values.astype(np.float64)
