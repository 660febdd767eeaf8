"""``python -m tests.benchmarks.beyond``: what 10 million pairs or 10,000 chains cost at the rates of the benchmarks.

The rates are those that ``python -m tests.benchmarks`` measured and wrote to ``docs/benchmarks/results.json``, in
processor seconds of one thread. The table multiplies. It says nothing of machines that wait for each other: none of
these jobs sends a message; nor of what each machine does once, a table of the metric or a compilation.
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "results.json"
PAIRS, CHAINS, CORES = 10_000_000, 10_000, 100
MNIST = "MNIST, d = 2, with precision network"
NUTS, GRADIENTS = "NUTS, NumPyro against Pyro", "100 squared distances with gradient, JAX against torch"
#: Of work: what is multiplied, how many of it the benchmark does, and its benchmark, case and method.
WORK: dict[str, tuple[int, int, tuple[str, str, str]]] = {
    "squared distances with gradients on an MNIST decoder, torch, from a graph": (
        PAIRS,
        100,
        ("geodesics", MNIST, 'ours, init="graph"'),
    ),
    "the same on a table of the metric": (PAIRS, 100, ("geodesics", MNIST, "ours, GridMetric, 100 further pairs")),
    "the same on the decoder, torch, from straight lines": (PAIRS, 100, (GRADIENTS, MNIST, "torch")),
    "the same, JAX, compiled": (PAIRS, 100, (GRADIENTS, MNIST, "JAX, compiled")),
}
for _name, _case in (
    ("uniform of a kernel metric, k = 1000, d = 2", "uniform, kernel metric, k = 1000, d = 2"),
    ("the same, d = 16", "uniform, kernel metric, k = 1000, d = 16"),
    ("latent posterior on an MNIST decoder, table", "latent posterior on the MNIST decoder, tabulated metric"),
):
    WORK[f"chains of NUTS, NumPyro: {_name}"] = (CHAINS, 4, (NUTS, _case, "NumPyro, vectorized"))


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, to two digits."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def lines() -> list[str]:
    """The table in Markdown."""
    rows = json.loads(RESULTS.read_text())["rows"]
    measured = {(row["benchmark"], row["case"], row["method"]): row for row in rows}
    table = [
        f"| work | how many | seconds for one | one core | {CORES} cores | measured |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (total, count, key) in WORK.items():
        each = measured[key]["seconds"] / count
        costs = duration(total * each), duration(total * each / CORES)
        table.append(f"| {name} | {total:,} | {each:.2g} | {costs[0]} | {costs[1]} | {measured[key]['date']} |")
    return table


if __name__ == "__main__":
    print("\n".join(lines()))
