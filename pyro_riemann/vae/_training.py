"""Two-phase training of one VAE, or of several at once, on Pyro's SVI."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_riemann._modes import full_precision
from pyro_riemann._safe_points import SafePoints
from pyro_riemann.vae._ensemble import can_go_together, check_ensemble, train_epoch_together
from pyro_riemann.vae._loop import TrainingRun
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._settings import History, TrainingConfig


@full_precision
def train(
    vae: VAE,
    data: Tensor,
    validation: Tensor | None = None,
    config: TrainingConfig | None = None,
    *,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
) -> History:
    """Train a VAE in two phases and leave it in evaluation mode, ready for phase 2's use.

    Phase 1, deterministic warm-up: encoder and decoder mean, with one standard deviation for all
    entries, Gaussian posterior, standard normal prior where the VAE's own is Riemannian, and a KL weight that rises
    from 0. Then the precision network gets its centres from the codes, the metric is taken, the prior its starting
    values, and phase 2 trains precision and prior (K20, appendix C).

    Bit for bit: with a ``checkpoint`` folder, a run that was stopped and called again gives the same weights
    as one that was not. It is saved after each epoch, after a minute within one, and when SIGINT (Ctrl-C) or SIGTERM
    asks it to stop, which it does after the step at hand; a second signal stops it at once. The data, the model and
    the settings must be those of the checkpoint. One process at a time works on a folder.

    Encoder and decoder learn the units of the data at the start (:meth:`GaussianDecoder.standardize`). Who trains by an
    ``SVI`` of his own calls that, and the encoder's, first. With ``metric="grid"`` it warns in the end if the table is
    off by more than 10 % at a tenth of the codes.

    Args:
        vae: the model; trained in place.
        data: training data ``(n, D)``.
        validation: held-out data ``(m, D)``; without it early stopping uses the training ELBO.
        config: settings.
        device: where to train; the model and the data are moved there. Default: where the model is.
        checkpoint: folder for checkpoints.
        resume: continue from ``checkpoint`` if it holds one; else start over, whatever is there.
        progress: show a progress bar.

    Returns:
        The history; ELBOs in nats per datum.

    Raises:
        ValueError: for data of the wrong shape, a checkpoint that is damaged or of another run, or a loss that is not
            finite.
        OSError: if the folder cannot be written to, or another process works on it.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, latent_dim=1, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=20)
        >>> history = train(vae, torch.rand(60, 4), config=config, progress=False)
        >>> len(history)
        2
    """
    config = config or TrainingConfig()
    safe = SafePoints(active=checkpoint is not None)
    run = TrainingRun(vae, data, validation, config, device, checkpoint, safe)
    with run.at_work(resume), safe, _progress(progress, config.warm_up_epochs + config.epochs) as bar:
        bar.advance(len(run.history))
        while run.ready():
            bar.report(run.train_epoch())
    return run.history


@full_precision
def train_ensemble(
    vaes: Sequence[VAE],
    data: Tensor,
    validation: Tensor | None = None,
    config: TrainingConfig | None = None,
    *,
    seeds: Sequence[int] | None = None,
    device: str | torch.device | None = None,
    checkpoints: Sequence[str | Path] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> list[History]:
    """Train VAEs that differ in their weights alone, all at once: what many seeds on one GPU ask for.

    Each VAE ends where :func:`train` with its own seed would have brought it, up to rounding: the same order of the
    data, the same noise, the same starting points. The steps of all of them are one batch of matrix products
    (``torch.func.vmap`` over the stacked weights) wherever no distances are asked for: always with Gaussian
    posteriors and priors that are not Riemannian, and in phase 1 with any. Phase 2 of a Riemannian VAE is done one
    VAE after the other.

    Args:
        vaes: the models, of one architecture; trained in place.
        data: training data ``(n, D)``, common to all.
        validation: held-out data ``(m, D)``.
        config: settings, common to all but for the seed.
        seeds: of each VAE; default ``config.seed``, ``config.seed + 1`` and so on.
        device: where to train; default: where the first model is.
        checkpoints: a folder for each VAE, of the same content as those of :func:`train`: either function goes on
            from the other's.
        resume: continue from the checkpoints; VAEs that are behind the others catch up first.
        progress: show a progress bar.

    Returns:
        A history for each VAE; the seconds of an epoch done together are shared out evenly.

    Raises:
        ValueError: if the VAEs differ in more than their weights, for as many seeds or folders as there are not
            VAEs, and as :func:`train`.

    Source: K20, appendix C, for the schedule and its ten seeds.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vaes = [make_vae(4, 1, "normal", "normal", hidden=(8,), num_centers=3, seed=seed) for seed in (0, 1)]
        >>> config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=20)
        >>> histories = train_ensemble(vaes, torch.rand(60, 4), config=config, progress=False)
        >>> [len(history) for history in histories]
        [2, 2]
    """
    config, vaes = config or TrainingConfig(), list(vaes)
    seeds = range(config.seed, config.seed + len(vaes)) if seeds is None else seeds
    folders = [None] * len(vaes) if checkpoints is None else list(checkpoints)
    check_ensemble(vaes, seeds, folders)
    device = next(vaes[0].parameters()).device if device is None else device
    safe = SafePoints(active=checkpoints is not None)
    runs = [
        TrainingRun(vae, data, validation, dataclasses.replace(config, seed=seed), device, folder, safe)
        for vae, seed, folder in zip(vaes, seeds, folders, strict=True)
    ]
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run.at_work(resume))
        stack.enter_context(safe)
        bar = stack.enter_context(_progress(progress, len(runs) * (config.warm_up_epochs + config.epochs)))
        bar.advance(sum(len(run.history) for run in runs))
        while waiting := [run for run in runs if run.ready()]:
            first = min((run.phase, run.epoch) for run in waiting)
            abreast = [run for run in waiting if (run.phase, run.epoch) == first]
            together = len(abreast) > 1 and can_go_together(abreast)
            for entry in train_epoch_together(abreast) if together else (run.train_epoch() for run in abreast):
                bar.report(entry)
    return [run.history for run in runs]


class _Bar:
    """Progress on the terminal, or nothing."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def advance(self, count: int) -> None:
        if self.bar is not None:
            self.bar.update(count)

    def report(self, entry: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.set_description(f"phase {entry['phase']}")
            self.bar.set_postfix(elbo=f"{entry['elbo']:.1f}", validation=f"{entry['validation']:.1f}")
            self.bar.update(1)


@contextmanager
def _progress(show: bool, total: int) -> Iterator[_Bar]:
    if not show:
        yield _Bar(None)
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch") as bar:
        yield _Bar(bar)
