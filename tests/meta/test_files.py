"""A file is a chapter: none of the package is longer than 300 lines; and all of them are light."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from tests.meta.test_layers import PACKAGE, dotted, modules

MAX_LINES = 300
MAX_BYTES = 972_000


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_file_is_longer_than_a_chapter(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES, "give a part with a purpose of its own a module of its own"


def test_the_package_is_light() -> None:
    """What CI asks of the wheel, 1,000,000 bytes with 28,000 for its own records, without building it."""
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PACKAGE.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(PACKAGE.parent))
    assert packed.tell() < MAX_BYTES, "write what stands twice once, or put what belongs together into one module"
