"""A grid of runs, each kept as one JSON file as soon as it ends; called again, it does what is missing."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from joblib import Parallel, delayed
from rich.console import Console

from pyro_riemann._files import Kind, locked
from pyro_riemann._identity import differences
from pyro_riemann._store import discard_bundle, read_record, write_record
from pyro_riemann.datasets import DATA_VARIABLE
from pyro_riemann.vae._checkpoint import CHECKPOINT

RUN = Kind(
    "run", version=1, remedy="Remove that file, and the same command makes it again; so does `--fresh`, with all"
)
MEASURED = Kind("measurement", version=1, remedy="Remove that file, and what it keeps is measured again")
PACKAGES = ("torch", "pyro-ppl", "numpy", "scikit-learn")
DTYPES = ("float16", "float32", "float64", "uint8", "int32", "int64")
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
        parts: the setting, a list, that says what the result has parts for: a result with more of them is as good.
    """

    name: str
    settings: dict[str, Any]
    parts: str | None = None

    def path(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / f"{self.name}.json"


def plain(protocol: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON gives them back."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(protocol)))
    return values


def is_done(job: Job, folder: Path) -> bool:
    """Whether the result is there.

    Raises:
        ValueError: if the file is of other settings: results of two protocols must not mix.
    """
    if not os.path.lexists(job.path(folder)):
        return False
    saved, wanted = load(job.path(folder))["settings"], job.settings
    if job.parts is not None and set(wanted[job.parts]) <= set(saved.get(job.parts) or ()):
        wanted = wanted | {job.parts: saved[job.parts]}
    if changed := differences(saved, wanted):
        raise ValueError(
            f"{job.path(folder)} was made with other settings {changed}. Choose another folder of results, or remove "
            "the file."
        )
    return True


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    folder: Path,
    *,
    processes: int | None = None,
    devices: Sequence[str] = ("cpu",),
    console: Console | None = None,
    fresh: bool = False,
) -> None:
    """Do the jobs whose result is not there yet, in the order given, and write each result at once.

    Joblib runs them, by the backend that ``joblib.parallel_config`` names around the call: by default loky, in
    processes on this machine; ``"dask"`` on a cluster. All must see the folder.

    Args:
        jobs: the grid.
        work: maps settings and device to a JSON-able result.
        folder: of the results.
        processes: that many jobs at a time, each in a process of its own with a share of the processor's threads. By
            default as many as ``joblib.parallel_config`` says; where it says nothing, one, in this process.
        devices: job i of the open ones runs on device ``i % len(devices)``.
        console: where to report.
        fresh: do all of them, also those that are done or whose file is damaged.
    """
    console = console or Console(quiet=True)
    open_jobs = [job for job in jobs if fresh or not is_done(job, folder)]
    done = len(jobs) - len(open_jobs)
    console.print(f"{done} of {len(jobs)} runs are there: {folder}")
    one = partial(_run_one, work=work, folder=folder)
    for job, seconds in distribute(one, open_jobs, processes=processes, devices=devices):
        done += 1
        console.print(f"[{done}/{len(jobs)}] {job.name}: {seconds:.0f} s", highlight=False)


def distribute(
    function: Callable[[Item, str], Result], items: Sequence[Item], *, processes: int | None, devices: Sequence[str]
) -> Iterator[tuple[Item, Result]]:
    """Each item with ``function(item, device)``, as the results come; arguments as in :func:`run_jobs`."""
    threads = None if processes is None or processes == 1 else max(1, torch.get_num_threads() // processes)
    tasks = (
        delayed(_placed)(function, item, devices[index % len(devices)], threads) for index, item in enumerate(items)
    )
    # no item waits in a batch behind another; each is the work of minutes
    yield from Parallel(n_jobs=processes, return_as="generator_unordered", batch_size=1)(tasks)


def _placed(
    function: Callable[[Item, str], Result], item: Item, device: str, threads: int | None
) -> tuple[Item, Result]:
    if threads is not None:
        torch.set_num_threads(threads)  # of a process that has nothing else to do
    return item, function(item, device)


def _run_one(job: Job, device: str, *, work: Work, folder: Path) -> float:
    with locked(folder / f"{job.name}.lock"):
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
            "versions": versions(PACKAGES),
        }
        write_record(job.path(folder), RUN, record)
    return seconds


def versions(packages: Sequence[str]) -> dict[str, str]:
    """What is installed of these, and of Python."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def load(path: Path) -> Record:
    """A record written by :func:`run_jobs`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it was damaged or changed, or is something else.
    """
    record = read_record(path, RUN)
    kinds = {"name": str, "settings": dict, "result": dict, "seconds": float, "cpu_seconds": float, "device": str}
    for key, kind in (kinds | {"versions": dict}).items():
        number: Any = record.get(key)
        value = number
        if not isinstance(value, kind) or (kind is float and not 0 <= number < math.inf):
            RUN.refuse(path, f"its {key!r} is {str(value)[:40]!r}")
    if record["name"] != path.stem:
        RUN.refuse(path, f"it is the run {record['name']!r}")
    return record


@contextmanager
def understood(folder: Path) -> Iterator[None]:
    """Results are read here: an entry that is missing or of another type is the file's fault, and said so."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"a result in {folder} lacks what the report needs ({type(error).__name__}: {error}). Remove it, and the "
            "same command makes it again; so does `--fresh`, with all."
        ) from error


