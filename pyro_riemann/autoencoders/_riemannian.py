"""The Riemannian Hamiltonian VAE: the same with a metric learned from the data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_riemann._linalg import log_abs_det
from pyro_riemann.autoencoders._networks import ImageDecoder, ImageEncoder
from pyro_riemann.autoencoders._variational import HamiltonianAutoencoder, normal_log_density
from pyro_riemann.sampling import LatentSampler


class InverseKernel:
    r"""The inverse metric of RHVAE, :math:`H(z) = G(z)^{-1} = \sum_i M_i \exp(-|z - c_i|^2 / T^2) + \lambda I`.

    Gradients are closed forms, by matrix products over the centroids.

    Args:
        centroids: :math:`c_i`, ``(k, d)``.
        matrices: :math:`M_i`, symmetric, ``(k, d, d)``.
        temperature: :math:`T`.
        regularization: :math:`\lambda`.

    Source: Chadebec, Mantoux & Allassonniere (2020), eq. 10.

    Example:
        >>> kernel = InverseKernel(torch.zeros(1, 2), torch.eye(2)[None], 1.0, 0.5)
        >>> kernel(torch.zeros(2))
        tensor([[1.5000, 0.0000],
                [0.0000, 1.5000]])
    """

    def __init__(self, centroids: Tensor, matrices: Tensor, temperature: float, regularization: float) -> None:
        self.centroids, self.matrices = centroids, matrices
        self.temperature, self.regularization = temperature, regularization

    def weights(self, z: Tensor) -> Tensor:
        """Kernel weights at ``z``, ``(*batch, d) -> (*batch, k)``."""
        squared = z.square().sum(-1, keepdim=True) + self.centroids.square().sum(-1) - 2 * z @ self.centroids.mT
        return torch.exp(-squared / self.temperature**2)

    def assemble(self, weights: Tensor) -> Tensor:
        """H from kernel weights, ``(*batch, k) -> (*batch, d, d)``."""
        dim = self.centroids.shape[-1]
        kernel = (weights @ self.matrices.flatten(-2)).unflatten(-1, (dim, dim))
        return kernel + self.regularization * torch.eye(dim, dtype=weights.dtype, device=weights.device)

    def __call__(self, z: Tensor) -> Tensor:
        """H at ``z``, ``(*batch, d) -> (*batch, d, d)``."""
        return self.assemble(self.weights(z))

    def _pull(self, z: Tensor, weights: Tensor) -> Tensor:
        """Gradient ``sum_i weights_i d(exponent_i) / dz`` of the kernels, ``(*batch, d)``."""
        centre = weights @ self.centroids - weights.sum(-1, keepdim=True) * z
        return 2 / self.temperature**2 * centre

    def half_logdet_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``log det H(z) / 2``, ``(*batch)``, and its gradient ``(*batch, d)``."""
        weights = self.weights(z)
        factor = torch.linalg.cholesky(self.assemble(weights))
        inverse = torch.cholesky_inverse(factor)
        traces = inverse.flatten(-2) @ self.matrices.flatten(-2).mT
        return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1), 0.5 * self._pull(z, weights * traces)

    def kinetic_gradient(self, z: Tensor, v: Tensor) -> Tensor:
        """Gradient in z of ``v^T H(z) v / 2``, ``(*batch, d)``."""
        squares = (v.unsqueeze(-1) * v.unsqueeze(-2)).flatten(-2) @ self.matrices.flatten(-2).mT
        return 0.5 * self._pull(z, self.weights(z) * squares)


