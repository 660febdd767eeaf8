"""What training is told."""

from __future__ import annotations

import dataclasses

from pyro_riemann._formulas.training import TwoPhaseSettings


@dataclasses.dataclass(frozen=True)
class TrainingConfig(TwoPhaseSettings):
    """Settings of :func:`train`; defaults are those of K20, appendix C.1, but for the number of epochs.

    Attributes:
        warm_up_epochs: epochs of phase 1 (K20: 100).
        epochs: epochs of phase 2 (K20: 200).
        batch_size: rows per step.
        learning_rate: Adam's rate for the networks.
        prior_learning_rate: Adam's rate for the prior's own few parameters in phase 2.
        kl_ramp: the KL weight of phase 1 rises linearly to ``kl_weight`` over this share of it.
        kl_weight: KL weight at the end of the ramp; 1 is the ELBO.
        phase_two: groups of parameters that phase 2 trains, out of encoder (loc), posterior (its scale), decoder
            (mean), precision, prior. K20 trains precision and prior.
        patience: stop a phase after so many epochs without a better validation ELBO; None: never.
            At the end of each phase the best weights are restored.
        num_particles: Monte Carlo draws of the ELBO per step.

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
    patience: int | None = None
    num_particles: int = 1
