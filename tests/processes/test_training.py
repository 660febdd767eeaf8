"""Two processes of ``torchrun`` train as one does: losses, weights, checkpoints, signals, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_riemann.vae import load_checkpoint
from pyro_riemann.vae._processes import NoiseOfAll
from tests.processes._worker import MODELS, STOPPED_AT, config, trained

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
    pytest.mark.filterwarnings("ignore:the table of the metric is off:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* lies past the cut locus:UserWarning"),
]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What two processes did, with the report of each."""
    folder = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "tests.processes._worker", str(folder)]
    done = subprocess.run([*launcher, *program], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, [json.loads((folder / f"report-{rank}.json").read_text()) for rank in range(2)]


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_give_the_losses_and_weights_of_one(name: str, two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, reports = two
    vae, expected = trained(name)
    # with a frozen posterior each process solves distances of a fifth of its own rows, not of the minibatch's
    same = 2 if name == "frozen" else 3
    for rank, report in enumerate(reports):
        for key in ("elbo", "validation"):
            found, wanted = doubles(report[name][key]), doubles(expected[key])
            torch.testing.assert_close(found[:same], wanted[:same], rtol=1e-9, atol=1e-9)
        weights, _ = load_checkpoint(folder / f"{name}-{rank}")
        for key, value in (vae.state_dict() if name != "frozen" else {}).items():
            torch.testing.assert_close(weights[key], value, rtol=1e-6, atol=1e-7)
    assert [report[name]["told"] for report in reports] == [len(expected["elbo"]), 0], "one of them reports"
    first, second = (load_checkpoint(folder / f"{name}-{rank}")[0] for rank in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items()), "both end with the same weights"
    assert reports[0][name]["elbo"] == reports[1][name]["elbo"], "both know all of it"


def test_a_signal_to_one_stops_both_at_one_step(two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, reports = two
    assert [report["stopped"] for report in reports] == ["yes", "yes"]
    _, info = load_checkpoint(folder / "copy")
    assert 3 * len(info["history"]) + len(info["losses"]) == STOPPED_AT


def test_two_that_go_on_end_bit_equal(two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, reports = two
    for rank, report in enumerate(reports):
        assert report["resumed"]["elbo"] == report["plain"]["elbo"]
        whole, resumed = (load_checkpoint(folder / f"{name}-{rank}")[0] for name in ("plain", "resumed"))
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_one_goes_on_where_two_stopped(two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, reports = two
    _, found = trained("plain", folder / "copy")
    torch.testing.assert_close(doubles(found["elbo"]), doubles(reports[0]["plain"]["elbo"]), rtol=1e-9, atol=1e-9)


def test_a_training_alone_among_others_waits_for_nobody(two: tuple[Path, list[dict[str, Any]]]) -> None:
    assert [report["after"] for report in two[1]] == [config("plain").warm_up_epochs + config("plain").epochs] * 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("uninitialised", "init_process_group"),
        ("other data", "process 1 was given another data than process 0 (training data differ)"),
        ("batch", "SyncBatchNorm"),
        ("other run", "was made with other data"),
        ("no folder", "cannot make the folder"),
        ("not finite", "the loss of VAE became"),
    ],
)
def test_what_one_refuses_all_refuse(name: str, words: str, two: tuple[Path, list[dict[str, Any]]]) -> None:
    for report in two[1]:
        assert words in report[name], report[name]


@pytest.mark.parametrize("draw", [
    lambda n: torch.randn(n, 3),
    lambda n: torch.randn(4, n, 4),
    lambda n: torch.rand(n),
    lambda n: torch.normal(torch.zeros(n, 2), torch.arange(1, n + 1)[:, None].expand(n, 2).float()),
    lambda n: torch.empty(n, 5).exponential_(),
    lambda n: torch.nn.functional.dropout(torch.ones(n, 9), 0.3),
    lambda n: torch.randn(7),
])  # fmt: skip
def test_the_noise_of_a_part_is_that_of_its_rows(draw: Any) -> None:
    torch.manual_seed(1)
    whole, state = draw(6), torch.get_rng_state()
    axis = next((axis for axis, size in enumerate(whole.shape) if size == 6), None)
    torch.manual_seed(1)
    with NoiseOfAll(2, 6, 6):
        part = draw(4)
    assert torch.equal(torch.get_rng_state(), state), "all processes draw on from the same state"
    expected = whole if axis is None else whole.narrow(axis, 2, 4)
    if whole.shape[-1:] == (2,):  # scaled by place: the scale of a row is its own here
        expected = expected / torch.arange(3, 7)[:, None] * torch.arange(1, 5)[:, None]
    torch.testing.assert_close(part, expected, rtol=1e-6, atol=0)


def test_a_random_order_of_the_rows_is_kept() -> None:
    torch.manual_seed(1)
    whole, state = torch.randperm(6).tolist(), torch.get_rng_state()
    torch.manual_seed(1)
    with NoiseOfAll(2, 6, 6):
        part = torch.randperm(4)
    assert torch.equal(torch.get_rng_state(), state)
    assert part.tolist() == [row - 2 for row in whole if row >= 2]
    with NoiseOfAll(2, 6, 6):  # of three particles, flat
        assert sorted(torch.randperm(12).tolist()) == list(range(12))


def test_draws_by_rejection_are_refused() -> None:
    with NoiseOfAll(0, 2, 4), pytest.raises(ValueError, match="as many random numbers as its values want"):
        torch.poisson(torch.ones(2, 3))
