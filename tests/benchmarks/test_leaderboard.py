"""Leaderboard of geodesics: one measure of length, CPU time of one thread, peak memory, each row in its own process.

``python -m tests.benchmarks leaderboard`` measures what ``leaderboard.json`` in the folder of the trained decoders has
not yet; delete the file to measure all anew. A row that would take more than ``PYRO_RIEMANN_BENCHMARK_SECONDS``
(default 600), by the row before it, is left out, and one that takes more than thrice as long and a minute is stopped.
A curve is long if it exceeds the exact distance, or the shortest curve that any method found for the pair, by more
than 1 %.

Peers are measured where they are installed: stochman, geomstats (path straightening), and GEORCE, of whose authors'
package ``GEORCE_SOURCE`` names a checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_riemann import Sphere
from tests.benchmarks import _leaderboard
from tests.benchmarks._decoder import cache_folder

ROOT = Path(__file__).resolve().parents[2]
CASES = (
    "S^2",
    "H^8",
    "mean network, d = 2",
    "mean network, d = 10",
    "precision network, d = 2",
    "precision network, d = 10",
    "convolutions, d = 32",
    "convolutions, d = 64",
)
SIZES = (1, 100, 1000, 10_000)
REFERENCE = "reference"
OURS = (
    "ours, torch",
    "ours, torch, graph",
    "ours, torch, training",
    "ours, JAX",
    "ours, JAX, compiled",
    "ours, JAX, compiled, 4 knots",
)
METHODS = (*OURS, "GEORCE", "GEORCE from our graph", "stochman", "geomstats", REFERENCE)
SETTINGS = {
    "GEOMSTATS_BACKEND": "pytorch",
    "OMP_NUM_THREADS": "1",
    "PYRO_RIEMANN_PROGRESS": "off",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
Rows = dict[str, dict[str, Any]]


def limit() -> float:
    """Seconds that a row may take."""
    return float(os.environ.get("PYRO_RIEMANN_BENCHMARK_SECONDS", "600"))


def measure(case: str, method: str, pairs: int) -> dict[str, Any] | None:
    """One row; None where the method does not go with the case, or its package is missing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [sys.executable, "-m", "tests.benchmarks._leaderboard", case, method, str(pairs), str(file)]
        environment = {**os.environ, **SETTINGS}
        peers = os.environ.get("PYTHONPATH"), os.environ.get("GEORCE_SOURCE")
        environment["PYTHONPATH"] = os.pathsep.join(path for path in peers if path)
        most = 3 * limit() + 60
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=most)
        except subprocess.TimeoutExpired:
            return {"not_done": most}
        if done.returncode:
            reasons = done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"]
            print(f"{case}, {method}, {pairs}: {reasons[-1]}")
            return None
        row: dict[str, Any] = json.loads(file.read_text())
    row["lengths"] = [float(f"{length:.7g}") for length in row["lengths"]]
    return row


def best(rows: Rows, case: str, pairs: int) -> np.ndarray:
    """Exact distances, or the shortest lengths found, of the pairs of a case; NaN where one method alone was done.

    Ours from the straight line are one: from the same start they end alike, in torch and in JAX.
    """
    found = {}
    for key, row in rows.items():
        name, method, count = key.split(" | ")
        if (name, count) == (case, str(pairs)) and "lengths" in row:
            found[method] = row
    for row in found.values():
        if "exact" in row:
            return np.array(row["exact"])
    if len({OURS[0] if method in OURS and "graph" not in method else method for method in found}) == 1:
        return np.full(pairs, np.nan)
    return np.min([np.nan_to_num(row["lengths"], nan=np.inf) for row in found.values()], axis=0)


def table(rows: Rows) -> list[dict[str, Any]]:
    """Rows of the page."""
    result = []
    for key, row in rows.items():
        case, method, pairs = key.split(" | ")
        named = {"benchmark": "leaderboard", "case": case, "method": method, "pairs": int(pairs)}
        if "not_done" in row:
            result.append({**named, "not_done_in": row["not_done"]})
            continue
        shortest = best(rows, case, int(pairs))
        excess = np.nan_to_num(np.array(row["lengths"]) / shortest - 1, nan=np.inf)
        known = not np.isnan(shortest).any()
        result.append(
            {
                **named,
                "seconds": row["seconds"],
                "ms_a_pair": 1000 * row["seconds"] / int(pairs),
                "share_long": float((excess > 0.01).mean()) if known else None,
                "median_error": float(np.median(np.abs(excess))) if known else None,
                "peak_mib": row["peak_mib"],
                "compile_seconds": row["compile_seconds"] or None,
            }
        )
    order = {name: place for place, name in enumerate((*CASES, *METHODS))}
    return sorted(result, key=lambda row: (order[row["case"]], row["pairs"], order[row["method"]]))


def measure_all(cases: tuple[str, ...] = CASES, sizes: tuple[int, ...] = SIZES) -> Rows:
    """All rows, those measured before among them; each is kept as soon as it is there."""
    file = cache_folder() / "leaderboard.json"
    for case in cases:
        for method in METHODS:
            last: tuple[float, int] | None = None
            for pairs in sizes:
                rows: Rows = json.loads(file.read_text()) if file.exists() else {}
                key = f"{case} | {method} | {pairs}"
                if key not in rows:
                    if last is not None and last[1] > 1 and last[0] * pairs / last[1] > limit():
                        break
                    if (row := measure(case, method, pairs)) is None:
                        break
                    rows[key] = row
                    file.write_text(json.dumps(rows) + "\n")
                if "not_done" in rows[key]:
                    break
                last = rows[key]["seconds"], pairs
    found: Rows = json.loads(file.read_text())
    return found


def run() -> list[dict[str, Any]]:
    return table(measure_all())


@pytest.mark.benchmark
def test_the_peer_that_is_written_anew_finds_geodesics() -> None:
    metric, z, y = _leaderboard.case("S^2", 3)
    with torch.no_grad():
        found = _leaderboard.lengths(metric, _leaderboard.georce(metric, "line")(z, y))
    torch.testing.assert_close(found, Sphere(2).dist(z.double(), y.double()), rtol=1e-4, atol=0.0)


@pytest.mark.benchmark
def test_no_curve_is_called_short_by_its_like() -> None:
    rows: Rows = {f"case | {method} | 2": {"lengths": [1.0, 2.0]} for method in OURS if "graph" not in method}
    assert np.isnan(best(rows, "case", 2)).all()
    rows["case | stochman | 2"] = {"lengths": [0.5, 3.0]}
    assert best(rows, "case", 2).tolist() == [0.5, 2.0]
