"""The immersion of a pullback: how it is called and read, and what it is asked before it is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from pyro_riemann import _autodiff
from pyro_riemann._decoded import Output, OutputError, outputs
from pyro_riemann._jets import Jet
from pyro_riemann._plain import KERNELS
from pyro_riemann.metrics import _door, _modules
from pyro_riemann.metrics._ambient import Ambient, Flat, Of, Product
from pyro_riemann.metrics._base import RiemannianMetric
from pyro_riemann.metrics._fisher import Chart, charts_of

Immersion = Callable[[Tensor], object]
R = TypeVar("R")


class ProbedImmersion(RiemannianMetric):
    """What :class:`PullbackMetric` knows of its immersion, by a few points and their images."""

    immersion: Immersion
    images: Images
    is_plain: bool
    kernels: str
    _probed_dtype: torch.dtype | None = None
    numbers: int = 4096  # numbers that the immersion computes at a point, its layers included, where that is not known

    def embed(self, z: Tensor) -> Tensor:
        """The immersed points, ``(*batch, d)`` to ``(*batch, D)``."""
        raise NotImplementedError

    def jets(self, z: Tensor) -> tuple[Jet, ...] | None:
        """Taylor propagation at ``z``, ``(*batch, d)``, where it is on offer."""
        raise NotImplementedError

    def _probe_outputs(self, modules: list[nn.Module]) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Three points and their images, in the immersion's own dtype and device, if these can be told."""
        points = torch.linspace(-0.5, 0.7, 3 * self.dim, dtype=torch.float64, device="cpu").reshape(3, self.dim)
        like = next((parameter for module in modules for parameter in module.parameters()), None)
        if like is not None:
            return points.to(like), self._first_outputs(points.to(like))
        for dtype in (torch.get_default_dtype(), torch.float64):
            try:
                return points.to(dtype), self._first_outputs(points.to(dtype))
            except (RuntimeError, _door.DtypeError):  # of a closure over tensors of another dtype or device
                continue  # its first use will tell
        return None

    def _probe(self, modules: list[nn.Module]) -> bool:
        """Whether the immersion has a scale with walls, after refusing one that cannot define a metric."""
        try:
            probed = self._probe_outputs(modules)
        except RuntimeError as error:
            raise _door.fails((3, self.dim), error) from error
        if probed is None:
            return False
        points, values = probed
        self._probed_dtype = points.dtype
        if not self.is_plain:  # whose layers are known to be functions of one point, with their derivatives
            _door.check_repeatable(self._outputs, points, values)
        _door.check_dependence(values)
        self.numbers = _door.numbers_held(self._outputs, points)
        if self.is_plain:
            return self._check_space(points)
        slope = None
        if (jets := self.jets(points)) is not None:
            if not torch.allclose(torch.cat([jet.value for jet in jets], -1), self.embed(points), atol=1e-4):
                raise ValueError("`immersion.jet(z)` has other values than `immersion(z)`.")
            along = [jet.along(_door.direction(points)).expand_as(jet.value) for jet in jets]
            slope = torch.cat(along[: len(values)], -1)
        elif self.images.are_pair:
            _door.check_deviation(values)

        def embed(z: Tensor) -> Tensor:
            return torch.cat(_door.flattened(self._outputs(z)), dim=-1)

        try:
            _door.check_slopes(embed, _door.sizes_of(values), points, slope)
        except RuntimeError as error:
            raise _door.no_derivative(modules, embed, points, error) from error
        if slope is None:
            self._choose_kernels(embed, points)
        return self._check_space(points) or (self.images.are_pair and len(values) > 1)

    def _check_space(self, points: Tensor) -> bool:
        """Whether the images lie in a space that is not Euclidean, after comparing its metric with its distances."""
        if (space := self.space) is None:
            return False
        size, expected = self.embed(points).shape[-1] - space.sizes[-1], sum(space.sizes[:-1])
        if size != expected:
            raise ValueError(f"`immersion` has {size} outputs for an ambient metric of dimension {expected}.")
        if space.has_distance:
            step = 1e-2 * _door.direction(points)
            ends = self.embed(points - step / 2), self.embed(points + step / 2)
            middle, slope = _autodiff.directional(self.embed, points, step)
            _door.check_distance(space, (*ends, middle), slope)
        return True

    def _choose_kernels(self, embed: Callable[[Tensor], Tensor], points: Tensor) -> None:
        """The fastest kernels of which two routes to the second derivative agree."""
        found = []
        for kernels in KERNELS:
            self.kernels = kernels
            found.append(_autodiff.is_smooth(embed, points, _door.direction(points)))
            if found[-1]:
                return
        self.kernels = "fused"  # without forward mode: by two reverse passes
        if False in found:
            raise ValueError(
                "`immersion` has a second derivative that torch gives otherwise by forward mode alone than with "
                "reverse mode. Which layer? Leave out one after the other; one such is normalisation in a ScriptModule."
            )

    def _outputs(self, z: Tensor) -> tuple[Tensor, ...]:
        """Outputs at ``z``, ``(n, d)``, each ``(n, *out)``, of the immersion in evaluation mode."""
        if self.is_plain:
            return (cast(Tensor, self.immersion(z)),)
        alone = self.images.charts is not None and len(z) == 1  # by a single point no parameter is seen to depend on z
        rows = torch.cat([z, torch.zeros_like(z)]) if alone else z
        with _modules.evaluating(_modules.modules_of(self.immersion)), KERNELS[self.kernels]():
            values = self.images.of(self.immersion(rows))
        return tuple(value[:1] for value in values) if alone else values

    def _at(self, z: Tensor, function: Callable[[Tensor], R]) -> R:
        """``function(z)``, the immersion or its jet, where points of another dtype are refused if it cannot take them.

        An immersion may convert its argument: only by its failure is it known not to.
        """
        if torch.compiler.is_compiling():
            return function(z)
        try:
            return function(z)
        except RuntimeError as error:
            own = next((value.dtype for value in self.parameters()), self._probed_dtype)
            if own is None or own == z.dtype:
                raise
            raise _door.DtypeError(
                f"the points have dtype {z.dtype}, the immersion computes in {own}: convert the points by `.to({own})` "
                f"or, if it is a module, the metric by `.to({z.dtype})`."
            ) from error

    @property
    def space(self) -> Product | None:
        """Where the immersed points are; None for Euclidean space."""
        return self.images.space

    def _first_outputs(self, points: Tensor) -> tuple[Tensor, ...]:
        """The same for the first time, when it may turn out that the immersion takes no points ``(n, d)``."""
        try:
            result = self.immersion(points)
        except (RuntimeError, OutputError, _door.DtypeError):
            raise
        except Exception as error:
            raise _door.fails(tuple(points.shape), error) from error
        return _door.checked_values(self.images.of(result), points)


