"""Is it a copy? The nearest training image and the nearest reconstruction of a generated one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor

from pyro_riemann._checks import check_finite
from pyro_riemann._work import announced
from pyro_riemann.plotting import plot_images
from pyro_riemann.vae._data import Data, as_rows

_ROWS = 500  # queries at once


class Neighbors(NamedTuple):
    """Nearest rows of a set.

    Attributes:
        rows: which rows, ``(n,)``.
        distance: Euclidean distance to it, ``(n,)``.

    Example:
        >>> nearest(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0]])).rows
        tensor([1])
    """

    rows: Tensor
    distance: Tensor


@announced
def nearest(queries: Tensor, data: Data) -> Neighbors:
    """Nearest row of a set to each query, in Euclidean distance of pixels.

    Args:
        queries: ``(n, *shape)``.
        data: ``(m, *shape)``; or a ``Dataset`` or ``DataLoader`` of such, numbered as in the data set.

    Raises:
        TypeError: for data of another kind.
        ValueError: for data of different shape.

    Source: C22, figure 3.

    Example:
        >>> nearest(torch.tensor([[0.9], [-3.0]]), torch.tensor([[0.0], [1.0]])).distance
        tensor([0.1000, 3.0000])
    """
    rows = check_finite("queries", _images("queries", queries)).flatten(1)
    data = as_rows("data", data, rows.shape[-1], queries.shape[1:] if queries.dim() > 2 else None).to(rows.device)
    return _closest(rows, data)


def _closest(queries: Tensor, data: Tensor, own: Tensor | None = None) -> Neighbors:
    """Nearest rows; of queries that are themselves the rows ``own``, the nearest others."""
    length, index = data.square().sum(-1), []
    for at in torch.arange(len(queries), device=data.device).split(_ROWS):
        squared = length - 2 * queries[at] @ data.mT
        if own is not None:
            squared[at - at[0], own[at]] = torch.inf
        index.append(squared.argmin(-1))
    rows = torch.cat(index)
    # the expanded square finds the row; its own distance is taken without the cancellation
    return Neighbors(rows, (queries - data[rows]).square().sum(-1).sqrt())


@announced
def authenticity(generated: Tensor, data: Data) -> float:
    r"""Share of generated rows that are no copies: farther from the nearest training row than that is from the others.

    With :math:`r` the training row nearest to a generated :math:`g`, the share of the :math:`g` with
    :math:`|g - r| > \min_{r' \ne r} |r - r'|`. Training rows have 0 and rows unlike the data 1. New rows from the law
    of the data have no fixed value: among many rows 1/3 on a line, 0.38 in a plane, towards 1/2 in more dimensions, and
    more where rows are few for their dimension. So take that of held-out data beside it.

    Args:
        generated: images or features ``(n, *shape)``.
        data: those of the training data ``(m, *shape)``, at least two; or a ``Dataset`` or ``DataLoader`` of such.

    Raises:
        TypeError: for data of another kind.
        ValueError: for data of different shape, or a single row of them.

    Source: Alaa et al. (2022), *How faithful is your synthetic data? Sample-level metrics for evaluating and auditing
    generative models*.

    Example:
        >>> data = torch.tensor([[0.0], [1.0], [3.0]])
        >>> authenticity(torch.tensor([[0.1], [5.5]]), data)
        0.5
    """
    queries = check_finite("generated", _images("generated", generated)).flatten(1)
    shape = generated.shape[1:] if generated.dim() > 2 else None
    rows = as_rows("data", data, queries.shape[-1], shape).to(queries.device)
    if len(rows) < 2:
        raise ValueError("`data` must have at least 2 rows, whose distance from each other is the measure; got 1.")
    found = _closest(queries, rows)
    # only rows that are nearest to something need their own neighbour
    taken, which = found.rows.unique(return_inverse=True)
    apart = _closest(rows[taken], rows, taken).distance[which]
    return float((found.distance > apart).double().mean())


class NearestImages(NamedTuple):
    """Generated images beside the training data, as in C22's figure 3.

    Attributes:
        generated: ``(n, *shape)``.
        train: nearest training images ``(n, *shape)``.
        reconstruction: nearest reconstructions of training images ``(n, *shape)``: not always those of ``train``.
        train_distance: distance to ``train``, ``(n,)``.
        reconstruction_distance: distance to ``reconstruction``, ``(n,)``.

    Example:
        >>> data = torch.rand(50, 16)
        >>> found = nearest_images(data[:3], data, lambda rows: rows)
        >>> found.train_distance
        tensor([0., 0., 0.])
    """

    generated: Tensor
    train: Tensor
    reconstruction: Tensor
    train_distance: Tensor
    reconstruction_distance: Tensor

    def plot(self, shape: tuple[int, ...], ax: Axes | None = None) -> Axes:
        """A grid of three rows: generated, nearest training image, nearest reconstruction.

        Args:
            shape: ``(height, width)`` or ``(channels, height, width)`` of the images.
            ax: axes to draw on.

        Raises:
            ValueError: if ``shape`` does not fit the images.
        """
        rows = torch.cat([self.generated, self.train, self.reconstruction])
        axes = plot_images(rows, shape, columns=len(self.generated), limits=(0, 1), ax=ax)
        height = shape[-2] + 1
        axes.set_yticks([height * (row + 0.5) for row in range(3)], ["generated", "nearest train", "nearest rec."])
        axes.tick_params(left=False)
        return axes


@announced
def nearest_images(generated: Tensor, data: Data, reconstruct: Callable[[Tensor], Tensor]) -> NearestImages:
    """Nearest training image and nearest reconstruction of each generated image, of any shape.

    Args:
        generated: ``(n, *shape)``.
        data: training images ``(m, *shape)``; or a ``Dataset`` or ``DataLoader`` of such.
        reconstruct: maps images ``(m, *shape)`` to their reconstructions, ``lambda x: model.decode(model.encode(x))``.

    Raises:
        TypeError: for data of another kind.
        ValueError: for images of different shape.

    Source: C22, figure 3.

    Example:
        >>> data = torch.rand(50, 16)
        >>> nearest_images(torch.rand(3, 16), data, lambda rows: 0.5 * rows).reconstruction.shape
        torch.Size([3, 16])
    """
    shape = _images("generated", generated).shape[1:]
    rows = (
        as_rows("data", data, math.prod(shape), shape if len(shape) > 1 else None)
        .reshape(-1, *shape)
        .to(generated.device)
    )
    reconstructions = reconstruct(rows)
    to_data, to_reconstructions = nearest(generated, rows), nearest(generated, reconstructions)
    return NearestImages(
        generated,
        rows[to_data.rows],
        reconstructions[to_reconstructions.rows].reshape(-1, *shape),
        to_data.distance,
        to_reconstructions.distance,
    )


def _images(name: str, images: Tensor) -> Tensor:
    if images.dim() < 2 or len(images) == 0:
        raise ValueError(f"`{name}` must have shape (n, *shape), got {tuple(images.shape)}.")
    return images
