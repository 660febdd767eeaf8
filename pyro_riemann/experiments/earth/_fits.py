"""Places on Earth, fits of mixtures of heat kernels to them, and the grid of these."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann._files import make_folder, write_file
from pyro_riemann.experiments._jobs import find_file
from pyro_riemann.manifolds import Sphere
from pyro_riemann.mixtures import HeatKernelMixture, fit_kernels, fit_mixture

FILES = {"volcano": "volerup.csv", "earthquake": "quakes_all.csv", "flood": "flood.csv", "fire": "fire.csv"}


def load_places(name: str, root: str | Path | None = None, *, distinct: bool = False) -> Tensor:
    """Places of one data set in the stereographic chart of the sphere, north pole at infinity, float64.

    Args:
        name: ``"volcano"``, ``"earthquake"``, ``"flood"`` or ``"fire"``.
        root: folder with the file in it or in its folder ``earth``; default: the environment variable
            ``PYRO_RIEMANN_DATA``. The files are those of the repository ``oxcsml/riemannian-score-sde``, first
            collected by Mathieu & Nickel (2020): latitude and longitude in degrees. Nothing is downloaded.
        distinct: keep one of each set of equal rows, in the order of latitude and longitude.

    Returns:
        Points, ``(n, 2)``.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: if the file is missing; the message says what to do.
    """
    check_one_of("name", name, tuple(FILES))
    source = "the folder data/earth of the repository oxcsml/riemannian-score-sde"
    path = find_file(FILES[name], root, "earth", source)
    degrees = np.array(list(_rows(path)))
    if distinct:
        degrees = np.unique(degrees, axis=0)
    return to_chart(torch.from_numpy(degrees))


def _rows(path: Path) -> list[tuple[float, float]]:
    lines = [line.split(",") for line in path.read_text().splitlines() if line[:1].isdigit() or line[:1] == "-"]
    return [(float(latitude), float(longitude)) for latitude, longitude, *_ in lines]


def to_chart(degrees: Tensor) -> Tensor:
    """Points of the stereographic chart, ``(n, 2)``.

    Args:
        degrees: latitude and longitude, ``(n, 2)``.
    """
    latitude, longitude = degrees.deg2rad().unbind(-1)
    flat = latitude.cos()
    return Sphere(2).from_ambient(torch.stack([flat * longitude.cos(), flat * longitude.sin(), latitude.sin()], -1))


def to_degrees(z: Tensor) -> Tensor:
    """Latitude and longitude in degrees, ``(n, 2)``.

    Args:
        z: points of the chart, ``(n, 2)``.
    """
    x = Sphere(2).to_ambient(z)
    return torch.stack([x[..., 2].clamp(-1, 1).asin(), torch.atan2(x[..., 1], x[..., 0])], -1).rad2deg()


def split(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of training, validation and test part: 80, 10 and 10 % of a random permutation.

    Args:
        count: number of points n.
        seed: of the permutation; the global generator is left alone.

    Returns:
        Integers, each ``(k,)``.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = int(0.8 * count), int(0.9 * count)
    return order[:first], order[first:second], order[second:]


# -------------------------------------------------------------------- fits, chosen on the validation part


SPHERE = Sphere(2)
RESOLUTION = (0.001 * torch.pi / 180) ** 2 / 12  # variance of rounding to a thousandth of a degree, 2.5e-11
TIMES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
MULTIPLES = (0.05, 0.15, 0.5, 1.5)
UNIFORM = 40.0  # a time after which the kernel of the unit sphere is 1 / (4 pi) to all digits
COMPONENTS = (20, 60)
SVI_STEPS, BATCH = 300, 200

Fitted = tuple[HeatKernelMixture, dict[str, float]]  # the law, and what was chosen
Fit = Callable[[Tensor, Tensor, float, int], Fitted]


def negative_log_likelihood(law: HeatKernelMixture, z: Tensor) -> Tensor:
    """Minus log density with respect to the area of the unit sphere at each point, ``(n,)``."""
    with torch.no_grad():
        return 0.5 * SPHERE.logdet(z) - law.log_prob(z)


def best(laws: dict[int, HeatKernelMixture], validation: Tensor) -> tuple[int, HeatKernelMixture]:
    """The law of the smallest negative log likelihood on the validation part, and its setting."""
    setting = min(laws, key=lambda key: float(negative_log_likelihood(laws[key], validation).mean()))
    return setting, laws[setting]


def kernels(train: Tensor, validation: Tensor, smallest: float, seed: int) -> Fitted:
    """Kernels on all training points, weighed on folds of the training part; the validation part is left alone."""
    times = train.new_tensor([smallest, *(time for time in TIMES if time > 2 * smallest)])
    multiples = train.new_tensor(MULTIPLES)
    return fit_kernels(train, SPHERE, times, multiples=multiples, background=UNIFORM, seed=seed), {}


def em(train: Tensor, validation: Tensor, smallest: float, seed: int) -> Fitted:
    """A few kernels by expectation maximisation; their number is chosen."""
    fits = {
        count: fit_mixture(
            train, SPHERE, count, min_time=smallest, background=UNIFORM, num_steps=40, tolerance=1e-3, seed=seed
        )
        for count in COMPONENTS
    }
    count, law = best({count: fit.mixture for count, fit in fits.items()}, validation)
    return law, {"components": count, "steps": len(fits[count].log_likelihood) - 1}


def model(batch: Tensor, size: int, start: HeatKernelMixture, smallest: float) -> None:
    """Kernels with learned centres, times and weights; the data in batches of ``size`` points in all."""
    count = len(start.loc)
    # a step of the centre in units of the first standard deviation, so that one step size serves all kernels
    unit = (start.time / SPHERE.metric(start.loc)[:, :1, 0]).sqrt()
    shift = pyro.param("shift", torch.zeros_like(start.loc))
    time = pyro.param("time", start.time.clamp(min=2 * smallest), constraint=dist.constraints.greater_than(smallest))
    weights = pyro.param("weights", start.loc.new_full((count,), 1 / count), constraint=dist.constraints.simplex)
    law = HeatKernelMixture(SPHERE.expmap(start.loc, unit * shift), time, weights.log()[:, None], SPHERE)
    with pyro.plate("data", size, subsample_size=len(batch)):
        pyro.sample("place", law, obs=batch)


def svi(train: Tensor, validation: Tensor, smallest: float, seed: int) -> Fitted:
    """The same kernels by Pyro's SVI with an empty guide: stochastic maximum likelihood, adaptive times."""
    start = fit_mixture(train, SPHERE, COMPONENTS[-1], min_time=smallest, num_steps=0, seed=seed).mixture
    generator = torch.Generator().manual_seed(seed)
    with pyro.get_param_store().scope():
        optimiser = ClippedAdam({"lr": 0.1, "lrd": 0.05 ** (1 / SVI_STEPS)})
        inference = SVI(model, lambda *_: None, optimiser, Trace_ELBO())
        for _ in range(SVI_STEPS):
            batch = train[torch.randint(len(train), (min(BATCH, len(train)),), generator=generator)]
            inference.step(batch, len(train), start, smallest)
        traced = pyro.poutine.trace(model).get_trace(train[:1], len(train), start, smallest)
    law: Any = traced.nodes["place"]["fn"]
    # the uniform law is not learned: it takes a hundredth of the mass, as insurance
    loc = torch.cat([law.loc, train[:1]]).detach()
    time = torch.cat([law.time, law.time.new_full((1, 1), UNIFORM)]).detach()
    logits = torch.cat([law.log_weights + math.log(0.99), law.time.new_full((1, 1), math.log(0.01))]).detach()
    return HeatKernelMixture(loc, time, logits, SPHERE), {"components": COMPONENTS[-1], "steps": SVI_STEPS}


METHODS: dict[str, Fit] = {"kernels": kernels, "em": em, "svi": svi}

# -------------------------------------------------------------------- the grid

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
    for name, variant, method in GRID if grid is None else grid:
        path = results / f"{name}-{variant}-{method}.json"
        if path.exists():
            continue
        distinct, smallest = VARIANTS[variant]
        z = load_places(name, root, distinct=distinct)
        splits = [one_split(z, method, smallest, seed) for seed in SEEDS]
        record = {"points": len(z), "smallest_time": smallest, "splits": splits}
        make_folder(results)
        write_file(path, json.dumps(record, indent=1) + "\n")


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
