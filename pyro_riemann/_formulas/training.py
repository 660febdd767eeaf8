"""What the training of a VAE is told on both faces, and what it records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

GROUPS = ("encoder", "posterior", "decoder", "precision", "prior")


class TwoPhaseSettings:
    """What both faces let be set of the two phases; order and defaults are in the ``TrainingConfig`` of each."""

    warm_up_epochs: int
    epochs: int
    batch_size: int
    learning_rate: float
    prior_learning_rate: float
    kl_ramp: float
    kl_weight: float
    phase_two: tuple[str, ...]
    num_particles: int

    def __post_init__(self) -> None:
        for name in ("warm_up_epochs", "epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name in ("batch_size", "num_particles"):
            check_count(name, getattr(self, name))
        for name in ("learning_rate", "prior_learning_rate", "kl_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if unknown := set(self.phase_two) - set(GROUPS):
            raise ValueError(f"`phase_two` names unknown groups {sorted(unknown)}; there are {GROUPS}.")

    def kl_weight_of(self, phase: int, epoch: int) -> float:
        """Weight of the KL term in an epoch, from 0 on, of a phase: it rises over the first share of phase 1."""
        ramp = max(1, round(self.kl_ramp * self.warm_up_epochs))
        return self.kl_weight * (min(1.0, (epoch + 1) / ramp) if phase == 1 else 1.0)


@dataclasses.dataclass
class History:
    """What a training recorded, one entry an epoch; ``history["validation"]`` is the list of one of its numbers.

    Attributes:
        epochs: each with ``phase``, ``epoch`` within it, ``seconds`` on the wall and ``processor_seconds``. Of
            ``train``, in nats per datum, ``elbo`` and ``validation``, the ELBO of held-out data; of
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


def active_groups(phase: int, phase_two: Iterable[str], riemannian: bool) -> set[str]:
    """The groups that a phase trains; in phase 1 a normal law stands in for a ``riemannian`` prior."""
    if phase == 2:
        return set(phase_two)
    return {"encoder", "posterior", "decoder"} | (set() if riemannian else {"prior"})


def check_count(name: str, value: int) -> None:
    """Refuse a number below 1."""
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that make no ensemble."""
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"`seeds` must be two different ones or more, got {list(seeds)}.")
