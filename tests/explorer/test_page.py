"""The page in a real browser: clicks, keys and sliders, served by the command and opened from a file."""

from __future__ import annotations

import functools
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pyro_riemann.cli import app
from pyro_riemann.explorer import PageServer, explorer_page, load_run
from tests.commands import interruptible
from tests.explorer.browser import click_chart, set_slider

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def served(run_folder: Path) -> Iterator[str]:
    """Address that the command prints; at the end Ctrl-C must stop it at once and without an error."""
    command = interruptible("explore", str(run_folder), "--no-browser", "--resolution=60")
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        late = threading.Timer(300, process.kill)
        late.start()
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.stderr.read()
        yield line.split(" at ")[1].split()[0]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        late.cancel()
        assert (process.returncode, rest.strip(), errors) == (0, "Stopped.", "")


@pytest.fixture(scope="module")
def exported(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the file that the command writes."""
    file = tmp_path_factory.mktemp("export") / "explorer.html"
    outcome = CliRunner().invoke(app, ["explore", str(run_folder), f"--export={file}", "--resolution=60"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.strip() == str(file)
    return file.as_uri()


@pytest.fixture(params=["served", "exported"])
def page(driver: Any, console: list[Any], request: pytest.FixtureRequest) -> Any:
    driver.get(request.getfixturevalue(request.param))
    return driver


@pytest.fixture
def file_page(driver: Any, console: list[Any], exported: str) -> Any:
    driver.get(exported)
    return driver


def text(page: Any, name: str) -> str:
    found: str = page.find_element("id", name).text
    return found


def number(words: str) -> float:
    return float(words.removeprefix("length ").split(",")[0])


def images(page: Any, row: str) -> list[list[int]]:
    """Grey values of each image of a row, as they are on the screen."""
    found: list[list[int]] = page.execute_script(
        """return [...document.getElementById(arguments[0]).children].map((c) =>
        [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, k) => k % 4 === 0))""",
        row,
    )
    return found


def overlay(page: Any) -> str:
    found: str = page.execute_script("return document.getElementById('overlay').toDataURL()")
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def two_codes(page: Any) -> list[list[float]]:
    """The leftmost and the rightmost code: far apart, and not under each other."""
    codes = torch.tensor(page.execute_script("return [...explorer.codes]")).reshape(-1, 2)
    return [codes[codes[:, 0].argmin()].tolist(), codes[codes[:, 0].argmax()].tolist()]


# ------------------------------------------------------------------------------------ served and exported alike


def test_two_clicks_give_a_geodesic(page: Any, run_folder: Path) -> None:
    assert text(page, "status") == "Click two points."
    assert not page.find_element("id", "geodesic-result").is_displayed()
    ends = two_codes(page)
    click_chart(page, *ends[0])
    assert text(page, "status") == "Click the second point."
    click_chart(page, *ends[1])
    assert page.find_element("id", "geodesic-result").is_displayed()
    geodesic, line = (number(text(page, f"{name}-length")) for name in ("geodesic", "line"))
    assert 0 < geodesic <= line
    assert text(page, "converged") == "converged"
    curve, straight = images(page, "geodesic-frames"), images(page, "line-frames")
    assert len(curve) == len(straight) == 11
    assert (curve[0], curve[-1]) == (straight[0], straight[-1]), "both join the two points"
    assert curve[5] != straight[5]
    assert len({tuple(image) for image in curve}) == 11
    clicked = torch.tensor(page.execute_script("return explorer.state.ends"))
    torch.testing.assert_close(clicked, torch.tensor(ends), rtol=0, atol=0.02)  # a pixel or two
    decoded = load_run(run_folder).vae.decoder.mean(clicked).clamp(0, 1) * 255
    assert (torch.tensor([curve[0], curve[-1]]) - decoded).abs().max() <= 1


def test_sliders_change_the_metric(page: Any) -> None:
    for end in two_codes(page):
        click_chart(page, *end)
    before = number(text(page, "geodesic-length")), text(page, "field-high")
    set_slider(page, "ridge", 200)  # a thousand times the typical metric: nearly flat
    wait_for(lambda: number(text(page, "geodesic-length")) != before[0])
    assert text(page, "field-high") != before[1]
    geodesic, line = (number(text(page, f"{name}-length")) for name in ("geodesic", "line"))
    assert geodesic > 3 * before[0]
    assert line < 1.01 * geodesic
    set_slider(page, "ridge", 0)
    set_slider(page, "weight", 0)
    wait_for(lambda: text(page, "weight-value") == "0")
    assert number(text(page, "geodesic-length")) < before[0], "without the standard deviation every curve is shorter"
    page.find_element("id", "reset").click()
    assert text(page, "weight-value") == "1"
    assert not page.find_element("id", "geodesic-result").is_displayed()


def test_brownian_motion_runs(page: Any) -> None:
    page.execute_script("explorer.seconds = 120")  # longer than the slowest machine needs to get to the pause
    page.find_element("id", "mode-brownian").click()
    click_chart(page, *two_codes(page)[0])
    assert page.find_element("id", "brownian-result").is_displayed()
    plane, first = overlay(page), images(page, "brownian-frames")
    assert len(first) == 8
    wait_for(lambda: images(page, "brownian-frames") != first)
    wait_for(lambda: overlay(page) != plane)
    pause = page.find_element("id", "pause")
    pause.click()
    assert pause.text == "Go on"
    resting = page.execute_script("return explorer.state.walk.steps")
    time.sleep(0.2)
    assert page.execute_script("return explorer.state.walk.steps") == resting
    page.execute_script("explorer.seconds = 0.5")
    set_slider(page, "time", 0)  # starts anew, with a shorter time
    wait_for(lambda: not pause.is_enabled())
    assert text(page, "brownian-time").endswith(f"of {text(page, 'time-value')}")
    assert page.execute_script("return explorer.state.walk.motion.time") == pytest.approx(
        page.execute_script("return explorer.payload.time / 30")
    )
    steps = page.execute_script("return explorer.state.walk.trails[0].length / 2 - 1")
    assert steps == 600


def test_nothing_is_loaded(page: Any) -> None:
    assert page.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)") == []


def test_words_of_a_user_are_no_markup(driver: Any, console: list[Any], run_folder: Path) -> None:
    title = "<img src=x onerror=document.title=1> @PAYLOAD@ </title></script><script>document.title=2</script>"
    run = load_run(run_folder)
    page = explorer_page(run.vae, run.vae.encode(run.images[:20]), run.labels[:20], resolution=16, title=title)
    with PageServer(page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            driver.get(server.url)
            assert driver.find_element("css selector", "h1").text == title
            assert driver.title == title
            assert driver.execute_script("return [document.images.length, document.scripts.length]") == [0, 2]
            assert driver.execute_script("return explorer.payload.title") == title
            asked = "return fetch(arguments[0]).then((answer) => answer.status, (error) => String(error))"
            assert "Failed to fetch" in driver.execute_script(asked, server.url), "the policy lets nothing be loaded"
            driver.get_log("browser")  # says so, too
        finally:
            server.shutdown()
            thread.join()


# ------------------------------------------------------------------------------------ keyboard, colours, motion


def test_keyboard_does_it_all(file_page: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> None:
        ActionChains(file_page).send_keys(*keys).perform()

    press(Keys.TAB)
    assert file_page.switch_to.active_element.get_attribute("id") == "overlay"
    press(Keys.ENTER, *[Keys.ARROW_LEFT] * 5, *[Keys.ARROW_UP] * 3, Keys.ENTER)
    assert file_page.find_element("id", "geodesic-result").is_displayed()
    start, end = torch.tensor(file_page.execute_script("return explorer.state.ends"))
    low, high = torch.tensor(file_page.execute_script("return [explorer.payload.low, explorer.payload.high]"))
    torch.testing.assert_close(start, (low + high) / 2)
    torch.testing.assert_close(end - start, (high - low) * torch.tensor([-0.05, 0.03]), rtol=1e-4, atol=1e-6)


def test_every_control_has_a_name(file_page: Any) -> None:
    controls = file_page.find_elements("css selector", "input, button, #overlay, progress")
    assert len(controls) >= 10
    assert all(control.accessible_name for control in controls if control.is_displayed())


def test_prior_button_starts_at_the_centre(file_page: Any, run_folder: Path) -> None:
    file_page.find_element("id", "prior").click()
    expected = load_run(run_folder).vae.prior.loc.tolist()
    assert file_page.execute_script("return explorer.state.walk.start") == pytest.approx(expected)


def test_reduced_motion_shows_the_end(file_page: Any) -> None:
    wish = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    file_page.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    try:
        file_page.find_element("id", "prior").click()
        assert file_page.execute_script("return explorer.state.walk.steps") == 600
    finally:
        file_page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_plane_follows_the_colour_scheme(file_page: Any) -> None:
    corner = "return [...document.getElementById('field').getContext('2d').getImageData(5, 5, 1, 1).data].slice(0, 3)"
    seen = []
    for scheme in ("light", "dark"):
        wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        file_page.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
        query = f"return matchMedia('(prefers-color-scheme: {scheme})').matches"
        wait_for(functools.partial(file_page.execute_script, query))
        time.sleep(0.1)
        seen.append(sum(file_page.execute_script(corner)))
    file_page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen[0] > seen[1], "the same plane is light on light ground and dark on dark"


def test_page_fits_a_telephone(file_page: Any) -> None:
    size = file_page.get_window_size()
    file_page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 380, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        wait_for(lambda: file_page.execute_script("return explorer.view.width") < 380)
        assert file_page.execute_script("return document.documentElement.scrollWidth") <= 380
        for end in two_codes(file_page):
            click_chart(file_page, *end)
        for row in ("geodesic-frames", "line-frames"):
            canvases = f"[...document.getElementById('{row}').children]"
            edges = file_page.execute_script(f"return {canvases}.map((c) => c.getBoundingClientRect().right)")
            assert len(edges) == 11
            assert max(edges) <= 380, "every frame is on the screen"
    finally:
        file_page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert file_page.get_window_size() == size
