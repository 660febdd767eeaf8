"""A file is a chapter: none of the package is longer than 300 lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.meta.test_layers import dotted, modules

MAX_LINES = 300


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_file_is_longer_than_a_chapter(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES, "give a part with a purpose of its own a module of its own"
