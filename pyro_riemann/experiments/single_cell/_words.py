"""The paragraphs of the page of results; the numbers in them are filled in from the saved files."""

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

PRIORS = """## Priors learned afterwards

Encoder and decoder are frozen and the prior is fitted to the posteriors of the training cells, which is what the ELBO
asks for: Gaussians by their moments, a mixture of three by expectation maximisation, the heat kernel on the table of
the Fisher-Rao metric with centre and time of the largest likelihood, its density of mass 1 on the box of the table. The
table below has the importance-weighted bound ({draws} draws) of a held-out cell in nats, less that under N(0, I)."""

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
