"""The page of results, every number of it from the saved files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import mean

from pyro_riemann.experiments._jobs import Record
from pyro_riemann.experiments._report import Records, fill, page_of, prose, spread, table, table_of
from pyro_riemann.experiments.single_cell._mixtures import PAIRS, WINDOW
from pyro_riemann.experiments.single_cell._models import LINES
from pyro_riemann.experiments.single_cell._solved import DISTANCES

GEOMETRIES = {
    "straight": "straight line",
    "mean": "pullback of the mean counts",
    "fisher": "Fisher-Rao",
    "ensemble": "Fisher-Rao, ensemble",
}
PRIORS = {
    "standard": "N(0, I)",
    "isotropic": "isotropic Gaussian",
    "full": "Gaussian with full covariance",
    "mixture": "mixture of three Gaussians",
    "heat_kernel": "heat kernel",
}
CASES = {
    "RNAmix_celseq2-kl1": "mixtures",
    "sc_celseq2-kl1": "cells",
    "RNAmix_celseq2-d10-kl1": "mixtures, d = 10",
    "sc_celseq2-d10-kl1": "cells, d = 10",
}

HEAD = """# Single-cell counts

Does the geometry of a decoder say something about data of which it was not told? Tian et al. (2019) mixed the RNA of
three lung cancer lines in known proportions and counted it as if it were of single cells (`RNAmix_celseq2`, 340
mixtures); `sc_celseq2` are 274 real cells of the same lines. A negative binomial VAE sees the counts of the
{genes:,} most variable genes and nothing else. It has two latent dimensions where no other number is given. The
dispersion of each gene is learned and does not depend on the code, so that
{{class}}`~pyro_riemann.metrics.PullbackMetric` takes the decoder's Fisher-Rao metric by an isometric immersion. Each
seed has weights, order and a split of its own: 70 % of the cells to learn from, 10 % to choose the epoch, 20 % held
out. Given are means over seeds, and after ± their standard deviation.
This page is made from the JSON files beside it; with `DIR/single-cell` a copy of the data, this runs what is missing
and makes it again:

```sh
R=docs/results/single_cell
python -m pyro_riemann reproduce single-cell --data DIR --results $R --page $R.md
```"""

MIXTURES = """## Mixtures on the way between two lines

A geodesic runs from the mean code of one pure line to that of another. Mixtures of both (but those that have most of
the third line) should lie beside it in the order of their proportions b / (a + b): 0.19, 0.5 and 0.81. The proportion
is read off at the nearest point of the curve, in the same metric: as the share of the length up to there, and as the
proportion in the decoded mean counts, which are linear in the amounts of RNA. *Rank correlation* is Spearman's over
single mixtures; as many share a proportion, a perfect order has {best:.2f}. All mixtures are used, 70 % of
which the VAE was trained on; it never saw a proportion, which enters only as the name of the pure ends."""
COMPARED = """
Of {count} seeds, the error by length in the mean over the three pairs is below that of the straight line in {line};
below that without a model in {bare}.

Seeds: {count}. {converged} of {curves} curves converged. The distance between two lines varies over the members of an
ensemble by {usual!p:.1f} % in the mean (coefficient of variation), at most by {most!p:.1f} %. Rank correlations of each
pair of lines:
"""

LEARNED = """## Priors learned afterwards

Encoder and decoder are frozen and the prior is fitted to the posteriors of the training cells, which is what the ELBO
asks for: Gaussians by their moments, a mixture of three by expectation maximisation, the heat kernel on the table of
the Fisher-Rao metric with centre and time of the largest likelihood, its density of mass 1 on the box of the table. The
table below has the importance-weighted bound ({draws} draws) of a held-out cell in nats, less that under N(0, I)."""
GAIN = """- {case}, {count} seeds: {gains}. Standard error over the held-out cells of one seed, of the gain over full
covariance: {error:.2f}."""

SOLVED = """*Ten dimensions.* No table holds the metric there. Distances are those of the solver with one knot and
{iterations} iterations: rough, but the same in the density and in its mass, so that the prior is one. That mass, on the
box of the codes, comes from {mass:,} draws of a Student distribution that is adapted to it, with an effective share of
at least {share:.2f} and a standard error of the logarithm of at most {error:.2f} nats. The bound has {draws} draws."""

NUTS = """## The posterior of one held-out cell

