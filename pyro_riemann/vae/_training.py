"""The two-phase training of a VAE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_riemann._formulas.training import GROUPS, History
from pyro_riemann._modes import full_precision
from pyro_riemann._warn import warn
from pyro_riemann.metrics import GridMetric
from pyro_riemann.vae._callbacks import Watcher, as_callbacks
from pyro_riemann.vae._data import Data
from pyro_riemann.vae._frozen_elbo import FrozenPosteriorELBO
from pyro_riemann.vae._latent_metric import DecoderMetric
from pyro_riemann.vae._loop import run_training
from pyro_riemann.vae._models import VAE
from pyro_riemann.vae._objective import Objective
from pyro_riemann.vae._phases import encode_all, parameter_groups, set_phase, start_phase_one, start_phase_two
from pyro_riemann.vae._processes import Group
from pyro_riemann.vae._settings import TrainingConfig

MAX_TABLE_ERROR = 0.1  # relative error of G, see `GridMetric.interpolation_error`


@full_precision
def train(
    vae: VAE,
    data: Data,
    validation: Data | None = None,
    config: TrainingConfig | None = None,
    *,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[Watcher] = (),
    distributed: bool = False,
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
        data: training data: a tensor ``(n, D)``, or a ``Dataset`` or ``DataLoader`` of ``n`` items that are tensors, or
            tuples, lists or mappings whose first entry is one. Images are flattened. Data sets are read once, in their
            own order, and held in memory; minibatches and their order are those of ``config``, not of a loader.
        validation: held-out data, likewise; without them early stopping uses the training ELBO.
        config: settings.
        device: where to train; the model and the data are moved there. Default: where the model is.
        checkpoint: folder for checkpoints.
        resume: continue from ``checkpoint`` if it holds one; else start over, whatever is there.
        progress: show a progress bar.
        callbacks: are told of each epoch: a :class:`Callback`, a function of the epoch's record, or TensorBoard's
            ``SummaryWriter`` (anything with its ``add_scalar``).
        distributed: the processes of ``torch.distributed``, such as ``torchrun`` starts, share each minibatch. Each
            calls this with the same arguments, but for ``device``, and ends with the same weights, those of one process
            up to rounding. The first one reads and writes checkpoints, shows progress and tells callbacks.

    Returns:
        The history; ELBOs in nats per datum.

    Raises:
        TypeError: for data that are none, or callbacks that are none.
        ValueError: for data of the wrong shape, or that the likelihood cannot give; a checkpoint that is damaged or of
            another run; or a loss that is not finite.
        OSError: if the folder cannot be written to, or another process works on it.

    Source: K20, appendix C; Li et al. (2020), *PyTorch distributed*, for training in several processes.

    Example:
        >>> from pyro_riemann.vae import make_vae
        >>> vae = make_vae(data_dim=4, latent_dim=1, prior="normal", posterior="normal", hidden=(8,), num_centers=3)
        >>> config = TrainingConfig(warm_up_epochs=1, epochs=1, batch_size=20)
        >>> seen = []
        >>> history = train(vae, torch.rand(60, 4), config=config, progress=False, callbacks=[seen.append])
        >>> len(history), [record["phase"] for record in seen]
        (2, [1, 2])
    """
    objective = TwoPhases(vae, config or TrainingConfig())
    if distributed:
        objective.processes = Group()
    return run_training(objective, data, validation, as_callbacks(callbacks, progress), checkpoint, resume, device)


class TwoPhases(Objective):
    """The negative ELBO of a VAE: phase 1 without geometry, phase 2 with it."""

    entries = ("elbo", "validation")
    hint = ", or check that the prior's support holds the posterior (a uniform prior's box)"
    module: VAE
    config: TrainingConfig

    def __init__(self, vae: VAE, config: TrainingConfig) -> None:
        super().__init__(vae, config, vae.encoder.data_dim, (config.warm_up_epochs, config.epochs))
        self.kept_codes: Tensor | None = None

    def named_parameters(self) -> dict[str, nn.Parameter]:
        return {f"{self.module.store_name}.{key}": value for key, value in self.module.named_parameters()}

    # ---------------------------------------------------------------- steps

    def svi(self, optimizer: pyro.optim.PyroOptim) -> SVI:
        particles = self.config.num_particles
        # a nesting that is not given would be found by a run of the model that draws: not the noise of a resumed run
        elbo = FrozenPosteriorELBO(particles, max_plate_nesting=1, vectorize_particles=particles > 1)
        return self.processes.svi(self.module, elbo, optimizer)

    def step(self, svi: SVI, rows: Tensor, size: int, phase: int, epoch: int) -> float:
        loss: float = svi.step(rows, size=size, kl_weight=self.config.kl_weight_of(phase, epoch))
        return loss / size

    def total_loss(self, rows: Tensor) -> float:
        loss: float = Trace_ELBO().loss(self.module.model, self.module.guide, rows)
        return loss

    def rate(self, name: str, phase: int, history: History) -> float:
        """Learning rate of a parameter: in phase 2 the few of the prior have their own."""
        prior = {id(value) for value in parameter_groups(self.module)["prior"]}
        slow = phase == 2 and id(self.named_parameters()[name]) in prior
        return self.config.prior_learning_rate if slow else self.config.learning_rate

    # ---------------------------------------------------------------- phases

    def checked(self, name: str, rows: Tensor) -> Tensor:
        return self.module.decoder.check(name, rows)

    def enter_phase(self, phase: int) -> None:
        set_phase(self.module, phase, self.config.phase_two)

    def begin_phase(self, phase: int, data: Tensor) -> None:
        if phase == 1:
            start_phase_one(self.module, data)
        else:
            start_phase_two(self.module, data, seed=self.config.seed)

    def begin_epoch(self, phase: int, epoch: int, data: Tensor) -> None:
        """Renew the metric where that is due."""
        if phase == 2 and epoch > 0 and epoch % self.config.refresh_every == 0 and self.module.needs_metric:
            self.module.refresh_metric(self._codes(data))

    def end(self, data: Tensor) -> None:
        if not self.module.needs_metric:
            return
        if self.config.epochs > 0:
            self.module.refresh_metric(self._codes(data))
        rule, metric = self.module.latent_metric, self.module.metric
        if not isinstance(rule, DecoderMetric) or not isinstance(metric, GridMetric):
            return
        if (error := float(metric.interpolation_error)) > MAX_TABLE_ERROR:
            warn(
                f"the table of the metric is off by up to {error:.2g} of the metric at 90 % of the training codes "
                f"(bound: {MAX_TABLE_ERROR}): distances in training were as wrong. Raise `grid_resolution` "
                f"(now {rule.resolution}), or use `metric='fixed'`."
            )

    def finish(self, data: Tensor) -> None:
        set_phase(self.module, 2, GROUPS)

    def comparable(self, phase: int, epoch: int) -> bool:
        """ELBOs of the ramp do not compare."""
        return self.config.kl_weight_of(phase, epoch) >= self.config.kl_weight

    def stopped(self, stale: int) -> bool:
        return self.config.patience is not None and stale >= self.config.patience

    def record(self, loss: float, validation: float, history: History) -> dict[str, float]:
        return {"elbo": -loss, "validation": -validation}

    def _codes(self, data: Tensor) -> Tensor:
        """Codes of the training data, encoded once while the encoder does not change in phase 2."""
        trained = any(value.requires_grad for value in parameter_groups(self.module)["encoder"])
        if self.kept_codes is None or trained:
            self.kept_codes = encode_all(self.module, data)
        return self.kept_codes
