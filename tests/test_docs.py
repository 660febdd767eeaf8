"""The how-to pages: their code runs, block after block, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

HOWTO = sorted((Path(__file__).resolve().parents[1] / "docs" / "howto").glob("*.md"))


@pytest.mark.parametrize("path", HOWTO, ids=lambda path: path.stem)
def test_python_blocks_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, "a how-to without code"
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, str(path), "exec"), namespace)
    plt.close("all")
    assert not re.search(r"\bnan\b", capsys.readouterr().out)


def test_there_are_pages() -> None:
    assert len(HOWTO) >= 7
