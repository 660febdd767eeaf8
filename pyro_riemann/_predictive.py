"""What a Pyro model says of draws of its latent sites: likelihoods and predictive draws, as ArviZ groups them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from pyro_riemann import _work
from pyro_riemann._arviz import Draws, Groups

Model = Callable[..., Any]
_AT_ONCE = 100  # draws in one run of the model


class _Sites(NamedTuple):
    """The sites of a model.

    Attributes:
        observed: values by name.
        ranks: number of batch axes by name, of all sites.
        plates: number of batch axes of the model.
    """

    observed: dict[str, Tensor]
    ranks: dict[str, int]
    plates: int

    @property
    def latent(self) -> list[str]:
        """Names of those that are not observed."""
        return [name for name in self.ranks if name not in self.observed]


@torch.no_grad()
def groups_of(
    model: Model, draws: Draws, args: tuple[Any, ...], kwargs: dict[str, Any], num_prior_samples: int
) -> Groups:
    """The groups that :func:`~pyro_riemann.diagnostics.to_arviz` adds.

    Args:
        model: a Pyro model.
        draws: of its latent sites, ``(chains, draws, *event)`` each.
        args: of the model.
        kwargs: of the model.
        num_prior_samples: draws from the prior.
    """
    sites = _sites(model, args, kwargs)
    if set(draws) != set(sites.latent):
        raise ValueError(
            f"`model` has the latent sites {sorted(sites.latent)}, but `result` has draws of {sorted(draws)}."
        )
    shape = next(iter(draws.values())).shape[:2]
    like = next(iter(sites.observed.values()))
    flat = {name: torch.from_numpy(array).to(like.device).flatten(0, 1) for name, array in draws.items()}
    run = _Run(model, sites, args, kwargs, together=True)
    run = run._replace(together=run.agrees({name: value[[0, -1]] for name, value in flat.items()}))
    likelihood = run.log_densities(flat)
    predicted = run.values(flat, shape[0] * shape[1])
    prior = run.values({}, num_prior_samples)
    groups = {
        "log_likelihood": {name: value.unflatten(0, shape) for name, value in likelihood.items()},
        "observed_data": sites.observed,
        "posterior_predictive": {name: predicted[name].unflatten(0, shape) for name in sites.observed},
        "prior": {name: prior[name].unsqueeze(0) for name in sites.latent},
        "prior_predictive": {name: prior[name].unsqueeze(0) for name in sites.observed},
    }
    return {group: {name: _numpy(value) for name, value in entries.items()} for group, entries in groups.items()}


def _sites(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Sites:
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    observed, ranks, plates = {}, {}, 0
    for name, node in trace.nodes.items():
        site: dict[str, Any] = {**node}
        if site["type"] != "sample" or isinstance(site["fn"], Unit):
            continue
        if isinstance(site["fn"], _Subsample):
            if len(site["value"]) < site["fn"].size:
                raise ValueError(
                    f"`model` subsamples its data in the plate {name!r}; likelihoods and predictions are of all data: "
                    "give it a plate of the full size."
                )
            continue
        plates = max(
            plates, len(site["fn"].batch_shape), *(-frame.dim for frame in site["cond_indep_stack"] if frame.dim)
        )
        ranks[name] = len(site["fn"].batch_shape)
        if site["is_observed"]:
            observed[name] = site["value"]
    if not observed:
        raise ValueError("`model` observes nothing with these arguments: there is no likelihood. Give it the data.")
    return _Sites(observed, ranks, plates)


class _Run(NamedTuple):
    """Runs of a model, with many draws in each or with one."""

    model: Model
    sites: _Sites
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    together: bool

    def agrees(self, draws: dict[str, Tensor]) -> bool:
        """Whether a run with several draws says of each what a run of its own says."""
        alone = self._replace(together=False).log_densities(draws)
        try:
            both = self.log_densities(draws)
        except Exception:  # whatever somebody's model does about shapes that it does not know
            return False
        return all(
            value.shape == alone[name].shape and torch.allclose(value, alone[name], rtol=1e-3, atol=1e-4)
            for name, value in both.items()
        )

    def log_densities(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the observed sites at draws of the others, ``(n, *batch)``."""

        def density(site: dict[str, Any]) -> Tensor:
            value: Tensor = site["fn"].log_prob(site["value"])
            return (
                value
                if site["mask"] is None
                else torch.where(torch.as_tensor(site["mask"], device=value.device), value, 0.0)
            )

        def batch(site: dict[str, Any]) -> torch.Size:
            shape: torch.Size = site["value"].shape
            return shape[: len(shape) - len(site["fn"].event_shape)]

        return self._collected(
            self.model, draws, len(next(iter(draws.values()))), density, batch, [*self.sites.observed]
        )

    def values(self, draws: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """Of all sites, drawn anew where there is none in ``draws``, ``(n, *batch, *event)``."""

        def value(site: dict[str, Any]) -> Tensor:
            drawn: Tensor = site["value"]
            return drawn

        def shape(site: dict[str, Any]) -> torch.Size:
            batch: torch.Size = site["fn"].batch_shape
            own = batch if len(batch) <= self.sites.plates else batch[1:]
            rank = self.sites.ranks[site["name"]]
            return own[len(own) - rank :] + site["fn"].event_shape

        return self._collected(poutine.uncondition(self.model), draws, count, value, shape, [*self.sites.ranks])

    def _collected(
        self,
        model: Model,
        draws: dict[str, Tensor],
        count: int,
        part: Callable[[dict[str, Any]], Tensor],
        shape: Callable[[dict[str, Any]], torch.Size],
        names: list[str],
    ) -> dict[str, Tensor]:
        """``part`` of the sites in runs of the model, of ``shape`` a draw."""
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for rows in _work.turns("draws", torch.arange(count, device="cpu").split(_AT_ONCE if self.together else 1)):
            chosen = {name: value[rows] for name, value in draws.items()}
            trace = self._traced(model, chosen, len(rows))
            for name, parts in found.items():
                site: dict[str, Any] = {**trace.nodes[name]}
                parts.append(part(site).reshape(len(rows), *shape(site)))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _traced(self, model: Model, draws: dict[str, Tensor], count: int) -> poutine.Trace:
        """A run with these draws: many lie along a plate to the left of the model's own."""
        if not self.together:
            data = {name: value[0] for name, value in draws.items()}
            return poutine.trace(poutine.condition(model, data=data)).get_trace(*self.args, **self.kwargs)
        data = {
            name: value.reshape(count, *(1,) * (self.sites.plates - self.sites.ranks[name]), *value.shape[1:])
            for name, value in draws.items()
        }

        def repeated() -> None:
            with pyro.plate("_draws", count, dim=-self.sites.plates - 1):
                model(*self.args, **self.kwargs)

        return poutine.trace(poutine.condition(repeated, data=data)).get_trace()


def _numpy(value: Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().cpu().numpy()
    return array