NUTS in the chart, {chains} chains of {draws} draws after {warmup} steps, under the heat-kernel prior, on the first
held-out cell of seed 0. As d = 2 the posterior is also known from a sum over a lattice: *difference* is the largest
distance of the two means, and *encoder* that of the encoder's mean, both in posterior standard deviations."""

# `tests/experiments/test_single_cell.py` holds each of these against the files
FINDINGS = """## What holds, and what does not

- In the plane, curves of each metric read the proportions off with a smaller error than the straight line, in every
  seed. The gain is smaller than the spread over seeds: which plane the training found matters more than the metric on
  it.
- Fisher-Rao is no better there than the pullback of the mean counts, nor the ensemble than one decoder: the differences
  are within the spread.
- The counts themselves, on the chord between two pure lines, order the mixtures better than any curve in the plane does
  in the mean. Geometry repairs part of what the plane distorts; it does not replace the data.
- In ten dimensions there is nothing to repair: the straight line orders the mixtures as the counts do, and no curve
  better by more than 0.01. By length, the ensemble's curves alone have a smaller error than the straight line and than
  the chord, in both seeds.
- In the plane, the heat kernel is better than N(0, I) in every run, and worse than each fitted Gaussian, by less than
  1.1 nats. One centre and one time describe no groups of codes, three Gaussians do; kernels with several centres were
  not tried. In ten dimensions it is worse than N(0, I) in every run, and than the mixture by more than 5 nats.
- NUTS agrees with the sum over the lattice. The encoder's mean does not: for a cell that it was not trained on it lies
  more than one posterior standard deviation off."""

PROTOCOL = """
## Protocol and cost

Hidden layers of {layers} units, {epochs} epochs with Adam, the weights of the best epoch by the validation part;
{members} decoders an ensemble, all on the codes of the one encoder, on bootstrap samples. Tables of {resolution} nodes
an axis; the error of a Fisher-Rao table at 90 % of the codes is at most {error!p:.1f} % of the metric. The nearest
point is sought with the distances to {nodes} points of a curve. Genes were chosen on all cells, by the variance of the
logarithm of 1 + scaled counts. {more}

All runs together took {minutes} minutes of one processor core.
"""
WITH_SOLVED = """
With {latent_dim} dimensions there is no table: curves are those of the default solver, the nearest point is sought
among the {window} points of the curve about the one of the nearest image, and there are no chains, of which each step
would solve a geodesic.
"""
WITHOUT = "The program's runs with ten dimensions, which need no table, are not on this page."


def _sections(records: Records) -> Iterator[str]:
    plane = records.where(latent_dim=None)
    solved = Records(record for record in records if record not in plane)
    sizes, more = plane[0]["settings"], solved[0]["settings"] if solved else {}
    yield fill(HEAD, **sizes)
    if mixed := [result for result in plane.results if "mixtures" in result]:
        yield fill(MIXTURES, best=mean(value for result in mixed for value in result["mixtures"]["best_rank"]))
        yield from _mixtures(mixed)
    if mixed := [result for result in solved.results if "mixtures" in result]:
        yield f"### With {more['latent_dim']} dimensions"
        yield from _mixtures(mixed)
    cases = {label: Records(r for r in records if r["name"].startswith(f"{case}-")) for case, label in CASES.items()}
    cases = {label: some for label, some in cases.items() if some}
    yield fill(LEARNED, draws=sizes["importance"])
    yield from _priors(cases)
    if solved:
        yield fill(
            SOLVED,
            iterations=DISTANCES.max_iterations,
            mass=2 * more["mass_draws"],
            share=min(result["mass_share"] for result in solved.results),
            error=max(result["mass_error"] for result in solved.results),
            draws=more["importance"],
        )
    yield fill(NUTS, **sizes)
    yield _nuts(cases)
    yield FINDINGS
    both = ((plane, 2), (solved, more.get("latent_dim")))
    minutes = [f"{some.minutes:.0f} (d = {dim})" for some, dim in both if some]
    yield prose(
        PROTOCOL,
        **sizes,
        layers=" and ".join(map(str, sizes["hidden"])),
        error=max(result["table_error"] for result in plane.results),
        more=prose(WITH_SOLVED, **more, window=WINDOW) if solved else WITHOUT,
        minutes=" and ".join(minutes),
    )


