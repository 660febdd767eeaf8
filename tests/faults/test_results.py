"""Results of a grid, metrics and runs of the quickstart: what is not theirs is refused, and how."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pyro_riemann import KernelMetric
from pyro_riemann._store import read_record, write_record
from pyro_riemann.cli import app
from pyro_riemann.experiments._jobs import RUN, Job, is_done, load, pack, run_jobs, unpack
from pyro_riemann.experiments.chadebec2022 import write_report as chadebec_report
from pyro_riemann.experiments.kalatzis2020 import write_report as kalatzis_report
from pyro_riemann.experiments.quickstart import RESULT, QuickstartConfig, configure
from tests.faults.test_checkpoints import FUZZ, VALUES, refused

JOB = Job("job", {"x": 1})


def square(settings: dict[str, Any], device: str) -> dict[str, Any]:
    return {"square": settings["x"] ** 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run_jobs([JOB], square, tmp_path)
    return tmp_path


# -------------------------------------------------------------------- results


@FUZZ
@given(draw=st.data())
def test_a_result_is_the_same_or_refused(draw: st.DataObject, folder: Path) -> None:
    path = folder / "job.json"
    run_jobs([JOB], square, folder, fresh=True)
    expected, content = load(path), bytearray(path.read_bytes())
    first = draw.draw(st.integers(0, 2**20)) % len(content)  # the length depends on how long the job took
    if draw.draw(st.booleans()):
        content[first] ^= 1 << draw.draw(st.integers(0, 7))
    else:
        del content[first : first + 1 + draw.draw(st.integers(0, 2**20)) % (len(content) - first)]
    path.write_bytes(bytes(content))
    refusal, found = refused(lambda: load(path), otherwise=None)
    assert "Remove that file" in refusal or found == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"}, {"settings": [1]}, {"result": None}, {"seconds": -1.0}, {"seconds": float("nan")},
        {"cpu_seconds": "long"}, {"device": 3}, {"versions": "new"},
    ],
)  # fmt: skip
def test_a_signed_result_of_no_run_is_refused(changes: dict[str, Any], folder: Path) -> None:
    path = folder / "job.json"
    write_record(path, RUN, {**read_record(path, RUN), **changes})
    with pytest.raises(ValueError, match="cannot be used as a run"):
        is_done(JOB, folder)
    run_jobs([JOB], square, folder, fresh=True)
    assert load(path)["result"] == {"square": 1}


def test_a_result_under_a_link_is_refused_and_its_target_stays(folder: Path) -> None:
    path = folder / "job.json"
    path.rename(folder / "mine")
    path.symlink_to("mine")
    with pytest.raises(ValueError, match="it is a link"):
        run_jobs([JOB], square, folder)
    before = (folder / "mine").read_bytes()
    run_jobs([JOB], square, folder, fresh=True)
    assert (folder / "mine").read_bytes() == before
    assert not path.is_symlink()


@pytest.mark.parametrize("report", [kalatzis_report, chadebec_report])
def test_signed_results_of_another_kind_are_one_error(report: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks what the report needs .* `--fresh`"):
        report(folder, folder / "page.md")


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "object"}, {"dtype": "O"}, {"dtype": "S99"}, {"shape": [3, 5]}, {"shape": [-1, 4]},
        {"base64": "&&&&"}, {"base64": ""},
    ],
)  # fmt: skip
def test_arrays_that_are_none_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an array of a result"):
        unpack({**pack(torch.zeros(3, 4)), **changes})


def test_damaged_results_are_one_line_and_fresh_makes_them_again(tmp_path: Path) -> None:
    results, models = tmp_path / "results", tmp_path / "models"
    common = ["reproduce", "kalatzis2020", "--dataset=digits", "--protocol=smoke", "--model=vae", "--latent-dim=3"]
    command = [*common, f"--results={results}", f"--checkpoints={models}", f"--page={tmp_path / 'page.md'}"]
    results.mkdir()
    (results / "digits-d3-vae-seed0.json").write_text('{"cut off')
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 2
    assert outcome.output.startswith("Error: ")
    assert "cannot be used as a run" in outcome.output
    assert outcome.output.count("\n") == 1


# -------------------------------------------------------------------- metrics


@FUZZ
@given(draw=st.data())
def test_a_metric_is_the_same_or_refused(draw: st.DataObject, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path)
    metric = KernelMetric(torch.zeros(3, 2), torch.ones(3, 2), bandwidth=1.0)
    metric.save(tmp_path)
    path = draw.draw(st.sampled_from(sorted(tmp_path.iterdir())))
    content = bytearray(path.read_bytes())
    content[draw.draw(st.integers(0, 2**20)) % len(content)] ^= 1 << draw.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    refusal, found = refused(lambda: KernelMetric.load(tmp_path), otherwise=None)
    assert "save it anew" in refusal or torch.equal(found.centroids, metric.centroids)


# -------------------------------------------------------------------- settings of a run that came from elsewhere


def test_settings_come_back_but_for_the_folders() -> None:
    config = configure("mnist", data=Path("/home/somebody"), epochs=7, limit=20)
    again = QuickstartConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again.data is None, "whose folder it was is of no matter to who reads it"
    assert again.to_json() == {**config.to_json(), "data": None, "output": str(QuickstartConfig().output)}


@FUZZ
@given(draw=st.data())
def test_random_settings_are_refused_or_sane(draw: st.DataObject) -> None:
    values = copy.deepcopy(configure("digits").to_json())
    for key in draw.draw(st.lists(st.sampled_from(sorted(values)), max_size=3)):
        values[key] = draw.draw(VALUES)
    refusal, config = refused(lambda: QuickstartConfig.from_json(values), otherwise=None)
    if not refusal:
        numbers = [value for value in config.to_json().values() if isinstance(value, int | float)]
        assert all(0 <= value <= 1e9 for value in numbers)
        assert config.dataset in ("digits", "mnist", "fashion-mnist")


def test_a_page_is_not_made_of_a_result_that_was_changed(tmp_path: Path) -> None:
    write_record(tmp_path / "result.json", RESULT, {"settings": configure("digits").to_json()})
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace('"hidden": 128', '"hidden": 127'))
    outcome = CliRunner().invoke(app, ["explore", str(tmp_path), "--no-browser"])
    assert outcome.exit_code == 2
    assert "its checksum is wrong" in outcome.output
    assert outcome.output.count("\n") == 1