class RiemannianHamiltonianAutoencoder(HamiltonianAutoencoder):
    r"""RHVAE: HVAE with momentum of law N(0, G(z)) and the generalised leapfrog.

    .. math:: H(z, v) = -\log p(x, z) + \tfrac12 \log \det G(z) + \tfrac12 v^\top G(z)^{-1} v,

    G the inverse of an :class:`InverseKernel` at the codes of the minibatch, whose matrices a network draws from the
    images. The implicit half steps are fixed-point iterations over the metric alone: the decoder's gradient does not
    change in them.

    Args:
        encoder: with a scale.
        decoder: see :class:`ImageDecoder`.
        num_steps: leapfrog steps.
        step_size: first step size, in (0, 0.5).
        inverse_temperature: first inverse temperature, in (0, 1).
        temperature: bandwidth T of the kernels.
        regularization: :math:`\lambda`.
        iterations: fixed-point iterations of an implicit step.
        max_centroids: training codes kept for the metric after training, a random choice.
        metric_width: hidden units of the network of the matrices.

    Raises:
        ValueError: if the networks do not fit together, or a setting is out of range.

    Source: Chadebec, Mantoux & Allassonniere (2020), *Geometry-aware Hamiltonian variational auto-encoder*.

    Example:
        >>> from pyro_riemann.autoencoders import image_networks
        >>> model = RiemannianHamiltonianAutoencoder(*image_networks((8, 8), 2, hidden=(16,)), metric_width=8)
        >>> model.loss(torch.rand(5, 64)).shape
        torch.Size([])
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        decoder: ImageDecoder,
        num_steps: int = 3,
        step_size: float = 0.01,
        inverse_temperature: float = 0.3,
        temperature: float = 1.5,
        regularization: float = 1e-2,
        iterations: int = 3,
        max_centroids: int = 2000,
        metric_width: int = 128,
    ) -> None:
        super().__init__(encoder, decoder, num_steps, step_size, inverse_temperature)
        for name, value in (("temperature", temperature), ("regularization", regularization)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        if min(iterations, max_centroids, metric_width) < 1:
            raise ValueError("`iterations`, `max_centroids` and `metric_width` must be at least 1.")
        self.temperature, self.regularization = temperature, regularization
        self.iterations, self.max_centroids = iterations, max_centroids
        entries = self.latent_dim * (self.latent_dim + 1) // 2
        self.metric_network = nn.Sequential(
            nn.Linear(self.data_dim, metric_width), nn.ReLU(), nn.Linear(metric_width, entries)
        )
        self.kernel: InverseKernel | None = None

    def matrices(self, x: Tensor) -> Tensor:
        """Positive definite matrices M, ``(n, d, d)``, of images ``x`` ``(n, D)``, from their Cholesky factors."""
        entries, dim = self.metric_network(x), self.latent_dim
        row, column = torch.tril_indices(dim, dim, device=x.device)
        values = torch.where(row == column, entries.clamp(max=5).exp(), entries)
        factor = values.new_zeros(len(x), dim, dim).index_put((slice_of(len(x), row), row, column), values)
        return factor @ factor.mT

    def batch_kernel(self, x: Tensor, loc: Tensor) -> InverseKernel:
        """The inverse metric at images ``x`` ``(n, D)`` with codes ``loc`` ``(n, d)``."""
        return InverseKernel(loc, self.matrices(x), self.temperature, self.regularization)

    def riemannian_flow(
        self, x: Tensor, z: Tensor, v: Tensor, kernel: InverseKernel, create_graph: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Generalised leapfrog steps and tempering.

        Args:
            x: images, ``(n, D)``.
            z: first codes, ``(n, d)``.
            v: first momentum, heated, ``(n, d)``.
            kernel: the inverse metric.
            create_graph: make the result differentiable.

        Returns:
            ``z_K``, ``(n, d)``, ``v_K``, ``(n, d)``, and log p(x, z_K), ``(n,)``.
        """
        step = self.step_size
        value, gradient = self.joint_gradient(x, z, create_graph)
        force = gradient + kernel.half_logdet_gradient(z)[1]  # log det G = - log det H
        for factor in self.tempering():
            half = v
            for _ in range(self.iterations):
                half = v + 0.5 * step * (force - kernel.kinetic_gradient(z, half))
            before = _apply(kernel(z), half)
            after = z
            for _ in range(self.iterations):
                after = z + 0.5 * step * (before + _apply(kernel(after), half))
            z = after
            value, gradient = self.joint_gradient(x, z, create_graph)
            force = gradient + kernel.half_logdet_gradient(z)[1]
            v = (half + 0.5 * step * (force - kernel.kinetic_gradient(z, half))) * factor
        return z, v, value

    def moved(self, x: Tensor, loc: Tensor, z: Tensor, noise: Tensor, create_graph: bool) -> Tensor:
        kernel = self.batch_kernel(x, loc)
        # v = L^-T e has covariance (L L^T)^-1 = G
        factor = torch.linalg.cholesky(kernel(z))
        v = torch.linalg.solve_triangular(factor.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
        first = normal_log_density(noise) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        v = v * self.inverse_temperature.rsqrt()
        z, end, joint = self.riemannian_flow(x, z, v, kernel, create_graph)
        return joint + momentum_log_density(kernel, z, end) - first

    @torch.no_grad()
    def finish(self, data: Tensor) -> None:
        """Keep the metric at some random codes of the training ``data``, ``(n, D)``, for :meth:`volume_sampler`."""
        chosen = data[torch.randperm(len(data), device="cpu")[: self.max_centroids].to(data.device)]
        self.kernel = self.batch_kernel(chosen, self.encode(chosen))

    def volume_sampler(self) -> LatentSampler:
        """The law proportional to ``sqrt(det G^-1)``: its authors' way to sample, by importance resampling.

        Raises:
            ValueError: before training.
        """
        if self.kernel is None:
            raise ValueError("the metric of RHVAE is known after `fit`.")
        return InverseVolumeSampler(self.kernel)


class InverseVolumeSampler:
    r"""Draws from :math:`p(z) \propto \sqrt{\det H(z)}` of an :class:`InverseKernel`, by importance resampling.

    An isolated kernel's :math:`\sqrt{\det (M e^{-r^2/T^2})} = \sqrt{\det M}\, e^{-d r^2 / (2 T^2)}` is a Gaussian
    of variance :math:`T^2 / d`: the mixture of these, by their masses, proposes. The floor :math:`\lambda I`
    makes the law improper on all of R^d; the draws keep to the reach of the proposal.

    Args:
        kernel: the inverse metric.
        oversampling: proposals a draw.

    Attributes:
        efficiency: effective share of the last proposals.

    Source: Chadebec, Mantoux & Allassonniere (2020), *Geometry-aware Hamiltonian variational auto-encoder*; Rubin
    (1988), *Using the SIR algorithm to simulate posterior distributions*.

    Example:
        >>> kernel = InverseKernel(torch.tensor([[-9.0, 0.0], [9.0, 0.0]]), torch.eye(2).repeat(2, 1, 1), 1.0, 1e-4)
        >>> InverseVolumeSampler(kernel).sample(5).shape
        torch.Size([5, 2])
    """

    def __init__(self, kernel: InverseKernel, oversampling: int = 10) -> None:
        self.kernel, self.oversampling, self.efficiency = kernel, oversampling, math.nan

    @torch.no_grad()
    def sample(self, num_samples: int) -> Tensor:
        """Codes ``(num_samples, d)``."""
        kernel, dim = self.kernel, self.kernel.centroids.shape[-1]
        mass = 0.5 * log_abs_det(kernel.matrices)
        spread = kernel.temperature / dim**0.5
        count = num_samples * self.oversampling
        picked = torch.multinomial((mass - mass.max()).exp(), count, replacement=True)
        z = kernel.centroids[picked] + spread * torch.randn(count, dim, device="cpu").to(kernel.centroids)
        weights = []
        for part in z.split(4096):
            proposal = mass.log_softmax(0) - 0.5 * torch.cdist(part, kernel.centroids).square() / spread**2
            weights.append(kernel.half_logdet_gradient(part)[0] - proposal.logsumexp(-1))
        share = torch.cat(weights).double().softmax(0)
        self.efficiency = float(1 / (count * share.square().sum()))
        return z[torch.multinomial(share, num_samples, replacement=True)]


def momentum_log_density(kernel: InverseKernel, z: Tensor, v: Tensor) -> Tensor:
    """log N(v | 0, G(z)), ``(n,)``."""
    factor = torch.linalg.cholesky(kernel(z))
    white = _apply(factor.mT, v)
    return normal_log_density(white) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def slice_of(count: int, index: Tensor) -> Tensor:
    """Rows ``(count, 1)`` that broadcast against ``index`` in an indexed assignment."""
    return torch.arange(count, device=index.device)[:, None]


def _apply(matrix: Tensor, v: Tensor) -> Tensor:
    return (matrix @ v.unsqueeze(-1)).squeeze(-1)
