"""Warnings that point at the caller's own line, however many of our frames, Pyro's or torch's lie between."""

from __future__ import annotations

import sys
import warnings

# of their lines no user can change one; a warning that points there is also shown once only, whoever called
_LIBRARIES = {"pyro_riemann", "pyro", "torch", "numpyro", "jax", "jaxlib", "functools", "contextlib"}


def warn(message: str) -> None:
    """Give a ``UserWarning`` at the nearest line that is neither of this package nor of the libraries it works for."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
