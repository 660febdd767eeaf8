"""Interpolations: ends, spacing, and which functional each kind makes small."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from pyro_riemann import EuclideanMetric, KernelMetric, PullbackMetric
from pyro_riemann.plotting import plot_interpolations
from pyro_riemann.sampling import interpolate
from pyro_riemann.sampling._interpolation import _volume_metric

DTYPE = torch.float64


def arc_metric() -> tuple[KernelMetric, Tensor]:
    """Codes on a half circle: their kernels overlap along it, and nothing lies on the chord."""
    angle = torch.linspace(0, torch.pi, 13, dtype=DTYPE)
    codes = torch.stack([angle.cos(), angle.sin()], -1)
    return KernelMetric(codes, torch.full_like(codes, 16.0), 1.5, 1e-3), codes


def crossing(metric: KernelMetric, points: Tensor) -> float:
    """Equation 8 along a polyline: the integral of 1 / sqrt(det G) over its length."""
    steps = torch.linspace(0, 1, 200, dtype=DTYPE)[:, None, None]
    fine = torch.lerp(points[:-1], points[1:], steps).transpose(0, 1).reshape(-1, 2)
    middle, length = 0.5 * (fine[1:] + fine[:-1]), fine.diff(dim=0).norm(dim=-1)
    return float(((-0.5 * metric.logdet(middle)).exp() * length).sum())


def test_volume_curve_follows_the_data_and_the_geodesic_does_not() -> None:
    metric, codes = arc_metric()
    rows = {kind: interpolate(metric, codes[0], codes[-1], kind=kind, num_frames=40) for kind in ("line", "volume")}
    rows["geodesic"] = interpolate(metric, codes[0], codes[-1], num_frames=40)
    costs = {kind: crossing(metric, row.points) for kind, row in rows.items()}
    assert costs["volume"] < 0.05 * min(costs["line"], costs["geodesic"])
    away = {kind: float((row.points.norm(dim=-1) - 1).abs().max()) for kind, row in rows.items()}
    assert away["volume"] < 0.15
    assert away["geodesic"] > 0.3
    assert (
        float(rows["geodesic"].points[..., 1].max()) < 0.1
    )  # it leaves the codes outwards, and goes round in the void
    curve = rows["volume"].curve
    assert curve is not None
    assert bool(curve.converged)
    # no neighbour of the curve is better
    for bump in (0.05, -0.05):
        push = bump * torch.linspace(0, torch.pi, 40, dtype=DTYPE).sin()[:, None]
        assert crossing(metric, rows["volume"].points * (1 + push)) > 0.999 * costs["volume"]


@pytest.mark.parametrize("kind", ["line", "geodesic", "volume"])
def test_ends_and_equal_steps(kind: str) -> None:
    metric, codes = arc_metric()
    start, end = codes[:4].reshape(2, 2, 2), codes[-1]
    row = interpolate(metric, start, end, kind=kind, num_frames=33)
    assert row.points.shape == (33, 2, 2, 2)
    torch.testing.assert_close(row.points[0], start, atol=1e-8, rtol=0)
    torch.testing.assert_close(row.points[-1], end.expand(2, 2, 2), atol=1e-8, rtol=0)
    steps = row.points.diff(dim=0).norm(dim=-1)
    assert float((steps.amax(0) / steps.amin(0)).max()) < 1.05  # chords of equal arcs


def test_flat_interpolation_is_the_line() -> None:
    start, end = torch.randn(2, 3, 2)
    for kind in ("geodesic", "volume"):
        row = interpolate(EuclideanMetric(2), start, end, kind=kind)
        torch.testing.assert_close(row.points, interpolate(EuclideanMetric(2), start, end, kind="line").points)


def test_frames_are_the_decoded_points() -> None:
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 12))
    metric = PullbackMetric(decoder, 2)
    start, end = torch.zeros(3, 2), torch.ones(3, 2)
    row = interpolate(metric, start, end, lambda z: decoder(z).unflatten(-1, (3, 4)), num_frames=5)
    assert row.frames is not None
    assert row.frames.shape == (5, 3, 3, 4)
    torch.testing.assert_close(row.frames[2, 1].flatten(), decoder(row.points[2, 1]).detach())
    pair = interpolate(metric, start, end, lambda z: (decoder(z), z), num_frames=5).frames
    assert pair is not None
    torch.testing.assert_close(pair, row.frames.flatten(-2))
    assert not pair.requires_grad


def test_rows_of_the_figure_are_the_frames() -> None:
    metric, codes = arc_metric()
    rows = [interpolate(metric, codes[0], codes[4], lambda z: z.repeat(1, 3), kind, 4) for kind in ("volume", "line")]
    axes = plot_interpolations(rows, (2, 3))
    for ax, row, name in zip(axes, rows, ("largest\nvolume", "straight\nline"), strict=True):
        assert row.frames is not None
        shown = np.ma.filled(ax.images[0].get_array(), np.nan)
        assert shown.shape == (2, 4 * 4 - 1)
        np.testing.assert_allclose(shown[:, 4:7], row.frames[1].reshape(2, 3).numpy())
        assert np.isnan(shown[:, 3]).all()
        assert ax.get_ylabel() == name
    plt.close("all")
    with pytest.raises(ValueError, match="no frames"):
        plot_interpolations([interpolate(metric, codes[0], codes[4], kind="line")], (2, 3))
    with pytest.raises(ValueError, match="`rows` is empty"):
        plot_interpolations([], (2, 3))
    with pytest.raises(ValueError, match="`axes` has 0 entries for 2 rows"):
        plot_interpolations(rows, (2, 3), axes=[])


def test_bad_arguments_are_named() -> None:
    metric, codes = arc_metric()
    with pytest.raises(ValueError, match="`kind` must be one of"):
        interpolate(metric, codes[0], codes[1], kind="spline")
    with pytest.raises(ValueError, match="`num_frames` must be at least 2"):
        interpolate(metric, codes[0], codes[1], num_frames=1)
    with pytest.raises(ValueError, match="`start` must have shape"):
        interpolate(metric, torch.zeros(3), codes[1])
    with pytest.raises(ValueError, match="`end` has 2 NaN"):
        interpolate(metric, codes[0], codes[1] * torch.nan)
    with pytest.raises(TypeError, match="takes no settings"):
        interpolate(metric, codes[0], codes[1], kind="line", init="graph")


def test_the_volume_metric_is_one_in_the_middle_of_its_range() -> None:
    """Along the whole line from end to end: where the range is wide, another scale leaves single precision."""
    metric, codes = arc_metric()
    line = torch.lerp(codes[0], codes[-1], torch.linspace(0, 1, 65, dtype=DTYPE)[:, None])
    low, high = _volume_metric(metric.float(), codes[0].float(), codes[-1].float()).log_factor(line).aminmax()
    assert high - low > 5
    assert abs(low + high) < 1e-5


@pytest.mark.parametrize("dim", [12, 16, 24])
def test_volume_curves_in_many_dimensions_are_finite_in_single_precision(dim: int) -> None:
    """det G runs over e^(9 d): beyond the range of float32 from d = 10 on, and not of doubles."""
    codes = torch.randn(60, dim, generator=torch.Generator().manual_seed(3))
    codes = codes / codes.norm(dim=-1, keepdim=True) * torch.linspace(0.5, 1.5, 60)[:, None]
    metric = KernelMetric.from_posterior(codes, torch.full_like(codes, 0.12), 60, "mahalanobis", regularization=1e-3)
    start, end = codes[:2], codes[2:4]
    row = interpolate(metric, start, end, kind="volume", num_frames=7, on_failure="ignore", init="line")
    assert row.points.dtype == torch.float32
    assert bool(torch.isfinite(row.points).all())
    torch.testing.assert_close(row.points[[0, -1]], torch.stack([start, end]))
    assert row.curve is not None
    assert bool((torch.isfinite(row.curve.length) & (row.curve.length > 0)).all())
    assert row.coverage == 1.0
    # no longer than the straight line in the metric that is minimised
    wide = metric.double().conformal()
    line = torch.stack([torch.lerp(start, end, t) for t in torch.linspace(0, 1, 400).tolist()]).double()

    def log_length(path: Tensor) -> Tensor:
        middle, step = (path[1:] + path[:-1]) / 2, path.diff(dim=0).norm(dim=-1)
        return (0.5 * wide.log_factor(middle) + step.log()).logsumexp(0)

    curve = row.curve(torch.linspace(0, 1, 400, dtype=DTYPE))
    assert bool((log_length(curve) <= log_length(line) + 1e-3).all())


def test_a_curve_on_the_floor_is_said_to_be_one() -> None:
    codes = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    metric = KernelMetric(codes + 3.0, torch.full_like(codes, 400.0), 0.5, 1e-2)
    for kind in ("volume", "geodesic"):
        with pytest.warns(UserWarning, match=r"all but 0\.00 of the interpolation"):
            row = interpolate(metric, codes[0], codes[1], kind=kind)
        assert row.coverage == 0.0
        torch.testing.assert_close(row.points[5], torch.lerp(codes[0], codes[1], 5 / 9))
    assert interpolate(EuclideanMetric(2), torch.zeros(2), torch.ones(2)).coverage is None


def test_what_no_dtype_holds_is_refused() -> None:
    class Steep(EuclideanMetric):
        """log det G = 4000 x: no double holds its exponential at both ends."""

        def metric(self, z: Tensor) -> Tensor:
            return torch.diag_embed(torch.exp(2000 * z[..., :1]).expand(*z.shape))

        def logdet(self, z: Tensor) -> Tensor:
            return 4000 * z[..., 0]

    metric = Steep(2)
    with pytest.raises(ValueError, match=r"range|finite"):
        interpolate(metric, torch.zeros(2), torch.tensor([1.0, 0.5]), kind="volume", on_failure="ignore", init="line")


def test_frames_are_read_from_what_decoders_return() -> None:
    mix = torch.rand(2, 24, dtype=DTYPE)
    ends = torch.zeros(3, 2, dtype=DTYPE), torch.ones(3, 2, dtype=DTYPE)

    def images(z: Tensor) -> Tensor:
        return (z @ mix).reshape(-1, 3, 2, 4)

    expected = torch.linspace(0, 1, 5, dtype=DTYPE)[:, None, None, None, None] * mix.sum(0).reshape(3, 2, 4)
    for decoder in (
        images,
        lambda z: (images(z), None),
        lambda z: {"reconstruction": images(z)},
        lambda z: types.SimpleNamespace(sample=images(z), note="of diffusers"),
        lambda z: torch.distributions.Normal(images(z), 1.0),
    ):
        frames = interpolate(EuclideanMetric(2), *ends, decoder, "line", 5).frames
        torch.testing.assert_close(frames, expected.expand(5, 3, 3, 2, 4))
    with pytest.raises(TypeError, match="takes the data out"):
        interpolate(EuclideanMetric(2), *ends, lambda z: {"mean": z, "scale": z}, "line", 5)
