"""Surfaces with kinks whose distances are known: graphs of piecewise linear functions of one coordinate unfold."""

from __future__ import annotations

import numpy as np

COUNT = 30  # folds
PAIRS = 20


class Folds:
    """The graph of a piecewise linear function along one axis of a turned plane.

    Args:
        steepest: bound on the slopes between two folds.
    """

    def __init__(self, steepest: float) -> None:
        generator = np.random.default_rng(0)
        self.places = np.linspace(-1, 1, COUNT) + 0.02 * generator.random(COUNT)
        slopes = np.concatenate([[0.0], steepest * generator.uniform(-1, 1, COUNT)])
        self.jumps, self.stretches = np.diff(slopes), np.diff(np.hypot(1, slopes))
        self.turn = np.array([[np.cos(0.6), np.sin(0.6)], [-np.sin(0.6), np.cos(0.6)]])
        self.ends = generator.uniform(-1, 1, (2, PAIRS, 2))

    def unfolded(self, z: np.ndarray) -> np.ndarray:
        """Points of the plane to which the surface unfolds, ``(n, 2)``."""
        across, along = (z @ self.turn).T
        return np.stack([across + np.maximum(across[:, None] - self.places, 0) @ self.stretches, along], -1)

    def dist(self) -> np.ndarray:
        """Geodesic distances of the :attr:`ends`."""
        first, second = map(self.unfolded, self.ends)
        return np.linalg.norm(second - first, axis=-1)
