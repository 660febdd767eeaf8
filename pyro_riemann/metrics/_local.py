"""The metric that data make by their local covariance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_riemann._checks import check_dtype, check_finite, check_point
from pyro_riemann._formulas import kernel
from pyro_riemann.metrics._base import RiemannianMetric

_LANDMARKS = 512  # of the data, at most


class LocalMetric(RiemannianMetric):
    r"""Inverse of the local diagonal covariance of data: short where data are, long where there are none.

    .. math:: G_{jj}(z) = \Big(\sum_n w_n(z)\,(x_{nj} - z_j)^2 + \rho\Big)^{-1}, \qquad
        w_n(z) = e^{-|x_n - z|^2 / 2 \sigma^2} .

    Curves follow the data. Far from them G is :math:`I / \rho`, flat; :meth:`on_floor` tells where. With Riemannian
    or wrapped normals on it this is the locally adaptive normal distribution (LAND); see
    :func:`pyro_riemann.mixtures.fit_normals`. Each evaluation takes all data: tabulate the metric where d <= 3.

    Args:
        data: ``(n, d)``.
        bandwidth: :math:`\sigma`, the distance over which data count as near.
        regularization: :math:`\rho`, in squared units of the data.

    Raises:
        TypeError: if ``data`` is not a floating tensor.
        ValueError: if ``data`` has another shape or is not finite, or a number is not positive and finite.

    Source: Arvanitidis, Hansen & Hauberg (2016), *A locally adaptive normal distribution*, section 3; Hauberg, Freifeld
    & Black (2012), *A geometric take on metric learning*.

    Example:
        >>> from pyro_riemann.metrics import LocalMetric
        >>> ring = torch.linspace(0, 6, 60)
        >>> metric = LocalMetric(torch.stack([ring.cos(), ring.sin()], -1), bandwidth=0.3)
        >>> bool(metric.logdet(torch.zeros(2)) > metric.logdet(torch.tensor([1.0, 0.0])))
        True
    """

    data: Tensor

    def __init__(self, data: Tensor, bandwidth: float, regularization: float = 1e-3) -> None:
        super().__init__()
        check_finite("data", check_dtype("data", data))
        if data.dim() != 2 or not data.numel():
            raise ValueError(f"`data` must have shape (n, d), got {tuple(data.shape)}.")
        for name, value in (("bandwidth", bandwidth), ("regularization", regularization)):
            if not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive and finite, got {value}.")
        self.dim, self.bandwidth, self.regularization = data.shape[1], float(bandwidth), float(regularization)
        self.register_buffer("data", data)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, bandwidth={self.bandwidth:g}, regularization={self.regularization:g}"

    def footprint(self, order: int) -> int:
        """Numbers held at one point: tables over the data.

        Args:
            order: of the derivatives of G.
        """
        return self.data.numel() * (3 + self.dim * max(order, 0))

    def _variance(self, z: Tensor) -> Tensor:
        return kernel.local_variance(torch, check_point("z", z, self.dim), self.data.to(z), self.bandwidth)

    def metric(self, z: Tensor) -> Tensor:
        return torch.diag_embed(1 / (self._variance(z) + self.regularization))

    def cholesky(self, z: Tensor) -> Tensor:
        return self.metric(z).sqrt()

    def logdet(self, z: Tensor) -> Tensor:
        return -(self._variance(z) + self.regularization).log().sum(-1)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v / (self._variance(z) + self.regularization)).sum(-1)

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        scale = 1 / (self._variance(z) + self.regularization)
        eye = torch.eye(self.dim, dtype=z.dtype, device=z.device)
        slope = kernel.local_variance_jacobian(torch, z, self.data.to(z), self.bandwidth, eye)
        return torch.diag_embed(scale), -(scale.square()[..., None] * slope)[..., :, None, :] * eye[..., None]

    def on_floor(self, z: Tensor) -> Tensor | None:
        """Where the data say less than the regularization in every coordinate, ``(*batch)``.

        Args:
            z: points, ``(*batch, d)``.
        """
        return (self._variance(z) < self.regularization).all(-1)

    def coverage(self, codes: Tensor) -> Tensor | float | None:
        """Share of ``codes``, ``(..., d)``, that are not on the floor."""
        return 1 - (self._variance(codes) < self.regularization).all(-1).to(codes).mean()

    @property
    def landmarks(self) -> Tensor | None:  # type: ignore[override]  # others hold it
        """Some of the data, ``(k, d)``: shortest curves run through them."""
        return self.data[:: -(-len(self.data) // _LANDMARKS)]
