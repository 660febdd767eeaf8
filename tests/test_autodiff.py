"""Forward-mode derivatives against closed forms, for one point and for batches, in both precisions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_riemann import _autodiff


def bowl(z: Tensor) -> Tensor:
    """A map with a scalar slice times a Python number, which torch's forward mode turns into float64."""
    return torch.stack([0.5 * z[..., 0].square(), z[..., 0] * z[..., 1]], -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_derivatives_of_a_polynomial(batch: tuple[int, ...], dtype: torch.dtype) -> None:
    z, v = torch.randn(*batch, 2, dtype=dtype), torch.randn(*batch, 2, dtype=dtype)
    x, y = z.unbind(-1)
    expected = torch.stack([torch.stack([x, 0 * x], -1), torch.stack([y, x], -1)], -2)

    value, jacobian = _autodiff.jacobian(bowl, z, 2)
    torch.testing.assert_close(value, bowl(z))
    torch.testing.assert_close(jacobian, expected)

    value, slope = _autodiff.directional(bowl, z, v)
    torch.testing.assert_close(value, bowl(z))
    torch.testing.assert_close(slope, (expected @ v[..., None]).squeeze(-1))

    _, slope, curvature = _autodiff.second_directional(bowl, z, v)
    torch.testing.assert_close(slope, (expected @ v[..., None]).squeeze(-1))
    torch.testing.assert_close(curvature, torch.stack([v[..., 0].square(), 2 * v[..., 0] * v[..., 1]], -1))


@pytest.mark.parametrize("batch", [(), (3,)])
def test_derivatives_under_the_tracer(batch: tuple[int, ...]) -> None:
    z = torch.randn(*batch, 2, dtype=torch.float64)
    traced = torch.jit.trace(lambda point: _autodiff.jacobian(bowl, point, 2)[1], z, check_trace=False)
    other = torch.randn_like(z)
    torch.testing.assert_close(traced(other), _autodiff.jacobian(bowl, other, 2)[1])
