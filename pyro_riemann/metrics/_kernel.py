"""The metric of a trained encoder: a mixture of its posterior precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_riemann._checks import check_finite, check_point, check_positive
from pyro_riemann._files import Kind
from pyro_riemann._store import read_bundle, write_bundle
from pyro_riemann.metrics._kernel_encode import check_posterior, encode
from pyro_riemann.metrics._kernel_rules import k_medoids, kernel_bandwidth
from pyro_riemann.metrics._kernel_sum import KernelSum


class KernelMetric(KernelSum):
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
        bandwidth: :math:`\rho > 0`, a number, in units of the norms :math:`|\cdot|_{P_i}`.
        regularization: :math:`\lambda > 0`, a number.

    Arguments that are an ``nn.Parameter`` stay trainable; all others are buffers.

    Raises:
        ValueError: for shapes that do not match, NaN, precisions that are not positive (definite
            and symmetric), a bandwidth or regularization that is not positive.
        TypeError: if ``centroids`` or ``precisions`` is not a floating tensor.

    Example:
        >>> metric = KernelMetric(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.full((2, 2), 4.0), 2.0, 0.1)
        >>> metric.metric(torch.zeros(2))
        tensor([[5.5715, 0.0000],
                [0.0000, 5.5715]])
    """

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
        loc: Tensor | Iterable[object],
        scale: Tensor | Callable[..., object],
        num_centroids: int = 100,
        bandwidth: str | float = "posterior",
        regularization: float = 1e-3,
        seed: int = 0,
        max_codes: int = 10_000,
        *,
        factor: float = 1.0,
        select: str | Callable[[object], object] | None = None,
    ) -> KernelMetric:
        r"""Metric of a VAE from its encoded training data.

        Centroids are k-medoids of the posterior means, precisions the inverse posterior covariances there. An isolated
        bump of :math:`\sqrt{\det G}` is :math:`N(c_i, (\rho^2 / d) \Sigma_i)`: with :math:`\rho = \sqrt d` draws of the
        uniform law are draws of the posteriors at the centroids. Bumps that overlap lift each other by powers of
        d / 2, until all draws crowd on a few codes; the default narrows them until they do not.

        Args:
            loc: posterior means of the training data, ``(N, d)``; or a data loader, whose batches are tensors, or
                tuples, lists or mappings with the data first.
            scale: posterior standard deviations, ``(N, d)``, or Cholesky factors of covariances, ``(N, d, d)``, of
                which the metric has full precisions. With a loader, the encoder: it maps a batch to ``(loc, scale)``;
                to a distribution; to draws ``(num_draws, n, d)``; or to a mapping or an object that names the mean
                and the standard deviation, variance, log-variance or covariance in one of the usual ways (``loc``,
                ``mean``, ``mu``; ``scale``, ``std``, ``logvar``, ``log_covariance``). A distribution that correlates
                coordinates and is no multivariate normal, a flow for instance, counts by the moments of its draws. A
                module is put into evaluation mode meanwhile.
            num_centroids: k.
            bandwidth: a number, or a rule: ``"posterior"``, :math:`\sqrt d` times the largest factor from 0.05 to 1, in
                steps of 5 %, at which 95 % of the bumps are in effect, by the heights to which they are lifted;
                ``"mahalanobis"``,
                :math:`\max_i \min_{j \ne i} |c_i - c_j|_{P_i}`, so that neighbouring kernels overlap, for geodesics:
                draws may lie far from all codes; ``"euclidean"``, Chadebec & Allassonniere's
                :math:`\max_i \min_{j \ne i} |c_i - c_j|_2`, a Euclidean length against the kernel's Mahalanobis
                distance (see :meth:`coverage`).
            regularization: :math:`\lambda`.
            seed: of the k-medoids search and of draws; the global random state is not touched.
            max_codes: with more codes than this, medoids are searched in several random subsets of
                this size, and the set that serves all codes best is kept.
            factor: multiplies the bandwidth. :attr:`bump_scale` shows the standard deviation of an isolated bump in
                those of the posterior.
            select: with a loader, what of a batch the encoder is given: the name of an entry, or a function of the
                batch (``dict`` for all of a mapping).

        Raises:
            ValueError: if shapes differ, ``scale`` is not positive, or there are fewer codes than centroids.
            ImportError: if ``kmedoids`` is not installed, which the extra `kernel` brings.
            TypeError: if the loader or the encoder gives something else.

        Source: Chadebec & Allassonniere (2022), section 4.2.

        Example:
            >>> encoder = lambda x: (x[:, :2], torch.full_like(x[:, :2], 0.3))
            >>> loader = torch.utils.data.DataLoader(torch.randn(100, 5), batch_size=32)
            >>> KernelMetric.from_posterior(loader, encoder, num_centroids=10)
            KernelMetric(dim=2, num_centroids=10, bandwidth=1.414, bump_scale=1, regularization=0.001)
        """
        if not isinstance(loc, Tensor) or not isinstance(scale, Tensor):
            if isinstance(loc, Tensor) or isinstance(scale, Tensor) or not callable(scale):
                raise TypeError(
                    "`loc` and `scale` must both be tensors, or a data loader and an encoder; got "
                    f"{type(loc).__name__} and {type(scale).__name__}."
                )
            loc, scale = encode(loc, scale, select, seed)
        loc, scale = loc.detach(), scale.detach()
        check_posterior(loc, scale)
        chosen = k_medoids(loc, num_centroids, seed, max_codes)
        centroids, spread = loc[chosen].clone(), scale[chosen]
        precisions = spread**-2 if spread.dim() == 2 else torch.cholesky_inverse(spread)
        if isinstance(bandwidth, str):
            bandwidth = kernel_bandwidth(centroids, precisions, bandwidth)
        return cls(centroids, precisions, factor * bandwidth, regularization)

    def save(self, folder: str | Path) -> None:
        """Write the metric to ``folder``: arrays as safetensors, their description as JSON.

        Args:
            folder: made if missing; a metric that it holds is replaced, in one step.

        Raises:
            OSError, FileNotFoundError: if it cannot be written, in one sentence; a metric that is there stays.
        """
        write(folder, self.state_dict(), [name for name, _ in self.named_parameters()])

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> KernelMetric:
        """The metric that :meth:`save` wrote, trainable where it was.

        Args:
            folder: where it was saved.
            device: where it goes.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it was damaged or changed, or is another kind of metric.

        Example:
            >>> import tempfile
            >>> metric = KernelMetric(torch.zeros(3, 2), torch.ones(3, 2), bandwidth=1.0)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     metric.save(folder)
            ...     KernelMetric.load(folder)
            KernelMetric(dim=2, num_centroids=3, bandwidth=1, bump_scale=0.7071, regularization=0.001)
        """
        return read(folder, device, cls)

    def extra_repr(self) -> str:
        k, d = self.centroids.shape
        return (
            f"dim={d}, num_centroids={k}, bandwidth={self.bandwidth.item():.4g}, "
            f"bump_scale={self.bump_scale:.4g}, regularization={self.regularization.item():.4g}"
        )


