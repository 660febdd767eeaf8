"""Every damage of a checkpoint: one clear error, nothing touched, and a fresh start works."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_riemann._safe_points import SafePoints
from pyro_riemann._store import read_record, write_record
from pyro_riemann.vae import load_checkpoint, save_checkpoint, train
from pyro_riemann.vae._checkpoint import CHECKPOINT, part_of
from pyro_riemann.vae._loop import TrainingRun
from pyro_riemann.vae._saved_run import load_run
from pyro_riemann.vae._training import TwoPhases
from tests.faults._cases import CASES, CONFIG, data, manifest, tensors, tiny_vae

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_vae(), data(), config=CONFIG, checkpoint=folder, progress=False)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it beside a file that is somebody's own."""
    (tmp_path / "thesis.tex").write_text("ten years of work")
    return Path(shutil.copytree(finished, tmp_path / "run"))


def state(vae: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in vae.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def refused(function: Callable[[], Any], otherwise: Any) -> tuple[str, Any]:
    """Message of the ``ValueError`` of a function, and its result; any other exception is a fault."""
    try:
        return "", function()
    except ValueError as error:
        return str(error), otherwise


@pytest.mark.parametrize("case", CASES)
def test_damage_is_refused_and_a_fresh_start_works(case: str, folder: Path, finished: Path) -> None:
    CASES[case](folder)
    vae = tiny_vae()
    before = state(vae)
    with pytest.raises(ValueError, match=r"resume=False.*--fresh") as error:
        train(vae, data(), config=CONFIG, checkpoint=folder, progress=False)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert same(before, state(vae)), "nothing of a damaged checkpoint reaches the model"
    train(vae, data(), config=CONFIG, checkpoint=folder, progress=False, resume=False)
    assert same(state(vae), part_of(load_checkpoint(finished)[0], "model/"))
    assert (folder.parent / "thesis.tex").read_text() == "ten years of work"
    if (elsewhere := folder.parent / "kept-elsewhere").exists():
        assert elsewhere.stat().st_size > 0, "links are replaced, not followed"


def test_an_undamaged_one_is_taken(folder: Path) -> None:
    vae = tiny_vae(seed=9)  # starting weights are no part of what a model is
    assert len(train(vae, data(), config=CONFIG, checkpoint=folder, progress=False)) == 3
    assert same(state(vae), part_of(load_checkpoint(folder)[0], "model/"))


def test_another_layout_of_the_manifest_is_no_damage(folder: Path) -> None:
    manifest(folder).write_text(json.dumps(json.loads(manifest(folder).read_text()), sort_keys=True))
    train(tiny_vae(), data(), config=CONFIG, checkpoint=folder, progress=False)


# -------------------------------------------------------------------- at random

OPERATIONS = ("flip", "cut", "insert", "zero", "swap")


@FUZZ
@given(draw=st.data())
def test_random_damage_of_the_bytes(draw: st.DataObject, folder: Path, finished: Path) -> None:
    """Refused, or of no consequence: the same tensors and information, bit for bit."""
    shutil.rmtree(folder)
    shutil.copytree(finished, folder)
    path = draw.draw(st.sampled_from([manifest(folder), tensors(folder)]))
    content = bytearray(path.read_bytes())
    for _ in range(draw.draw(st.integers(1, 3))):
        operation = draw.draw(st.sampled_from(OPERATIONS))
        first, second = sorted(draw.draw(st.integers(0, len(content) - 1)) for _ in range(2))
        if operation == "flip":
            content[first] ^= 1 << draw.draw(st.integers(0, 7))
        elif operation == "cut":
            del content[first : second + 1]
        elif operation == "insert":
            content[first:first] = draw.draw(st.binary(min_size=1, max_size=9))
        elif operation == "zero":
            content[first : second + 1] = bytes(second + 1 - first)
        else:
            content[first], content[second] = content[second], content[first]
        if not content:
            break
    path.write_bytes(bytes(content))
    expected, expected_info = load_checkpoint(finished)
    refusal, (found, info) = refused(lambda: load_checkpoint(folder), otherwise=({}, {}))
    assert "--fresh" in refusal or (same(found, expected) and info == expected_info)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.floats(), max_size=3),
)


@FUZZ
@given(draw=st.data())
def test_random_values_under_a_right_checksum(draw: st.DataObject, folder: Path, finished: Path) -> None:
    """Refused before the model is touched, or a run at a moment that can be."""
    shutil.rmtree(folder)
    shutil.copytree(finished, folder)
    info = copy.deepcopy(read_record(manifest(finished), CHECKPOINT))
    where: Any = info
    while True:
        key = draw.draw(st.sampled_from(list(where) if isinstance(where, dict) else range(len(where))))
        if isinstance(where[key], dict | list) and where[key] and draw.draw(st.booleans()):
            where = where[key]
            continue
        if isinstance(where, dict) and draw.draw(st.integers(0, 3)) == 0:
            del where[key]
        else:
            where[key] = draw.draw(VALUES)
        break
    write_record(manifest(folder), CHECKPOINT, info)
    vae = tiny_vae(seed=3)
    before = state(vae)
    run = TrainingRun(TwoPhases(vae, CONFIG), data(), None, folder, None, SafePoints(active=False))
    refusal, _ = refused(lambda: load_run(run, *load_checkpoint(folder)), otherwise=None)
    if refusal:
        assert "--fresh" in refusal
        assert same(before, state(vae))
    else:
        assert run.phase == 2
        assert run.finished or run.epoch == 1  # all epochs are done; what ends a run may be open
        assert [entry["epoch"] for entry in run.history.epochs] == [1, 2, 1]


def test_what_cannot_be_resumed_is_not_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, {"epoch": 1})
    with pytest.raises(ValueError, match="'w' holds a NaN"):
        save_checkpoint(tmp_path, {"w": torch.tensor([1.0, torch.nan])}, {"epoch": 2})
    assert load_checkpoint(tmp_path)[1] == {"epoch": 1}
