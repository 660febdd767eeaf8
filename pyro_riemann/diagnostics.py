"""Chains of any sampler as ArviZ data, and a table that says whether to trust them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._arviz import Draws, Groups, Summary, converted, judge
from pyro_riemann._predictive import groups_of
from pyro_riemann._work import announced
from pyro_riemann.geodesics import GeodesicSolver
from pyro_riemann.metrics import RiemannianMetric

_ACCURATE = dataclasses.asdict(GeodesicSolver(num_knots=16, num_segments=64, init="graph"))

__all__ = ["Summary", "summary", "to_arviz"]


@announced
def to_arviz(
    result: Any,
    sample_stats: Mapping[str, Any] | None = None,
    *,
    model: Callable[..., Any] | None = None,
    model_args: tuple[Any, ...] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    num_prior_samples: int = 500,
) -> Any:
    """Convert the result of a sampler to ArviZ data.

    Args:
        result: a :class:`pyro.infer.MCMC` or :class:`numpyro.infer.MCMC` after ``run``; a mapping
            from names to arrays ``(chains, draws, *event)`` of torch, JAX or NumPy; one such array,
            then named ``z``; a :class:`~pyro_riemann.sampling.SamplingResult`, its chains named ``z``; a list of any of
            these, whose chains are joined (Pyro runs several chains of one ``MCMC`` in processes of their own, a list
            of single chains stays in this one); or ArviZ data, which is returned as it is.
        sample_stats: statistics of the draws, ``(chains, draws)`` each, under ArviZ's names
            (``diverging``, ``acceptance_rate``, ``step_size``, ...); they add to, and override, what
            ``result`` records.
        model: the Pyro model of the draws, for groups of what it says: every site of it that is not observed is in
            ``result`` by its name.
        model_args: its arguments, the data that were observed among them.
        model_kwargs: likewise by name.
        num_prior_samples: draws from the model's prior.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` with ArviZ 1.x, with the groups
        ``posterior`` and, where anything is known, ``sample_stats``.

        Pyro records divergences draw by draw but of the acceptance only the mean of each chain, which is
        the attribute ``mean_acceptance_rate`` of ``sample_stats``.

        With a model, besides: ``log_likelihood``, log densities of the observed sites ``(chains, draws, *batch)``,
        which :func:`arviz.loo` takes; ``observed_data``; ``posterior_predictive`` and ``prior_predictive``, draws of
        these sites; ``prior``, draws of the others. The predictive draws use torch's global generator.

    Raises:
        ValueError: if the sampler has not run, or an array is not of shape ``(chains, draws, *event)``; if the model
            observes nothing, subsamples its data, or has other sites than ``result``.
        TypeError: if ``result`` is none of the above.
        ImportError: if ArviZ is not installed, which the extra `diagnostics` brings.

    Example:
        >>> import numpy as np
        >>> data = to_arviz({"z": np.zeros((4, 100, 2))})
        >>> data["posterior"]["z"].shape
        (4, 100, 2)
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     z = pyro.sample("z", RiemannianNormal(torch.zeros(2), 0.5, Hyperbolic(2)))
        ...     with pyro.plate("rows", len(x)):
        ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
        >>> draws = {"z": torch.zeros(4, 100, 2)}
        >>> data = to_arviz(draws, model=model, model_args=(torch.ones(7, 2),))
        >>> data["log_likelihood"]["x"].shape, data["prior_predictive"]["x"].shape
        ((4, 100, 7), (1, 500, 7, 2))
    """
    if model is None:
        return converted(result, sample_stats)

    def more(draws: Draws) -> Groups:
        return groups_of(model, draws, model_args, dict(model_kwargs or {}), num_prior_samples)

    return converted(result, sample_stats, more)


@announced
def summary(
    result: Any,
    metric: RiemannianMetric | None = None,
    *,
    var_names: str | Sequence[str] | None = None,
    loc: Tensor | None = None,
    num_geodesics: int = 200,
) -> Summary:
    """Judge chains: moments with their errors, R-hat, effective sizes, divergences, geometry.

    Args:
        result: anything that :func:`to_arviz` takes.
        metric: the metric of the latent space; adds the geometric checks, over every variable whose last axis
            has length ``metric.dim``. Draws on the floor are counted where the metric tells
            ``coverage`` (:class:`~pyro_riemann.metrics.KernelMetric`).
        var_names: the variables to show and check; all by default.
        loc: ``(d,)``, centre from which geodesics are solved; the prior's centre is the natural choice. The mean of
            the draws by default.
        num_geodesics: number of draws, equally spaced, to which a geodesic is solved; 0 skips that check. The settings
            are accurate ones from graph starts, not the metric's own: those of a training judge themselves.

    Returns:
        A ``DataFrame`` with the columns mean, sd, mcse_mean, mcse_sd, ess_bulk, ess_tail and r_hat (rank-normalised,
        split: Vehtari et al. 2021), which carries the checks of the whole run as :attr:`Summary.divergences`,
        :attr:`Summary.floor_share`, :attr:`Summary.converged_share`.

    Raises:
        ValueError: as :func:`to_arviz`; if a variable is missing, or none has the metric's dimension.
        TypeError, ImportError: as :func:`to_arviz`.

    Example:
        >>> table = summary({"z": torch.randn(4, 500, 2)}, EuclideanMetric(2))
        >>> table.shape, table.converged_share, bool(table["r_hat"].max() < 1.01)
        ((2, 7), 1.0, True)
    """
    if metric is None:
        return judge(result, var_names)

    def shares(draws: np.ndarray, chosen: np.ndarray) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        with torch.no_grad():
            points, ends = _like(metric, draws), _like(metric, chosen)
            if (coverage := metric.coverage(points)) is not None:
                found["floor_share"] = 1.0 - float(coverage)
            if len(ends):
                centre = points.mean(0) if loc is None else loc.detach().to(points)
                curves = metric.geodesic(centre.expand_as(ends), ends, **_ACCURATE)
                found["converged_share"] = curves.converged.double().mean().item()
        return found

    return judge(result, var_names, metric.dim, num_geodesics, shares)


def _like(metric: RiemannianMetric, array: np.ndarray) -> Tensor:
    """The array with the dtype and device of the metric's first parameter or buffer."""
    tensor = torch.from_numpy(array)
    for like in (*metric.parameters(), *metric.buffers()):
        if like.dtype.is_floating_point:
            return tensor.to(like)
    return tensor
