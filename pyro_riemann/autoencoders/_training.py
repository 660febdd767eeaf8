"""Settings of the training of autoencoders."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Settings of :meth:`Autoencoder.fit`; the defaults are those of C22, appendix E, for MNIST.

    Attributes:
        epochs: passes over the training data.
        batch_size: rows a step.
        learning_rate: Adam's first rate.
        patience: halve the rate after so many epochs without a better validation loss.
        checkpoint_every: epochs between checkpoints.
        seed: order and noise of epoch e are functions of (seed, e) alone.

    Raises:
        ValueError: if a count is less than 1, or the rate is not positive.

    Example:
        >>> FitConfig(epochs=10).learning_rate
        0.001
    """

    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 1e-3
    patience: int = 5
    checkpoint_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}.")