FISHER = "fisher"


class Images:
    """Reads results; in what coordinates distributions are, the first ones decide.

    Args:
        output: which entries of a result are meant.
        ambient: the metric of the space that tensors are in, ``"fisher"`` if they are parameters of normals, or None.
        dim: number of flat coordinates that follow the others.

    Raises:
        ValueError: for an ``ambient`` of another kind.
    """

    def __init__(self, output: Output, ambient: RiemannianMetric | str | None, dim: int) -> None:
        if not (ambient in (None, FISHER) or isinstance(ambient, RiemannianMetric)):
            raise ValueError(f"`ambient` must be a metric, 'fisher' or None, got {ambient!r}.")
        self.output, self.ambient, self.dim = output, ambient, dim
        self.charts: tuple[Chart, ...] | None = None

    def of(self, result: object) -> tuple[Tensor, ...]:
        """The images, each ``(n, *out)``.

        Raises:
            OutputError: if the result cannot be read, or is of a family whose metric is not known.
        """
        found = outputs(result, self.output, Tensor, Distribution)
        laws = tuple(entry for entry in found if isinstance(entry, Distribution))
        if not laws:
            tensors = cast(tuple[Tensor, ...], found)
            if self.ambient != FISHER:
                return tensors
            if len(tensors) != 2:
                raise OutputError(
                    f'`ambient="fisher"` takes distributions or (mean, scale); `immersion` returns {len(tensors)} '
                    "tensors."
                )
            laws = (Normal(*tensors, validate_args=False),)
        elif isinstance(self.ambient, RiemannianMetric):
            raise OutputError(
                "`immersion` returns a distribution, whose ambient metric is Fisher's: leave out `ambient`."
            )
        if self.charts is None:
            self.charts = charts_of(laws, own_scale=self.ambient == FISHER)
        return tuple(chart.image(law) for chart, law in zip(self.charts, laws, strict=True))

    @property
    def are_pair(self) -> bool:
        """Whether two tensors are the mean and standard deviation of Kalatzis et al. (2020)."""
        return self.charts is None and self.ambient is None

    @property
    def space(self) -> Product | None:
        """Where the images are, with the flat coordinates behind them; None for Euclidean space."""
        if isinstance(self.ambient, RiemannianMetric):
            parts: list[tuple[Ambient, int]] = [(Of(self.ambient), self.ambient.dim)]
        elif self.charts is None or all(chart.is_flat for chart in self.charts):
            return None
        else:
            parts = [(chart.space, chart.size) for chart in self.charts]
        return Product([*parts, (Flat(), self.dim)])
