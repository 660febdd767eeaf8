"""What of the claims of Kalatzis et al. (2020) the saved runs confirm, and where numbers differ from those printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import mean, variance
from typing import Any

from pyro_riemann.experiments._report import NAMES, Records, join, prose, setting, table
from pyro_riemann.experiments.kalatzis2020._protocol import PRINTED_BOUNDS, PRINTED_F1, TITLES

PIXELS = 784
Result = dict[str, Any]


def normalised(records: Records) -> list[Result]:
    """Results of models, where nothing is said of the mass of the prior with bounds as if it were 1."""
    found = []
    for record in records:
        result = record["result"]
        bounds = result["bounds"]
        same = {f"{name}_normalized": bounds[name] for name in ("elbo", "iwae")}
        mass, error = bounds.get("log_mass"), bounds.get("log_mass_error")
        found.append({**result, "bounds": {**same, **bounds, "log_mass": mass, "log_mass_error": error}})
    return found


# -------------------------------------------------------------------- agreement, protocol by protocol

_AGREEMENT = """
## What agrees with K20

The R-VAE less each other model: of bounds less than 0 is better, of F1 more. The mean over seeds and, where there are
several, the standard error of the difference. *as K20*: the sign is that of the numbers printed there, and the
difference is two standard errors or more from 0 (with one seed: the sign alone); *against K20*: it is the other sign,
as far from 0; *undecided*: nearer, or the mass of the prior is known to no better than 1 nat, an error which is part
of what stands here then. *not in K20*: nothing to compare with. {counts}. IWAE compares priors; K20's ELBOs
are of densities that are not normalised.
"""
_VERDICTS = ("as K20", "against K20", "undecided", "not in K20")
_ROUGH = 1.0  # nats to which the mass of a prior must be known, or bounds that take it into account decide nothing
_RIVALS = ("vae", "vae-fitted", "vamp128", "vamp256", "vamp512")


def _printed_elbo(dataset: str, model: str, dim: int) -> float | None:
    return PRINTED_BOUNDS.get(dataset, {}).get((model, dim), (None,))[0]


def _printed_f1(dataset: str, model: str, dim: int) -> float | None:
    return PRINTED_F1.get((model, dim)) if dataset == "mnist" else None


# value of a run, value printed, models beside the R-VAE
_MEASURES: dict[str, tuple[Callable[[Result], float], Callable[[str, str, int], float | None], tuple[str, ...]]] = {
    "Neg. ELBO, prior normalised": (lambda result: -result["bounds"]["elbo_normalized"], _printed_elbo, _RIVALS),
    "−IWAE, prior normalised": (lambda result: -result["bounds"]["iwae_normalized"], lambda *_: None, _RIVALS),
    "F1 of the codes": (lambda result: result["classification"]["average"], _printed_f1, ("vae",)),
}


def agreement(records: Records) -> str:
    """The section of the report that holds the R-VAE against each other model, here and in the paper."""
    groups = records.where(kind="model").by("dataset", "latent_dim", "protocol.name")
    order = sorted(groups, key=lambda key: (list(NAMES).index(key[0]), key[1]))
    rows = [row for key in order for row in _rows(groups[key], *key)]
    if not rows:
        return ""
    header = ["data", "protocol", "d", "R-VAE less", "of", "here", "K20", "verdict"]
    counts = ", ".join(f"{sum(row[-1] == verdict for row in rows)} *{verdict}*" for verdict in _VERDICTS)
    return join([prose(_AGREEMENT, counts=counts), table(header, rows, words=(0, 1, 3, 4, 7))])


def _rows(records: Records, dataset: str, dim: int, protocol: str) -> Iterator[list[str]]:
    by_model = {model: normalised(group) for model, group in records.by("model").items()}
    for name, (value, printed, rivals) in _MEASURES.items():
        for rival in rivals:
            if not {"rvae", rival} <= by_model.keys():
                continue
            ours, theirs = ([value(result) for result in by_model[model]] for model in ("rvae", rival))
            gap, error = mean(ours) - mean(theirs), _standard_error(ours, theirs)
            mass = _error_of_mass(by_model["rvae"]) if "normalised" in name else 0.0
            if mass >= _ROUGH:
                error = math.hypot(error or 0.0, mass)
            here = f"{gap:+.2f}" + ("" if error is None else f" ± {error:.2f}")
            there = [printed(dataset, model, dim) for model in ("rvae", rival)]
            known = None if there[0] is None or there[1] is None else there[0] - there[1]
            text = "" if known is None else f"{known:+.2f}"
            verdict = _verdict(gap, error, known, mass)
            yield [NAMES[dataset], f"`{protocol}`", str(dim), TITLES[rival], name, here, text, verdict]


def _error_of_mass(results: list[Result]) -> float:
    return max(result["bounds"]["log_mass_error"] or 0.0 for result in results)


def _standard_error(ours: list[float], theirs: list[float]) -> float | None:
    if min(len(ours), len(theirs)) < 2:
        return None
    return math.sqrt(sum(variance(values) / len(values) for values in (ours, theirs)))


def _verdict(gap: float, error: float | None, known: float | None, mass: float = 0.0) -> str:
    if known is None:
        return _VERDICTS[3]
    if known == 0 or mass >= _ROUGH or abs(gap) < 2 * (error or 0.0):
        return _VERDICTS[2]
    return _VERDICTS[0] if gap * known > 0 else _VERDICTS[1]


# -------------------------------------------------------------------- differences, one by one

_ADDING_UP = """
### The columns of the R-VAE do not add up there

