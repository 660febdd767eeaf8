"""Compare the speed of two checkouts: ``python -m tests.benchmarks.compare CHECKOUT [case ...]``.

Small versions of the benchmarks (``_cases``) run in one process on the package in ``CHECKOUT`` and in one on the
package beside this file, turn by turn, on one thread. A time is the least of the repeats, in CPU seconds. Prints
a table and, with ``--write``, keeps it in ``docs/benchmarks/before_after.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.__main__ import FOLDER
from tests.benchmarks._cases import CASES
from tests.benchmarks._decoder import CACHE_VARIABLE

HERE = Path(__file__).resolve()


class Worker:
    """A process that times calls on the package of one checkout."""

    def __init__(self, checkout: Path, case: str, decoders: Path) -> None:
        path = os.pathsep.join(map(str, (checkout, HERE.parent)))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "_cases", case, str(decoders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.calls: list[str] = self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line[0] in '["0123456789':
                return json.loads(line)
        raise RuntimeError("a worker ended without an answer; what it said is above.")

    def time(self, call: str) -> float | str:
        """CPU seconds of one call, or the error."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        answer: float | str = self._read()
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(case: str, checkouts: tuple[Path, Path], decoders: Path, repeats: int, only: str) -> list[dict[str, Any]]:
    """Rows of one case."""
    workers = [Worker(checkout, case, decoders) for checkout in checkouts]
    rows = []
    for call in workers[0].calls:
        if only not in call:
            continue
        found: list[list[float]] = [[], []]
        error = ""
        for _ in range(repeats):
            for worker, times in zip(workers, found, strict=True):
                answer = worker.time(call)
                if isinstance(answer, str):
                    error = answer
                else:
                    times.append(answer)
            if error or min(map(min, found)) > 20:  # long enough to say
                break
        before, after = (min(times, default=float("nan")) for times in found)
        rows.append({"case": case, "call": call, "before": before, "after": after, "ratio": after / before})
        print(f"{case:16} {call:66} {before:9.4f} {after:9.4f} {after / before:7.2f} {error}", flush=True)
    for worker in workers:
        worker.close()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| case | call | before | after | ratio |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        call = row["call"].replace("|", "\\|")
        lines.append(f"| {row['case']} | {call} | {row['before']:.3g} | {row['after']:.3g} | {row['ratio']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="folder of the older checkout")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="calls whose name contains this")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    decoders = Path(os.environ.get(CACHE_VARIABLE, "/tmp/pyro_riemann_benchmarks"))
    rows = []
    for case in arguments.cases or list(CASES):
        checkouts = arguments.checkout.resolve(), HERE.parents[2]
        rows += compare(case, checkouts, decoders, arguments.repeats, arguments.only)
    if arguments.write:
        path = FOLDER / "before_after.json"
        kept = json.loads(path.read_text()) if path.exists() else []
        fresh = {(row["case"], row["call"]) for row in rows}
        kept = [row for row in kept if (row["case"], row["call"]) not in fresh] + rows
        kept.sort(key=lambda row: str(row["case"]))  # stable: the order within a case stays
        path.write_text(json.dumps(kept, indent=1) + "\n")
        (FOLDER / "before_after.md").write_text(table(kept))


if __name__ == "__main__":
    main()
