"""Random instances of everything that states an error, with the exact value by another route."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_riemann import (
    EuclideanMetric,
    KernelMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    VampPrior,
    WarpedMetric,
)
from pyro_riemann.distributions import monte_carlo_kl
from pyro_riemann.manifolds import HalfSpace, Hyperboloid
from pyro_riemann.sampling import sample_uniform
from tests import known_integrals as known
from tests.chart_sums import log_chart_integral
from tests.charts import shear, unshear

F64 = torch.float64
DIMS = (2, 3, 8, 16)
Random = np.random.Generator


class Space(NamedTuple):
    """A metric, a point of it, and the log integral of a radial function about that point, of t and p."""

    name: str
    metric: RiemannianMetric
    loc: Tensor
    log_integral: Callable[[float, float], float]
    scalar_curvature: float
    dims: tuple[int, ...] = ()
    curvatures: tuple[float, ...] = ()


def _between(random: Random, low: float, high: float) -> float:
    return float(math.exp(random.uniform(math.log(low), math.log(high))))


def _form(random: Random, dim: int, dear: bool) -> tuple[str, RiemannianMetric, int]:
    """A space of constant curvature 1, -1 or 0 in one of its charts."""
    kinds: list[tuple[str, RiemannianMetric, int]] = [("H", Hyperboloid(dim), -1)]
    if dim > 1:  # the chart of a circle leaves out a point, and with it the other way round
        kinds.append(("S", Sphere(dim), 1))
    if not dear:
        kinds.append(("R", WarpedMetric(EuclideanMetric(dim), (shear, unshear)), 0))
    if dim > 1 and not dear:
        kinds.append(("H half", HalfSpace(dim), -1))
    return kinds[random.integers(len(kinds))]


def space(random: Random, dim: int, kind: str) -> Space:
    """A space form, a product of two in turned coordinates, or a kernel metric about its one centroid."""
    if kind == "kernel":
        p, rho, floor = _between(random, 0.5, 4), _between(random, 0.7, 1.5) * math.sqrt(dim), _between(random, 0.1, 1)
        loc = torch.as_tensor(random.normal(size=dim))
        metric = KernelMetric(loc.unsqueeze(0), torch.full((1, dim), p, dtype=F64), rho, floor)
        return Space(
            f"kernel{dim}", metric, loc, lambda t, q: known.kernel_about_centroid(dim, p, rho, floor, t, q), math.nan
        )
    first = dim if kind == "form" else 1 + int(random.integers(dim - 1))
    dims = (first,) if first == dim else (first, dim - first)
    names, parts, curvatures = zip(*(_form(random, d, dim > 3) for d in dims), strict=True)
    factors = [_between(random, 0.5, 3) for _ in dims]
    curvatures = tuple(k / f for k, f in zip(curvatures, factors, strict=True))
    turn = torch.as_tensor(np.linalg.qr(random.normal(size=(dim, dim)))[0])
    loc = torch.as_tensor(random.uniform(-0.8, 0.8, size=dim) / math.sqrt(dim)) @ turn

    def log_integral(t: float, q: float) -> float:
        return sum(known.space_form(d, k, t, q) for d, k in zip(dims, curvatures, strict=True))

    name = " x ".join(f"{name}{d}" for name, d in zip(names, dims, strict=True))
    curvature = sum(k * d * (d - 1) for d, k in zip(dims, curvatures, strict=True))
    return Space(name, known.Product(parts, factors, turn), loc, log_integral, curvature, dims, curvatures)


class Instance(NamedTuple):
    """What states an error, an exact value, and how to get the estimate."""

    routine: str
    name: str
    exact: float
    estimate: Callable[[], Any]


class Found(NamedTuple):
    """An estimate, its stated error, and whether a warning was given."""

    value: float
    error: float
    warned: bool


def measured(instance: Instance) -> Found:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value, error = instance.estimate()
    return Found(float(value), float(error), any(issubclass(w.category, UserWarning) for w in caught))


# ---------------------------------------------------------------- radial functions about a point


def normal(random: Random, dim: int, kind: str) -> Instance:
    place, scale = space(random, dim, kind), _between(random, 0.2, 1.2)
    law = RiemannianNormal(place.loc, scale, place.metric)
    return Instance("normal", place.name, place.log_integral(scale**2, 1.0), law.log_normalizer)


def heat_kernel(random: Random, dim: int, kind: str) -> Instance:
    place, time = space(random, dim, kind), _between(random, 0.05, 0.6)
    known_curvature = dim < 4 and kind != "kernel"
    corrections = ("none", "van_vleck", "van_vleck_curvature")[: 3 if known_curvature else 2]
    correction = corrections[random.integers(len(corrections))]
    exact = place.log_integral(time, 1.0 if correction == "none" else 0.5) - 0.5 * dim * math.log(2 * math.pi * time)
    if correction == "van_vleck_curvature":
        exact += time * place.scalar_curvature / 12
    law = RiemannianHeatKernel(place.loc, time, place.metric, correction)
    return Instance("heat kernel", f"{place.name} {correction}", exact, law.log_normalizer)


def vamp_prior(random: Random, dim: int, kind: str) -> Instance:
    """Of heat kernels about points of a homogeneous space."""
    place, time = space(random, dim, kind), _between(random, 0.05, 0.6)
    loc = torch.as_tensor(random.uniform(-0.5, 0.5, size=(3, dim)))
    law = VampPrior(RiemannianHeatKernel(loc, time, place.metric), torch.as_tensor(random.normal(size=3)))
    exact = place.log_integral(time, 1.0) - 0.5 * dim * math.log(2 * math.pi * time)
    return Instance("vamp prior", place.name, exact, law.log_normalizer)


def chart_integral(random: Random, dim: int, kind: str) -> Instance:
    """What a normalising constant is in the plane where rays do not settle."""
    place, time = space(random, dim, kind), torch.tensor(_between(random, 0.05, 0.5), dtype=F64)
    exact = place.log_integral(float(time), 1.0) - 0.5 * dim * math.log(2 * math.pi * float(time))
    return Instance("chart integral", place.name, exact, lambda: log_chart_integral(place.metric, place.loc, time))


def folded_mass(random: Random, dim: int, kind: str) -> Instance:
    """A tangent Gaussian past the first antipode of a product of spheres."""
    dims = (dim,) if kind == "form" or dim < 4 else (dim // 2, dim - dim // 2)
    factors = [_between(random, 0.5, 2) for _ in dims]
    turn = torch.as_tensor(np.linalg.qr(random.normal(size=(dim, dim)))[0])
    metric = known.Product([Sphere(d) for d in dims], factors, turn)
    loc = torch.as_tensor(random.uniform(-0.5, 0.5, size=dim) / math.sqrt(dim))
    time = _between(random, 0.8, 5) / dim
    exact = known.past_cut_locus(dims, [1 / f for f in factors], time)
    law = RiemannianWrappedNormal(loc, torch.tensor(time, dtype=F64), metric)
    return Instance("folded mass", f"{kind}{dim}", exact, law.folded_mass)


def divergence(random: Random, dim: int, kind: str) -> Instance:
    """Two normals about one point of hyperbolic space; the mean square radius is a slope of log C."""
    metric, loc = Hyperboloid(dim), torch.as_tensor(random.normal(size=dim))
    one, other = (_between(random, 0.2, 1.0) for _ in range(2))

    def log_c(rate: float) -> float:
        return known.space_form(dim, -1.0, 1 / rate)

    rate, step = one**-2, 1e-4 * one**-2
    square = -(log_c(rate + step) - log_c(rate - step)) / step
    exact = log_c(other**-2) - log_c(rate) + 0.5 * square * (other**-2 - rate)
    p, q = (RiemannianNormal(loc, scale, metric) for scale in (one, other))
    seed = int(random.integers(2**31))

    def estimate() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return monte_carlo_kl(p, q)

    return Instance("monte_carlo_kl", f"H{dim}", exact, estimate)


# ---------------------------------------------------------------- volumes


class Box(NamedTuple):
    """A metric, a box, and its log volume."""

    name: str
    metric: RiemannianMetric
    low: Tensor
    high: Tensor
    exact: float


def _plainly(metric: RiemannianMetric) -> RiemannianMetric:
    """The tensor of a metric and nothing else."""
    return known.Product([metric], [1.0], torch.eye(metric.dim, dtype=F64))


def box(random: Random, dim: int, kind: str) -> Box:
    """A space form in a box of its chart, kernels that overlap, or elliptic bumps far apart."""
    if kind == "form":
        low, high = -random.uniform(0.3, 1.5, size=dim), random.uniform(0.3, 1.5, size=dim)
        chart = random.integers(3)
        metric: RiemannianMetric
        if chart == 0:
            name, metric, exact = "S", Sphere(dim), dim * math.log(2) + known.rational_volume(dim, dim, low, high)
        elif chart == 1:
            name, metric, exact = "H", Hyperboloid(dim), known.rational_volume(dim, 0.5, low, high)
        else:
            rate = dim - 1
            rise = (math.exp(-rate * low[-1]) - math.exp(-rate * high[-1])) / rate
            name, metric, exact = "H half", HalfSpace(dim), float(np.log(high - low)[:-1].sum()) + math.log(rise)
        return Box(f"{name}{dim}", _plainly(metric), torch.as_tensor(low), torch.as_tensor(high), exact)
    if kind == "overlap":
        count, rho = 3, _between(random, 1.0, 2.0) * math.sqrt(dim / 2)
        places, floor = random.normal(size=(count, dim)), _between(random, 1e-3, 0.1)
        precision = np.exp(random.uniform(-1, 1, size=count))
        reach = 4 * rho / math.sqrt(dim * precision.min())
        low, high = places.min(0) - reach, places.max(0) + reach
        exact = known.round_bumps(places, precision, rho, floor, low, high)
        matrices = torch.as_tensor(precision)[:, None].expand(count, dim).contiguous()
        metric = KernelMetric(torch.as_tensor(places), matrices, rho, floor)
        return Box(f"overlap{dim}", metric, torch.as_tensor(low), torch.as_tensor(high), exact)
    count, rho = 1 + int(random.integers(4)), _between(random, 0.7, 1.5)
    values = np.exp(random.uniform(-0.7, 0.7, size=(count, dim)))
    apart = 14 * rho / math.sqrt(values.min())
    places = random.uniform(-1, 1, size=(count, dim)) * rho
    places[:, 0] += apart * np.arange(count)
    low, high = places.min(0) - apart / 2, places.max(0) + apart / 2
    log_box, share = float(np.log(high - low).sum()), _between(random, 0.01, 3)
    floor = math.exp(math.log(2 * math.pi * rho**2 / dim) - 2 / dim * (log_box - math.log(share * count)))
    turns = [np.linalg.qr(random.normal(size=(dim, dim)))[0] for _ in range(count)]
    matrices = torch.as_tensor(np.stack([q @ np.diag(v) @ q.T for q, v in zip(turns, values, strict=True)]))
    metric = KernelMetric(torch.as_tensor(places), matrices, rho, floor)
    known_to_it = kind == "bumps"
    exact = known.isolated_bumps(values, rho, floor, log_box)
    return Box(
        f"{kind}{dim}", metric if known_to_it else _plainly(metric), torch.as_tensor(low), torch.as_tensor(high), exact
    )


def uniform(random: Random, dim: int, kind: str) -> Instance:
    case = box(random, dim, kind)
    return Instance("uniform", case.name, case.exact, RiemannianUniform(case.metric, case.low, case.high).log_volume)


def sampler(random: Random, dim: int, kind: str) -> Instance:
    case, seed = box(random, dim, kind), int(random.integers(2**31))
    methods = ("auto", "metropolis", "importance", "tempered") + (("table",) if dim == 2 else ())
    method = methods[random.integers(len(methods))]
    return Instance(
        "sample_uniform",
        f"{case.name} {method}",
        case.exact,
        lambda: sample_uniform(case.metric, 400, case.low, case.high, method, seed).log_volume,
    )


# ---------------------------------------------------------------- the whole

Make = Callable[[Random, int, str], Instance]
PLAN: tuple[tuple[Make, int, str, int], ...] = (
    *((normal, dim, "form", count) for dim, count in ((2, 6), (3, 6), (8, 4), (16, 1))),
    *((normal, dim, "product", count) for dim, count in ((3, 14), (8, 5))),
    *((normal, dim, "kernel", count) for dim, count in ((2, 6), (3, 6), (8, 4), (16, 5))),
    *((heat_kernel, dim, "form", count) for dim, count in ((2, 4), (3, 4), (8, 1))),
    *((heat_kernel, dim, "product", count) for dim, count in ((3, 14), (8, 4))),
    *((heat_kernel, dim, "kernel", count) for dim, count in ((2, 4), (3, 4), (8, 1), (16, 1))),
    *((vamp_prior, dim, "form", 2) for dim in (2, 3)),
    *((vamp_prior, dim, "product", count) for dim, count in ((3, 4), (8, 1))),
    *((chart_integral, 2, kind, 3) for kind in ("form", "kernel")),
    *((folded_mass, dim, "form", 4) for dim in (2, 3, 8)),
    *((folded_mass, 8, "product", 4),),
    *((divergence, dim, "form", 5) for dim in DIMS),
    *((uniform, dim, "form", count) for dim, count in ((2, 5), (3, 5), (8, 4), (16, 2))),
    *((uniform, dim, "overlap", count) for dim, count in ((2, 4), (8, 4), (16, 2))),
    *((uniform, dim, "bumps", count) for dim, count in ((2, 3), (3, 4), (8, 4), (16, 2))),
    *((uniform, dim, "hidden bumps", count) for dim, count in ((2, 3), (3, 3))),
    *((sampler, dim, "overlap", count) for dim, count in ((2, 5), (8, 4))),
    *((sampler, dim, "bumps", count) for dim, count in ((2, 4), (3, 4), (8, 3))),
)


QUICK: tuple[tuple[Make, int, str], ...] = (
    *((normal, dim, kind) for dim, kind in ((3, "product"), (2, "kernel"), (8, "kernel"))),
    (heat_kernel, 3, "form"),
    (vamp_prior, 3, "form"),
    (folded_mass, 3, "form"),
    *((divergence, dim, "form") for dim in (2, 16)),
    *((uniform, dim, kind) for dim, kind in ((2, "bumps"), (3, "form"), (8, "bumps"))),
    *((sampler, dim, kind) for dim, kind in ((3, "bumps"), (8, "overlap"))),
)


def instance(make: Make, dim: int, kind: str, turn: int) -> Instance:
    """The same at every call."""
    return make(np.random.default_rng([len(make.__name__), dim, len(kind), turn]), dim, kind)


def instances() -> Iterator[Instance]:
    """All that are planned, one after the other."""
    return (instance(make, dim, kind, turn) for make, dim, kind, count in PLAN for turn in range(count))
