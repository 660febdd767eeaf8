"""The main job: train an R-VAE and a plain VAE, sample a latent posterior, judge everything, draw it.

Everything is written to one folder; an interrupted run resumes from the checkpoints there.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann._estimate import Estimate
from pyro_riemann.datasets import ImageData, load_dataset
from pyro_riemann.diagnostics import Summary, summary, to_arviz
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.experiments import _figures
from pyro_riemann.experiments._centred import density_mass, tabulated_prior
from pyro_riemann.experiments._chains import LatentPosterior, frozen, run_chains
from pyro_riemann.experiments._seed import seeded
from pyro_riemann.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import (
    VAE,
    HeatKernelPrior,
    TrainingConfig,
    elbo_terms,
    encode_all,
    importance_log_likelihood,
    make_vae,
    train,
)

MODELS = {"rvae": ("heat_kernel", "wrapped_normal"), "vae": ("normal", "normal")}  # prior and posterior
PACKAGES = ("torch", "pyro-ppl", "arviz", "numpy", "scikit-learn", "matplotlib")


@dataclasses.dataclass(frozen=True)
class QuickstartConfig:
    """Settings of :func:`run`; the defaults are those for digits, :func:`configure` knows the other data sets'.

    Attributes:
        dataset: ``"digits"``, ``"mnist"`` or ``"fashion-mnist"``.
        data: folder of the real data sets.
        output: folder for figures, checkpoints and ``result.json``.
        warm_up_epochs: epochs of phase 1, for each model.
        epochs: epochs of phase 2, for each model.
        batch_size: images a step.
        hidden: width of the two hidden layers of encoder and decoder.
        num_centers: basis functions of the precision network.
        min_scale: least standard deviation of a pixel.
        flow_steps: Runge-Kutta steps of a posterior draw in training; too few, and draws fly off steep walls.
        resolution: nodes an axis of the tabulated metric, and of the prior's distance field.
        image: index of the held-out image whose latent posterior is sampled.
        chains: number of NUTS chains.
        warmup: adaptation steps of each.
        draws: draws kept of each.
        bound_draws: draws an image of the test ELBO.
        iwae_draws: draws an image of the importance-weighted likelihood.
        iwae_images: that many test images (the first ones) for it; None: all.
        limit: use only so many training images, for a trial.
        seed: seed of everything.
        device: where to train and evaluate.
        resume: continue from the checkpoints in ``output``.
        quiet: print nothing but errors.
    """

    dataset: str = "digits"
    data: Path | None = None
    output: Path = Path("runs/quickstart-digits")
    warm_up_epochs: int = 100
    epochs: int = 5
    batch_size: int = 250
    hidden: int = 128
    num_centers: int = 100
    min_scale: float = 0.05
    flow_steps: int = 16
    resolution: int = 200
    image: int = 0
    chains: int = 4
    warmup: int = 250
    draws: int = 750
    bound_draws: int = 20
    iwae_draws: int = 500
    iwae_images: int | None = None
    limit: int | None = None
    seed: int = 0
    device: str = "cpu"
    resume: bool = True
    quiet: bool = False


_LARGE: dict[str, Any] = {
    "warm_up_epochs": 12,
    "epochs": 2,
    "flow_steps": 4,
    "batch_size": 500,
    "hidden": 300,
    "num_centers": 350,
    "min_scale": 0.1,
    "bound_draws": 5,
    "iwae_images": 500,
}
PRESETS: dict[str, dict[str, Any]] = {"digits": {}, "mnist": _LARGE, "fashion-mnist": _LARGE}


def configure(dataset: str = "digits", **settings: Any) -> QuickstartConfig:
    """The settings for a data set, with those given (and not None) in place of its own.

    Example:
        >>> configure("mnist", epochs=1, seed=None).epochs, configure("mnist").num_centers
        (1, 350)
    """
    check_one_of("dataset", dataset, tuple(PRESETS))
    given = {key: value for key, value in settings.items() if value is not None}
    own = {"dataset": dataset, "output": Path("runs") / f"quickstart-{dataset}", **PRESETS[dataset]}
    return QuickstartConfig(**{**own, **given})


def run(config: QuickstartConfig) -> dict[str, Any]:
    """Run the whole job and return what it wrote to ``result.json``.

    Raises:
        ValueError: for settings that make no sense, or checkpoints of another configuration.
        FileNotFoundError: if the data are not there.
    """
    console = Console(quiet=config.quiet, highlight=False)
    clock = Clock(console)
    with clock("data"):
        data = _load(config)
    config.output.mkdir(parents=True, exist_ok=True)
    console.print(
        f"{config.dataset}: {len(data.train)} training and {len(data.test)} test images; output: {config.output}"
    )
    with clock("training of the R-VAE"):
        rvae, rvae_seconds = _train(config, data, "rvae")
    with clock("training of the plain VAE"):
        plain, plain_seconds = _train(config, data, "vae")
    result: dict[str, Any] = {
        "dataset": {
            "name": config.dataset,
            "train": len(data.train),
            "test": len(data.test),
            "image_shape": list(data.shape),
        },
        "epochs": {"warm_up": config.warm_up_epochs, "phase_two": config.epochs},
        "settings": _jsonable(dataclasses.asdict(config)),
    }
    with clock("tables"):
        grid = _grid(rvae)
        loc, prior_time = _centre(rvae)
        prior = tabulated_prior(grid, loc, prior_time, config.resolution)
        mass = _mass(grid, prior, config.resolution)
        result["prior"] = _prior_report(prior, grid, mass)
    with clock("test bounds"):
        result["rvae"] = _bounds(rvae, prior, data, config)
        result["vae"] = _bounds(plain, plain.prior_distribution(), data, config)
        log_mass = mass.value.log().item()
        bound = result["rvae"]["elbo"]
        result["rvae"]["elbo_normalised"] = bound - log_mass
        result["rvae"]["iwae"]["value_normalised"] = result["rvae"]["iwae"]["value"] - log_mass
        result["prior"] |= {"elbo_without_normaliser": bound, "elbo_with_normaliser": bound - log_mass}
    with clock("geodesics"):
        codes = encode_all(rvae, data.test)
        curves, shown, result["geodesics"] = _geodesics(grid, codes, data.test_labels, loc, config.seed)
    with clock("chains"):
        chains, table = _chains(rvae, prior, data, grid, config, console)
        result["chains"] = _chain_report(table, config)
    with clock("figures"):
        _draw(config, data, rvae, plain, grid, codes, curves, shown, chains)
    result["training_seconds"] = {"rvae": round(rvae_seconds, 2), "vae": round(plain_seconds, 2)}
    result["timings_seconds"] = {name: round(seconds, 2) for name, seconds in clock.wall.items()}
    result["timings_cpu_seconds"] = {name: round(seconds, 2) for name, seconds in clock.cpu.items()}
    result["versions"] = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    (config.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    _print(console, result, table, config)
    return result


# -------------------------------------------------------------------- the steps


def _load(config: QuickstartConfig) -> ImageData:
    data = load_dataset(config.dataset, config.data)
    if config.limit is not None:
        data = data._replace(train=data.train[: config.limit], train_labels=data.train_labels[: config.limit])
    if not 0 <= config.image < len(data.test):
        raise ValueError(f"`image` must lie in 0 ... {len(data.test) - 1}, the test images, got {config.image}.")
    train_images, train_labels, test, test_labels = (part.to(config.device) for part in data[:4])
    return ImageData(train_images, train_labels, test, test_labels, data.shape)


def make_model(config: QuickstartConfig, data_dim: int, name: str) -> VAE:
    """One of the two :data:`MODELS` before its training; also what a checkpoint of it is loaded into."""
    prior, posterior = MODELS[name]
    return make_vae(
        data_dim,
        latent_dim=2,
        prior=prior,
        posterior=posterior,
        metric="grid",
        hidden=(config.hidden, config.hidden),
        num_centers=config.num_centers,
        min_scale=config.min_scale,
        seed=config.seed,
        grid_resolution=config.resolution,
        flow_steps=config.flow_steps,
        name=name,
    )


def _train(config: QuickstartConfig, data: ImageData, name: str) -> tuple[VAE, float]:
    """The trained model, and the wall time of all its epochs: also of those before an interruption."""
    vae = make_model(config, data.train.shape[1], name)
    settings = TrainingConfig(
        warm_up_epochs=config.warm_up_epochs,
        epochs=config.epochs,
        batch_size=config.batch_size,
        phase_two=("posterior", "precision", "prior"),
        seed=config.seed,
    )
    history = train(
        vae,
        data.train,
        data.test if len(data.test) <= 1000 else None,
        settings,
        device=config.device,
        checkpoint=config.output / "checkpoints" / name,
        resume=config.resume,
        progress=not config.quiet,
    )
    vae.metric.flow_steps = 16  # judged more exactly than trained
    frozen(vae)
    return vae, sum(history["seconds"])


def _grid(vae: VAE) -> GridMetric:
    grid = vae.metric
    if not isinstance(grid, GridMetric):
        raise TypeError(f"the VAE's metric must be tabulated, got {type(grid).__name__}.")
    return grid


def _centre(vae: VAE) -> tuple[Tensor, Tensor]:
    """Learned centre ``(d,)`` and time of the R-VAE's prior."""
    prior = vae.prior
    if not isinstance(prior, HeatKernelPrior):
        raise TypeError(f"the R-VAE's prior must be a heat kernel, got {type(prior).__name__}.")
    return prior.loc.detach(), prior.time.detach()


