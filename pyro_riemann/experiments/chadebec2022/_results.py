"""The saved results, arranged for tables and figures; C22's beside them; and where these differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import spearmanr

from pyro_riemann.experiments._jobs import Record
from pyro_riemann.experiments._report import Records, Spread, prose, setting, spread

Key = tuple[str, str]  # model, sampler
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


# -------------------------------------------------------------------- where our order differs, in words


_OURS: Key = ("vae", "paper")
USED = 0.8  # a latent dimension is used if its median posterior standard deviation is below this; unused ones have 1
_TABLE = """
**Against C22.** Over the {rank[1]} rows that table 1 of C22 has too, the Frechet distances have a Spearman correlation
of {rank[0]:.2f} with its FIDs. C22's own method, first there, is number {place} of {count} here ({ours[fid]:.1f});
first is {best} ({first[fid]:.1f}). With N(0, I) the same VAE has {normal[fid]:.1f}, with the mixture of Gaussians
{gmm[fid]:.1f}.
"""
_CHAINS = """
The chains of C22's algorithm 2 {mixing} (R-hat up to {chains:.1f}); draws of the law that they are meant for, the
uniform law of the same metric, have a Frechet distance of {exact:.1f}, with {shares!p:.0f} % of the images in one
class.
"""
_COPIES = """
Of the draws of C22's method {ours[authenticity]!p:.0f} % are authentic, of the mixture's {gmm[authenticity]!p:.0f} %;
their improved recall is {ours[recall]:.2f} and {gmm[recall]:.2f}.
"""
_ONE_SEED = """
There is one seed: rows within a tenth of each other have no order.
"""
_STUCK = """
What C22's method draws from is thus close to where its chains start: random training codes, moved by about the width of
a posterior. The law itself favours regions where posteriors are narrow and their bumps overlap.
"""
_BLUNT = """
At the likelihood of C22's eq. 3 the VAE uses {used} of its {latent_dim} latent dimensions; the others give every bump a
width of about one, so that bumps overlap.
"""
_SHARP = """
At s = {scale:g} it uses {used}, and the Frechet distances are {normal[fid]:.1f} with N(0, I), {gmm[fid]:.1f} with the
mixture, {paper[fid]:.1f} with C22's algorithm and {uniform[fid]:.1f} with the exact law.
"""
_SHARPEST = """
The lowest value of C22's algorithm there is {below} every row of the table, whose other variational models keep to eq.
3. Improved recall, at the last s {paper[recall]:.3f} with C22's algorithm and {gmm[recall]:.3f} with the mixture, shows
what the Frechet distance does not: how much of the data is reached by draws around {num_centroids:,} centroids.
"""
_SHARP_COPIES = """
There {paper[authenticity]!p:.0f} % of the draws of C22's algorithm are authentic, {uniform[authenticity]!p:.0f} % of those
of the exact law, {gmm[authenticity]!p:.0f} % of the mixture's.
"""
_TRAINING = """
Nor is the training C22's: fewer epochs, {networks}, a distance in other features.
"""
_NETWORKS = {"mlp": "dense layers instead of convolutions", "conv": "fewer channels"}
_AUGMENTATION = """
**Against C22.** Over the {rank[1]} rows of its table 2 the balanced accuracies have a Spearman correlation of
{rank[0]:.2f} with C22's. Its own method, first there, is number {place} of {count} here; {better} of {generated} models
beat the resampled real images. The VAE's samplers differ by {here:.1f} points here, by {there:.1f} in C22: two garments
of 28 x 28 pixels leave less to the choice than brain images.
"""


def comparison(results: Results) -> str:
    """A paragraph; empty while C22's sampler or two rows beside it are missing."""
    rows = results.table()
    theirs = {key: fid for key, (_, fid, *_) in TABLE_1.items()}
    rank = rank_correlation({key: row["fid"].mean for key, row in rows.items()}, theirs)
    if rank is None or _OURS not in rows:
        return ""
    shared = sorted((key for key in TABLE_1 if key in rows), key=lambda key: rows[key]["fid"].mean)
    (model, sampler), ours, gmm = shared[0], rows[_OURS], rows["vae", "gmm"]
    head = prose(
        _TABLE,
        rank=rank,
        place=shared.index(_OURS) + 1,
        count=len(shared),
        best=f"{MODEL_NAMES[model]}, {SAMPLER_NAMES[sampler]}",
        ours=ours,
        first=rows[shared[0]],
        normal=rows["vae", "normal"],
        gmm=gmm,
    )
    if ours["fid"].runs == 1:
        head += " " + prose(_ONE_SEED)
    if ours["authenticity"].runs and gmm["authenticity"].runs:
        head += " " + prose(_COPIES, ours=ours, gmm=gmm)
    training = prose(_TRAINING, networks=_NETWORKS[results.protocol["architecture"]])
    return " ".join([head, *_chains(results), *_sharpness(results), training])


