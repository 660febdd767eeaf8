"""Interpolations of both faces on the same metrics and codes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import torch

from pyro_riemann import KernelMetric, Sphere, sampling
from pyro_riemann.numpyro import KernelMetric as TwinKernel
from pyro_riemann.numpyro import Sphere as TwinSphere
from pyro_riemann.numpyro import to_numpyro
from pyro_riemann.numpyro.sampling import interpolate
from tests.precision import enable_x64


@pytest.fixture(autouse=True)
def _double():
    with enable_x64():
        yield


def arc() -> KernelMetric:
    """Codes on half a circle."""
    angle = torch.linspace(0, torch.pi, 9, dtype=torch.float64)
    codes = torch.stack([angle.cos(), angle.sin()], -1)
    return KernelMetric(codes, torch.full_like(codes, 16.0), bandwidth=1.5)


@pytest.mark.parametrize("kind", ["line", pytest.param("geodesic", marks=pytest.mark.slow), "volume"])
def test_points_are_those_of_the_other_face(kind: str) -> None:
    metric = arc()
    start, end = metric.centroids[:2], metric.centroids[-2:]
    theirs = sampling.interpolate(metric, start, end, kind=kind, num_frames=7)
    ours = interpolate(
        to_numpyro(metric), jnp.asarray(start.numpy()), jnp.asarray(end.numpy()), kind=kind, num_frames=7
    )
    assert np.abs(np.asarray(ours.points) - theirs.points.numpy()).max() < 2e-3
    assert ours.points.shape == (7, 2, 2)
    if kind == "line":
        assert ours.curve is None
    else:
        assert ours.coverage == pytest.approx(theirs.coverage, abs=1e-6)
        assert ours.curve is not None
        assert theirs.curve is not None
        # in the units of the volume metric, which is scaled by its range along the line
        np.testing.assert_allclose(np.asarray(ours.curve.length), theirs.curve.length.numpy(), rtol=5e-3)


def test_frames_are_read_from_what_decoders_return() -> None:
    metric, z = to_numpyro(arc()), jnp.array([[1.0, 0.0], [-1.0, 0.0]])

    def image(z):
        return jnp.broadcast_to(z[:, :1, None, None], (len(z), 3, 4, 5))

    returned = {"array": image, "tuple": lambda z: (image(z), 1), "law": lambda z: dist.Normal(image(z), 1.0)}
    for decoder in returned.values():
        frames = interpolate(metric, z[0], z[1], decoder, "line", 3).frames
        assert frames is not None
        assert frames.shape == (3, 3, 4, 5)
        assert np.allclose(frames[:, 0, 0, 0], [1, 0, -1])
    with pytest.raises(TypeError, match="decoder"):
        interpolate(metric, z[0], z[1], lambda z: "image", "line")


def test_a_curve_on_the_floor_is_said_to_be_one() -> None:
    far = TwinKernel(100 * jnp.ones((2, 2)), jnp.ones((2, 2)), 1.0, 1e-3)
    with pytest.warns(UserWarning, match="just its floor"):
        path = interpolate(far, jnp.zeros(2), jnp.ones(2), num_frames=3)
    assert np.allclose(path.points[1], 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"kind": "arc"}, "kind"), ({"num_frames": 1}, "num_frames"), ({"kind": "line", "init": "line"}, "settings")],
)
def test_bad_arguments_are_named(changed: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        interpolate(to_numpyro(arc()), jnp.zeros(2), jnp.ones(2), **changed)


def test_frames_on_a_meridian_are_equally_spaced_in_the_chart() -> None:
    """From the pole of the stereographic chart a geodesic is a straight line, along which its speed changes."""
    ends = np.array([[0.0, 0.0], [1.2, -1.6]])
    frames = np.linspace(0, 1, 5)[:, None] * ends[1]
    ours = sampling.interpolate(Sphere(2), torch.from_numpy(ends[0]), torch.from_numpy(ends[1]), num_frames=5)
    theirs = interpolate(TwinSphere(2), jnp.asarray(ends[0]), jnp.asarray(ends[1]), num_frames=5)
    for found in (ours, theirs):
        np.testing.assert_allclose(found.points, frames, atol=1e-9)
        assert found.coverage is None
