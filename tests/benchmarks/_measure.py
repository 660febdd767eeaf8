"""What the benchmarks share: CPU time, and the rate that turns operations into a floor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def cpu_seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Smallest CPU time of ``repeats`` calls, after one call to warm up if there are several."""
    if repeats > 1:
        function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def matmul_rate(dtype: torch.dtype = torch.float32, size: int = 512, repeats: int = 20) -> float:
    """Floating-point operations a CPU second that a square matrix product reaches here and now."""
    left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)

    def work() -> None:
        for _ in range(repeats):
            left @ right

    return 2 * size**3 * repeats / cpu_seconds(work)


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products (torch's own counter fails where reverse mode is nested)."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out
