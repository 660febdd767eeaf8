"""What Brownian motion refuses, and says of paths that are lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_riemann import PullbackMetric, brownian_motion
from pyro_riemann.brownian import METHODS
from tests.explicit import Hyperboloid, Vanishing, warped_sphere


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_lost_path_is_reported(method: str) -> None:
    start = torch.full((50, 1), 3.0, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"left the reals|not positive definite|became singular"):
        brownian_motion(Vanishing(), start, 100.0, 50, method)


def test_bad_input() -> None:
    metric, start = PullbackMetric(warped_sphere, 2), torch.ones(3, 2)
    for time in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`time` must be finite and strictly positive"):
            brownian_motion(metric, start, time, 4)
    with pytest.raises(ValueError, match="`start` must have shape"):
        brownian_motion(metric, torch.ones(3), 0.1, 4)
    with pytest.raises(ValueError, match="`start` has 6 NaN"):
        brownian_motion(metric, start * float("nan"), 0.1, 4)
    with pytest.raises(TypeError, match="`start` must have a floating dtype"):
        brownian_motion(metric, start.long(), 0.1, 4)
    with pytest.raises(ValueError, match="`num_steps` must be at least 1"):
        brownian_motion(metric, start, 0.1, 0)
    with pytest.raises(ValueError, match="`method` must be one of 'retraction'"):
        brownian_motion(metric, start, 0.1, 4, "milstein")
    with pytest.raises(ValueError, match="'retraction' needs an immersion"):
        brownian_motion(Hyperboloid(), start, 0.1, 4, "retraction")
    with pytest.raises(ValueError, match=r"`time` of shape \(4,\) does not broadcast"):
        brownian_motion(metric, start, torch.ones(4), 4)
    with pytest.raises(ValueError, match=r"`noise` must have shape \(4, 3, 2\)"):
        brownian_motion(metric, start, 0.1, 4, noise=torch.ones(5, 3, 2))
    with pytest.raises(ValueError, match="ambient noise needs an immersion"):
        brownian_motion(Hyperboloid(), start, 0.1, 4, noise=torch.ones(4, 3, 3))
    with pytest.raises(ValueError, match="`noise` has 24 NaN"):
        brownian_motion(metric, start, 0.1, 4, noise=torch.full((4, 3, 2), float("nan")))


def test_singular_immersions_ask_for_jitter() -> None:
    def pole(z: Tensor) -> Tensor:
        return torch.stack([z[..., 0] ** 2, z[..., 1]], -1)

    start = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="jitter"):
        brownian_motion(PullbackMetric(pole, 2, jitter=0.0), start, 0.1, 4)
    assert brownian_motion(PullbackMetric(pole, 2, jitter=1e-3), start, 0.1, 4).isfinite().all()
