"""The saved results, arranged for tables and figures, and C22's beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from pyro_riemann.experiments._jobs import Record
from pyro_riemann.experiments._report import Records, Spread, setting, spread

Key = tuple[str, str]  # model, sampler
USED = 0.8  # a latent dimension is used if its median posterior standard deviation is below this; unused ones have 1
MEASURES = ("fid", "f8", "f1_8", "precision", "recall", "authenticity")

# (model, sampler) -> row name, and FID, PRD F8 and F1/8 on MNIST, latent dimension 16 (C22, table 1)
TABLE_1: dict[tuple[str, str], tuple[str, float, float, float]] = {
    ("ae", "normal"): ("AE, N(0, I)", 46.41, 0.86, 0.77),
    ("wae", "normal"): ("WAE", 20.71, 0.93, 0.88),
    ("vae", "normal"): ("VAE, N(0, I)", 40.70, 0.83, 0.75),
    ("vamp", "prior"): ("VAMP", 34.02, 0.83, 0.88),
    ("hvae", "normal"): ("HVAE", 15.54, 0.97, 0.95),
    ("rhvae", "normal"): ("RHVAE", 36.51, 0.73, 0.28),  # its caption: drawn from the prior distribution
    ("ae", "gmm"): ("AE, GMM", 9.60, 0.95, 0.90),
    ("rae-gp", "gmm"): ("RAE-GP", 9.44, 0.97, 0.98),
    ("rae-l2", "gmm"): ("RAE-L2", 9.89, 0.97, 0.98),
    ("rae-sn", "gmm"): ("RAE-SN", 11.22, 0.97, 0.98),
    ("rae", "gmm"): ("RAE", 11.23, 0.98, 0.98),
    ("vae", "gmm"): ("VAE, GMM", 13.13, 0.95, 0.92),
    ("vae", "paper"): ("VAE, ours", 8.53, 0.98, 0.97),
}

# (model, sampler) -> balanced accuracy in percent on OASIS (C22, table 2)
TABLE_2: dict[tuple[str, str], float] = {
    ("real", "original"): 66.2,
    ("real", "resampled"): 81.8,
    ("ae", "normal"): 50.0,
    ("wae", "normal"): 57.4,
    ("vae", "normal"): 51.8,
    ("vamp", "prior"): 83.1,
    ("hvae", "normal"): 56.3,
    ("rhvae", "normal"): 68.0,
    ("ae", "gmm"): 82.4,
    ("rae-gp", "gmm"): 63.9,
    ("rae-l2", "gmm"): 74.1,
    ("rae-sn", "gmm"): 62.3,
    ("rae", "gmm"): 69.3,
    ("vae", "gmm"): 83.0,
    ("vae", "paper"): 85.4,
}

MODEL_NAMES = {
    "ae": "AE",
    "wae": "WAE-MMD",
    "vae": "VAE",
    "vamp": "VampPrior-VAE",
    "hvae": "HVAE",
    "rhvae": "RHVAE",
    "rae": "RAE",
    "rae-l2": "RAE-L2",
    "rae-gp": "RAE-GP",
    "rae-sn": "RAE-SN",
    "real": "real images",
}
SAMPLER_NAMES = {
    "normal": "N(0, I)",
    "prior": "own prior",
    "gmm": "GMM-10",
    "paper": "metric, C22 Alg. 2",
    "uniform": "metric, exact law",
    "uniform, overlapping": "metric, exact law, overlapping bumps",
    "original": "as they are",
    "resampled": "resampled",
}


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
        self.records = Records.read(folder)
        protocols = {str(setting(record, "protocol")) for record in self.records}
        if len(protocols) > 1:
            raise ValueError(f"{folder} holds results of {len(protocols)} protocols: keep each in a folder of its own.")
        self.protocol: dict[str, Any] = self.records[0]["settings"]["protocol"]

    def part(self, name: str) -> Records:
        """Records of one part of the grid."""
        return self.records.where(part=name)

    def one(self, name: str) -> dict[str, Any] | None:
        """Result of one run by its name, None if it is not there."""
        return next((record["result"] for record in self.records if record["name"] == name), None)

    def table(self) -> dict[Key, dict[str, Spread]]:
        """Measures of every model and sampler, over seeds."""
        runs: dict[Key, list[dict[str, Any]]] = defaultdict(list)
        for record, sampler, measured in samplers(self.part("table")):
            runs[model_of(record), sampler].append(measured)
        return {key: {name: spread(run.get(name) for run in own) for name in MEASURES} for key, own in runs.items()}

    def curves(self) -> dict[Key, dict[int, float]]:
        """FID of the first seed against the number of training images, with the table's as the last point."""
        points: dict[Key, dict[int, float]] = defaultdict(dict)
        curves = self.part("curves")
        if not curves:
            return {}
        sharp = {record["settings"].get("scale") for record in curves} - {None}
        table = self.part("table").where(seed=setting(curves[0], "seed"))
        last = [record for record in self.part("scale") if setting(record, "scale") in sharp]
        for record, sampler, measured in samplers([*curves, *table, *last]):
            size = record["settings"].get("size", self.protocol["table"][0])
            points[model_of(record), sampler][size] = measured["fid"]
        return {key: dict(sorted(row.items())) for key, row in points.items()}

    def ablation(self, name: str) -> dict[str, dict[float, dict[str, Any]]]:
        """Measures by sampler and value of ``num_centroids`` or ``regularization``."""
        points: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
        for record, sampler, measured in samplers(self.part("ablation")):
            if name in record["settings"]:
                points[sampler][setting(record, name)] = measured
        return {key: dict(sorted(row.items())) for key, row in points.items()}

    def augmentation(self) -> dict[Key, dict[str, Spread]]:
        """Scores of every method, in the order of the grid."""
        runs = self.protocol["augmentation_runs"]
        return {
            (model_of(record), sampler): {name: Spread(one["mean"], one["std"], runs) for name, one in scores.items()}
            for record, sampler, scores in samplers(self.part("augmentation"), "methods")
        }


def samplers(records: Iterable[Record], key: str = "samplers") -> Iterator[tuple[Record, str, dict[str, Any]]]:
    """Each run with each of its samplers, or methods, and what was measured."""
    for record in records:
        for name, measured in record["result"][key].items():
            yield record, name, measured


def rank_correlation(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> tuple[float, int] | None:
    """Spearman correlation over the keys that both have, and how many there are; None for fewer than three.

    Example:
        >>> keys = [("a", "x"), ("b", "x"), ("c", "x")]
        >>> rank_correlation(dict(zip(keys, [1.0, 2.0, 9.0])), dict(zip(keys, [3.0, 2.0, 1.0])))
        (-1.0, 3)
    """
    shared = [key for key in theirs if key in ours]
    if len(shared) < 3:
        return None
    outcome = spearmanr([ours[key] for key in shared], [theirs[key] for key in shared])
    return float(outcome.statistic), len(shared)


def used(result: dict[str, Any]) -> int:
    """Number of latent dimensions that a variational model uses."""
    return sum(value < USED for value in result["training"]["posterior_scales"])
