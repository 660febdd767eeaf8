"""The whole job through the command line, in a tiny setting; what it writes must add up."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from pyro_riemann import ConstantMetric, EuclideanMetric, GridMetric, RiemannianHeatKernel
from pyro_riemann.cli import app
from pyro_riemann.experiments._latent import CentredMetric, tabulated_prior
from pyro_riemann.experiments.quickstart import configure, straight_length
from pyro_riemann.experiments.quickstart._run import row_difference
from pyro_riemann.explorer import load_run, run_page
from pyro_riemann.geodesics import Geodesic
from tests.commands import interruptible

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--warm-up-epochs=40", "--epochs=1", "--num-centers=20", "--resolution=32", "--warmup=10", "--draws=8",
    "--iwae-draws=5", "--limit=300", "--quiet",
]  # fmt: skip
FIGURES = ["latent_space", "geodesics", "brownian_paths", "samples", "chains"]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["quickstart", *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one tiny run."""
    output = tmp_path_factory.mktemp("quickstart")
    outcome = invoke(*TINY, f"--output={output}")
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output == "", "--quiet prints nothing"
    return output


@pytest.fixture(scope="module")
def result(finished: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((finished / "result.json").read_text())
    return report


# ------------------------------------------------------------------------------------ the run


def test_difference_of_rows_is_that_of_the_frames() -> None:
    """A line and a parabola over the unit interval, decoded to their own coordinates: the rows differ by the height."""
    times = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None]
    points = torch.stack([times * torch.ones(2), times * (1 - times) * torch.tensor([0.0, 4.0])], -1)
    ones = torch.ones(2, dtype=torch.float64)
    bent = Geodesic(points, ones, ones, ones.bool(), lambda t: points[(t * 20).round().long()])
    frames = torch.arange(5, dtype=torch.float64) / 4
    expected = (4 * frames * (1 - frames)).square().mean().div(2).sqrt().item()  # two pixels, one of which differs
    assert row_difference(lambda z: z, bent, num_frames=5).tolist() == pytest.approx([0.0, expected])


def test_bounds_are_additive(result: dict[str, Any]) -> None:
    for model in ("rvae", "vae", "vae_gaussian_prior"):
        row = result[model]
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"], abs=1e-9)
        assert row["images"] == result["dataset"]["test"]
    prior = result["prior"]
    assert prior["elbo_without_normaliser"] == result["rvae"]["elbo"]
    shift = torch.tensor(prior["mass"], dtype=torch.float64).log().item()
    assert prior["elbo_with_normaliser"] == pytest.approx(result["rvae"]["elbo"] - shift, abs=1e-9)
    assert 0 <= prior["mass_error"] < math.inf


def test_explorer_opens_the_run(finished: Path, result: dict[str, Any]) -> None:
    assert "VAE on digits" in run_page(load_run(finished, "vae"), resolution=16)
    prior = load_run(finished).vae.prior
    assert prior.loc.tolist() == result["prior"]["loc"]
    assert prior.time.item() == pytest.approx(result["prior"]["time"])


def test_result_says_what_was_done(result: dict[str, Any]) -> None:
    assert result["dataset"]["train"] == 300
    assert result["epochs"] == {"warm_up": 40, "phase_two": 1}
    assert result["prior"]["time"] > 0
    assert 0 <= result["geodesics"]["converged_share"] <= 1
    geodesics = result["geodesics"]
    assert geodesics["shown_straight_over_geodesic"] >= 0.99, "a straight line is no shortcut"
    assert geodesics["shown_difference_of_rows"] >= geodesics["median_difference_of_rows"] > 0
    chains = result["chains"]
    assert (chains["chains"], chains["draws"]) == (4, 8)
    assert chains["max_r_hat"] == max(row["r_hat"] for row in chains["table"].values())
    assert {"torch", "pyro-ppl", "python"} <= set(result["versions"])
    assert {"training of the R-VAE", "chains", "figures"} <= set(result["timings_seconds"])
    assert result["rvae"]["iwae"]["draws"] == 5
    assert all(seconds > 0 for seconds in result["training_seconds"].values())


