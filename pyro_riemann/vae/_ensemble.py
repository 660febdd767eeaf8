"""Models trained again, from other seeds or on bootstrap samples, and the ensemble of their decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pyro_riemann._formulas.training import History, check_seeds
from pyro_riemann._modes import full_precision
from pyro_riemann.metrics import EnsembleMetric, PullbackMetric
from pyro_riemann.vae._callbacks import Watcher, as_callbacks
from pyro_riemann.vae._data import Data, as_rows
from pyro_riemann.vae._loop import run_training
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._settings import TrainingConfig
from pyro_riemann.vae._training import TwoPhases


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """What :func:`train_ensemble` trained.

    Attributes:
        models: the VAEs, of which ``models[0].encode`` gives the codes of all where these share an encoder.
        histories: of their trainings.
        shared: whether they have the encoder of the first.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> models = [make_vae(4, 1, "normal", "normal", hidden=(8,), num_centers=3, seed=seed) for seed in (0, 1)]
        >>> len(Ensemble(tuple(models), (History(), History()), shared=True).metric)
        2
    """

    models: tuple[VAE, ...]
    histories: tuple[History, ...]
    shared: bool

    @property
    def metric(self) -> EnsembleMetric:
        """Expected metric of the decoders, on the codes that they share; its members are theirs.

        Raises:
            ValueError: if each model has an encoder of its own: their codes are not of one chart.
        """
        if not self.shared:
            raise ValueError(
                "these models have encoders of their own: a code means another thing to each, and there is no mean of "
                "their metrics. Compare them by `evaluation.identifiability_report`, or train with "
                "`own_encoders=False`."
            )
        return EnsembleMetric([PullbackMetric(model.decoder, model.latent_dim) for model in self.models])


@full_precision
def train_ensemble(
    make: Callable[[int], VAE],
    data: Data,
    seeds: Sequence[int] = (0, 1, 2, 3),
    validation: Data | None = None,
    config: TrainingConfig | None = None,
    *,
    bootstrap: bool = False,
    own_encoders: bool = False,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[Watcher] = (),
) -> Ensemble:
    r"""Train a VAE from several seeds, and get the expected metric of the decoders with its spread.

    The first model is trained as :func:`train` does. The others take its encoder, which stays as it is, and learn
    decoders of the same codes from weights of their own; with ``bootstrap`` from samples of the data with replacement.
    :attr:`Ensemble.metric` is then :math:`\frac1K \sum_k J_k^\top J_k`, large where decoders disagree, which they do
    where there were no data.

    With ``own_encoders`` each is a model of its own. Their codes do not compare, distances of data may:
    :func:`pyro_riemann.evaluation.identifiability_report` takes :attr:`Ensemble.models`.

    Args:
        make: an untrained model of a seed, such as ``lambda seed: make_vae(784, 2, seed=seed)``.
        data: training data, as for :func:`train`.
        seeds: of weights, of order and noise, and of bootstrap samples, one a model.
        validation: held-out data, the same for all.
        config: settings of each training, but for the seed.
        bootstrap: train on samples of n data with replacement; all models, or all but the first where that one brings
            the encoder.
        own_encoders: train every encoder.
        device: where to train.
        checkpoint: folder; each model has a folder in it, and what is trained is not trained again.
        resume: continue from ``checkpoint`` if it holds something.
        progress: show a progress bar for each model.
        callbacks: as for :func:`train`, told of each model in turn.

    Returns:
        The models, their histories, and the metric.

    Raises:
        TypeError: if ``make`` gives no VAE; and as :func:`train`.
        ValueError: for fewer than two seeds, or two that are equal; and as :func:`train`.
        OSError: as :func:`train`.

    Source: Syrota, Moreno-Munoz and Hauberg (2024), *Decoder ensembling for learned latent geometries*: several
    decoders, one encoder; there they are trained together.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> ensemble = train_ensemble(
        ...     lambda seed: make_vae(4, 1, "normal", "normal", hidden=(8,), num_centers=3, seed=seed),
        ...     torch.rand(60, 4), seeds=(0, 1), config=TrainingConfig(1, 1, batch_size=30), progress=False)
        >>> ensemble.metric.dist_samples(torch.zeros(1), torch.ones(1)).shape
        torch.Size([2])
    """
    check_seeds(seeds)
    config, watchers = config or TrainingConfig(), as_callbacks(callbacks, progress)
    models: list[VAE] = []
    histories = []
    for seed in seeds:
        model = make(seed)
        if not isinstance(model, VAE):
            raise TypeError(f"`make` must give a VAE for a seed, got {type(model).__name__}.")
        later = bool(models) and not own_encoders
        rows = as_rows("data", data, model.encoder.data_dim)
        if bootstrap and (later or own_encoders):
            rows = _sample(rows, seed)
        kind = TwoPhases
        if later:
            model.encoder.load_state_dict(models[0].encoder.state_dict())
            kind = DecoderOnly
        objective = kind(model, dataclasses.replace(config, seed=seed))
        folder = None if checkpoint is None else Path(checkpoint) / f"seed-{seed}"
        histories.append(run_training(objective, rows, validation, watchers, folder, resume, device))
        models.append(model)
    return Ensemble(tuple(models), tuple(histories), shared=not own_encoders)


class DecoderOnly(TwoPhases):
    """Both phases with the encoder as it is."""

    def enter_phase(self, phase: int) -> None:
        super().enter_phase(phase)
        for value in self.module.encoder.parameters():
            value.requires_grad_(False)


def _sample(rows: Tensor, seed: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    chosen = torch.randint(len(rows), (len(rows),), generator=generator, device="cpu")
    return rows[chosen.to(rows.device)]
