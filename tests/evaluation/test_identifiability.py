"""Retrainings that differ in the units of their codes alone: geodesic distances say so, Euclidean ones do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric
from pyro_riemann.evaluation import IdentifiabilityReport, identifiability_report

SCALES = (0.5, 1.0, 2.0, 3.0)


class Model:
    """The same surface, found in units of its own."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.metric = PullbackMetric(lambda z: torch.cat([z / scale, (z / scale).sin()], -1), 2, jitter=0.0)

    def encode(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)[:, :2]


def pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 1, 2, generator=generator, dtype=torch.float64)
    return x, y


def test_geodesic_distances_do_not_depend_on_units() -> None:
    report = identifiability_report([Model(scale) for scale in SCALES], pairs())
    assert report.geodesic.shape == report.euclidean.shape == (4, 6)
    assert float(report.geodesic_variation.max()) < 1e-4
    spread = torch.tensor(SCALES, dtype=torch.float64)
    torch.testing.assert_close(report.euclidean_variation, (spread.std() / spread.mean()).expand(6))


def test_metrics_with_codes_are_models() -> None:
    models = [Model(scale) for scale in SCALES]
    codes = [torch.stack([model.encode(part) for model in models]) for part in pairs()]
    ours = identifiability_report([model.metric for model in models], (codes[0], codes[1]))
    torch.testing.assert_close(ours.geodesic, identifiability_report(models, pairs()).geodesic)


def test_the_paired_test() -> None:
    generator = torch.Generator().manual_seed(1)
    geodesic, euclidean = 1 + torch.rand(2, 5, 30, generator=generator, dtype=torch.float64)
    report = IdentifiabilityReport(geodesic, euclidean)
    gaps = geodesic.std(0) / geodesic.mean(0) - euclidean.std(0) / euclidean.mean(0)
    statistic = float(gaps.mean() / gaps.std()) * math.sqrt(30)
    assert report.statistic == pytest.approx(statistic)
    # the distribution function of Student's t with 29 degrees of freedom, by quadrature
    t = torch.linspace(-60.0, statistic, 400_001, dtype=torch.float64)
    mass = torch.distributions.StudentT(29.0).log_prob(t).exp()
    assert report.p_value == pytest.approx(float(torch.trapezoid(mass, t)), rel=1e-6)
    assert (
        str(report).splitlines()[-1]
        == f"paired t-test, 30 pairs, 5 models: t = {statistic:.2f}, p = {report.p_value:.2g}"
    )


def test_the_figure_shows_the_distribution_functions() -> None:
    ax = IdentifiabilityReport(*(1 + torch.rand(2, 5, 30))).plot()
    assert [line.get_label() for line in ax.lines] == ["geodesic", "Euclidean"]
    assert all(line.get_ydata()[-1] == 1 for line in ax.lines)


def test_errors() -> None:
    models, (x, y) = [Model(scale) for scale in SCALES], pairs()
    for members, given, says in (
        (models[:1], (x, y), "needs two"),
        (models, (x, y[:3]), "one shape"),
        (models, (x[:1], y[:1]), "1 pairs"),
        (models, (x, x), "same code under member 0"),
        ([model.metric for model in models], (x, y), r"must be codes \(4, P, d\)"),
    ):
        with pytest.raises(ValueError, match=says):
            identifiability_report(members, given)
    with pytest.raises(TypeError, match="`metric` and `encode`, got int"):
        identifiability_report([3, 4], (x, y))  # type: ignore[list-item]
