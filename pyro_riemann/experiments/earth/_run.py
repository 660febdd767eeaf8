"""The grid: data sets, with and without equal rows, methods, and five splits each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_riemann.experiments.earth._data import FILES, load_places, split
from pyro_riemann.experiments.earth._fits import METHODS, RESOLUTION, negative_log_likelihood

SEEDS = (0, 1, 2, 3, 4)
COARSE = 1e-6  # sd of 6 km
#: rows as they are recorded, or one of each set of equal rows; and the smallest time
VARIANTS = {"distinct": (True, RESOLUTION), "recorded": (False, RESOLUTION), "coarse": (False, COARSE)}
#: what is run: the coarser smallest time only where many rows coincide, the few kernels on distinct rows
GRID = [
    *((name, variant, "kernels") for variant in ("distinct", "recorded") for name in FILES),
    *((name, "coarse", "kernels") for name in ("volcano", "earthquake")),
    *((name, "distinct", method) for method in ("em", "svi") for name in FILES),
]


def run(results: Path, root: Path | None = None, grid: list[tuple[str, str, str]] | None = None) -> None:
    """Do what is missing in ``results``: one file for each data set, variant and method, written when it is complete.

    Args:
        results: folder of the JSON files.
        root: folder of the data, see :func:`load_places`.
        grid: data set, variant and method of each job; by default all.
    """
    results.mkdir(parents=True, exist_ok=True)
    for name, variant, method in GRID if grid is None else grid:
        path = results / f"{name}-{variant}-{method}.json"
        if path.exists():
            continue
        distinct, smallest = VARIANTS[variant]
        z = load_places(name, root, distinct=distinct)
        splits = [one_split(z, method, smallest, seed) for seed in SEEDS]
        record = {"points": len(z), "smallest_time": smallest, "splits": splits}
        path.write_text(json.dumps(record, indent=1) + "\n")


def one_split(z: Tensor, method: str, smallest: float, seed: int) -> dict[str, Any]:
    """Negative log likelihoods of one split, and of those test points that do not stand in the training part."""
    train, validation, test = (z[index] for index in split(len(z), seed))
    began = time.process_time()
    law, chosen = METHODS[method](train, validation, smallest, seed)
    seconds = time.process_time() - began
    each = negative_log_likelihood(law, test)
    seen = {tuple(row) for row in train.tolist()}
    fresh = torch.tensor([tuple(row) not in seen for row in test.tolist()])
    return {
        "seed": seed,
        "chosen": chosen,
        "validation": float(negative_log_likelihood(law, validation).mean()),
        "test": float(each.mean()),
        "test_fresh": float(each[fresh].mean()),
        "seen_share": float((~fresh).double().mean()),
        "seconds": round(seconds, 1),
    }
