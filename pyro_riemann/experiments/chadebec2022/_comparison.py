"""Where our order differs from C22's and what the results say of the reasons, in words around their numbers."""

from __future__ import annotations

import statistics
from typing import Any

from pyro_riemann.experiments.chadebec2022._paper import MODEL_NAMES, SAMPLER_NAMES, TABLE_1, TABLE_2
from pyro_riemann.experiments.chadebec2022._results import Key, Results, rank_correlation

_OURS: Key = ("vae", "paper")
USED = 0.8  # a latent dimension is used if its median posterior standard deviation is below this; unused ones have 1


def comparison(results: Results) -> str:
    """A paragraph; empty while C22's sampler or two rows beside it are missing."""
    rows, rank = results.table(), results.rank_correlation()
    if rank is None or _OURS not in rows:
        return ""
    shared = sorted((key for key in TABLE_1 if key in rows), key=lambda key: rows[key]["fid"].mean)
    place = shared.index(_OURS) + 1
    best = shared[0]
    sentences = [
        f"**Against C22.** Over the {rank[1]} rows that table 1 of C22 has too, the Frechet distances have a Spearman "
        f"correlation of {rank[0]:.2f} with its FIDs. C22's own method, first there, is number {place} of "
        f"{len(shared)} here ({rows[_OURS]['fid'].text(1)}); first is {MODEL_NAMES[best[0]]}, {SAMPLER_NAMES[best[1]]} "
        f"({rows[best]['fid'].text(1)}). With N(0, I) the same VAE has {rows['vae', 'normal']['fid'].text(1)}, with "
        f"the mixture of Gaussians {rows['vae', 'gmm']['fid'].text(1)}.",
        *_samplers(results),
        *_sharpness(results),
        "Nor is the training C22's: fewer epochs, dense layers instead of convolutions, a distance in other features.",
    ]
    return " ".join(sentences)


def augmentation_comparison(results: Results) -> str:
    """The same for the augmentation test; empty while C22's sampler or the real images are missing."""
    rows, real = results.augmentation(), ("real", "resampled")
    ours = {key: rows[key]["balanced_accuracy"].mean for key in TABLE_2 if key in rows}
    rank = rank_correlation(ours, TABLE_2)
    if rank is None or _OURS not in ours or real not in ours:
        return ""
    place = sum(value > ours[_OURS] for value in ours.values()) + 1
    better = sum(value > ours[real] for key, value in ours.items() if key[0] != "real")
    generated = [key for key in ours if key[0] != "real"]
    spreads = [
        100 * (max(values) - min(values)) * factor
        for values, factor in (
            ([ours[key] for key in generated if key[0] == "vae"], 1),
            ([TABLE_2[key] for key in generated if key[0] == "vae"], 0.01),  # in percent there
        )
    ]
    return (
        f"**Against C22.** Over the {rank[1]} rows of its table 2 the balanced accuracies have a Spearman correlation "
        f"of {rank[0]:.2f} with C22's. Its own method, first there, is number {place} of {len(ours)} here; {better} of "
        f"{len(generated)} models beat the resampled real images. The VAE's samplers differ by {spreads[0]:.1f} points "
        f"here, by {spreads[1]:.1f} in C22: two garments of 28 x 28 pixels leave less to the choice than brain images."
    )


def _samplers(results: Results) -> list[str]:
    """What the chains of C22's algorithm and the exact law of the same metric say."""
    found = [r["result"]["samplers"] for r in results.part("table") if "uniform" in r["result"]["samplers"]]
    if not found:
        return []
    chains = max(entry["paper"]["sampler"]["max_r_hat"] for entry in found)
    shares = statistics.fmean(max(entry["uniform"]["class_shares"]) for entry in found)
    exact = statistics.fmean(entry["uniform"]["fid"] for entry in found)
    mixing = "do not mix" if chains > 1.05 else "mix"
    sentence = (
        f"The chains of C22's algorithm 2 {mixing} (R-hat up to {chains:.1f}); draws of the law that they are meant "
        f"for, the uniform law of the same metric, have a Frechet distance of {exact:.1f}, with {100 * shares:.0f} % "
        "of the images in one class."
    )
    if chains > 1.05:
        sentence += (
            " What C22's method draws from is thus close to where its chains start: random training codes, moved by "
            "about the width of a posterior. The law itself favours regions where posteriors are narrow and their "
            "bumps overlap."
        )
    return [sentence]


def _sharpness(results: Results) -> list[str]:
    """How the order changes with the standard deviation of the likelihood."""
    table = results.one(f"table-vae-seed{_first_seed(results)}") if results.part("table") else None
    sharp = [(record["settings"]["scale"], record["result"]) for record in results.part("scale")]
    if table is None or not sharp:
        return []
    dimensions = results.protocol["latent_dim"]
    sentences = [
        f"At the likelihood of C22's eq. 3 the VAE uses {used(table)} of its {dimensions} latent dimensions; the "
        "others give every bump a width of about one, so that bumps overlap."
    ]
    for scale, result in sorted(sharp, key=lambda entry: -entry[0]):
        measured = {name: entry["fid"] for name, entry in result["samplers"].items()}
        sentences.append(
            f"At s = {scale:g} it uses {used(result)}, and the Frechet distances are {measured['normal']:.1f} with "
            f"N(0, I), {measured['gmm']:.1f} with the mixture, {measured['paper']:.1f} with C22's algorithm and "
            f"{measured['uniform']:.1f} with the exact law."
        )
    lowest = min(result["samplers"]["paper"]["fid"] for _, result in sharp)
    best = min(row["fid"].mean for row in results.table().values())
    sentences.append(
        f"The lowest value of C22's algorithm there is {'below' if lowest < best else 'not below'} every row of the "
        "table, whose other variational models keep to eq. 3."
    )
    sharpest = min(sharp, key=lambda entry: entry[0])[1]["samplers"]
    sentences.append(
        f"Improved recall, at the last s {sharpest['paper']['recall']:.3f} with C22's algorithm and "
        f"{sharpest['gmm']['recall']:.3f} with the mixture, shows what the Frechet distance does not: how much of the "
        f"data is reached by draws around {results.protocol['num_centroids']:,} centroids."
    )
    return sentences


def _first_seed(results: Results) -> int:
    return min(record["settings"]["seed"] for record in results.part("table"))


def used(result: dict[str, Any]) -> int:
    """Number of latent dimensions that a variational model uses."""
    return sum(value < USED for value in result["training"]["posterior_scales"])
