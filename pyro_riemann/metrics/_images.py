"""What an immersion returns as images in a space: Euclidean, one of distributions, or one of the user's."""

from __future__ import annotations

from typing import cast

from torch import Tensor
from torch.distributions import Distribution, Normal

from pyro_riemann._decoded import Output, OutputError, outputs
from pyro_riemann.metrics._ambient import Ambient, Flat, Of, Product
from pyro_riemann.metrics._base import RiemannianMetric
from pyro_riemann.metrics._fisher import Chart, charts_of

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
