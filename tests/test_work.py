"""Work that takes long says so, and keeps a limit in seconds; whatever it is doing."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import jax.numpy as jnp
import pytest
import torch
from jax import Array
from torch import Tensor

import pyro_riemann
import pyro_riemann.numpyro as twin
from pyro_riemann import (
    GeodesicSolver,
    PullbackMetric,
    RiemannianHeatKernel,
    RiemannianMetric,
    RiemannianNormal,
    RiemannianUniform,
    RiemannianWrappedNormal,
    Sphere,
    _work,
    brownian_motion,
    time_limit,
)
from pyro_riemann.sampling import sample_uniform
from pyro_riemann.statistics import frechet_mean, kmeans
from pyro_riemann.vae import ProgressBar


def wait_for(z: Tensor) -> None:
    """30 ms a call and 0.1 ms a point."""
    time.sleep(0.03 + 1e-4 * z[..., 0].numel())


class Late(RiemannianMetric):
    """A bump that takes its time."""

    dim = 2

    def metric(self, z: Tensor) -> Tensor:
        wait_for(z)
        return torch.eye(2, dtype=z.dtype) * (1 + torch.exp(-z.square().sum(-1)))[..., None, None]


def late_decoder() -> PullbackMetric:
    def decode(z: Tensor) -> Tensor:
        wait_for(z)
        return torch.cat([z, torch.sin(z)], -1)

    return PullbackMetric(decode, 2)


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """The watch looks anew at how patient it is to be."""
    _work._watch.sleep()
    yield
    _work._watch.sleep()


ORIGIN = torch.zeros(2, dtype=torch.float64)
POINTS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)

ROUTINES: dict[str, Callable[[RiemannianMetric], Callable[[], object]]] = {
    "dist": lambda metric: partial(metric.dist, POINTS, POINTS.flip(0)),
    "geodesic": lambda metric: partial(metric.geodesic, POINTS, POINTS.flip(0)),
    "log_normalizer": lambda metric: RiemannianNormal(ORIGIN, 0.6, metric).log_normalizer,
    "sample": lambda metric: partial(RiemannianNormal(ORIGIN, 0.6, metric).sample, (50,)),
    "mean": lambda metric: partial(getattr, RiemannianNormal(ORIGIN, 0.6, metric), "mean"),
    "log_prob": lambda metric: partial(RiemannianWrappedNormal(ORIGIN, 0.4, metric).log_prob, POINTS),
    "rsample": lambda metric: partial(RiemannianHeatKernel(ORIGIN, 0.4, metric, num_steps=100).rsample, (5,)),
    "brownian_motion": lambda metric: partial(brownian_motion, metric, POINTS, 1.0, num_steps=100),
    "log_volume": lambda metric: RiemannianUniform(metric, -1.0, 1.0).log_volume,
    "sample_uniform": lambda metric: partial(sample_uniform, metric, 100, -1.0, 1.0),
    "frechet_mean": lambda metric: partial(frechet_mean, metric, POINTS),
    "kmeans": lambda metric: partial(kmeans, metric, POINTS, 2),
    "tabulate": lambda metric: partial(metric.tabulate, -1.0, 1.0, 100),
}


@pytest.mark.parametrize("make", [Late, late_decoder], ids=["user's", "decoder"])
@pytest.mark.parametrize("name", ROUTINES)
def test_whatever_takes_long_says_so_and_keeps_its_limit(
    name: str, make: Callable[[], RiemannianMetric], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every routine, on two slow metrics: its name within the patience, and an end at the limit."""
    monkeypatch.setattr(_work, "PATIENCE", 0.1)
    routine = ROUTINES[name](make())  # to make a law is a routine of its own
    start, message = time.monotonic(), None
    try:
        with time_limit(0.4):
            routine()
    except TimeoutError as error:
        message = str(error)
    took, said = time.monotonic() - start, capsys.readouterr().err
    assert took > 0.3, "too quick for a test of what takes long"
    assert re.search(rf"^(\w+\.)?({name}|GridMetric|RiemannianUniform): \d+ s", said, re.MULTILINE), said
    assert took < 8, f"{name} ended after {took:.1f} s"
    assert message is None or ("did not end within the 0.4 s" in message and took >= 0.4)


def test_what_is_quick_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_work, "PATIENCE", 0.3)
    for _ in range(20):
        Sphere(2).dist(ORIGIN, POINTS)
    time.sleep(0.5)
    assert capsys.readouterr().err == ""