METRIC = Kind("metric", version=2, remedy="Make the metric again and save it anew")
_ARRAYS = {"centroids", "precisions", "bandwidth", "regularization"}
_CLASS = "KernelMetric"
Metric = TypeVar("Metric")


def write(folder: str | Path, arrays: Mapping[str, Tensor], trainable: list[str]) -> None:
    """Write ``arrays`` and which of them are trainable; a metric that is there is replaced in one step."""
    write_bundle(Path(folder), METRIC, arrays, {"class": _CLASS, "trainable": trainable})


def read(folder: str | Path, device: str | torch.device, make: Callable[..., Metric]) -> Metric:
    """What ``make`` makes of the arrays, parameters where they were trainable.

    Raises:
        FileNotFoundError: if there is no metric in the folder.
        ValueError: if it is damaged, or no kernel metric.
    """
    folder = Path(folder)
    arrays, info = read_bundle(folder, METRIC, device)
    manifest, trainable = folder / "metric.json", info.get("trainable")
    if info.get("class") != _CLASS:
        METRIC.refuse(manifest, f"it describes a {info.get('class')!r}, not a {_CLASS}")
    if arrays.keys() != _ARRAYS:
        METRIC.refuse(manifest, f"its arrays are {sorted(arrays)}, not {sorted(_ARRAYS)}")
    if not isinstance(trainable, list) or not all(isinstance(name, str) and name in _ARRAYS for name in trainable):
        METRIC.refuse(manifest, f"{trainable!r} cannot be trainable")
    if len(dtypes := {value.dtype for value in arrays.values()}) > 1 or not arrays["centroids"].is_floating_point():
        METRIC.refuse(manifest, f"its arrays have dtypes {sorted(map(str, dtypes))}, not one that is floating")
    try:
        return make(**{name: nn.Parameter(value) if name in trainable else value for name, value in arrays.items()})
    except (ValueError, TypeError) as error:
        METRIC.refuse(manifest, f"its arrays are those of no metric: {error}", error)
