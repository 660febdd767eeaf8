"""The autoencoders on the GPU: trained, resumed and sampled there, and the same command with ``--device``.

``PYRO_RIEMANN_TEST_DEVICE=cpu`` checks these tests themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pyro_riemann.autoencoders import MODELS, FitConfig, make_autoencoder
from pyro_riemann.cli import app

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("PYRO_RIEMANN_TEST_DEVICE", "cuda"))


@pytest.mark.parametrize("name", MODELS)
def test_models_train_and_resume_there(name: str, tmp_path: Path) -> None:
    data = torch.rand(120, 64)
    settings = {"checkpoint": tmp_path, "progress": False}
    model = make_autoencoder(name, (8, 8), 3, hidden=(16,), seed=0).to(DEVICE)
    model.fit(data, data[:20], FitConfig(epochs=2, batch_size=40), **settings)
    again = make_autoencoder(name, (8, 8), 3, hidden=(16,), seed=1).to(DEVICE)
    history = again.fit(data, data[:20], FitConfig(epochs=2, batch_size=40), **settings)
    assert len(history) == 2
    codes = again.encode(data)
    assert codes.device.type == DEVICE.type
    torch.testing.assert_close(codes, model.encode(data))
    images = again.sample(5, seed=0)
    assert images.device.type == DEVICE.type
    torch.testing.assert_close(images, again.sample(5, seed=0), rtol=0, atol=0)
    processor = again.cpu()
    torch.testing.assert_close(processor.encode(data), codes.cpu(), atol=1e-4, rtol=1e-3)


def test_the_command_trains_there(tmp_path: Path) -> None:
    command = ["reproduce", "chadebec2022", "--protocol=tiny", "--seeds=1", "--part=table", "--quiet"]
    outcome = CliRunner().invoke(app, [*command, f"--device={DEVICE}", f"--results={tmp_path / 'results'}"])
    assert outcome.exit_code == 0, outcome.output
    assert len(list((tmp_path / "results").glob("table-*.json"))) == 3
