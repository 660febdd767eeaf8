"""What the quickstart measures: the prior's mass, bounds on the test set, geodesics, chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from rich.console import Console
from torch import Tensor

from pyro_riemann._estimate import Estimate
from pyro_riemann._seed import seeded
from pyro_riemann.datasets import ImageData
from pyro_riemann.diagnostics import Summary, summary, to_arviz
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.experiments._chains import LatentPosterior, run_chains
from pyro_riemann.experiments.quickstart._models import centre_of
from pyro_riemann.experiments.quickstart._settings import QuickstartConfig
from pyro_riemann.geodesics import Geodesic, GeodesicSolver
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import VAE, elbo_terms, importance_log_likelihood


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


@torch.no_grad()
def gaussian_prior(vae: VAE, data: Tensor) -> dist.TorchDistribution:
    r"""The prior N(m, s^2 I) of a VAE with Gaussian posteriors that maximises its ELBO on training ``data``.

    .. math:: m = E[z], \quad s^2 = E |z - m|^2 / d, \qquad z \sim \tfrac1n \sum_i q(z | x_i):

    d + 1 numbers, as many as the heat kernel's centre and time. Against N(0, I), which learns nothing from the codes,
    any learned prior would win.
    """
    loc, scale = (torch.cat(parts) for parts in zip(*(vae.encoder(x) for x in data.split(2000)), strict=True))
    centre = loc.mean(0)
    spread = ((loc - centre).square() + scale.square()).mean().sqrt()
    return dist.Normal(centre, spread.expand_as(centre)).to_event(1)


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


class Curves(NamedTuple):
    """Geodesics between test codes."""

    drawn: Geodesic  # some of them, the next among them
    shown: Geodesic  # the one along which decoded images differ most from those along the straight line
    pair: tuple[int, int]  # its two test images
    report: dict[str, Any]


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
    with seeded(seed, codes.device):
        first, second = torch.randint(len(codes), (2, 2 * count))
    apart = (labels[first] != labels[second]).nonzero()[:count, 0].cpu()
    first, second = first[apart], second[apart]
    grid.solver = GeodesicSolver(num_knots=16, num_segments=64, max_iterations=100)
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


def straight_length(metric: RiemannianMetric, z: Tensor, y: Tensor, segments: int = 400) -> Tensor:
    """Riemannian length of the straight line, by the midpoint rule, ``(*batch)``."""
    times = (torch.arange(segments, dtype=z.dtype, device=z.device) + 0.5) / segments
    points = z + times.reshape(-1, *(1,) * z.dim()) * (y - z)
    return metric.norm(points, (y - z).expand_as(points)).mean(0)


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
