"""One trained run and one browser for the tests of the explorer."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyro_riemann._store import write_record
from pyro_riemann.experiments import quickstart
from pyro_riemann.experiments.quickstart._models import load_images, train_model
from tests.explorer.browser import HOW, chromium, programs


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart's output folder, as far as the explorer reads it: two short trainings and the settings."""
    folder = tmp_path_factory.mktemp("explorer") / "run"
    config = quickstart.configure(
        "digits", output=folder, warm_up_epochs=12, epochs=1, num_centers=30, resolution=40, flow_steps=4, quiet=True
    )
    data = load_images(config)
    for name in quickstart.MODELS:
        train_model(config, data, name)
    write_record(folder / "result.json", quickstart.RESULT, {"settings": config.to_json()})
    return folder


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    """Headless Chromium. On CI it must be there."""
    missing = "selenium" if importlib.util.find_spec("selenium") is None else None
    if programs() is None:
        missing = f"chromium and chromedriver ({HOW})"
    if missing is not None:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run the browser's tests, and lacks {missing}.")
        pytest.skip(f"the explorer's page is tested in a browser: no {missing}.")
    with chromium() as browser:
        yield browser


@pytest.fixture
def console(driver: Any) -> Iterator[list[Any]]:
    """Fails a test in which the page's console says anything."""
    driver.get_log("browser")
    said: list[Any] = []
    yield said
    # the tests read the canvases back, the page does not
    said += [entry for entry in driver.get_log("browser") if "willReadFrequently" not in entry["message"]]
    assert said == []