A negative ELBO is Rec + KL. K20's rows of the VAE keep to that (largest gap {plain:.2f} nats), its rows of the R-VAE do
not: their Neg. ELBO less Rec is not the KL that is printed. A density that is neither with respect to dz nor to the
volume can give a KL term of either sign; an absolute value in the loss and the signed term in the table then disagree.
Of our {count} models the largest gap is {gap:.1e} nats.
"""
_DISTANCES = """
### Densities and distances

The same trained R-VAE and the same draws, the KL term step by step from ours to that of the authors' code: the density
of eq. 3.3, whose measure depends on the centre; distances along straight lines (six gradient steps leave their curves
where they start); and their sum of squared chords, which is the squared length divided by the number of chords, 30.
Posterior and prior are heat kernels in all columns, so that the first is not the KL of the table of bounds, whose
posterior is the trained one.
"""
_CONSTANT = """
### The constant of the VampPrior

A mixture of n posteriors has the weight 1/n in front of each. Without it log p(z) is too large by log n, and the KL
term too small by as much, for every image. Both ways:
"""
_MASS = """
### The mass of the prior

The short-time density of the heat kernel is not normalised exactly. Its log mass over the models here runs from
{least:.2f} to {most:.2f} nats; the columns *prior normalised* take it into account, K20's bounds do not. Its own error
is at most {error:.3f} nats.
"""
_LEVEL = """
### The level

Pixels are continuous here, and many never vary, so that log-likelihoods are bounded by the least standard deviation
that the decoder may take: {bounds} for {PIXELS} pixels. K20 does not state its own; levels do not compare across
papers, differences between the models of one table do. Nor do the levels of one table compare by the ELBO alone: IWAE
has the gap of the posterior family removed.
"""
_PROTOCOL = """
### The protocol

K20 trains on all images, for 100 and 200 epochs, in ten runs. Here: {images} images, {warm_up_epochs} and {epochs}
epochs; the centre and time of the prior learn at {prior_learning_rate:g} instead of 0.001, since so few steps would
leave them where they start. `--protocol paper` is appendix C.
"""


def differences(records: Records, one_of_several: bool = False) -> str:
    """The section of the report that goes through the differences one by one.

    Args:
        records: of one protocol.
        one_of_several: say which, for the page has others.
    """
    names = "`, `".join(sorted(records.by("protocol.name")))
    note = f"Numbers of this chapter are those of the protocol `{names}`." if one_of_several else ""
    parts = _differences(records.where(kind="model"))
    return join(["## Where these numbers differ from K20's, and why", note, *parts])


def _differences(models: Records) -> Iterator[str]:
    groups = models.by("dataset", "latent_dim", "model")
    of_models = {key: groups[key].results for key in sorted(groups, key=lambda key: (list(NAMES).index(key[0]), key))}
    printed = {
        (dataset, dim, model): values
        for dataset in NAMES
        if dataset in models.by("dataset")
        for (model, dim), values in PRINTED_BOUNDS.get(dataset, {}).items()
    }
    rows = [
        [NAMES[dataset], str(dim), f"{elbo - rec:.2f}", f"{kl:.2f}"]
        for (dataset, dim, model), (elbo, rec, kl) in printed.items()
        if model == "rvae"
    ]
    if rows:
        plain = max(abs(elbo - rec - kl) for (_, _, model), (elbo, rec, kl) in printed.items() if model == "vae")
        bounds = [result["bounds"] for result in models.results]
        gap = max(abs(one["elbo"] - one["reconstruction"] + one["kl"]) for one in bounds)
        yield prose(_ADDING_UP, plain=plain, count=len(bounds), gap=gap)
        yield table(["data", "d", "K20: Neg. ELBO − Rec", "K20: KL"], rows, words=(0, 1))
    runs = {key: [one["kl_by_formula"] for one in found] for key, found in of_models.items() if key[2] == "rvae"}
    if runs:
        names = list(next(iter(runs.values()))[0])
        rows = [
            [NAMES[dataset], str(dim), *(f"{mean(run[name] for run in found):.2f}" for name in names)]
            for (dataset, dim, _), found in runs.items()
        ]
        yield prose(_DISTANCES)
        yield table(["data", "d", *names], rows, words=(0, 1))
    rows = []
    for (dataset, dim, model), found in of_models.items():
        if model.startswith("vamp"):
            count, kl = int(model.removeprefix("vamp")), mean(result["bounds"]["kl"] for result in found)
            there = printed.get((dataset, dim, model), (0.0, 0.0, math.nan))[2]
            values = [kl, math.log(count), kl - math.log(count), there]
            rows.append([NAMES[dataset], str(dim), str(count), *(f"{value:.2f}" for value in values)])
    if rows:
        yield prose(_CONSTANT)
        yield table(["data", "d", "n", "KL", "log n", "KL without the constant", "K20: KL"], rows, words=(0, 1))
    weighed = [result["bounds"] for result in normalised(models) if result["bounds"]["log_mass"] is not None]
    if weighed:
        masses, errors = ([one[key] for one in weighed] for key in ("log_mass", "log_mass_error"))
        yield prose(_MASS, least=min(masses), most=max(masses), error=max(errors))
    floors = {
        floor: -PIXELS * (math.log(floor) + 0.5 * math.log(2 * math.pi))
        for floor in sorted(models.by("protocol.min_scale"))
    }
    levels = ", ".join(f"{bound:.0f} nats at {floor:g}" for floor, bound in floors.items())
    yield prose(_LEVEL, bounds=levels, PIXELS=PIXELS)
    protocol = setting(models[0], "protocol") if models else {"name": "paper"}
    if protocol["name"] != "paper":
        images = protocol["train_images"]
        yield prose(_PROTOCOL, **protocol, images="all" if images is None else f"{images:,}")