def _decode(vae: VAE) -> Callable[[Tensor], Tensor]:
    mean: Any = vae.decoder.mean
    return mean


def _mass(grid: GridMetric, prior: RiemannianHeatKernel, resolution: int) -> Estimate:
    """Mass of the prior's density on the box; behind walls the distances settle last, so that they tell the error."""
    value, cells = density_mass(prior, grid.table.low, grid.table.high)
    coarse = tabulated_prior(grid, prior.loc, prior.time, 3 * resolution // 4)
    distances = (value - density_mass(coarse, grid.table.low, grid.table.high).value).abs()
    return Estimate(value, torch.maximum(cells, distances))


def _prior_report(prior: RiemannianHeatKernel, grid: GridMetric, mass: Any) -> dict[str, Any]:
    field: Any = prior.metric.field
    return {
        "loc": prior.loc.tolist(),
        "time": prior.time.item(),
        "mass": mass.value.item(),
        "mass_error": mass.standard_error.item(),
        "mass_method": "midpoint rule on the box of the table, 400 x 400 cells; error: the larger of the "
        "differences to 200 x 200 cells and to distances from 3/4 of the nodes an axis",
        "density": "short-time heat kernel, distances from a distance field on the table",
        "distance_field_eikonal_error": float(field.eikonal_error),
        "metric_table_mean_relative_error": grid.mean_interpolation_error.item(),
    }


def _bounds(vae: VAE, prior: Any, data: ImageData, config: QuickstartConfig) -> dict[str, Any]:
    """Means over the test images in nats; reconstruction and KL come from the same draws and add up exactly."""
    terms = elbo_terms(vae, data.test, config.bound_draws, prior=prior, seed=config.seed, chunk_size=20_000)
    reconstruction, kl = terms.reconstruction.double(), terms.kl.double()
    some = data.test[: config.iwae_images]
    weighted = importance_log_likelihood(vae, some, config.iwae_draws, prior=prior, seed=config.seed).double()
    return {
        "reconstruction": reconstruction.mean().item(),
        "kl": kl.mean().item(),
        "elbo": reconstruction.mean().item() - kl.mean().item(),
        "reconstruction_standard_error": _standard_error(reconstruction),
        "kl_standard_error": _standard_error(kl),
        "elbo_standard_error": _standard_error(reconstruction - kl),
        "draws": config.bound_draws,
        "images": len(data.test),
        "iwae": {
            "value": weighted.mean().item(),
            "standard_error": _standard_error(weighted),
            "draws": config.iwae_draws,
            "images": len(some),
        },
    }


def _standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)


