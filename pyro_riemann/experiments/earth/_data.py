"""Places on Earth: eruptions, earthquakes, floods and fires, as points of the sphere's chart."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_riemann._checks import check_one_of
from pyro_riemann.datasets import DATA_VARIABLE
from pyro_riemann.manifolds import Sphere

FILES = {"volcano": "volerup.csv", "earthquake": "quakes_all.csv", "flood": "flood.csv", "fire": "fire.csv"}


def load_places(name: str, root: str | Path | None = None, *, distinct: bool = False) -> Tensor:
    """Places of one data set in the stereographic chart of the sphere, north pole at infinity, float64.

    Args:
        name: ``"volcano"``, ``"earthquake"``, ``"flood"`` or ``"fire"``.
        root: folder with the file in it or in its folder ``earth``; default: the environment variable
            ``PYRO_RIEMANN_DATA``. The files are those of the repository ``oxcsml/riemannian-score-sde``, first
            collected by Mathieu & Nickel (2020): latitude and longitude in degrees. Nothing is downloaded.
        distinct: keep one of each set of equal rows, in the order of latitude and longitude.

    Returns:
        Points, ``(n, 2)``.

    Raises:
        ValueError: for an unknown name.
        FileNotFoundError: if the file is missing; the message says what to do.
    """
    check_one_of("name", name, tuple(FILES))
    root = root or os.environ.get(DATA_VARIABLE)
    candidates = [] if not root else [Path(root).expanduser() / part / FILES[name] for part in ("earth", ".")]
    path = next((path for path in candidates if path.exists()), None)
    if path is None:
        where = f"is not in {root}" if root else "needs a folder"
        raise FileNotFoundError(
            f"{FILES[name]} {where}: copy the folder data/earth of the repository oxcsml/riemannian-score-sde to "
            f"DIR/earth, and give DIR, or set the environment variable {DATA_VARIABLE} to it."
        )
    degrees = np.array(list(_rows(path)))
    if distinct:
        degrees = np.unique(degrees, axis=0)
    return to_chart(torch.from_numpy(degrees))


def _rows(path: Path) -> list[tuple[float, float]]:
    lines = [line.split(",") for line in path.read_text().splitlines() if line[:1].isdigit() or line[:1] == "-"]
    return [(float(latitude), float(longitude)) for latitude, longitude, *_ in lines]


def to_chart(degrees: Tensor) -> Tensor:
    """Points of the stereographic chart, ``(n, 2)``.

    Args:
        degrees: latitude and longitude, ``(n, 2)``.
    """
    latitude, longitude = degrees.deg2rad().unbind(-1)
    flat = latitude.cos()
    return Sphere(2).from_ambient(torch.stack([flat * longitude.cos(), flat * longitude.sin(), latitude.sin()], -1))


def to_degrees(z: Tensor) -> Tensor:
    """Latitude and longitude in degrees, ``(n, 2)``.

    Args:
        z: points of the chart, ``(n, 2)``.
    """
    x = Sphere(2).to_ambient(z)
    return torch.stack([x[..., 2].clamp(-1, 1).asin(), torch.atan2(x[..., 1], x[..., 0])], -1).rad2deg()


def split(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of training, validation and test part: 80, 10 and 10 % of a random permutation.

    Args:
        count: number of points n.
        seed: of the permutation; the global generator is left alone.

    Returns:
        Integers, each ``(k,)``.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    first, second = int(0.8 * count), int(0.9 * count)
    return order[:first], order[first:second], order[second:]
