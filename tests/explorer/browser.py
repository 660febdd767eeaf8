"""A headless Chromium for the explorer's page, with nothing of its own to fetch."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
HOW = "apt-get install chromium chromium-driver"


def programs() -> tuple[str, str] | None:
    """Paths of Chromium and its driver, None where one is missing."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    return None if found[0] is None or found[1] is None else (found[0], found[1])


@contextmanager
def chromium(width: int = 1280, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """A driver with an empty profile, which logs what the page's console says."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    paths = programs()
    if paths is None:
        raise FileNotFoundError(f"no chromium and chromedriver on PATH: {HOW}.")
    with tempfile.TemporaryDirectory(prefix="explorer-", ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = paths[0]
        for flag in [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # Chromium writes to HOME whatever its profile is
        service = ChromeService(paths[1], env={**os.environ, "HOME": profile})
        driver = Chrome(options=options, service=service)
        try:
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
            driver.set_script_timeout(300)
            yield driver
        finally:
            driver.quit()


def click_chart(driver: Any, x: float, y: float) -> None:
    """A real click on the plane at a point of the chart."""
    from selenium.webdriver import ActionChains

    overlay = driver.find_element("id", "overlay")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", overlay)
    left, top, width, height = driver.execute_script(
        "return [...explorer.view.toPixel(...arguments), explorer.view.width, explorer.view.height]", x, y
    )
    # selenium counts from the middle of the element
    offset = round(left - width / 2), round(top - height / 2)
    ActionChains(driver).move_to_element_with_offset(overlay, *offset).click().perform()


def set_slider(driver: Any, name: str, position: int) -> None:
    """Move a slider as a hand does: its value, then the event."""
    script = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))"
    )
    driver.execute_script(script, name, position)


def save_whole_page(driver: Any, path: Path, scale: float = 1.0) -> None:
    """A PNG of the page from top to bottom, not of the window alone."""
    width, height = driver.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))