def _geodesics(
    grid: GridMetric, codes: Tensor, labels: Tensor, loc: Tensor, seed: int, count: int = 200
) -> tuple[Geodesic, Geodesic, dict[str, Any]]:
    """Geodesics between random test codes of different classes, and those of the prior's centre to codes."""
    with seeded(seed, codes.device):
        first, second = torch.randint(len(codes), (2, 2 * count))
    apart = (labels[first] != labels[second]).nonzero()[:count, 0].cpu()
    first, second = first[apart], second[apart]
    with torch.no_grad():
        grid.solver = GeodesicSolver(num_knots=16, num_segments=64, max_iterations=100)
        curves = grid.geodesic(codes[first], codes[second])
        rays = grid.geodesic(loc.expand_as(codes[:count]), codes[:count])
        detour = straight_length(grid, codes[first], codes[second]) / curves.length
        best = int(torch.where(curves.converged, detour, 0).argmax())
        few = torch.cat([torch.tensor([best]), torch.arange(len(first))[:9]]).unique()
        drawn = grid.geodesic(codes[first[few]], codes[second[few]])
        shown = grid.geodesic(codes[first[best]], codes[second[best]])
    report = {
        "converged_share": curves.converged.double().mean().item(),
        "converged_share_from_prior": rays.converged.double().mean().item(),
        "pairs": len(first),
        "median_straight_over_geodesic": detour.median().item(),
        "shown_straight_over_geodesic": detour[best].item(),
    }
    return drawn, shown, report


def straight_length(metric: RiemannianMetric, z: Tensor, y: Tensor, segments: int = 400) -> Tensor:
    """Riemannian length of the straight line, by the midpoint rule, ``(*batch)``."""
    times = (torch.arange(segments, dtype=z.dtype, device=z.device) + 0.5) / segments
    points = z + times.reshape(-1, *(1,) * z.dim()) * (y - z)
    return metric.norm(points, (y - z).expand_as(points)).mean(0)