def _chains(results: Results) -> Iterator[str]:
    """What the chains of C22's algorithm and the exact law of the same metric say."""
    found = [result["samplers"] for result in results.part("table").results if "uniform" in result["samplers"]]
    if not found:
        return
    chains = max(entry["paper"]["sampler"]["max_r_hat"] for entry in found)
    shares = fmean(max(entry["uniform"]["class_shares"]) for entry in found)
    exact = fmean(entry["uniform"]["fid"] for entry in found)
    stuck = chains > 1.05
    yield prose(_CHAINS, mixing="do not mix" if stuck else "mix", chains=chains, exact=exact, shares=shares)
    if stuck:
        yield prose(_STUCK)


def _sharpness(results: Results) -> Iterator[str]:
    """How the order changes with the standard deviation of the likelihood."""
    table, sharp = results.part("table"), results.part("scale")
    seed = min((setting(record, "seed") for record in table), default=None)
    base = results.one(f"table-vae-seed{seed}")
    if base is None or not sharp:
        return
    yield prose(_BLUNT, used=used(base), **results.protocol)
    sharp.sort(key=lambda record: -setting(record, "scale"))
    for record in sharp:
        result = record["result"]
        yield prose(_SHARP, scale=setting(record, "scale"), used=used(result), **result["samplers"])
    lowest = min(result["samplers"]["paper"]["fid"] for result in sharp.results)
    best = min(row["fid"].mean for row in results.table().values())
    below = "below" if lowest < best else "not below"
    last = sharp[-1]["result"]["samplers"]
    yield prose(_SHARPEST, below=below, **last, **results.protocol)
    if all("authenticity" in last[name] for name in ("paper", "uniform", "gmm")):
        yield prose(_SHARP_COPIES, **last)


def augmentation_comparison(results: Results) -> str:
    """The same for the augmentation test; empty while C22's sampler or the real images are missing."""
    rows, real = results.augmentation(), ("real", "resampled")
    ours = {key: rows[key]["balanced_accuracy"].mean for key in TABLE_2 if key in rows}
    rank = rank_correlation(ours, TABLE_2)
    if rank is None or _OURS not in ours or real not in ours:
        return ""
    generated = [key for key in ours if key[0] != "real"]
    both = [[accuracies[key] for key in generated if key[0] == "vae"] for accuracies in (ours, TABLE_2)]
    here, there = (max(values) - min(values) for values in both)
    return prose(
        _AUGMENTATION,
        rank=rank,
        place=sum(value > ours[_OURS] for value in ours.values()) + 1,
        count=len(ours),
        better=sum(ours[key] > ours[real] for key in generated),
        generated=len(generated),
        here=100 * here,
        there=there,  # in percent
    )


def used(result: dict[str, Any]) -> int:
    """Number of latent dimensions that a variational model uses."""
    return sum(value < USED for value in result["training"]["posterior_scales"])
