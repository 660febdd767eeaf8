"""Two batches of points as one list of pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_riemann._checks import check_finite, check_point, holds
from pyro_riemann._interface import Metric


def flat_pairs(metric: Metric, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Check, broadcast and flatten two batches of points."""
    check_finite("z", check_point("z", z, metric.dim))
    check_finite("y", check_point("y", y, metric.dim))
    for name, point in (("z", z), ("y", y)):
        if (known := metric.covers(point)) is not None and not holds(known):
            raise ValueError(
                f"{int((~known).sum())} of {known.numel()} points `{name}` lie outside the box in which "
                f"{type(metric).__name__} is known, for instance {point[~known][0].tolist()}. Tabulate a larger box, "
                'or use `outside="metric"`.'
            )
    try:
        z, y = torch.broadcast_tensors(z, y)
    except RuntimeError as error:
        raise ValueError(f"`z` {tuple(z.shape)} and `y` {tuple(y.shape)} do not broadcast.") from error
    dtype = torch.promote_types(z.dtype, y.dtype)
    return z.reshape(-1, metric.dim).to(dtype), y.reshape(-1, metric.dim).to(dtype), z.shape[:-1]
