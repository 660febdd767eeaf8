"""``python -m tests.faults.others``: the same faults for what other libraries save, by running those installed.

Each library saves as its documentation says, a fault is done to the file, and the library loads it and goes on. Written
down is what it did: *accepted* without a word, an error, or *ran it*: code that the file held. For the last rows there
is no damage: whether a save that the disk refuses half-way leaves the one before, and whether a run that was stopped
and goes on ends bit-equal.
"""

from __future__ import annotations

import importlib.metadata
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from tests.faults._libraries import KINDS, MARK, Library, Payload

ROOT = Path(__file__).resolve().parents[2]


def flip(library: Library, folder: Path) -> None:
    """The sign of one number, where the file holds numbers as they are; else a bit in the middle."""
    path = library.file(folder)
    data, numbers = bytearray(path.read_bytes()), library.some_number(folder)
    place = data.find(numbers[:16])
    data[place + 3 if place >= 0 else len(data) // 2] ^= 0x80
    path.write_bytes(data)


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Library, Path], None]:
    def damage(library: Library, folder: Path) -> None:
        library.file(folder).write_bytes(change(library.file(folder).read_bytes()))

    return damage


BYTES: dict[str, Callable[[Library, Path], None]] = {
    "an empty file": rewritten(lambda data: b""),
    "the first half": rewritten(lambda data: data[: len(data) // 2]),
    "one bit of a number": flip,
    "a file that runs code": lambda library, folder: torch.save({"state_dict": Payload()}, library.file(folder)),
    "a pickle that runs code": rewritten(lambda data: pickle.dumps(Payload())),
}
EDITS = ("a weight that is NaN", "a weight of another shape", "a weight less", "epoch -5", "other data",
         "another learning rate")  # fmt: skip


def outcome(work: Callable[[], object]) -> str:
    MARK.unlink(missing_ok=True)
    try:
        work()
        result = "accepted"
    except Exception as error:
        result = type(error).__name__
    return "ran it" if MARK.exists() else result


def saved_again_on_a_full_disk(library: Library, folder: Path) -> str:
    """Whether the old file can be loaded after a save of which only some bytes were taken, in a process of its own."""
    library.save(folder)
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.others", "--again", library.module, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = done.stdout.strip().rpartition("\n")[2] if done.returncode >= 0 else signal.Signals(-done.returncode).name
    return f"{'kept' if outcome(lambda: library.load(folder)) == 'accepted' else 'lost'} ({said})"


def save_again(library: Library, folder: Path) -> None:
    """Within a limit of half of what was saved before; says what came of it."""
    size, hard = library.file(folder).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    print(outcome(lambda: library.save_again(folder)), flush=True)


def column(library: Library, root: Path) -> dict[str, str]:
    found = {}
    for index, fault in enumerate((*BYTES, *EDITS)):
        folder = root / str(index) / "run"
        folder.parent.mkdir(parents=True)
        if fault not in BYTES and fault not in library.edits:
            found[fault] = "-"
            continue
        library.save(folder)
        if fault in BYTES:
            BYTES[fault](library, folder)
        else:
            library.edits[fault](folder)
        found[fault] = outcome(lambda folder=folder: library.load(folder))  # type: ignore[misc]
    full = "a disk that is full half-way through a save: the one before"
    found[full] = saved_again_on_a_full_disk(library, root / "full") if library.writes else "-"
    equal = library.resumes_bit_equal(root / "resumed")
    found["stopped and gone on: bit-equal"] = "-" if equal is None else "yes" if equal else "no"
    return found


def main(wanted: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    columns: dict[str, dict[str, str]] = {}
    if wanted[:1] == ["--again"]:
        save_again(next(kind for kind in KINDS if kind.module == wanted[1])(), Path(wanted[2]))
        return
    for kind in KINDS:
        if wanted and kind.module not in wanted:
            continue
        try:
            version = importlib.metadata.version(kind.module.replace("_", "-"))
        except importlib.metadata.PackageNotFoundError:
            print(f"{kind.name} is not installed: left out", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as name:
            columns[f"{kind.name} {version}"] = column(kind(), Path(name))
    MARK.unlink(missing_ok=True)
    print("| fault | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    for fault in next(iter(columns.values())):
        print(f"| {fault} | " + " | ".join(found[fault] for found in columns.values()) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