def test_figures_and_checkpoints_are_there(finished: Path) -> None:
    for name in FIGURES:
        assert (finished / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    assert all((finished / "checkpoints" / model / "checkpoint.json").exists() for model in ("rvae", "vae"))


def test_another_run_resumes_and_repeats(finished: Path, result: dict[str, Any]) -> None:
    before = (finished / "checkpoints" / "rvae" / "checkpoint.json").read_text()
    outcome = invoke(*TINY, f"--output={finished}")
    assert outcome.exit_code == 0, outcome.output
    assert (finished / "checkpoints" / "rvae" / "checkpoint.json").read_text() == before
    again = json.loads((finished / "result.json").read_text())
    for part in ("rvae", "vae", "prior", "chains", "geodesics", "training_seconds"):
        assert again[part] == result[part]


def test_another_configuration_does_not_resume(finished: Path) -> None:
    outcome = invoke(*TINY, "--epochs=2", f"--output={finished}")
    assert outcome.exit_code == 2
    assert "other settings (epochs differ)" in outcome.output
    assert "--fresh" in outcome.output


def test_other_data_do_not_resume(finished: Path) -> None:
    """A folder of 300 images is not one of 200: the bounds of one would be reported with the model of the other."""
    outcome = invoke(*TINY, "--limit=200", f"--output={finished}")
    assert outcome.exit_code == 2
    assert "other data (training data differ): training data was (300, 64)" in outcome.output
    assert outcome.output.count("\n") == 1


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset=cifar"], "'cifar' is not one of"),
        (["--dataset=mnist", "--data=/nowhere"], "is not in /nowhere"),
        (["--device=quantum"], "--device"),
        (["--epochs=-1"], "--epochs"),
        (["--threads=0"], "--threads"),
        (["--draws=0"], "--draws"),
        (["--image=100000", "--limit=10"], "`image` must lie in 0 ... 298"),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    outcome = invoke(*arguments, f"--output={tmp_path}", "--quiet")
    assert outcome.exit_code == 2
    assert message in " ".join(outcome.output.split())
    assert "Traceback" not in outcome.output
    assert not list(tmp_path.iterdir())


def test_mnist_without_a_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRO_RIEMANN_DATA", raising=False)
    outcome = invoke("--dataset=mnist", f"--output={tmp_path}")
    assert outcome.exit_code == 2
    assert "MNIST/raw" in outcome.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_tells_how_to_resume(number: int, code: int, tmp_path: Path) -> None:
    """Ctrl-C, or a scheduler, in the middle of training leaves a checkpoint; the message says what it is good for."""
    command = interruptible("quickstart", "--warm-up-epochs=1000000", "--quiet", f"--output={tmp_path}")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "checkpoints" / "rvae" / "checkpoint.json").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint within two minutes"
            time.sleep(0.2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"resumes from {tmp_path}/checkpoints" in errors


# ------------------------------------------------------------------------------------ the pieces


def test_presets_yield_to_options() -> None:
    config = configure("mnist", epochs=7, seed=None)
    assert (config.epochs, config.num_centers, config.seed) == (7, 350, 0)
    with pytest.raises(ValueError, match="`dataset` must be one of"):
        configure("cifar")


def test_tabulated_prior_is_the_gaussian_under_a_constant_metric() -> None:
    matrix = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    grid = GridMetric(ConstantMetric(matrix), -6.0, 6.0, 40)
    loc, variance = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    prior = tabulated_prior(grid, loc, variance, 60)
    z = 2 * torch.randn(200, 2, dtype=torch.float64)
    z = z[(z.abs() < 5).all(-1)]
    exact = torch.distributions.MultivariateNormal(loc, variance * matrix.inverse())
    torch.testing.assert_close(prior.log_prob(z), exact.log_prob(z), atol=2e-3, rtol=0)
    mass, error = prior.log_normalizer()
    assert abs(mass.item()) < 1e-3
    assert error.item() < 1e-3


def test_tabulated_prior_agrees_with_the_solver() -> None:
    grid = GridMetric(EuclideanMetric(2).double(), -2.0, 2.0, 20)
    loc, variance = torch.zeros(2, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    z = torch.rand(50, 2, dtype=torch.float64) * 3 - 1.5
    centred = CentredMetric(grid, loc, 40)
    torch.testing.assert_close(
        tabulated_prior(grid, loc, variance, 40).log_prob(z),
        RiemannianHeatKernel(loc, variance, grid).log_prob(z),
        atol=2e-3,
        rtol=0,
    )
    torch.testing.assert_close(centred.squared_dist(loc, z), z.square().sum(-1), atol=2e-3, rtol=0)


def test_straight_length_of_a_flat_metric() -> None:
    z, y = torch.zeros(3, 2), torch.tensor([3.0, 4.0]).expand(3, 2)
    metric = ConstantMetric(torch.diag(torch.tensor([4.0, 4.0])))
    torch.testing.assert_close(straight_length(metric, z, y), torch.full((3,), 10.0))
