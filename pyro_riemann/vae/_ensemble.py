"""An epoch of several VAEs at once: one batch of matrix products instead of a loop over models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pyro_riemann._identity import describe
from pyro_riemann.vae._checkpoint import adam_state
from pyro_riemann.vae._loop import TrainingRun, clocks
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._phases import parameter_groups


def check_ensemble(vaes: Sequence[VAE], seeds: Sequence[int], folders: Sequence[Any]) -> None:
    """Raise unless these are different VAEs of one architecture, each with a seed and a folder of its own."""
    if not vaes:
        raise ValueError("`vaes` is empty: give at least one VAE.")
    for name, given in (("seeds", seeds), ("checkpoints", folders)):
        if len(given) != len(vaes):
            raise ValueError(f"`{name}` has {len(given)} entries for {len(vaes)} VAEs: give one for each.")
        named = [str(value) for value in given if value is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"`{name}` has an entry twice: {named}.")
    if len(set(map(id, vaes))) < len(vaes):
        raise ValueError("`vaes` has the same VAE twice.")
    plans = [describe(vae) for vae in vaes]
    for index, plan in enumerate(plans):
        if odd := sorted(key for key in plan.keys() | plans[0].keys() if plan.get(key) != plans[0].get(key)):
            raise ValueError(
                f"`vaes` must differ in their weights alone: the one at {index} differs from the first in "
                f"{', '.join(odd[:5])}{' and more' if len(odd) > 5 else ''}."
            )


def can_go_together(runs: Sequence[TrainingRun]) -> bool:
    """Whether the coming epoch asks for no distances: their solver decides by values, which a batch of models hides.

    Nor has any run begun it.
    """
    return all((run.vae.warm_up or not run.vae.needs_metric) and not run.losses for run in runs)


def train_epoch_together(runs: Sequence[TrainingRun]) -> list[dict[str, Any]]:
    """The coming epoch of runs that are equally far; returns their records, with even shares of its seconds."""
    started = clocks()
    for run in runs:
        run.start_epoch()
    elbos = _steps(runs)
    return [run.end_epoch(elbo, started, shared_by=len(runs)) for run, elbo in zip(runs, elbos, strict=True)]


def _steps(runs: Sequence[TrainingRun]) -> list[float]:
    """All steps of the epoch; returns the mean ELBO per datum of each run.

    The losses are those of ``Trace_ELBO``, from the same noise as in :meth:`TrainingRun.steps`, and the optimiser is
    the same Adam: runs can change between the two ways from epoch to epoch.
    """
    first, config = runs[0], runs[0].config
    orders, noise = (torch.stack(part) for part in zip(*map(_draws, runs), strict=True))
    weights, buffers = stack_module_state([_Loss(run.vae) for run in runs])
    trained = {key for key, value in first.vae.named_parameters() if value.requires_grad}
    optimizer = _load_optimizer(runs, {key: weights[f"vae.{key}"] for key in trained})
    template, kl_weight = _Loss(first.vae), first.kl_weight

    def loss_of(weights: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, noise: Tensor) -> Tensor:
        value: Tensor = functional_call(template, (weights, buffers), (x, noise, kl_weight))
        return value

    steps = []
    with pyro.validation_enabled(False):  # its checks read values
        for rows, draws in zip(orders.split(config.batch_size, 1), noise.split(config.batch_size, -2), strict=True):
            optimizer.zero_grad()
            losses = vmap(loss_of)(weights, buffers, first.data[rows], draws)
            (losses * (len(first.data) / rows.shape[1])).sum().backward()
            optimizer.step()
            steps.append(losses.detach() / rows.shape[1])
    elbos = [-run.checked(loss) for run, loss in zip(runs, torch.stack(steps).mean(0).tolist(), strict=True)]
    _hand_back(runs, weights, trained, optimizer)
    return elbos


class _Loss(nn.Module):
    """Negative ELBO of a batch with its noise given, summed over the data."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor, noise: Tensor, kl_weight: float) -> Tensor:
        posterior = self.vae.posterior(x)
        normal: Any = posterior.base_dist
        z = normal.loc + normal.scale * noise
        likelihood = self.vae.decoder.observation(z, warm_up=self.vae.warm_up).log_prob(x)
        gap = self.vae.prior_distribution().log_prob(z) - posterior.log_prob(z)
        return -(likelihood + kl_weight * gap).mean(0).sum()


def _draws(run: TrainingRun) -> tuple[Tensor, Tensor]:
    """Order of the data ``(n)`` and noise ``(particles, n, d)``, drawn as SVI draws them, a batch after the other."""
    particles, dim = run.config.num_particles, run.vae.latent_dim
    zeros = run.data.new_zeros(particles, len(run.data), dim)
    with run.randomness():
        order = run.draw_order()
        noise = [torch.normal(part, torch.ones_like(part)) for part in zeros.split(run.config.batch_size, -2)]
    return order, torch.cat(noise, dim=-2)


def _load_optimizer(runs: Sequence[TrainingRun], trained: dict[str, Tensor]) -> torch.optim.Adam:
    """Adam over the stacked weights, with the runs' moments so far."""
    config, name = runs[0].config, runs[0].vae.store_name
    names = {id(value): key for key, value in runs[0].vae.named_parameters()}
    of_prior = {names[id(value)] for value in parameter_groups(runs[0].vae)["prior"]} if runs[0].phase == 2 else set()
    groups = [
        {"params": [value for key, value in trained.items() if (key in of_prior) is slow], "lr": rate}
        for slow, rate in ((False, config.learning_rate), (True, config.prior_learning_rate))
    ]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    states = [run.optimizer_states() for run in runs]
    for key, value in trained.items():
        own = [state.get(f"{name}.{key}", {"state": {}})["state"].get(0) for state in states]
        if own[0] is not None:
            optimizer.state[value] = {
                "step": own[0]["step"].clone(),
                **{part: torch.stack([moment[part] for moment in own]) for part in ("exp_avg", "exp_avg_sq")},
            }
    return optimizer


@torch.no_grad()
def _hand_back(
    runs: Sequence[TrainingRun], weights: dict[str, Tensor], trained: set[str], optimizer: torch.optim.Adam
) -> None:
    """Give each run its weights, and its moments in the form in which Pyro's optimiser keeps them."""
    rates = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    for index, run in enumerate(runs):
        own = dict(run.vae.named_parameters())
        run.svi, run.optimizer_state = None, {}
        for key in trained:
            stacked = weights[f"vae.{key}"]
            own[key].copy_(stacked[index])
            moments = optimizer.state.get(stacked)
            if moments is not None:
                parts = {part: moments[part][index].clone() for part in ("exp_avg", "exp_avg_sq")}
                moments = {"step": moments["step"].clone(), **parts}
            run.optimizer_state[f"{run.vae.store_name}.{key}"] = adam_state(own[key], rates[id(stacked)], moments)