def _chains(
    vae: VAE, prior: Any, data: ImageData, grid: GridMetric, config: QuickstartConfig, console: Console
) -> tuple[Any, Summary]:
    image = data.test[config.image]
    with seeded(config.seed, image.device), torch.no_grad():
        starts = vae.posterior(image).sample((config.chains,))
    model = LatentPosterior(vae.decoder, prior, image)
    with console.status("NUTS") as status:
        runs = run_chains(
            model,
            starts,
            warmup=config.warmup,
            draws=config.draws,
            seed=config.seed,
            finished=lambda chain: status.update(f"NUTS: chain {chain + 1} of {config.chains} done"),
        )
    chains = to_arviz(runs)
    return chains, summary(chains, grid, loc=_centre(vae)[0])


def _chain_report(table: Summary, config: QuickstartConfig) -> dict[str, Any]:
    return {
        "image": config.image,
        "chains": config.chains,
        "warmup": config.warmup,
        "draws": config.draws,
        "max_r_hat": float(table["r_hat"].max()),
        "min_ess_bulk": float(table["ess_bulk"].min()),
        "min_ess_tail": float(table["ess_tail"].min()),
        "divergences": table.divergences,
        "converged_share": table.converged_share,
        "passed": table.passed(),
        "table": table.to_dict(orient="index"),
    }


def _draw(
    config: QuickstartConfig,
    data: ImageData,
    rvae: VAE,
    plain: VAE,
    grid: GridMetric,
    codes: Tensor,
    curves: Geodesic,
    shown: Geodesic,
    chains: Any,
) -> None:
    low, high = codes.amin(0), codes.amax(0)
    box = torch.stack([low - 0.12 * (high - low), high + 0.12 * (high - low)]).cpu()
    loc, prior_time = _centre(rvae)
    drawings: dict[str, Callable[[], Any]] = {
        "latent_space": lambda: _figures.latent_space(grid, codes, data.test_labels, loc, box),
        "geodesics": lambda: _figures.geodesics(grid, curves, shown, _decode(rvae), data.shape, box),
        "brownian_paths": lambda: _figures.brownian(grid, loc, prior_time, box),
        "samples": lambda: _figures.samples(_samples(rvae, plain, data), data.shape),
        "chains": lambda: _figures.chains(chains),
    }
    with seeded(config.seed, codes.device):
        for name, draw in drawings.items():
            _figures.save(draw(), config.output / f"{name}.png")


@torch.no_grad()
def _samples(rvae: VAE, plain: VAE, data: ImageData, count: int = 100) -> dict[str, Tensor]:
    """Decoded means of prior draws; the heat kernel's draws are Brownian motion."""
    return {
        "test images": data.test[:count],
        "R-VAE: decoded Brownian motion": _decode(rvae)(rvae.prior_distribution().sample((count,))),
        "plain VAE": _decode(plain)(plain.prior_distribution().sample((count,))),
    }


# -------------------------------------------------------------------- reporting


class Clock:
    """Wall and processor time of the named steps."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name], self.cpu[name] = time.perf_counter() - wall, time.process_time() - cpu
        self.console.print(f"{name}: {self.wall[name]:.1f} s")


def _print(console: Console, result: dict[str, Any], chains: Summary, config: QuickstartConfig) -> None:
    table = Table(title="test set, nats per image", title_justify="left")
    for column in ("model", "reconstruction", "KL", "ELBO", f"IWAE-{config.iwae_draws}"):
        table.add_column(column, justify="left" if column == "model" else "right")
    shift = result["prior"]["elbo_with_normaliser"] - result["prior"]["elbo_without_normaliser"]
    for name, key, extra in (("R-VAE", "rvae", 0.0), ("R-VAE, prior normalised", "rvae", shift), ("VAE", "vae", 0.0)):
        row = result[key]
        values = (row["reconstruction"], row["kl"] - extra, row["elbo"] + extra, row["iwae"]["value"] + extra)
        table.add_row(name, *(f"{value:.2f}" for value in values))
    console.print(table)
    prior, curves = result["prior"], result["geodesics"]
    console.print(f"prior: time {prior['time']:.4g}, mass {prior['mass']:.4f} +- {prior['mass_error']:.1e}")
    console.print(f"geodesics: {curves['converged_share']:.1%} of {curves['pairs']} pairs of test codes converged")
    console.print(f"\nNUTS on the latent posterior of test image {config.image}")
    console.print(str(chains), soft_wrap=True)
    verdict = "passed" if chains.passed() else "NOT passed"
    console.print(f"R-hat <= 1.01, bulk ESS >= 400, no divergence: {verdict}")
    console.print(
        f"\nfigures and result.json: {config.output}  ({sum(result['timings_seconds'].values()):.0f} s in all)"
    )


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
