"""The quickstart from the data to ``result.json``, and what it measures on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._estimate import Estimate
from pyro_riemann._files import Kind, locked
from pyro_riemann._seed import seeded
from pyro_riemann._store import write_record
from pyro_riemann.datasets import ImageData
from pyro_riemann.diagnostics import Summary, summary, to_arviz
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.experiments._jobs import versions
from pyro_riemann.experiments._latent import (
    FINE,
    LatentPosterior,
    fitted_prior,
    pairs,
    run_chains,
    straight_length,
    tabulated_prior,
)
from pyro_riemann.experiments.quickstart._models import (
    QuickstartConfig,
    centre_of,
    decode,
    grid_of,
    load_images,
    train_model,
)
from pyro_riemann.experiments.quickstart._output import Clock, Curves, draw, print_result
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae import VAE, elbo_terms, encode_all, importance_log_likelihood, prior_mass

RESULT = Kind("quickstart result", version=1, remedy="`python -m pyro_riemann quickstart --output FOLDER` makes one")
PACKAGES = ("torch", "pyro-ppl", "arviz", "numpy", "scikit-learn", "matplotlib")


def run(config: QuickstartConfig) -> dict[str, Any]:
    """Run the whole job and return what it wrote to ``result.json``.

    Raises:
        ValueError: for settings that make no sense, or checkpoints of another configuration.
        FileNotFoundError: if the data are not there.
        OSError: if the folder cannot be written to, or another process works on it.
    """
    with locked(config.output / "result.lock"), _work.silence() if config.quiet else nullcontext():
        return _run(config)


def _run(config: QuickstartConfig) -> dict[str, Any]:
    console = Console(quiet=config.quiet, highlight=False)
    clock = Clock(console)
    with clock("data"):
        data = load_images(config)
    console.print(
        f"{config.dataset}: {len(data.train)} training and {len(data.test)} test images; output: {config.output}"
    )
    with clock("training of the R-VAE"):
        rvae, rvae_seconds = train_model(config, data, "rvae")
    with clock("training of the plain VAE"):
        plain, plain_seconds = train_model(config, data, "vae")
    result: dict[str, Any] = {
        "dataset": {
            "name": config.dataset,
            "train": len(data.train),
            "test": len(data.test),
            "image_shape": list(data.shape),
        },
        "epochs": {"warm_up": config.warm_up_epochs, "phase_two": config.epochs},
        "settings": config.to_json(),
    }
    with clock("tables"):
        grid = grid_of(rvae)
        loc, prior_time = centre_of(rvae)
        prior = tabulated_prior(grid, loc, prior_time, config.resolution)
        mass = prior_mass(rvae)
        codes = encode_all(rvae, data.test)
        result["prior"] = prior_report(prior, grid, mass, codes)
    with clock("test bounds"):
        result["rvae"] = bounds(rvae, prior, data, config)
        result["vae"] = bounds(plain, plain.prior_distribution(), data, config)
        fitted: Any = fitted_prior(plain, data.train)
        result["vae_gaussian_prior"] = bounds(plain, fitted, data, config) | {
            "prior": {"loc": fitted.mean.tolist(), "scale": fitted.base_dist.scale[0].item()}
        }
        log_mass = mass.value.item()
        bound = result["rvae"]["elbo"]
        result["rvae"]["elbo_normalised"] = bound - log_mass
        result["rvae"]["iwae"]["value_normalised"] = result["rvae"]["iwae"]["value"] - log_mass
        result["prior"] |= {"elbo_without_normaliser": bound, "elbo_with_normaliser": bound - log_mass}
    with clock("geodesics"):
        curves = geodesics(grid, decode(rvae), codes, data.test_labels, loc, config.seed)
        result["geodesics"] = curves.report
    with clock("chains"):
        chains, table = sample_posterior(rvae, prior, data, grid, config, console)
        result["chains"] = chain_report(table, config)
    with clock("figures"):
        draw(config, data, rvae, plain, grid, codes, curves, chains)
    result["training_seconds"] = {"rvae": round(rvae_seconds, 2), "vae": round(plain_seconds, 2)}
    result["timings_seconds"] = {name: round(seconds, 2) for name, seconds in clock.wall.items()}
    result["timings_cpu_seconds"] = {name: round(seconds, 2) for name, seconds in clock.cpu.items()}
    result["versions"] = versions(PACKAGES)
    write_record(config.output / "result.json", RESULT, result)
    print_result(console, result, table, config)
    return result


# -------------------------------------------------------------------- measures


def prior_report(prior: RiemannianHeatKernel, grid: GridMetric, log_mass: Estimate, codes: Tensor) -> dict[str, Any]:
    """What there is to know of the prior; the table is judged at the ``codes`` ``(n, d)``."""
    field: Any = prior.metric.field
    mass = log_mass.value.double().exp()
    return {
        "loc": prior.loc.tolist(),
        "time": prior.time.item(),
        "mass": mass.item(),
        "mass_error": (mass * log_mass.standard_error).item(),
        "mass_method": "RiemannianHeatKernel.log_normalizer on the tabulated metric",
        "density": "short-time heat kernel, distances from a distance field on the table",
        "distance_field_eikonal_error": float(field.eikonal_error),
        "metric_table_median_relative_error_at_codes": grid.interpolation_error_at(codes).median().item(),
    }


def bounds(vae: VAE, prior: Any, data: ImageData, config: QuickstartConfig) -> dict[str, Any]:
    """Means over the test images in nats; reconstruction and KL come from the same draws and add up exactly."""
    terms = elbo_terms(vae, data.test, config.bound_draws, prior=prior, seed=config.seed, chunk_size=20_000)
    some = data.test[: config.iwae_images]
    weighted = importance_log_likelihood(vae, some, config.iwae_draws, prior=prior, seed=config.seed).double()
    return {
        **terms.means(),
        "draws": config.bound_draws,
        "images": len(data.test),
        "iwae": {
            "value": weighted.mean().item(),
            "standard_error": (weighted.std() / len(weighted) ** 0.5).item(),
            "draws": config.iwae_draws,
            "images": len(some),
        },
    }


@torch.no_grad()
def geodesics(
    grid: GridMetric,
    decode: Callable[[Tensor], Tensor],
    codes: Tensor,
    labels: Tensor,
    loc: Tensor,
    seed: int,
    count: int = 200,
) -> Curves:
    """Geodesics between random test codes of different classes, and those of the prior's centre to codes."""
    first, second = pairs(labels, count, 2 * count, seed)
    grid.solver = FINE
    curves = grid.geodesic(codes[first], codes[second])
    rays = grid.geodesic(loc.expand_as(codes[:count]), codes[:count])
    detour = straight_length(grid, codes[first], codes[second]) / curves.length
    difference = row_difference(decode, curves)
    best = int(torch.where(curves.converged, difference, 0).argmax())
    few = torch.cat([torch.tensor([best]), torch.arange(len(first))[:9]]).unique()
    report = {
        "converged_share": curves.converged.double().mean().item(),
        "converged_share_from_prior": rays.converged.double().mean().item(),
        "pairs": len(first),
        "median_straight_over_geodesic": detour.median().item(),
        "median_difference_of_rows": difference.median().item(),
        "shown_straight_over_geodesic": detour[best].item(),
        "shown_difference_of_rows": difference[best].item(),
    }
    return Curves(
        grid.geodesic(codes[first[few]], codes[second[few]]),
        grid.geodesic(codes[first[best]], codes[second[best]]),
        (int(first[best]), int(second[best])),
        report,
    )


def row_difference(decode: Callable[[Tensor], Tensor], curves: Geodesic, num_frames: int = 10) -> Tensor:
    """Root mean square difference of pixels decoded along geodesics and along straight lines, at equal times."""
    times = torch.linspace(0, 1, num_frames, dtype=curves.points.dtype, device=curves.points.device)
    start, end = curves.points[0], curves.points[-1]
    squares = [(decode(curves(t)) - decode(start + t * (end - start))).square().mean(-1) for t in times]
    return torch.stack(squares).mean(0).sqrt()


def sample_posterior(
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
    return chains, summary(chains, grid, loc=centre_of(vae)[0])


def chain_report(table: Summary, config: QuickstartConfig) -> dict[str, Any]:
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
