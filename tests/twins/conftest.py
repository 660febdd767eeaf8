"""Fixtures for comparisons of the twins."""

from __future__ import annotations

from tests.numpyro.conftest import double_precision

__all__ = ["double_precision"]
