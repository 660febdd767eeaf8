"""The programs of the how-to pages run from top to bottom, where the package that each is about is installed.

Those of several processes are in `tests/processes`.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from matplotlib import pyplot as plt

HOWTO = Path(__file__).resolve().parents[1] / "docs" / "howto"
PROGRAMS = HOWTO / "programs"
foreign = pytest.mark.filterwarnings("ignore")  # what other packages warn of is theirs


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Draw into memory; some of these packages set torch's random state for the whole process."""
    plt.switch_backend("agg")
    with torch.random.fork_rng(devices=[]):
        yield
    plt.close("all")


def data(folder: str) -> Path:
    """A folder of the data, or a skip."""
    path = Path(os.environ.get("PYRO_RIEMANN_DATA", ".")) / folder
    if not path.is_dir():
        pytest.skip(f"PYRO_RIEMANN_DATA names no folder with {folder}")
    return path


def test_programs_are_short_and_shown() -> None:
    pages = "".join(path.read_text() for path in HOWTO.glob("*.md"))
    programs = sorted(PROGRAMS.glob("*.py"))
    assert len(programs) == 7
    for path in programs:
        assert sum(bool(line.strip()) for line in path.read_text().splitlines()) <= 30
        assert f"{{literalinclude}} programs/{path.name}" in pages


@foreign
def test_diffusers(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    found = runpy.run_path(str(PROGRAMS / "diffusers_digits.py"))
    straight, curved = (
        torch.tensor([float(number) for number in re.findall(r"\d+\.\d+", line)])
        for line in capsys.readouterr().out.splitlines()
        if "length" in line
    )
    assert bool((straight > 1).all()), "the decoder ignores its codes"
    assert bool((curved < straight + 0.02).all()), "a geodesic is no longer than the straight line"
    torch.testing.assert_close(curved, found["path"].curve.length, rtol=0.02, atol=0.02)
    assert bool(found["path"].curve.converged.all())


@foreign
def test_scvi(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scvi")
    pytest.importorskip("anndata")
    folder = data("single-cell")
    monkeypatch.setenv("PYRO_RIEMANN_DATA", str(folder.parent))
    found = runpy.run_path(str(PROGRAMS / "scvi_cells.py"))
    lengths = found["curves"].length
    assert found["names"] == ("H1975", "H2228", "HCC827")
    assert bool(found["curves"].converged.all())
    assert bool((lengths < lengths.sum() - lengths).all()), "no side of a triangle is longer than the others together"


@foreign
def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("torchvision")
    with ZipFile(data("CIFAR-10") / "cifar10-jpeg.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith("train/") and name.endswith(".jpg")]
        archive.extractall(tmp_path, names[::100])
    monkeypatch.setattr(sys, "argv", ["lightning_cifar.py", str(tmp_path / "train")])
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(PROGRAMS / "lightning_cifar.py"))
    assert len(found["images"]) == 500
    assert found["rows"][1].frames.shape == (10, 3, 32, 32)
    assert found["rows"][1].curve.converged
    assert plt.imread(tmp_path / "interpolations.png").shape[-1] == 4


def test_equinox(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("equinox")
    jax, np = pytest.importorskip("jax"), pytest.importorskip("jax.numpy")
    found = runpy.run_path(str(PROGRAMS / "equinox_digits.py"))
    metric, codes = found["metric"], found["codes"]
    line = codes[:3] + np.linspace(0, 1, 65)[:, None, None] * (codes[3:] - codes[:3])
    images = jax.vmap(found["decoder"])(line.reshape(-1, 2)).reshape(65, 3, 64)
    straight = np.linalg.norm(np.diff(images, axis=0), axis=-1).sum(0)
    assert bool((metric.dist(codes[:3], codes[3:]) < straight * 1.001).all())
    assert bool((straight > 1).all()), "the decoder ignores its codes"
    assert "log densities" in capsys.readouterr().out
