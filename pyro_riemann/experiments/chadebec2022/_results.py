"""The saved results, arranged for tables and figures."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyro_riemann.experiments._jobs import load
from pyro_riemann.experiments.chadebec2022._paper import TABLE_1

Key = tuple[str, str]  # model, sampler
MEASURES = ("fid", "f8", "f1_8", "precision", "recall")


class Spread(NamedTuple):
    """Mean and standard deviation of runs, and how many there are.

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, std=1.4142135623730951, runs=2)
    """

    mean: float
    std: float
    runs: int

    def text(self, digits: int, factor: float = 1.0) -> str:
        """``mean ± std``, the mean alone for a single run."""
        mean = f"{factor * self.mean:.{digits}f}"
        return mean if self.runs < 2 else f"{mean} ± {factor * self.std:.{digits}f}"


def spread(values: list[float]) -> Spread:
    """Mean, standard deviation (0 for one value) and number."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def model_of(record: dict[str, Any]) -> str:
    """Name of the model of a run; of a VAE at another likelihood than the protocol's ``vae@s``."""
    settings = record["settings"]
    name: str = settings.get("model", "vae") or "real"
    return name if settings.get("scale") is None else f"{name}@{settings['scale']:g}"


class Results:
    """All records of a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if they are of more than one protocol.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.json"))
        if not paths:
            raise FileNotFoundError(f"no results in {folder}: run the grid first, without `--report`.")
        self.records = [load(path) for path in paths]
        protocols = {str(record["settings"]["protocol"]) for record in self.records}
        if len(protocols) > 1:
            raise ValueError(f"{folder} holds results of {len(protocols)} protocols: keep each in a folder of its own.")
        self.protocol: dict[str, Any] = self.records[0]["settings"]["protocol"]

    def part(self, name: str) -> list[dict[str, Any]]:
        """Records of one part of the grid."""
        return [record for record in self.records if record["settings"]["part"] == name]

    def one(self, name: str) -> dict[str, Any] | None:
        """Result of one run by its name, None if it is not there."""
        return next((record["result"] for record in self.records if record["name"] == name), None)

    def table(self) -> dict[Key, dict[str, Spread]]:
        """Measures of every model and sampler, over seeds."""
        values: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in self.part("table"):
            for sampler, measured in record["result"]["samplers"].items():
                for name in (*MEASURES, "sampling_cpu_seconds"):
                    values[record["settings"]["model"], sampler][name].append(measured[name])
        return {key: {name: spread(runs) for name, runs in row.items()} for key, row in values.items()}

    def curves(self) -> dict[Key, dict[int, float]]:
        """FID of the first seed against the number of training images, with the table's as the last point."""
        points: dict[Key, dict[int, float]] = defaultdict(dict)
        curves = self.part("curves")
        if not curves:
            return {}
        seed = curves[0]["settings"]["seed"]
        whole = [record for record in self.part("table") if record["settings"]["seed"] == seed]
        sharp = {record["settings"].get("scale") for record in curves} - {None}
        whole += [record for record in self.part("scale") if record["settings"]["scale"] in sharp]
        for record in (*curves, *whole):
            size = record["settings"].get("size", self.protocol["table"][0])
            for sampler, measured in record["result"]["samplers"].items():
                points[model_of(record), sampler][size] = measured["fid"]
        return {key: dict(sorted(row.items())) for key, row in points.items()}

    def ablation(self, name: str) -> dict[str, dict[float, dict[str, Any]]]:
        """Measures by sampler and value of ``num_centroids`` or ``regularization``."""
        points: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
        for record in self.part("ablation"):
            if name in record["settings"]:
                for sampler, measured in record["result"]["samplers"].items():
                    points[sampler][record["settings"][name]] = measured
        return {key: dict(sorted(row.items())) for key, row in points.items()}

    def augmentation(self) -> dict[Key, dict[str, Spread]]:
        """Scores of every method, in the order of the grid."""
        rows: dict[Key, dict[str, Spread]] = {}
        runs = self.protocol["augmentation_runs"]
        for record in self.part("augmentation"):
            for sampler, scores in record["result"]["methods"].items():
                rows[model_of(record), sampler] = {
                    name: Spread(value["mean"], value["std"], runs) for name, value in scores.items()
                }
        return rows

    def rank_correlation(self) -> tuple[float, int] | None:
        """Spearman correlation of our FIDs with C22's over the rows that both have; None for fewer than three."""
        ours = {key: row["fid"].mean for key, row in self.table().items()}
        return rank_correlation(ours, {key: row[1] for key, row in TABLE_1.items()})


def rank_correlation(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> tuple[float, int] | None:
    """Spearman correlation over the keys that both have, and how many there are; None for fewer than three.

    Example:
        >>> keys = [("a", "x"), ("b", "x"), ("c", "x")]
        >>> rank_correlation(dict(zip(keys, [1.0, 2.0, 9.0])), dict(zip(keys, [3.0, 2.0, 1.0])))
        (-1.0, 3)
    """
    from scipy.stats import spearmanr

    shared = [key for key in theirs if key in ours]
    if len(shared) < 3:
        return None
    outcome = spearmanr([ours[key] for key in shared], [theirs[key] for key in shared])
    return float(outcome.statistic), len(shared)
