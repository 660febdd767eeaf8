"""What a figure shows is what it was given: the data of every artist equals the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.legend import Legend
from torch import Tensor

from pyro_riemann import ConstantMetric, EuclideanMetric, PullbackMetric, to_arviz
from pyro_riemann.geodesics import Geodesic
from pyro_riemann.plotting import (
    plot_brownian_paths,
    plot_chains,
    plot_decoded_curves,
    plot_geodesics,
    plot_images,
    plot_interpolations,
    plot_latent_space,
)
from pyro_riemann.plotting._style import CLASS_COLORS, GAP_COLOR
from pyro_riemann.sampling import interpolate


@pytest.fixture(autouse=True)
def headless() -> Iterator[None]:
    """Draw into memory, and check that no global setting was touched."""
    plt.switch_backend("agg")
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")


def paraboloid(z: Tensor) -> Tensor:
    return torch.cat([z, z.square().sum(-1, keepdim=True) / 2], -1)


def bent_curves(converged: list[bool]) -> Geodesic:
    """Half-circles between pairs of points, as a batch of ready-made curves."""
    count = len(converged)
    angle = torch.linspace(0, torch.pi, 21, dtype=torch.float64)[:, None]
    offset = torch.arange(count, dtype=torch.float64)
    points = torch.stack([offset - angle.cos(), angle.sin() + 0 * offset], -1)
    length = torch.full((count,), torch.pi, dtype=torch.float64)

    def curve(t: Tensor) -> Tensor:
        rows = (t * 20).round().long()
        return points[rows]

    return Geodesic(points, length, length**2 / 2, torch.tensor(converged), curve)


def image_of(ax: Any) -> np.ndarray:
    """What the first image of the axes shows, NaN where it is blank."""
    return np.ma.filled(ax.images[0].get_array(), np.nan)


# ------------------------------------------------------------------------------------ latent space


def test_image_is_the_log_volume_element_at_pixel_centres() -> None:
    metric = PullbackMetric(paraboloid, dim=2, jitter=0)
    ax = plot_latent_space(metric, low=[-1, 0], high=[1, 3], resolution=24)
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right, bottom, top) == (-1, 1, 0, 3)
    x = left + (np.arange(24) + 0.5) / 24 * (right - left)
    y = bottom + (np.arange(24) + 0.5) / 24 * (top - bottom)
    expected = 0.5 * np.log(1 + x[None, :] ** 2 + y[:, None] ** 2)  # det G = 1 + |z|^2 on the graph of |z|^2 / 2
    np.testing.assert_allclose(image_of(ax), expected, atol=2e-6)
    assert ax.images[0].origin == "lower"


def test_codes_are_scattered_by_class() -> None:
    codes, labels = torch.randn(60, 2), torch.arange(60) % 3
    ax: Any = plot_latent_space(EuclideanMetric(2), codes, labels, resolution=8)
    assert len(ax.collections) == 3
    dots: Any
    for value, dots in enumerate(ax.collections):
        np.testing.assert_array_equal(dots.get_offsets(), codes[labels == value].numpy())
        assert to_hex(dots.get_facecolor()[0]).upper() == CLASS_COLORS[value]
        assert dots.get_label() == str(value)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert bool(((codes[:, 0] > x0) & (codes[:, 0] < x1) & (codes[:, 1] > y0) & (codes[:, 1] < y1)).all())


def test_constant_volume_and_given_axes() -> None:
    _, given = plt.subplots()
    metric = ConstantMetric(torch.tensor([[4.0, 0.0], [0.0, 9.0]]))
    ax = plot_latent_space(metric, low=-1, high=1, resolution=4, ax=given)
    assert ax is given
    np.testing.assert_allclose(image_of(ax), np.log(6), rtol=1e-6)


# ------------------------------------------------------------------------------------ curves


def test_geodesics_and_straight_lines_have_the_curves_points() -> None:
    curves = bent_curves([True, False, True])
    lines = plot_geodesics(curves).lines
    dashed, curved = lines[0:6:2], lines[1:6:2]
    for index in range(3):
        np.testing.assert_array_equal(curved[index].get_xydata(), curves.points[:, index].numpy())
        np.testing.assert_array_equal(dashed[index].get_xydata(), curves.points[[0, -1], index].numpy())
    assert [line.get_linestyle() for line in curved] == ["-", ":", "-"]
    np.testing.assert_array_equal(lines[6].get_xydata(), curves.points[[0, -1]].reshape(-1, 2).numpy())
    assert len(plot_geodesics(curves, straight=False).lines) == 4


def test_brownian_paths_are_drawn_point_by_point() -> None:
    paths = torch.randn(12, 2, 3, 2).cumsum(0)
    paths[0] = torch.tensor([1.0, 2.0])
    ax: Any = plot_brownian_paths(paths)
    flat = paths.reshape(12, 6, 2).numpy()
    pieces: Any
    for index, pieces in enumerate(ax.collections):
        np.testing.assert_array_equal(np.stack(pieces.get_segments())[:, 0], flat[:-1, index])
        np.testing.assert_array_equal(np.stack(pieces.get_segments())[:, 1], flat[1:, index])
    assert len(ax.collections) == 6
    starts, ends = ax.lines
    np.testing.assert_array_equal(starts.get_xydata(), [[1.0, 2.0]])
    np.testing.assert_array_equal(ends.get_xydata(), flat[-1])
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert x0 <= flat[..., 0].min() < flat[..., 0].max() <= x1
    assert y0 <= flat[..., 1].min() < flat[..., 1].max() <= y1


def test_colours_of_brownian_paths_are_times_and_the_legend_says_so() -> None:
    ax: Any = plot_brownian_paths(torch.randn(5, 2, 2).cumsum(0), time=torch.tensor(0.4))
    for pieces in ax.collections:
        np.testing.assert_allclose(pieces.get_array(), [0.05, 0.15, 0.25, 0.35], rtol=1e-6)
        np.testing.assert_allclose(pieces.get_clim(), (0, 0.4))
    (bar,) = ax.child_axes
    assert bar.get_title() == "time"
    assert [text.get_text() for text in bar.get_xticklabels()] == ["0", "0.4"]
    (shares,) = plot_brownian_paths(torch.randn(5, 2, 2)).child_axes
    assert shares.get_title() == "share of the time"


def test_decoded_frames_follow_line_and_geodesic() -> None:
    points = bent_curves([True]).points[:, 0]
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    curve = Geodesic(points, one, one, one.bool(), lambda t: points[(t * 20).round().long()])

    def decode(z: Tensor) -> Tensor:  # a 2 x 3 image that shows where it was decoded
        return torch.stack([z[:, 0], z[:, 1], 0 * z[:, 0], z[:, 0] + z[:, 1], z[:, 0] * z[:, 1], z[:, 1]], -1)

    axes = plot_decoded_curves(decode, curve, (2, 3), num_frames=5)
    straight = points[0] + times[:, None] * (points[-1] - points[0])
    for ax, z in zip(axes, (straight, points[[0, 5, 10, 15, 20]]), strict=True):
        shown = image_of(ax)
        assert shown.shape == (2, 19), "five frames and the gaps between them"
        for frame, image in enumerate(decode(z)):
            np.testing.assert_allclose(shown[:, 4 * frame : 4 * frame + 3], image.reshape(2, 3))
    assert axes[0].images[0].norm.vmax == axes[1].images[0].norm.vmax, "rows must share one grey scale"


# ------------------------------------------------------------------------------------ images, chains


def test_grid_holds_every_coloured_image() -> None:
    images = torch.rand(5, 3, 2, 4)
    for given in (images, images.flatten(1)):
        shown = plot_images(given, (3, 2, 4), columns=3, limits=(0, 1)).images[0].get_array()
        assert shown.shape == (5, 14, 3)
        for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            row, column = divmod(index, 3)
            np.testing.assert_allclose(shown[3 * row : 3 * row + 2, 5 * column : 5 * column + 4], image, atol=1e-6)
        assert to_hex(shown[2, 0]) == to_hex(shown[4, 13]) == GAP_COLOR
    one = torch.rand(2, 1, 3, 4)
    np.testing.assert_array_equal(
        image_of(plot_images(one, (1, 3, 4))), image_of(plot_images(one[:, 0], (3, 4))), strict=True
    )


def test_rows_of_coloured_frames() -> None:
    mix = torch.rand(2, 18)
    rows = [
        interpolate(
            EuclideanMetric(2), torch.zeros(2), torch.ones(2), lambda z: (z @ mix).reshape(-1, 3, 3, 2), kind, 4
        )
        for kind in ("line", "geodesic")
    ]
    axes = plot_interpolations(rows, (3, 3, 2), limits=(0, 2))
    last = axes[1].images[0].get_array()[:, -2:]
    torch.testing.assert_close(torch.tensor(last).permute(2, 0, 1).float(), mix.sum(0).reshape(3, 3, 2) / 2)
    assert plot_decoded_curves(lambda z: z @ mix, rows[1].curve, (3, 3, 2))[0].images[0].get_array().shape == (3, 29, 3)


def test_image_grid_places_every_image() -> None:
    images = torch.rand(7, 4, 5)
    shown = image_of(plot_images(images, (4, 5), columns=3))
    assert shown.shape == (14, 17), "one blank pixel between images"
    for index, image in enumerate(images.numpy()):
        row, column = divmod(index, 3)
        np.testing.assert_array_equal(shown[5 * row : 5 * row + 4, 6 * column : 6 * column + 5], image)
    assert np.isnan(shown[10:, 5:]).all()
    assert np.isnan(shown[4]).all()
    assert np.isnan(shown[:, 5]).all()


def test_gaps_are_not_white() -> None:
    """White margins of digits would run into each other."""
    image = plot_images(torch.zeros(2, 4), (2, 2)).images[0]
    shown: Any = image.cmap(image.norm(image.get_array()))
    white, gap = [1, 1, 1, 1], shown[0, 2]
    assert shown[0, 0].tolist() == white
    assert gap.tolist() != white
    assert gap[3] == 1


def test_grey_scale_is_that_of_the_limits() -> None:
    images = torch.tensor([[-0.5, 0.0, 0.5, 2.0]])
    assert plot_images(images, (2, 2), limits=(0, 1)).images[0].get_clim() == (0, 1)
    assert plot_images(images, (2, 2)).images[0].get_clim() == (-0.5, 2.0)


def test_class_legend_survives_that_of_the_curves() -> None:
    codes, labels = torch.randn(20, 2), torch.arange(20) % 2
    ax: Any = plot_latent_space(EuclideanMetric(2), codes, labels, resolution=8)
    plot_geodesics(EuclideanMetric(2).geodesic(codes[:3], codes[3:6]), ax)
    legends = [child for child in ax.get_children() if isinstance(child, Legend)]
    names = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert sorted(names) == [["0", "1"], ["straight line", "geodesic"]]


def test_traces_are_the_draws_and_ranks_add_up() -> None:
    draws = torch.randn(4, 200, 2, dtype=torch.float64)
    draws[3, :, 1] += 100  # one chain far above the others takes the top quarter of the ranks
    diverging = np.zeros((4, 200), dtype=bool)
    diverging[2, 17] = True
    axes = plot_chains(to_arviz({"z": draws}, {"diverging": diverging}), bins=20)
    assert axes.shape == (2, 2)
    for row in range(2):
        trace, rank = axes[row]
        for chain in range(4):
            np.testing.assert_array_equal(trace.lines[chain].get_ydata(), draws[chain, :, row].numpy())
        assert trace.lines[4].get_xdata().tolist() == [17]
        counts = np.stack([patch.get_data().values for patch in rank.patches])
        np.testing.assert_array_equal(counts.sum(0), np.full(20, 40))
        np.testing.assert_array_equal(counts.sum(1), np.full(4, 200))
    top = axes[1, 1].patches[3].get_data().values
    np.testing.assert_array_equal(top, [0] * 15 + [40] * 5)
    assert [axes[0, 0].get_ylabel(), axes[1, 0].get_ylabel()] == ["z[0]", "z[1]"]


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "draw, match",
    [
        (lambda: plot_latent_space(EuclideanMetric(3), low=-1, high=1), "`metric` has dimension 3"),
        (lambda: plot_latent_space(EuclideanMetric(2), torch.randn(5, 3)), "`codes` has dimension 3"),
        (lambda: plot_latent_space(EuclideanMetric(2), torch.randn(5, 2), torch.zeros(4)), "`labels` must have shape"),
        (lambda: plot_latent_space(EuclideanMetric(2)), "`low` must be given"),
        (lambda: plot_latent_space(EuclideanMetric(2), low=1, high=-1), "`low` must be below `high`"),
        (lambda: plot_brownian_paths(torch.randn(10, 4, 3)), "`paths` has dimension 3"),
        (lambda: plot_brownian_paths(torch.randn(1, 4, 2)), r"shape \(num_steps \+ 1"),
        (lambda: plot_brownian_paths(torch.full((4, 2), torch.nan)), "`paths` has NaN"),
        (lambda: plot_images(torch.rand(3, 10), (3, 3)), r"`image_shape` \(3, 3\) does not fit"),
        (lambda: plot_images(torch.rand(3, 4, 2, 3), (3, 4, 2)), r"does not fit images of shape \(4, 2, 3\)"),
        (lambda: plot_images(torch.rand(3, 24), (4, 2, 3)), "with 1 channel or 3"),
        (lambda: plot_decoded_curves(lambda z: z, bent_curves([True, True]), (1, 2)), "single geodesic"),
        (lambda: plot_chains({"z": torch.randn(2, 10, 2)}, var_names=["z", "w"]), r"`var_names` has \['w'\]"),
    ],
)
def test_bad_input_is_named(draw: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        draw()
