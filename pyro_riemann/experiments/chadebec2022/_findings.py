"""Where our order differs from that of C22, in words made of the results."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from pyro_riemann.experiments._report import prose, setting
from pyro_riemann.experiments.chadebec2022._results import (
    MODEL_NAMES,
    SAMPLER_NAMES,
    TABLE_1,
    TABLE_2,
    Key,
    Results,
    rank_correlation,
    used,
)

_OURS: Key = ("vae", "paper")
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
There is one seed: how much these numbers change with it is not known.
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
There {paper[authenticity]!p:.0f} % of the draws of C22's algorithm are authentic, {uniform[authenticity]!p:.0f} % of
those of the exact law, {gmm[authenticity]!p:.0f} % of the mixture's.
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
