"""What is measured of a trained model: bounds, mass, codes, mismatch of the prior, time, the authors' formulas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from pyro_riemann._seed import seeded
from pyro_riemann.datasets import ImageData
from pyro_riemann.distributions import RiemannianHeatKernel
from pyro_riemann.evaluation import ClassifierConfig, ImageClassifier, fid, train_classifier
from pyro_riemann.experiments._latent import tabulated_prior
from pyro_riemann.experiments.kalatzis2020._protocol import GRID_RESOLUTION, Protocol
from pyro_riemann.metrics import GridMetric, RiemannianMetric
from pyro_riemann.vae import VAE, HeatKernelPrior, encode_all, evaluate


def evaluation_prior(vae: VAE) -> Any:
    """The prior with its distances tabulated where they can be (d = 2), else the VAE's own."""
    prior = vae.prior
    if isinstance(prior, HeatKernelPrior) and isinstance(vae.metric, GridMetric):
        return tabulated_prior(vae.metric, prior.loc, prior.time, GRID_RESOLUTION)
    return vae.prior_distribution()


def bounds(vae: VAE, law: Any, data: ImageData, protocol: Protocol, seed: int) -> dict[str, Any]:
    """Under the prior ``law``: ELBO term by term, importance-weighted likelihood, and the mass of the prior."""
    on_decoder = vae.prior.riemannian and not isinstance(vae.metric, GridMetric)
    images = data.test[: protocol.bound_images] if on_decoder else data.test
    return evaluate(
        vae,
        images,
        num_samples=1 if on_decoder else protocol.bound_draws,
        num_importance=protocol.iwae_draws,
        num_importance_data=protocol.iwae_images,
        prior=law,
        proposal=_without_jacobi_fields(vae) if on_decoder else None,
        num_pairs=min(50 if on_decoder else 200, len(data.test)),
        seed=seed,
    )


def _without_jacobi_fields(vae: VAE) -> Callable[[Tensor], dist.MultivariateNormal]:
    """The wrapped normal's Gaussian in the chart, not the tangent space: near it, and its density costs nothing."""

    def proposal(x: Tensor) -> dist.MultivariateNormal:
        posterior: Any = vae.posterior(x)
        covariance = posterior.time[..., None, None] * torch.linalg.inv(vae.metric.metric(posterior.loc))
        return dist.MultivariateNormal(posterior.loc, covariance)

    return proposal


def classification(vae: VAE, data: ImageData, protocol: Protocol, seed: int) -> dict[str, Any]:
    """F1 of a network with 100 hidden units on the codes (K20, section 5.2), digit by digit and on average."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import f1_score
    from sklearn.neural_network import MLPClassifier

    train_codes, test_codes = (encode_all(vae, part).double().cpu().numpy() for part in (data.train, data.test))
    runs = []
    for run in range(protocol.classifier_runs):
        network = MLPClassifier(
            (100,),
            batch_size=min(64, len(train_codes)),
            learning_rate_init=1e-3,
            max_iter=protocol.classifier_epochs,
            random_state=1000 * seed + run,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is part of the protocol
            network.fit(train_codes, data.train_labels.cpu().numpy())
        truth = data.test_labels.cpu().numpy()
        runs.append(f1_score(truth, network.predict(test_codes), average=None, labels=np.arange(10)))
    scores = np.stack(runs)
    return {
        "per_class": scores.mean(0).tolist(),
        "average": float(scores.mean()),
        "standard_deviation": float(scores.mean(1).std(ddof=1)) if len(runs) > 1 else None,
        "runs": len(runs),
    }


def judge(data: ImageData, seed: int = 0) -> ImageClassifier:
    """The classifier whose features the Frechet distance uses: Inception's weights need a network connection."""
    config = ClassifierConfig(epochs=3, seed=seed)
    return train_classifier(data.train, data.train_labels, data.shape, config=config)


@torch.no_grad()
def mismatch(vae: VAE, law: Any, data: ImageData, protocol: Protocol, features: Any, seed: int) -> dict[str, Any]:
    """Codes of test images against draws of the prior.

    Their distances from the prior's centre (geodesic for the heat kernel, Euclidean otherwise) by a two-sample
    Kolmogorov-Smirnov test, and the Frechet distance of the decoded draws to the test images.
    """
    count = min(protocol.sample_images, len(data.test))
    with seeded(seed, data.test.device):
        draws = _prior_draws(vae if vae.prior.riemannian else law, count)
        codes = vae.posterior(data.test[:count]).sample()
    if isinstance(vae.prior, HeatKernelPrior):
        few = slice(None) if isinstance(vae.metric, GridMetric) else slice(500)
        centre = vae.prior.loc.detach()
        lengths = [_in_parts(law.metric.squared_dist, centre, part[few]).sqrt() for part in (codes, draws)]
        kind = "geodesic"
    else:
        centre = draws.mean(0)
        lengths = [(part - centre).norm(dim=-1) for part in (codes, draws)]
        kind = "Euclidean"
    of_codes, of_draws = (part.double().cpu().numpy() for part in lengths)
    test = ks_2samp(of_codes, of_draws)
    decoded = torch.cat([vae.decoder.mean(rows) for rows in draws.split(1000)]).clamp(0, 1)
    reconstructed = torch.cat([vae.decoder.mean(rows) for rows in codes.split(1000)]).clamp(0, 1)
    return {
        "distance": kind,
        "codes_quantiles": np.quantile(of_codes, [0.1, 0.5, 0.9]).tolist(),
        "draws_quantiles": np.quantile(of_draws, [0.1, 0.5, 0.9]).tolist(),
        "ks_statistic": float(test.statistic),
        "ks_p_value": float(test.pvalue),
        "ks_sizes": [len(of_codes), len(of_draws)],
        "fid_samples": fid(data.test[:count], decoded, data.shape, features),
        "fid_reconstructions": fid(data.test[:count], reconstructed, data.shape, features),
        "fid_features": "classifier of this data set, 64 features",
        "images": count,
    }