def test_the_twin_says_so_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is at: here a metric that takes its time on the host, as a compilation does."""

    class LateTwin(twin.RiemannianMetric):
        dim = 2

        def metric(self, z: Array) -> Array:
            time.sleep(0.3)
            return jnp.eye(2) * (1 + jnp.exp(-jnp.square(z).sum(-1)))[..., None, None]

    monkeypatch.setattr(_work, "PATIENCE", 0.1)
    LateTwin().cholesky(jnp.zeros(2))
    assert re.search(r"^LateTwin.cholesky: \d+ s", capsys.readouterr().err)


def test_progress_names_the_outermost_routine_and_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @_work.announced
    def inner() -> None:
        for _ in _work.turns("steps", range(3)):
            time.sleep(0.15)

    @_work.announced
    def outer() -> None:
        for _ in _work.turns("parts", range(2)):
            inner()

    monkeypatch.setattr(_work, "PATIENCE", 0.1)
    outer()
    said = capsys.readouterr().err
    assert re.search(r"^outer: \d+ s, parts \d of 2, steps \d of 3$", said, re.MULTILINE), said
    assert "inner" not in said


@pytest.mark.parametrize("outer, inner", [(100, 0.05), (0.05, 100)])
def test_the_shorter_of_two_limits_holds(outer: float, inner: float) -> None:
    def late() -> None:
        with time_limit(outer), time_limit(inner):
            time.sleep(0.06)
            Late().metric(ORIGIN)

    with pytest.raises(TimeoutError, match=r"did not end within the 0\.05 s"):
        late()
    Late().metric(ORIGIN)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_is_positive(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"), time_limit(seconds):
        pass


def test_a_limit_changes_no_number() -> None:
    metric, solver = late_decoder(), GeodesicSolver(on_failure="ignore")
    free = solver.squared_dist(metric, ORIGIN, POINTS[:1])
    with time_limit(1000):
        assert torch.equal(solver.squared_dist(metric, ORIGIN, POINTS[:1]), free)


def test_the_environment_silences() -> None:
    """In a process of its own, since it is read at import."""
    program = "import time; from pyro_riemann import _work; _work.announced(time.sleep)(0.5)"

    def said(wish: str) -> str:
        environment = os.environ | {"PYRO_RIEMANN_PROGRESS": wish}
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True).stderr

    assert said("off") == ""
    assert said("0.3").startswith("sleep: 0 s\n")
    assert "must be \"off\" or a number of seconds, got 'often'" in said("often")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_no_thread_of_ours_is_there_at_a_fork() -> None:
    """A process that forks with several threads may never end: ours is gone by then."""
    Sphere(2).dist(ORIGIN, POINTS)
    assert _work._watch.thread is not None
    _work._watch.sleep()
    assert not _work._watch.thread.is_alive()
    Sphere(2).dist(ORIGIN, POINTS)  # and it is there again
    assert _work._watch.thread.is_alive()


def test_the_watch_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither metric nor tensors of what was in work, which the thread has just shown."""
    monkeypatch.setattr(_work, "PATIENCE", 0.1)
    metric = late_decoder()
    held = weakref.ref(metric)
    with pytest.raises(TimeoutError), time_limit(0.3):
        brownian_motion(metric, POINTS, 1.0, num_steps=1000)
    del metric
    gc.collect()
    assert held() is None


def test_silence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_work, "PATIENCE", 0.1)
    late = _work.announced(time.sleep)
    with _work.silence():
        late(0.3)
    assert capsys.readouterr().err == ""
    late(0.3)
    assert "sleep" in capsys.readouterr().err


def test_a_bar_of_its_own_is_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_work, "PATIENCE", 0.1)

    @_work.announced
    def training() -> None:
        bar = ProgressBar()
        bar.start(num_epochs=2, num_done=0)
        time.sleep(0.4)
        bar.stop()

    training()
    said = capsys.readouterr().err
    assert "epoch" in said
    assert "training" not in said


@pytest.mark.parametrize("routine", [lambda: Sphere(2).dist(ORIGIN, POINTS), _work.announced(lambda: abs(-1))])
def test_an_interrupt_at_any_call_leaves_nothing_in_work(routine: Callable[[], object]) -> None:
    """Else every later routine believes itself within another: it refuses no NaN, and shows no progress."""
    at, seen, left, interrupted = 0, 0, 0, 0

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        ours = Path(pyro_riemann.__file__).parent in Path(frame.f_code.co_filename).parents  # a lock does not bear it
        if ours and event in ("call", "c_return"):  # where an interpreter looks for signals
            seen += 1
            if seen == at:
                sys.setprofile(None)
                raise KeyboardInterrupt

    while seen >= at:
        at, seen = at + 1, 0
        _work._watch.sleep()  # to wake it is a part of beginning
        try:
            sys.setprofile(interrupt)
            routine()
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.setprofile(None)
        left += _work.inside() or any(held() is not None for held in _work._watch.tasks.values())
    assert left == 0
    assert interrupted > 10


def test_the_watch_bears_what_other_threads_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks while thousands of routines begin and end."""
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    monkeypatch.setattr(_work, "PATIENCE", 2e-4)
    monkeypatch.setattr(_work._Watch, "show", lambda self, task: time.sleep(0))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    finished = time.monotonic() + 1
    nothing = _work.announced(lambda: time.sleep(0))

    def busy() -> None:
        while time.monotonic() < finished:
            nothing()

    threads = [threading.Thread(target=busy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not died
