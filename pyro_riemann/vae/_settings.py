"""What training is told, and what it records."""

from __future__ import annotations

import dataclasses
from typing import Any

GROUPS = ("encoder", "posterior", "decoder", "precision", "prior")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Settings of :func:`train`; defaults are those of K20, appendix C.1, but for the number of epochs.

    Attributes:
        warm_up_epochs: epochs of phase 1 (K20: 100).
        epochs: epochs of phase 2 (K20: 200).
        batch_size: rows per step.
        learning_rate: Adam's rate for the networks.
        prior_learning_rate: Adam's rate for the prior's own few parameters.
        kl_ramp: the KL weight of phase 1 rises linearly to ``kl_weight`` over this share of it.
        kl_weight: KL weight at the end of the ramp; 1 is the ELBO.
        phase_two: groups of parameters that phase 2 trains, out of encoder (loc), posterior (its scale), decoder
            (mean), precision, prior. K20 trains precision and prior.
        refresh_every: renew a frozen metric from the decoder every so many epochs of phase 2.
        patience: stop a phase after so many epochs without a better validation ELBO; None: never.
            At the end of each phase the best weights are restored.
        num_particles: Monte Carlo draws of the ELBO per step.
        checkpoint_every: epochs between checkpoints.
        seed: order of the data and noise of epoch e are functions of (seed, e) alone.

    Raises:
        ValueError: for a setting out of range, or an unknown group.

    Example:
        >>> TrainingConfig(warm_up_epochs=100, epochs=200).batch_size
        100
    """

    warm_up_epochs: int = 10
    epochs: int = 20
    batch_size: int = 100
    learning_rate: float = 1e-3
    prior_learning_rate: float = 1e-2
    kl_ramp: float = 0.5
    kl_weight: float = 1.0
    phase_two: tuple[str, ...] = ("precision", "prior")
    refresh_every: int = 1
    patience: int | None = None
    num_particles: int = 1
    checkpoint_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("warm_up_epochs", "epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name in ("batch_size", "refresh_every", "num_particles", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "prior_learning_rate", "kl_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if unknown := set(self.phase_two) - set(GROUPS):
            raise ValueError(f"`phase_two` names unknown groups {sorted(unknown)}; there are {GROUPS}.")


@dataclasses.dataclass
class History:
    """What a training recorded, one entry an epoch; ``history["validation"]`` is the list of one of its numbers.

    Attributes:
        epochs: each with ``phase``, ``epoch`` within it, ``seconds`` on the wall and ``processor_seconds``. Of
            :func:`train`, in nats per datum, ``elbo`` and ``validation``, the ELBO of held-out data; of
            :meth:`Autoencoder.fit <pyro_riemann.autoencoders.Autoencoder.fit>` ``loss``, ``validation``, the loss of
            held-out data, and ``learning_rate``.

    Example:
        >>> history = History([{"phase": 1, "epoch": 1, "elbo": -10.0, "validation": -11.0, "seconds": 0.1}])
        >>> len(history), history["elbo"]
        (1, [-10.0])
    """

    epochs: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def __getitem__(self, key: str) -> list[Any]:
        return [entry[key] for entry in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)