def _prior_draws(source: Any, count: int) -> Tensor:
    """Draws of a law, or of a VAE's prior, in parts: Brownian motion through a decoder holds its Jacobians."""
    prior = source.prior_distribution() if isinstance(source, VAE) else source
    return torch.cat([prior.sample((min(500, count - start),)) for start in range(0, count, 500)])


def _in_parts(function: Any, centre: Tensor, points: Tensor) -> Tensor:
    return torch.cat([function(centre.expand_as(rows), rows) for rows in points.split(500)])


def epoch_seconds(history: Any) -> dict[str, float]:
    """Mean wall time of an epoch of each phase."""
    phases = {1: "warm_up", 2: "phase_two"}
    return {
        name: float(np.mean([entry["seconds"] for entry in history.epochs if entry["phase"] == phase]))
        for phase, name in phases.items()
        if any(entry["phase"] == phase for entry in history.epochs)
    }


def jsonable(value: Any) -> Any:
    """Numbers that JSON knows: NaN and infinity become None."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -------------------------------------------------------------------- the authors' formulas


SEGMENTS = 30
"""Chords of the curves in the authors' code."""


class StraightLineMetric(RiemannianMetric):
    r"""A metric whose "distances" are those of straight lines in the chart, as in the authors' code.

    Six steps of gradient descent leave their curves where they start, on the line; and their squared
    distance is the sum :math:`\sum_i |f_{i+1} - f_i|^2` of squared chords without the factor S of the energy, which is
    the squared length over S.

    Args:
        metric: the metric proper, a pullback.
        divisor: what the squared length is divided by: 1, or :data:`SEGMENTS`.
    """

    def __init__(self, metric: RiemannianMetric, divisor: float = 1.0) -> None:
        super().__init__()
        self.dim, self.solver = metric.dim, metric.solver
        self.base, self.divisor = metric, divisor

    def metric(self, z: Tensor) -> Tensor:
        return self.base.metric(z)

    def logdet(self, z: Tensor) -> Tensor:
        return self.base.logdet(z)

    def squared_dist(self, z: Tensor, y: Tensor) -> Tensor:
        """Energy of the line by the midpoint rule, twice, over the divisor."""
        z, y = torch.broadcast_tensors(z, y)
        times = (torch.arange(SEGMENTS, dtype=z.dtype, device=z.device) + 0.5) / SEGMENTS
        speed = (y - z).expand(SEGMENTS, *z.shape)
        points = z + times.reshape(-1, *(1,) * z.dim()) * (y - z)
        return self.base.inner(points, speed, speed).mean(0) / self.divisor


@torch.no_grad()
def kl_by_formula(vae: VAE, data: Tensor, seed: int, rows: int = 200) -> dict[str, float]:
    """KL term of the R-VAE, nats an image, by one-draw Monte Carlo: step by step from ours to the authors'.

    Posterior and prior are heat kernels around the same centres with the same times in all four; the
    draws are the same too.
    """
    prior = vae.prior
    assert isinstance(prior, HeatKernelPrior)
    line, thirtieth = StraightLineMetric(vae.metric), StraightLineMetric(vae.metric, float(SEGMENTS))
    steps: dict[str, tuple[RiemannianMetric, str]] = {
        "geodesics, density in dz": (vae.metric, "none"),
        "geodesics, eq. 3.3": (vae.metric, "kalatzis2020"),
        "straight lines, eq. 3.3": (line, "kalatzis2020"),
        f"straight lines over {SEGMENTS}, eq. 3.3": (thirtieth, "kalatzis2020"),
    }
    totals = dict.fromkeys(steps, 0.0)
    with seeded(seed, data.device):
        for part in data.split(rows):
            posterior: Any = vae.posterior(part)
            z = posterior.sample()
            for name, (metric, correction) in steps.items():
                law = RiemannianHeatKernel(posterior.loc, posterior.time, metric, correction=correction)
                reference = RiemannianHeatKernel(prior.loc, prior.time, metric, correction=correction)
                totals[name] += float((law.log_prob(z) - reference.log_prob(z)).double().sum())
    return {name: value / len(data) for name, value in totals.items()}
