"""The metric of a trained encoder: a mixture of its posterior precisions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite, check_point, check_positive
from pyro_riemann.metrics._base import RiemannianMetric
from pyro_riemann.metrics._kernel_fit import nearest_neighbour_bandwidth, select_medoids


class KernelMetric(RiemannianMetric):
    r"""Kernel-smoothed precisions (Chadebec & Allassonniere 2022, eq. 7).

    .. math:: G(z) = \sum_{i=1}^k P_i \exp\bigl(-|z - c_i|^2_{P_i} / \rho^2\bigr) + \lambda I,
        \qquad |u|^2_{P} = u^\top P u.

    With diagonal precisions an evaluation is two matrix products: time O(n k d), memory
    O(n (k + d)) for :meth:`diagonal`, :meth:`logdet`, their gradients, :meth:`christoffel` and
    :meth:`drift`. Exponents are formed in double precision, since expanding the square cancels
    digits that float32 does not have.

    The volume is infinite (lambda > 0 far away), and shortest curves run through the void
    between the centroids, where G is smallest; :meth:`conformal` has curves that follow the data.

    Args:
        centroids: :math:`c_i`, ``(k, d)``.
        precisions: :math:`P_i`; diagonals ``(k, d)`` or matrices ``(k, d, d)``.
        bandwidth: :math:`\rho > 0`.
        regularization: :math:`\lambda > 0`.

    Arguments that are an ``nn.Parameter`` stay trainable; all others are buffers.

    Raises:
        ValueError: for shapes that do not match, NaN, precisions that are not positive (definite
            and symmetric), a bandwidth or regularization that is not positive.

    Example:
        >>> metric = KernelMetric(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.full((2, 2), 4.0), 2.0, 0.1)
        >>> metric.metric(torch.zeros(2))
        tensor([[5.5715, 0.0000],
                [0.0000, 5.5715]])
    """

    centroids: Tensor
    precisions: Tensor
    bandwidth: Tensor
    regularization: Tensor

    def __init__(
        self,
        centroids: Tensor,
        precisions: Tensor,
        bandwidth: float | Tensor,
        regularization: float | Tensor = 1e-3,
    ) -> None:
        super().__init__()
        if centroids.dim() != 2 or 0 in centroids.shape:
            raise ValueError(f"`centroids` must have shape (k, d), got {tuple(centroids.shape)}.")
        if precisions.shape not in (centroids.shape, (*centroids.shape, centroids.shape[-1])):
            k, d = centroids.shape
            raise ValueError(
                f"`precisions` must have shape ({k}, {d}) or ({k}, {d}, {d}) to match `centroids`, "
                f"got {tuple(precisions.shape)}."
            )
        check_finite("centroids", check_point("centroids", centroids, centroids.shape[-1]))
        check_finite("precisions", check_point("precisions", precisions, centroids.shape[-1]))
        if precisions.dim() == 2:
            check_positive("precisions", precisions)
        else:
            if not torch.allclose(precisions, precisions.mT, rtol=1e-4):
                raise ValueError("`precisions` must be symmetric; use (precisions + precisions.mT) / 2.")
            indefinite = torch.linalg.cholesky_ex(precisions.detach()).info != 0
            if bool(indefinite.any()):
                raise ValueError(f"`precisions` has {int(indefinite.sum())} matrices that are not positive definite.")
        for name, value in (("bandwidth", bandwidth), ("regularization", regularization)):
            scalar = torch.as_tensor(value, dtype=centroids.dtype, device=centroids.device)
            if scalar.dim() != 0:
                raise ValueError(f"`{name}` must be a number, got a tensor of shape {tuple(scalar.shape)}.")
            check_positive(name, scalar)
            self._register(name, value if isinstance(value, nn.Parameter) else scalar)
        self._register("centroids", centroids)
        self._register("precisions", precisions)
        self.dim = centroids.shape[-1]
        self.is_diagonal = precisions.dim() == 2

    def _register(self, name: str, value: Tensor) -> None:
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value)

    @classmethod
    def from_posterior(
        cls,
        loc: Tensor,
        scale: Tensor,
        num_centroids: int = 100,
        bandwidth: str | float = "mahalanobis",
        regularization: float = 1e-3,
        seed: int = 0,
        max_codes: int = 10_000,
    ) -> KernelMetric:
        r"""Metric of a VAE from its encoded training data.

        Centroids are k-medoids of the posterior means, precisions ``scale ** -2`` there.

        Args:
            loc: posterior means of the training data, ``(N, d)``.
            scale: posterior standard deviations, ``(N, d)``.
            num_centroids: k.
            bandwidth: a number, or a rule: ``"mahalanobis"``, :math:`\max_i \min_{j \ne i} |c_i - c_j|_{P_i}`,
                so that neighbouring kernels overlap; ``"euclidean"``, Chadebec & Allassonniere's
                :math:`\max_i \min_{j \ne i} |c_i - c_j|_2`, a Euclidean length against the kernel's Mahalanobis
                distance, which leaves isolated bumps where the posterior is narrow (see :meth:`coverage`).
            regularization: :math:`\lambda`.
            seed: of the k-medoids search; the global random state is not touched.
            max_codes: with more codes than this, medoids are searched in several random subsets of
                this size, and the set that serves all codes best is kept.

        Raises:
            ValueError: if shapes differ, ``scale`` is not positive, or there are fewer codes than centroids.
        """
        if loc.dim() != 2 or scale.shape != loc.shape:
            raise ValueError(
                f"`loc` and `scale` must have the same shape (N, d), got {tuple(loc.shape)} and {tuple(scale.shape)}."
            )
        check_finite("loc", loc)
        check_positive("scale", scale)
        chosen = select_medoids(loc.detach(), num_centroids, seed=seed, max_codes=max_codes)
        centroids, precisions = loc.detach()[chosen].clone(), scale.detach()[chosen] ** -2
        if isinstance(bandwidth, str):
            bandwidth = nearest_neighbour_bandwidth(centroids, precisions, bandwidth)
        return cls(centroids, precisions, bandwidth, regularization)

    @property
    def landmarks(self) -> Tensor:
        """Points that every search for a path should know of: the centroids, ``(k, d)``."""
        return self.centroids

    # ---------------------------------------------------------------- values

    def _wide(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points, centroids, precisions and the exponent's factor, all in double precision."""
        check_point("z", z, self.dim)
        wide = z.dtype if z.device.type == "mps" else torch.float64  # that device has no doubles
        return z.to(wide), self.centroids.to(wide), self.precisions.to(wide), -(self.bandwidth.to(wide) ** -2)

    def _weights(self, z: Tensor, centroids: Tensor, precisions: Tensor, factor: Tensor) -> Tensor:
        """Kernel weights ``exp(-|z - c_i|^2 / rho^2)``, ``(*batch, k)``, by one matrix product."""
        if self.is_diagonal:
            shifted, square = centroids * precisions, z.square()
        else:
            shifted = torch.einsum("kij,kj->ki", precisions, centroids)
            square, precisions = (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(-2), precisions.flatten(-2)
        constant = (shifted * centroids).sum(-1)
        features = torch.cat([square, z], dim=-1) @ torch.cat([precisions, -2 * shifted], dim=-1).mT
        return torch.exp(factor * (features + constant))

    def diagonal(self, z: Tensor) -> Tensor:
        """Diagonal of G, ``(*batch, d)``: all of G if the precisions are diagonal."""
        if not self.is_diagonal:
            return self.metric(z).diagonal(dim1=-2, dim2=-1)
        wide, centroids, precisions, factor = self._wide(z)
        kernel = self._weights(wide, centroids, precisions, factor) @ precisions
        return kernel.to(z.dtype) + self.regularization.to(z.dtype)

    def metric(self, z: Tensor) -> Tensor:
        if self.is_diagonal:
            return torch.diag_embed(self.diagonal(z))
        wide, centroids, precisions, factor = self._wide(z)
        kernel = self._weights(wide, centroids, precisions, factor) @ precisions.flatten(-2)
        kernel = kernel.to(z.dtype).unflatten(-1, (self.dim, self.dim))
        return kernel + self.regularization.to(z.dtype) * torch.eye(self.dim, dtype=z.dtype, device=z.device)

    def cholesky(self, z: Tensor) -> Tensor:
        return torch.diag_embed(self.diagonal(z).sqrt()) if self.is_diagonal else super().cholesky(z)

    def logdet(self, z: Tensor) -> Tensor:
        return self.diagonal(z).log().sum(-1) if self.is_diagonal else super().logdet(z)

    def inner(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * self.diagonal(z) * v).sum(-1) if self.is_diagonal else super().inner(z, u, v)

    def coverage(self, codes: Tensor) -> Tensor:
        r"""Share of ``codes``, ``(..., d)``, where G is not just its floor.

        That is, where the kernels outweigh it: :math:`\mathrm{tr}(G - \lambda I) > \lambda d`.

        Well below 1 the kernels are isolated bumps: use a larger bandwidth or more centroids.
        """
        kernel = self.diagonal(codes) - self.regularization.to(codes.dtype)
        return (kernel.mean(-1) > self.regularization.to(codes.dtype)).to(codes.dtype).mean()

    # ---------------------------------------------------------------- first derivatives

    def metric_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_diagonal:
            diagonal, slope = self._diagonal_jacobian(z)
            return torch.diag_embed(diagonal), torch.diag_embed(slope.mT, dim1=-3, dim2=-2)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        pull = torch.einsum("kij,...kj->...ki", precisions, wide.unsqueeze(-2) - centroids)
        slope = (2 * factor * weights.unsqueeze(-1) * pull).mT @ precisions.flatten(-2)
        kernel = (weights @ precisions.flatten(-2)).unflatten(-1, (self.dim, self.dim))
        floor = self.regularization.to(z.dtype) * torch.eye(self.dim, dtype=z.dtype, device=z.device)
        return kernel.to(z.dtype) + floor, slope.unflatten(-1, (self.dim, self.dim)).movedim(-3, -1).to(z.dtype)

    def _diagonal_jacobian(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Diagonal of G and ``d G_ii / d z_j``, ``(*batch, d, d)``, with no array over points, centroids and axes."""
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        pairs = precisions.unsqueeze(-1) * precisions.unsqueeze(-2)
        linear = (weights @ pairs.flatten(-2)).unflatten(-1, (self.dim, self.dim))
        offset = (weights @ (pairs * centroids.unsqueeze(-2)).flatten(-2)).unflatten(-1, (self.dim, self.dim))
        slope = 2 * factor * (linear * wide.unsqueeze(-2) - offset)
        return (weights @ precisions).to(z.dtype) + self.regularization.to(z.dtype), slope.to(z.dtype)

    def metric_derivatives(self, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.is_diagonal:
            return super().metric_derivatives(z, v)
        diagonal, slope = self._diagonal_jacobian(z)
        along = (slope * v.unsqueeze(-2)).sum(-1)
        return torch.diag_embed(diagonal), slope * v.unsqueeze(-1), torch.diag_embed(along)

    def logdet_gradient(self, z: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().logdet_gradient(z)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        inverse = 1 / (weights @ precisions + self.regularization.to(wide))
        return self._pull(wide, weights * (inverse @ precisions.mT), centroids, precisions, factor).to(z.dtype)

    @staticmethod
    def _pull(z: Tensor, weights: Tensor, centroids: Tensor, precisions: Tensor, factor: Tensor) -> Tensor:
        """Gradient ``sum_i weights_i d(exponent_i) / dz`` of the kernels, ``(*batch, d)``."""
        return 2 * factor * (z * (weights @ precisions) - weights @ (precisions * centroids))

    def christoffel(self, z: Tensor, v: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().christoffel(z, v)
        wide, centroids, precisions, factor = self._wide(z)
        v = v.to(wide)
        weights = self._weights(wide, centroids, precisions, factor)
        diagonal = weights @ precisions + self.regularization.to(wide)
        rate = 2 * factor * ((wide * v) @ precisions.mT - v @ (precisions * centroids).mT)
        along = (weights * rate) @ precisions  # derivative of the diagonal along v
        pull = self._pull(wide, weights * (v.square() @ precisions.mT), centroids, precisions, factor)
        return ((along * v - 0.5 * pull) / diagonal).to(z.dtype)

    def drift(self, z: Tensor) -> Tensor:
        if not self.is_diagonal:
            return super().drift(z)
        wide, centroids, precisions, factor = self._wide(z)
        weights = self._weights(wide, centroids, precisions, factor)
        diagonal = weights @ precisions + self.regularization.to(wide)
        square = precisions.square()  # d G_ii / d z_i, from P_i^2 in place of P_i
        own = 2 * factor * (wide * (weights @ square) - weights @ (square * centroids)) / diagonal
        volume = self._pull(wide, weights * (diagonal.reciprocal() @ precisions.mT), centroids, precisions, factor)
        return (-0.5 * (own - 0.5 * volume) / diagonal).to(z.dtype)

    def extra_repr(self) -> str:
        k, d = self.centroids.shape
        return (
            f"dim={d}, num_centroids={k}, bandwidth={self.bandwidth.item():.4g}, "
            f"regularization={self.regularization.item():.4g}"
        )
