"""No routine makes a tensor on torch's default device: where the arguments are on another one, nothing changes.

The arguments are on the processor, the default device is ``meta``, whose tensors have no content: one that a routine
made there could not be used.
"""

from __future__ import annotations

import pyro
import pytest
import torch

from pyro_riemann import RiemannianMetric
from tests.devices.routines import LAWS, METRICS, OTHERS, PAIRS, POINTWISE, Arguments, Routine, metric_named

#: Its caller makes a network, which torch puts on the default device: that is what it is for.
MAKES_NETWORKS = {"training"}


def check(routine: Routine, metric: RiemannianMetric) -> None:
    arguments, values = Arguments("cpu", metric.dim), []
    for device in ("cpu", "meta"):
        pyro.set_rng_seed(0)
        with torch.device(device):
            values.append(routine(metric, arguments))
    torch.testing.assert_close(*values, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("routine", POINTWISE)
@pytest.mark.parametrize("name", METRICS)
def test_geometry(name: str, routine: str) -> None:
    check(POINTWISE[routine], metric_named(name))


@pytest.mark.parametrize("name, law", PAIRS)
def test_laws(name: str, law: str) -> None:
    check(LAWS[law], metric_named(name))


@pytest.mark.parametrize("routine", sorted(OTHERS.keys() - MAKES_NETWORKS))
def test_other_routines(routine: str) -> None:
    check(OTHERS[routine], metric_named("kernel"))
