"""Every routine on a device that is not the processor: results stay there, and are those of the processor."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pyro
import pytest
import torch
from torch import Tensor

from pyro_riemann import RiemannianMetric
from tests.devices import pretended_device
from tests.devices.routines import LAWS, METRICS, OTHERS, PAIRS, POINTWISE, Arguments, Routine, metric_named

if not pretended_device.AVAILABLE:
    pytest.skip("torch 2.9 brought backends written in Python", allow_module_level=True)


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device.pretended() as device:
        yield device


def check(routine: Routine, metric: RiemannianMetric, device: torch.device) -> None:
    values = []
    for place in ("cpu", device):
        pyro.set_rng_seed(0)
        values.append(routine(copy.deepcopy(metric).to(place), Arguments(place, metric.dim)))
    expected, value = values
    assert value.device.type == device.type
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("routine", POINTWISE)
@pytest.mark.parametrize("name", METRICS)
def test_geometry(device: torch.device, name: str, routine: str) -> None:
    check(POINTWISE[routine], metric_named(name), device)


@pytest.mark.parametrize("name, law", PAIRS)
def test_laws(device: torch.device, name: str, law: str) -> None:
    check(LAWS[law], metric_named(name), device)


@pytest.mark.parametrize("routine", OTHERS)
def test_other_routines(device: torch.device, routine: str) -> None:
    check(OTHERS[routine], metric_named("kernel"), device)


# ---------------------------------------------------------------- the device itself


def mixed(device: torch.device) -> Tensor:
    return torch.ones(2, device=device) + torch.ones(2)


def drawn_by_another(device: torch.device) -> Tensor:
    return torch.rand(2, device=device, generator=torch.Generator("cpu"))


def drawn_for_another(device: torch.device) -> Tensor:
    return torch.rand(2, generator=torch.Generator(device))


def as_array(device: torch.device) -> object:
    return torch.ones(2, device=device).numpy()


@pytest.mark.parametrize("mistake", [mixed, drawn_by_another, drawn_for_another, as_array])
def test_the_device_refuses(device: torch.device, mistake) -> None:
    with pytest.raises(RuntimeError, match=r"device|numpy"):
        mistake(device)


def test_the_device_computes(device: torch.device) -> None:
    """Both modes of differentiation, batched."""
    layer = torch.nn.Linear(2, 3).to(device)
    z = torch.randn(4, 2, device=device)
    slope = torch.func.vmap(torch.func.jacfwd(lambda point: layer(point).tanh()))(z)
    assert slope.device == device
    expected = (1 - layer(z).tanh().square()).unsqueeze(-1) * layer.weight
    torch.testing.assert_close(slope.cpu(), expected.cpu())
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(lambda p: layer(p).tanh()))(z).cpu(), expected.cpu())
