"""Each tutorial runs from top to bottom, in its small setting, without a warning."""

from __future__ import annotations

import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

TUTORIALS = sorted((Path(__file__).resolve().parents[1] / "tutorials").glob("*.py"))


@pytest.mark.slow  # the docs build runs them as well
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYRO_RIEMANN_SMALL", "1")
    runpy.run_path(str(path), run_name="__main__")
    plt.close("all")
    assert "nan" not in capsys.readouterr().out


def test_there_is_a_tutorial() -> None:
    assert TUTORIALS


def test_samples_of_any_vae_take_fewer_than_forty_lines() -> None:
    """The page says so of the code under its heading."""
    page = (TUTORIALS[0].parent / "sampling_any_vae.py").read_text()
    section = page.split("# ## From that VAE to samples and figures")[1].split("\n# ## ")[0]
    code = [line for line in section.splitlines() if line.strip() and not line.startswith("#")]
    assert 10 < len(code) < 40