def _mixtures(results: list[Record]) -> Iterator[str]:
    def over(name: str, key: str, pair: int | None = None) -> str:
        """Of one pair of lines, or their mean."""
        values = (result["mixtures"][name][key] for result in results)
        return f"{spread(mean(each) if pair is None else each[pair] for each in values):.2f}"

    def wins(other: Callable[[Record], list[float]]) -> str:
        """Each metric against the straight line or no model, seed by seed."""
        pairs = {
            label: [(mean(result["mixtures"][name]["error"]), mean(other(result))) for result in results]
            for name, label in GEOMETRIES.items()
            if name != "straight"
        }
        return ", ".join(f"{sum(mine < theirs for mine, theirs in some)} ({label})" for label, some in pairs.items())

    keys = {"rank": "rank correlation", "error": "error by length", "decoded_error": "error by decoded counts"}
    rows = [[label, *(over(name, key) for key in keys)] for name, label in GEOMETRIES.items()]
    bare = {key: f"{mean(values):.2f}" for key, values in results[0]["profiles"].items()}
    rows.append(["no model: counts on the chord between pure lines", bare["rank"], "–", bare["error"]])
    yield table(["", *keys.values()], rows)
    flags = [flag for result in results for name in GEOMETRIES for flag in result["mixtures"][name]["converged"]]
    disagreement = [value for result in results for value in result["disagreement"]]
    yield prose(
        COMPARED,
        count=len(results),
        line=wins(lambda result: result["mixtures"]["straight"]["error"]),
        bare=wins(lambda result: result["profiles"]["error"]),
        converged=sum(flags),
        curves=len(flags),
        usual=mean(disagreement),
        most=max(disagreement),
    )
    each = (
        [f"{LINES[a]} to {LINES[b]}", *(over(name, "rank", pair) for name in GEOMETRIES)]
        for pair, (a, b) in enumerate(PAIRS)
    )
    yield table(["", *GEOMETRIES.values()], each)


def _priors(cases: dict[str, Records]) -> Iterator[str]:
    bounds = [[result["iwae"] for result in some.results] for some in cases.values()]
    rows = [["N(0, I)", *("0" for _ in cases)]]
    others = {name: label for name, label in PRIORS.items() if name != "standard"}
    for name, label in others.items():
        rows.append([label, *(f"{spread(bound[name] - bound['standard'] for bound in some):.2f}" for some in bounds)])
    rows.append(["the bound under N(0, I)", *(f"{spread(bound['standard'] for bound in some):.1f}" for some in bounds)])
    rows.append(["seeds", *(str(len(some)) for some in cases.values())])
    yield table(["", *cases], rows)
    yield "What the heat kernel gains, in nats a held-out cell:"
    lines = []
    for case, some in cases.items():
        gains = {label: [result["gain"][name][0] for result in some.results] for name, label in PRIORS.items()}
        del gains[PRIORS["heat_kernel"]]
        texts = [f"{spread(of):.2f} over {name} (positive in {sum(x > 0 for x in of)})" for name, of in gains.items()]
        error = mean(result["gain"]["full"][1] for result in some.results)
        lines.append(prose(GAIN, case=case, count=len(some), gains="; ".join(texts), error=error))
    yield "\n".join(lines)


def _nuts(cases: dict[str, Records]) -> str:
    columns = {
        "": "{case}",
        "largest R-hat": "{r_hat:.3f}",
        "least bulk ESS": "{ess:.0f}",
        "divergences": "{divergences}",
        "difference": "{mean:.2f}",
        "encoder": "{encoder_mean:.2f}",
    }
    rows = []
    for case, some in cases.items():
        if found := [result["nuts"] for result in some.results if "nuts" in result]:
            values = {
                "case": case,
                "r_hat": max(max(one["r_hat"]) for one in found),
                "ess": min(min(one["ess_bulk"]) for one in found),
                "divergences": sum(one["divergences"] for one in found),
            }
            apart = {key: max(_apart(one, key) for one in found) for key in ("mean", "encoder_mean")}
            rows.append(((), values | apart))
    return table_of(columns, rows)


def _apart(one: Record, key: str) -> float:
    """Largest distance of a mean to the lattice's, in posterior standard deviations."""
    parts = zip(one[key], one["lattice_mean"], one["lattice_sd"], strict=True)
    return max(abs(mean - true) / deviation for mean, true, deviation in parts)


report, write_report = page_of(_sections)
