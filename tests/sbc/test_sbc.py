"""Ranks of every law are uniform, by both faces; those of a wrong law are not."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.laws import LAWS
from tests.precision import enable_x64
from tests.sbc import ranks as sbc

pytest.importorskip("arviz.stats.ecdf_utils", reason="the band is that of ArviZ 0.x")
# simultaneous within a curve; the level is shared by the forty curves of both faces
LEVEL = 1 - 0.01 / (2 * len(sbc.QUANTITIES) * len(LAWS))


def test_every_law_of_both_faces_is_calibrated() -> None:
    assert set(sbc.HERE) == set(sbc.TWIN) == set(LAWS)


def test_the_band_holds_uniform_ranks_and_little_else() -> None:
    random = np.random.default_rng(0)
    uniform = random.integers(0, sbc.KEPT + 1, (2000, 200))
    low, high = sbc.band(200, 0.95)
    held = [bool(((low <= curve) & (curve <= high)).all()) for curve in map(sbc.ecdf, uniform)]
    # of 2,000 the share that is held is 0.95 up to five standard errors, and what ranks being whole adds
    assert 0.95 - 5 * 0.005 < np.mean(held) < 0.98
    shifted = np.clip(random.integers(0, sbc.KEPT + 1, (1000, 4)) + 5, 0, sbc.KEPT)
    assert sbc.outside(shifted, LEVEL) == list(sbc.QUANTITIES)


def test_ranks_of_a_normal_are_uniform_and_those_of_other_draws_are_not() -> None:
    assert sbc.outside(sbc.ranks("RiemannianNormal", 300), LEVEL) == []
    assert sbc.outside(sbc.ranks("NarrowDraws", 300), LEVEL) != []


@pytest.mark.slow
@pytest.mark.parametrize("name", sbc.HERE)
def test_ranks_are_uniform(name: str) -> None:
    assert sbc.outside(sbc.ranks(name), LEVEL) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sbc.TWIN)
def test_ranks_of_the_twin_are_uniform(name: str) -> None:
    with enable_x64(True):
        rank = sbc.twin_ranks(name)
    jax.clear_caches()
    assert sbc.outside(rank, LEVEL) == []
