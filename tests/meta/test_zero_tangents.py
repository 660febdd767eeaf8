"""The rules of ``tests/zero_tangents.py`` against what torch computes with numbers."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.zero_tangents import RULES

SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3)]
DTYPES = [torch.int64, torch.float32, torch.float64, torch.complex64]


@pytest.mark.parametrize("name", RULES)
def test_shape_and_dtype_are_those_of_numbers(name: str) -> None:
    operation = getattr(torch.ops.aten, name.split(".")[0]).Tensor
    for left, right, one, other in itertools.product(SHAPES, SHAPES, DTYPES, DTYPES):
        a, b = torch.ones(left, dtype=one), torch.ones(right, dtype=other)
        numbers = operation(a, b)
        shape = RULES[name](a.to("meta"), b.to("meta"))
        assert (shape.shape, shape.dtype) == (numbers.shape, numbers.dtype)
    for number in (2, 2.0):
        a = torch.ones(2, dtype=torch.float32)
        found = RULES[name](a.to("meta"), number), RULES[name](number, a.to("meta"))
        assert all((part.shape, part.dtype) == (a.shape, a.dtype) for part in found)
    assert RULES[name](torch.ones(0, 3, device="meta"), torch.ones(1, device="meta")).shape == (0, 3)


def test_slopes_do_not_depend_on_the_rules() -> None:
    z = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    weight = torch.linspace(0, 2, 3, dtype=torch.float64)
    slope = torch.func.jvp(lambda z: 3 * z * weight / 2 - weight + 1 - z, (z,), (z,))[1]
    torch.testing.assert_close(slope, z * (1.5 * weight - 1))
