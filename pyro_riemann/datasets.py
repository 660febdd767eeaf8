"""Data sets: digits bundled with scikit-learn, MNIST and Fashion-MNIST through torchvision, drawn disks and rings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_riemann._checks import check_one_of

__all__ = ["ImageData", "disks_and_rings", "load_dataset"]

DATA_VARIABLE = "PYRO_RIEMANN_DATA"
NAMES = ("digits", "mnist", "fashion-mnist")
_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class ImageData(NamedTuple):
    """Images with their labels, for training and for testing.

    Attributes:
        train: images as rows ``(n, height * width)`` with values in [0, 1].
        train_labels: integers ``(n,)``.
        test: likewise, ``(m, height * width)``.
        test_labels: integers ``(m,)``.
        shape: height and width.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.shape, digits.train.shape[1]
        ((8, 8), 64)
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    shape: tuple[int, int]


def load_dataset(name: str = "digits", root: str | Path | None = None) -> ImageData:
    """Load a data set by name; nothing is ever downloaded.

    Args:
        name: ``"digits"`` (1,797 images of 8 x 8, bundled with scikit-learn; every sixth is for testing),
            ``"mnist"`` or ``"fashion-mnist"`` (60,000 + 10,000 images of 28 x 28).
        root: folder that holds ``MNIST/raw`` or ``FashionMNIST/raw``, as torchvision lays them out. Default:
            the environment variable ``PYRO_RIEMANN_DATA``. Archives (``.gz``) in a folder that can be written are
            unpacked by torchvision after its checksum.

    Returns:
        float32 images and int64 labels.

    Raises:
        ValueError: for an unknown name, or MNIST without a folder.
        FileNotFoundError: if the files are missing; the message says what to do.
        ImportError: if torchvision is not installed.

    Example:
        >>> data = load_dataset("digits")
        >>> data.train.shape, data.test.shape, data.shape
        (torch.Size([1498, 64]), torch.Size([299, 64]), (8, 8))
    """
    check_one_of("name", name, NAMES)
    return _digits() if name == "digits" else _torchvision(name, root)


def disks_and_rings(num_images: int = 1000, size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Binary images of disks and rings of random size and thickness: the toy set of C22, figure 1.

    Radii are uniform in [0.3, 0.9] half sides; a ring's hole has 30 % to 80 % of its radius. Half the images are disks.

    Args:
        num_images: how many.
        size: height and width.
        seed: of the radii; the global generator is left alone.

    Returns:
        Images ``(num_images, size * size)`` of zeros and ones, and labels ``(num_images,)``: 0 disk, 1 ring.

    Raises:
        ValueError: if there is no image, or less than 8 pixels a side.

    Example:
        >>> images, labels = disks_and_rings(10, size=16)
        >>> images.shape, labels.tolist()
        (torch.Size([10, 256]), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    """
    if num_images < 1 or size < 8:
        raise ValueError(f"`num_images` must be at least 1 and `size` at least 8, got {num_images} and {size}.")
    generator = torch.Generator().manual_seed(seed)
    radius, hole = torch.rand(2, num_images, 1, 1, generator=generator, device="cpu")
    radius, hole = 0.3 + 0.6 * radius, 0.3 + 0.5 * hole
    labels = torch.arange(num_images, device="cpu") % 2
    axis = (torch.arange(size, device="cpu") + 0.5) / size * 2 - 1
    distance = (axis[:, None].square() + axis.square()).sqrt()
    inside = (distance <= radius) & (distance >= radius * hole * labels[:, None, None])
    return inside.flatten(1).float(), labels


def _digits() -> ImageData:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels, classes = torch.from_numpy(images / 16).float(), torch.from_numpy(labels).long()
    # writers come in blocks: every sixth image tests on all of them
    held_out = torch.arange(len(pixels), device="cpu") % 6 == 5
    return ImageData(pixels[~held_out], classes[~held_out], pixels[held_out], classes[held_out], (8, 8))


def _torchvision(name: str, root: str | Path | None) -> ImageData:
    if root is None:
        root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise ValueError(
            f"`root` is needed for {name!r}: give the folder that holds {_FOLDERS[name]}/raw, or set the environment "
            f"variable {DATA_VARIABLE}."
        )
    try:
        import torchvision
    except ImportError as error:
        raise ImportError(
            f"{name!r} is read by torchvision: install it with `pip install pyro-riemann[vision]`."
        ) from error
    folder = Path(root).expanduser()
    unpack = _must_unpack(name, folder)
    factory = torchvision.datasets.MNIST if name == "mnist" else torchvision.datasets.FashionMNIST
    sets = [factory(str(folder), train=train, download=unpack) for train in (True, False)]
    images = [part.data.flatten(1).float() / 255 for part in sets]
    labels = [part.targets.long() for part in sets]
    return ImageData(images[0], labels[0], images[1], labels[1], (28, 28))


def _must_unpack(name: str, root: Path) -> bool:
    """Whether torchvision has to unpack archives; raise unless all files are there in one form."""
    raw = root / _FOLDERS[name] / "raw"
    missing = [file for file in _FILES if not (raw / file).exists()]
    if not missing:
        return False
    absent = [file for file in missing if not (raw / f"{file}.gz").exists()]
    if absent:
        raise FileNotFoundError(
            f"{name!r} is not in {root}: {raw} lacks {', '.join(absent)}. Nothing is downloaded unasked. "
            f"Either let torchvision fetch it once, "
            f"python -c \"import torchvision; torchvision.datasets.{_FOLDERS[name]}('{root}', download=True)\", "
            f"or copy the four .gz archives of the data set to {raw}."
        )
    if not os.access(raw, os.W_OK):
        raise FileNotFoundError(
            f"{name!r} is packed in {raw}, which cannot be written. Unpack a copy: "
            f"mkdir -p DIR && cp -r {root}/. DIR && chmod -R u+w DIR && "
            f"gunzip -k DIR/{_FOLDERS[name]}/raw/*.gz, then use DIR as the folder."
        )
    # download=True finds the archives and only unpacks them, if their checksums are right: a damaged one would
    # start a download, so that is looked at first.
    damaged = [file for file in _FILES if not _intact(name, raw / f"{file}.gz")]
    if damaged:
        raise FileNotFoundError(
            f"damaged archives of {name!r} in {raw}: {', '.join(damaged)} (wrong MD5 checksum); copy them again."
        )
    return True


def _intact(name: str, archive: Path) -> bool:
    import torchvision
    from torchvision.datasets.utils import check_integrity

    factory = torchvision.datasets.MNIST if name == "mnist" else torchvision.datasets.FashionMNIST
    checksums = dict(factory.resources)
    return archive.exists() and check_integrity(str(archive), checksums[archive.name])
