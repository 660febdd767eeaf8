"""Each tutorial runs from top to bottom, in its small setting, without a warning."""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

TUTORIALS = sorted((Path(__file__).resolve().parents[1] / "tutorials").glob("*.py"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYRO_RIEMANN_SMALL", "1")
    runpy.run_path(str(path), run_name="__main__")
    plt.close("all")
    assert "nan" not in capsys.readouterr().out


def test_there_is_a_tutorial() -> None:
    assert TUTORIALS
