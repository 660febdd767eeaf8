"""Benchmark (h): peak of resident memory of routines of many points, each in a process of its own, one thread.

``PYRO_RIEMANN_BENCHMARK_SHARE=0.1`` takes a tenth of the points.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BOUND = 2048  # MiB
ROOT = Path(__file__).resolve().parents[2]
CASES: dict[str, tuple[int, ...]] = {
    "metric": (250_000, 1_000_000),
    "logdet": (250_000, 1_000_000),
    "logdet, with gradient": (250_000,),
    "squared_dist, training solver": (25_000, 100_000),
    "squared_dist": (2_000,),
    "Brownian motion, 4 steps, with gradient": (25_000, 100_000),
    "kernel metric, d = 16": (2_000,),
    "kernel metric, d = 64": (2_000,),
    "kernel squared_dist, d = 16": (4,),
    "kernel squared_dist, d = 64": (2,),
    "kernel uniform draws, d = 16": (1_000,),
    "kernel uniform draws, d = 64": (1_000,),
}


def measured(face: str, case: str, count: int) -> dict[str, Any]:
    """Seconds and peak of one call."""
    command = [sys.executable, "-m", "tests.benchmarks._memory_cases", face, case, str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run() -> list[dict[str, Any]]:
    share, rows = float(os.environ.get("PYRO_RIEMANN_BENCHMARK_SHARE", "1")), []
    for case, sizes in CASES.items():
        for face in ("torch", "jax"):
            for size in sizes:
                count = max(2, int(share * size))
                found = measured(face, case, count)
                rows.append(
                    {
                        "benchmark": "bounded_memory",
                        "case": case,
                        "method": face,
                        "floor_seconds": None,
                        "ratio_to_floor": None,
                        "points": count,
                        **found,
                    }
                )
    return rows


@pytest.mark.benchmark
def test_every_routine_keeps_to_two_gibibytes() -> None:
    assert [(row["case"], row["method"], row["peak_mib"]) for row in run() if row["peak_mib"] > BOUND] == []
