"""Run the benchmarks and print their table: ``python -m tests.benchmarks [name ...]``.

Each ``test_<name>.py`` here has ``run() -> list[dict]``, one row for a method in a case, with the keys
``benchmark``, ``case``, ``method``, ``seconds`` (CPU time), ``floor_seconds``, ``ratio_to_floor``, ``threads`` and
whatever else it measured. Rows go to ``docs/benchmarks/results.json`` (a partial run replaces its own benchmarks
there) and, as a table, to ``docs/benchmarks/table.md``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"  # read when the libraries load, which is below
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

Row = dict[str, Any]
HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "docs" / "benchmarks"
FIRST = ["benchmark", "case", "method", "seconds", "floor_seconds", "ratio_to_floor"]
LAST = ["threads"]


def names() -> list[str]:
    return sorted(path.stem.removeprefix("test_") for path in HERE.glob("test_*.py"))


def cell(value: Any) -> str:
    """One cell: numbers to three significant digits."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).replace("|", "\\|")
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.0f}"


def markdown(rows: list[Row]) -> str:
    """One table for each benchmark, with the columns that its rows have."""
    parts = []
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        chosen = [row for row in rows if row["benchmark"] == benchmark]
        free = dict.fromkeys(key for row in chosen for key in row if key not in FIRST + LAST)
        columns = [key for key in (*FIRST[1:], *free, *LAST) if any(row.get(key) is not None for row in chosen)]
        lines = [[key.replace("_", " ") for key in columns], ["---"] * len(columns)]
        lines += [[cell(row.get(key)) for key in columns] for row in chosen]
        parts.append(f"## {benchmark}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    return "\n".join(parts)


def machine() -> dict[str, str]:
    import torch

    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {"processor": model, "python": platform.python_version(), "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run (default: all of {', '.join(names())})")
    chosen = parser.parse_args().names or names()
    if unknown := set(chosen) - set(names()):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")

    import torch
    from rich.console import Console
    from rich.markdown import Markdown

    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "results.json"
    console = Console(width=160)
    for name in chosen:
        console.print(f"running {name} ...")
        fresh: list[Row] = importlib.import_module(f"tests.benchmarks.test_{name}").run()
        rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []  # now: runs may overlap
        date = time.strftime("%Y-%m-%d", time.gmtime())
        replaced = {row["benchmark"] for row in fresh}
        rows = [row for row in rows if row["benchmark"] not in replaced]
        rows += [{"threads": torch.get_num_threads(), "date": date, **row} for row in fresh]
        rows.sort(key=lambda row: str(row["benchmark"]))  # stable: the order within a benchmark stays
        path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
        (FOLDER / "table.md").write_text(markdown(rows))
        console.print(Markdown(markdown(fresh)))


if __name__ == "__main__":
    main()
