"""Data sets: the bundled digits, and clear errors where files are missing."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_riemann.datasets import DATA_VARIABLE, disks_and_rings, load_dataset


def test_digits():
    data = load_dataset("digits")
    assert data.train.shape == (1498, 64)
    assert data.test.shape == (299, 64)
    assert data.train.dtype == torch.float32
    assert float(data.train.min()) == 0
    assert float(data.train.max()) == 1
    assert set(data.test_labels.tolist()) == set(range(10))


def write_mnist(raw: Path, packed: bool) -> None:
    """A data set of four images in MNIST's own format."""
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = np.arange(4 * 784, dtype=np.uint8).tobytes()
        header = np.array([2051, 4, 28, 28], dtype=">i4").tobytes()
        labels = np.array([2049, 4], dtype=">i4").tobytes() + bytes([1, 2, 3, 4])
        for name, content in ((f"{part}-images-idx3-ubyte", header + images), (f"{part}-labels-idx1-ubyte", labels)):
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (raw / name).write_bytes(content)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_reads_unpacked_files(tmp_path: Path, monkeypatch, name: str, folder: str):
    write_mnist(tmp_path / folder / "raw", packed=False)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    data = load_dataset(name)
    assert data.train.shape == (4, 784)
    assert data.test_labels.tolist() == [1, 2, 3, 4]
    assert float(data.train[0, 255]) == 1.0


def test_missing_files_name_the_way_out(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="download=True"):
        load_dataset("mnist", tmp_path)


def test_damaged_archives_start_no_download(tmp_path: Path):
    write_mnist(tmp_path / "MNIST" / "raw", packed=True)  # not the official bytes
    with pytest.raises(FileNotFoundError, match="checksum"):
        load_dataset("mnist", tmp_path)


def test_no_folder(monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=DATA_VARIABLE):
        load_dataset("mnist")


def test_unknown_name():
    with pytest.raises(ValueError, match="name"):
        load_dataset("cifar")


def test_disks_are_filled_and_rings_are_not():
    images, labels = disks_and_rings(400, size=33, seed=1)
    pictures = images.reshape(-1, 33, 33)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(pictures[:, 16, 16], (labels == 0).float()), "a disk holds its centre, a ring does not"
    torch.testing.assert_close(pictures, pictures.flip(-1))
    torch.testing.assert_close(pictures, pictures.mT)
    # along the middle row a disk is one run of ones, a ring two
    runs = (torch.diff(pictures[:, 16], prepend=torch.zeros(400, 1)) == 1).sum(-1)
    assert torch.equal(runs, labels + 1)


def test_areas_are_those_of_circles():
    """Pixels in a disk of radius r, of a square of side 2: a share of pi r^2 / 4, r uniform in [0.3, 0.9]."""
    images, labels = disks_and_rings(4000, size=40, seed=2)
    shares = images[labels == 0].mean(-1)
    expected = torch.pi / 4 * (0.9**3 - 0.3**3) / (3 * 0.6)
    assert abs(float(shares.mean()) - expected) < 4 * float(shares.std()) / 2000**0.5
    assert bool((shares > 0.9 * torch.pi / 4 * 0.3**2).all())
    assert bool((shares < 1.05 * torch.pi / 4 * 0.9**2).all())


def test_disks_and_rings_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    first, second = disks_and_rings(20, seed=3)[0], disks_and_rings(20, seed=3)[0]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, disks_and_rings(20, seed=4)[0])
    with pytest.raises(ValueError, match="num_images"):
        disks_and_rings(0)