def in_stages(path: Path, identity: Record, stages: Mapping[str, Callable[[], Any]]) -> Record:
    """What the stages return, all JSON-able, in their order: each is kept in a file as it ends, until all have.

    Stages of another ``identity``, which says all that they depend on, are done anew.
    """
    kept: Record = {}
    if os.path.lexists(path):
        record = read_record(path, MEASURED)
        if record.get("identity") == identity and isinstance(record.get("stages"), dict):
            kept = record["stages"]
    for name, stage in stages.items():
        if name not in kept:
            kept[name] = stage()
            write_record(path, MEASURED, {"identity": identity, "stages": kept})
    path.unlink(missing_ok=True)
    return {name: kept[name] for name in stages}


def start_over(checkpoints: Path, prefix: str = "") -> None:
    """Let nothing count any more, trained or measured, whose folder is in this one, under a name with that prefix."""
    for folder in checkpoints.glob(f"{prefix}*"):
        if folder.is_dir() and not folder.is_symlink():
            discard_bundle(folder, CHECKPOINT)
            for path in folder.glob(f"{MEASURED.name}-*.json"):
                path.unlink()


def find_file(file: str, root: str | Path | None, folder: str, source: str) -> Path:
    """A file of data in the ``root`` or in its ``folder``, by default of what the environment names.

    Raises:
        FileNotFoundError: if it is not there.
    """
    root = root or os.environ.get(DATA_VARIABLE)
    for path in [Path(root).expanduser() / part / file for part in (folder, ".")] if root else []:
        if path.exists():
            return path
    where = f"is not in {root}" if root else "needs a folder"
    raise FileNotFoundError(
        f"{file} {where}: copy {source} to DIR/{folder}, and give DIR, or set the environment variable {DATA_VARIABLE} "
        "to it."
    )


# -------------------------------------------------------------------- arrays in JSON


def pack(array: Any, dtype: str = "float16") -> dict[str, Any]:
    """An array as a JSON object: figures are drawn from the results alone, without the models."""
    values = np.ascontiguousarray(np.asarray(array.detach().cpu() if isinstance(array, torch.Tensor) else array), dtype)
    return {"dtype": dtype, "shape": list(values.shape), "base64": base64.b64encode(values.tobytes()).decode()}


def pack_images(images: torch.Tensor) -> dict[str, Any]:
    """Images with values around [0, 1] in one byte a pixel."""
    return pack((images.clamp(0, 1) * 255).round(), "uint8")


def unpack_images(packed: dict[str, Any]) -> torch.Tensor:
    """Inverse of :func:`pack_images`."""
    return torch.as_tensor(unpack(packed)) / 255


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Inverse of :func:`pack`, in double precision.

    Raises:
        ValueError: if it is not the bytes of such an array.
    """
    if packed["dtype"] not in DTYPES or min(packed["shape"], default=0) < 0:
        raise ValueError(f"an array of a result has dtype {packed['dtype']!r} and shape {packed['shape']!r}.")
    try:
        data = base64.b64decode(packed["base64"], validate=True)
        return np.frombuffer(data, packed["dtype"]).reshape(packed["shape"]).astype(np.float64)
    except (ValueError, binascii.Error) as error:
        raise ValueError(
            f"an array of a result has not the bytes of its shape {packed['shape']!r}: {error}."
        ) from error
