"""README says that every public routine of the torch side has a test on the GPU: these are the names."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

MODULES = (
    "metrics",
    "manifolds",
    "geodesics",
    "brownian",
    "distributions",
    "vae",
    "autoencoders",
    "evaluation",
    "sampling",
    "mixtures",
    "diagnostics",
    "plotting",
)
#: Functions that hold no tensor: they name a method, build networks (their users are tested), or need a download.
ELSEWHERE = {"default_method", "training_solver", "mlp", "image_networks", "inception_features"}
TESTS = "\n".join(path.read_text() for path in sorted((Path(__file__).resolve().parents[1] / "gpu").glob("*.py")))


def functions(module: str) -> list[str]:
    loaded = importlib.import_module(f"pyro_riemann.{module}")
    return [name for name in loaded.__all__ if inspect.isfunction(getattr(loaded, name))]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_used_on_the_device(module: str) -> None:
    missing = [name for name in functions(module) if name not in ELSEWHERE and not re.search(rf"\b{name}\(", TESTS)]
    # samplers are called by one parametrised test, under the name of its argument
    assert [name for name in missing if not re.search(rf"\[[^\]]*\b{name}\b[^\]]*\]\)", TESTS)] == []
