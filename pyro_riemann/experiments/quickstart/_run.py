"""The quickstart from the data to ``result.json``."""

from __future__ import annotations

import platform
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

from rich.console import Console

from pyro_riemann import _work
from pyro_riemann._files import Kind, locked
from pyro_riemann._store import write_record
from pyro_riemann.experiments._centred import tabulated_prior
from pyro_riemann.experiments.quickstart._measures import (
    bounds,
    chain_report,
    gaussian_prior,
    geodesics,
    prior_report,
    sample_posterior,
)
from pyro_riemann.experiments.quickstart._models import centre_of, decode, grid_of, load_images, train_model
from pyro_riemann.experiments.quickstart._output import Clock, draw, print_result
from pyro_riemann.experiments.quickstart._settings import QuickstartConfig
from pyro_riemann.vae import encode_all, prior_mass

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
        fitted: Any = gaussian_prior(plain, data.train)
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
    result["versions"] = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    write_record(config.output / "result.json", RESULT, result)
    print_result(console, result, table, config)
    return result
