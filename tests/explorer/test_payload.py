"""What Python puts into the page: it round-trips, it is the model's geometry, and bad input is refused."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import socket
import threading
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from hatchling.builders.wheel import WheelBuilder
from torch import Tensor, nn
from typer.testing import CliRunner

from pyro_riemann._store import read_record, write_record
from pyro_riemann.cli import app
from pyro_riemann.experiments.quickstart import RESULT
from pyro_riemann.explorer import PageServer, explorer_page, load_run, run_page
from pyro_riemann.explorer._page import SCRIPTS, asset
from pyro_riemann.explorer._payload import pack, unpack
from pyro_riemann.vae import VAE, encode_all, load_checkpoint, make_vae, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def small_vae(**changes: Any) -> VAE:
    return make_vae(**{"data_dim": 16, "latent_dim": 2, "hidden": (8,), "num_centers": 5, "seed": 0, **changes})


CODES, LABELS = torch.linspace(-1, 1, 40).reshape(20, 2), torch.arange(20) % 3


def payload_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    payload: dict[str, Any] = json.loads(found.group(1))
    return payload


def jacobian(function: Any, z: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacfwd(function))(z)


# ------------------------------------------------------------------------------------ the payload


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8"])
def test_arrays_round_trip(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = unpack(json.loads(json.dumps(pack(array))))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_tables_are_the_two_parts_of_the_metric() -> None:
    vae = small_vae().double()
    vae.decoder.std.fit(CODES.double(), bandwidth=0.5)
    payload = payload_of(explorer_page(vae, CODES, LABELS, low=-1.5, high=[1.0, 2.0], resolution=9))
    assert (payload["low"], payload["high"], payload["size"]) == ([-1.5, -1.5], [1.0, 2.0], [9, 9])
    mesh = torch.meshgrid(torch.linspace(-1.5, 1, 9), torch.linspace(-1.5, 2, 9), indexing="ij")
    nodes = torch.stack(mesh, -1).reshape(-1, 2).double()
    for name, part in (("mean_metric", vae.decoder.mean), ("std_metric", vae.decoder.std)):
        slopes = jacobian(part, nodes)
        square = (slopes.mT @ slopes).detach().numpy()
        entries = np.stack([square[:, 0, 0], square[:, 0, 1], square[:, 1, 1]], -1).reshape(9, 9, 3)
        np.testing.assert_allclose(unpack(payload[name]), entries, rtol=2e-5, atol=1e-6)


def test_page_holds_codes_images_and_prior() -> None:
    vae = small_vae()
    images = torch.rand(20, 16)
    payload = payload_of(explorer_page(vae, CODES, LABELS, images=images, resolution=8, max_codes=7))
    shown = [0, 3, 6, 10, 13, 16, 19]
    np.testing.assert_array_equal(unpack(payload["codes"]), CODES[shown].numpy())
    np.testing.assert_array_equal(unpack(payload["labels"]), LABELS[shown].numpy())
    np.testing.assert_allclose(unpack(payload["images"]) / 255, images[shown].numpy(), atol=0.502 / 255)
    assert payload["prior"] == {"loc": vae.prior.loc.tolist(), "time": pytest.approx(vae.prior.time.item())}
    assert payload["time"] == payload["prior"]["time"]
    assert payload["image_shape"] == [4, 4]


def test_images_of_any_shape_come_from_any_data() -> None:
    vae, images = small_vae(data_dim=24), torch.rand(20, 3, 2, 4)
    data = [{"image": image, "label": 0} for image in images]
    for given, shape in ((images, None), (torch.utils.data.DataLoader(data, 7, shuffle=True), (3, 2, 4))):
        payload = payload_of(explorer_page(vae, CODES, LABELS, shape, images=given, resolution=8))
        assert payload["image_shape"] == [3, 2, 4]
        np.testing.assert_allclose(unpack(payload["images"]) / 255, images.flatten(1).numpy(), atol=0.502 / 255)


def test_a_plain_vae_has_no_prior_of_ours() -> None:
    payload = payload_of(explorer_page(small_vae(prior="normal", posterior="normal"), CODES, LABELS, resolution=8))
    assert payload["prior"] is None
    assert payload["images"] is None
    assert payload["time"] > 0


def test_box_holds_the_codes_and_the_prior_centre() -> None:
    vae = small_vae()
    with torch.no_grad():
        vae.prior.loc.copy_(torch.tensor([4.0, 0.0]))
    payload = payload_of(explorer_page(vae, CODES, LABELS, resolution=8))
    assert payload["high"][0] > 4 > CODES[:, 0].max()
    assert payload["high"][1] == pytest.approx(1 + 0.3 * (CODES[:, 1].max() - CODES[:, 1].min()).item())


def test_a_title_cannot_end_the_script() -> None:
    title = "</script><script>alert('x')</script> & more"
    page = explorer_page(small_vae(), CODES, LABELS, resolution=8, title=title)
    assert payload_of(page)["title"] == title
    assert "<script>alert" not in page


def test_page_asks_for_nothing_from_outside() -> None:
    page = explorer_page(small_vae(), CODES, LABELS, resolution=8)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import\(|@import|url\(", page)
    assert "@" not in re.findall(r"@[A-Z]+@", page), "a mark of the template was left"
    assert all(asset(name) in page for name in (*SCRIPTS, "page.css"))


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"codes": torch.zeros(20, 3)}, r"`codes` must have shape \(n, 2\)"),
        ({"codes": CODES.clone().index_fill(0, torch.tensor([0]), torch.nan)}, "NaN"),
        ({"labels": torch.arange(19)}, r"`labels` must be whole numbers of shape \(20,\)"),
        ({"labels": torch.rand(20)}, "whole numbers"),
        ({"images": torch.rand(20, 15)}, r"`images` must have shape \(n, 16\)"),
        ({"images": torch.rand(19, 16)}, "one for each of the 20 codes, got 19"),
        ({"images": torch.rand(20, 2, 8), "image_shape": (8, 2)}, r"\(n, \*\(8, 2\)\), got \(20, 2, 8\)"),
        ({"image_shape": (3, 5)}, "with 16 entries"),
        ({"image_shape": (4, 2, 2)}, "with 1 channel or 3"),
        ({"low": 1.0, "high": [2.0, 0.5]}, "`low` must lie below `high` on every axis"),
        ({"low": [0.0, 0.0, 0.0]}, "`low` must be a number or two"),
        ({"high": float("inf")}, "`high` has"),
        ({"low": 50.0, "high": 60.0}, "none of the 20 codes lies in the box"),
        ({"resolution": 3}, "`resolution` must be"),
        ({"max_codes": 0}, "`max_codes` must be at least 1"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments = {"codes": CODES, "labels": LABELS, "resolution": 8, **changes}
    with pytest.raises(ValueError, match=message):
        explorer_page(small_vae(), **arguments)


def test_bad_models_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent dimension 2, got 3"):
        explorer_page(small_vae(latent_dim=3), torch.rand(5, 3), torch.arange(5))
    warm = small_vae()
    warm.warm_up = True
    with pytest.raises(ValueError, match="warm-up"):
        explorer_page(warm, CODES, LABELS)
    other = small_vae()
    other.decoder.mean = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 16))
    with pytest.raises(ValueError, match="Tanh"):
        explorer_page(other, CODES, LABELS)
    with pytest.raises(ValueError, match="no square image"):
        explorer_page(small_vae(data_dim=15), CODES, LABELS)


# ------------------------------------------------------------------------------------ a run


def test_run_is_the_model_that_was_trained(run_folder: Path) -> None:
    run = load_run(run_folder)
    tensors, _ = load_checkpoint(run_folder / "checkpoints" / "rvae")
    for key, value in run.vae.state_dict().items():
        torch.testing.assert_close(value, tensors[f"model/{key}"], rtol=0, atol=0)
    payload = payload_of(run_page(run, resolution=16))
    np.testing.assert_array_equal(unpack(payload["codes"]), encode_all(run.vae, run.images).numpy())
    assert payload["prior"] == {"loc": run.vae.prior.loc.tolist(), "time": run.vae.prior.time.item()}
    assert payload["title"] == "Latent explorer: R-VAE on digits"
    assert load_run(run_folder, "vae").vae.posterior_family.riemannian is False


def test_wrong_folders_are_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_run(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"no result\.json"):
        load_run(tmp_path)
    (tmp_path / "result.json").write_text('{"other": 1}')
    with pytest.raises(ValueError, match="cannot be used as a quickstart result"):
        load_run(tmp_path)
    shutil.copy(run_folder / "result.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        load_run(tmp_path)
    tensors, info = load_checkpoint(run_folder / "checkpoints" / "rvae")
    save_checkpoint(tmp_path / "checkpoints" / "rvae", tensors, {**info, "finished": False})
    with pytest.raises(ValueError, match="has not finished"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="`model` must be one of"):
        load_run(run_folder, "gan")


def test_command_reports_errors_in_one_line(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["explore", str(tmp_path / "nothing"), "--no-browser"])
    assert outcome.exit_code == 2
    assert outcome.output.startswith("Error: there is no folder")


def test_export_needs_a_folder(run_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "missing" / "page.html"
    outcome = CliRunner().invoke(app, ["explore", str(run_folder), f"--export={target}", "--resolution=16"])
    assert outcome.exit_code == 2
    assert "there is no folder" in outcome.output


def test_server_has_one_page_and_one_port() -> None:
    with PageServer("<p>ö</p>") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert server.url.startswith("http://127.0.0.1:")
            with urlopen(server.url) as answer:
                assert answer.read().decode() == "<p>ö</p>"
            with pytest.raises(HTTPError) as missing:
                urlopen(server.url + "etc/passwd")
            assert missing.value.code == 404
            assert missing.value.headers["X-Content-Type-Options"] == "nosniff"
            missing.value.close()
            with pytest.raises(ValueError, match=rf"port {server.server_port} cannot be used"):
                PageServer("", server.server_port)
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(ValueError, match="`port` must lie in"):
        PageServer("", 70000)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:PORT", 200),
        ("localhost:PORT", 200),
        ("LocalHost:PORT", 200),
        ("[::1]:PORT", 200),
        ("evil.example:PORT", 403),  # a name that was rebound to this machine
        ("evil.example", 403),
        ("127.0.0.1.evil.example:PORT", 403),
        ("127.0.0.1", 403),
        ("127.0.0.1:1", 403),
        ("localhost:PORT@evil.example", 403),
        ("", 403),
        (None, 403),
    ],
)
def test_server_answers_this_machine_alone(host: str | None, status: int) -> None:
    with PageServer("<p>secret</p>") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            line = "" if host is None else f"Host: {host.replace('PORT', str(server.server_port))}\r\n"
            for method in ("GET", "HEAD"):
                with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
                    connection.sendall(f"{method} / HTTP/1.0\r\n{line}\r\n".encode())
                    answer = connection.makefile("rb").read().decode()
                head, _, body = answer.partition("\r\n\r\n")
                assert int(head.split()[1]) == status
                assert ("secret" in body) == (status == 200 and method == "GET")
                assert "default-src 'none'" in head
                assert "frame-ancestors 'none'" in head
                assert "X-Content-Type-Options: nosniff" in head
        finally:
            server.shutdown()
            thread.join()


def test_marks_and_markup_in_a_title_are_text() -> None:
    title = "@PAYLOAD@ @SCRIPTS@ @STYLE@ \\1 </title></script><script>alert(1)</script><!-- &"
    page = explorer_page(small_vae(), CODES, LABELS, resolution=16, title=title)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert f"<title>{html.escape(title)}</title>" in page
    assert payload_of(page)["title"] == title


def test_policy_of_the_page_names_its_own_scripts_alone() -> None:
    page = explorer_page(small_vae(), CODES, LABELS, resolution=16)
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', page)
    for tag, name in (("<script>", "script-src"), ("<style>", "style-src")):
        text = page.split(tag)[1].split(tag.replace("<", "</"))[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_run_of_other_settings_or_data_is_refused(run_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    values = read_record(folder / "result.json", RESULT)
    for changes, message in (
        ({"limit": 100}, r"other data \(training data differ"),
        ({"epochs": 3}, r"other settings \(epochs differ"),
        ({"hidden": 64}, "another model"),
        ({"hidden": 10**8}, "does not fit into its checkpoint"),
        ({"dataset": "../secret"}, "`dataset` must be one of"),
        ({"flow_steps": "many"}, "the setting 'flow_steps' is 'many'"),
        ({"door": 1}, "missing or unknown"),
    ):
        write_record(folder / "result.json", RESULT, {"settings": values["settings"] | changes})
        with pytest.raises(ValueError, match=message):
            load_run(folder)


def test_wheel_holds_the_page(tmp_path: Path) -> None:
    """Every file beside the modules belongs to the wheel's selection."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        names = set(wheel.namelist())
    for name in (*SCRIPTS, "page.html", "page.css"):
        assert f"pyro_riemann/explorer/{name}" in names
