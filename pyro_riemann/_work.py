"""Long work says so, and ends in time where a limit is set.

A public routine that has taken five seconds shows on the standard error what it is, for how long, and how far it has
come; ``PYRO_RIEMANN_PROGRESS`` sets another number of seconds, or "off". One thread looks once a second, and only while
a routine is in work: loops say where they are, and neither a long call of somebody's decoder nor a compiled program
keeps the line from being shown.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar
from weakref import ref

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _patience(wish: str) -> float:
    """Seconds for which work may be silent; infinity for never a word."""
    if wish.lower() in ("off", "0"):
        return float("inf")
    try:
        return float(wish or 5)
    except ValueError:
        raise ValueError(f'PYRO_RIEMANN_PROGRESS must be "off" or a number of seconds, got {wish!r}.') from None


PATIENCE = _patience(os.environ.get("PYRO_RIEMANN_PROGRESS", ""))
"""Seconds after which work shows its progress: five, or what the environment says at import."""


class Task:
    """A public routine that is in work.

    Attributes:
        function: it.
        owner: the class of its first argument, that of a method its object.
        started: by :func:`time.monotonic`.
        stages: what it is at, from the outside in: how far it has come, of how much (0 where nobody knows).
        shows_itself: whether it has a display of its own.
    """

    __slots__ = ("__weakref__", "function", "owner", "shows_itself", "stages", "started", "told")

    def __init__(self, function: Callable[..., object], owner: object) -> None:
        self.function = function
        self.owner = owner if isinstance(owner, type) else type(owner)  # not itself, which is to end when it does
        self.started = time.monotonic()
        self.stages: dict[str, tuple[int, int]] = {}
        self.shows_itself = False
        self.told = 0.0

    def name(self) -> str:
        """Of the function; that of a method with its class."""
        name: str = self.function.__name__
        if "." not in self.function.__qualname__.rpartition("<locals>.")[2]:
            return name
        return self.owner.__name__ if name == "__init__" else f"{self.owner.__name__}.{name}"

    def progress(self) -> str:
        """What it is at and how far it has come; empty if it has not said."""
        return ", ".join(
            what + (f" {done:,}" if done or total else "") + (f" of {total:,}" if total else "")
            for what, (done, total) in list(self.stages.items())[:3]
        )


class _Thread(threading.local):
    """What a thread has in work, and until when that may take."""

    task: Task | None = None
    silent = False
    limit: tuple[float, float] | None = None  # the deadline, and the seconds that were given


class _Watch:
    """All that is in work, and the thread that shows it."""

    def __init__(self) -> None:
        self.tasks: dict[int, ref[Task]] = {}  # weak: of what an interrupt kept from ending nothing is left
        self.awake = False
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        self.width = 0

    def wake(self) -> None:
        with self.lock:
            if not self.awake:
                self.awake, self.stopped = True, threading.Event()
                self.thread = threading.Thread(target=self.look, args=(self.stopped,), name="progress", daemon=True)
                try:
                    self.thread.start()
                except BaseException:  # an interrupt, or no thread to be had: the next routine tries again
                    self.awake = False
                    raise

    def look(self, stopped: threading.Event) -> None:
        while not stopped.wait(min(1.0, PATIENCE / 2)):
            if not self.tasks:
                self.awake = False
                if not self.tasks:  # nothing began in between, or it found the watch awake
                    return
                self.awake = True
            for key, held in list(self.tasks.items()):  # whatever other threads begin and end meanwhile
                if (task := held()) is not None:
                    self.show(task)
                elif self.tasks.get(key) is held:
                    self.tasks.pop(key, None)

    def show(self, task: Task) -> None:
        passed, now = time.monotonic() - task.started, sys.stderr
        if task.shows_itself or passed < PATIENCE or now is None or now.closed:
            return
        text = ", ".join(filter(None, (f"{task.name()}: {passed:.0f} s", task.progress())))
        with self.lock:
            if id(task) not in self.tasks:  # it has ended since: nothing would take its line away
                return
            if now.isatty():
                self.width = max(self.width, len(text))
                print(f"\r{text:<{self.width}}", end="", file=now, flush=True)
            elif passed >= 2 * task.told:  # a file: at 5, 10, 20, ... seconds
                print(text, file=now, flush=True)
            else:
                return
            task.told = passed

    def end(self, task: Task) -> None:
        with self.lock:
            self.tasks.pop(id(task), None)
            if task.told and sys.stderr is not None and sys.stderr.isatty():
                print(f"\r{'':<{self.width}}\r", end="", file=sys.stderr, flush=True)

    def sleep(self) -> None:
        """End the thread: a process with several must not fork."""
        self.stopped.set()
        if self.thread is not None and self.thread.is_alive():
            self.thread.join()
        self.awake = False


THREAD, _watch = _Thread(), _Watch()
if sys.platform != "win32":
    os.register_at_fork(before=_watch.sleep)


def begin(function: Callable[..., object], owner: object) -> Task | None:
    """Say that a routine has begun.

    An interrupt may come at any call, and this thread must not stay within a routine that is left. So who calls this
    takes ``THREAD.task`` before, gives it back in a ``finally`` that this call is within, by assignment and before
    anything else, and calls :func:`end`.

    Returns:
        What :func:`end` wants; None if this thread is already within one.
    """
    if THREAD.task is not None:
        return None
    task = THREAD.task = Task(function, owner)
    task.shows_itself = THREAD.silent
    _watch.tasks[id(task)] = ref(task)
    if not _watch.awake:
        _watch.wake()
    return task


def end(task: Task | None) -> None:
    """Show no more of it."""
    if task is not None:
        _watch.end(task)


def inside() -> bool:
    """Whether this thread is within a public routine."""
    return THREAD.task is not None


def announced(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which shows its progress when it takes long."""

    @functools.wraps(function)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        outer, task = THREAD.task, None
        try:
            task = begin(function, args[0] if args else None)
            return function(*args, **kwargs)
        finally:
            THREAD.task = outer
            end(task)

    return told


def stage(what: str, done: int = 0, total: int = 0) -> None:
    """Say what the routine in work is at, and how far it has come.

    Args:
        what: in the plural where it is counted, as in ``"geodesics"``.
        done: how many of them; with all of them it is done with.
        total: of how many; 0 if nobody knows.

    Raises:
        TimeoutError: beyond the limit that :func:`time_limit` set.
    """
    if (task := THREAD.task) is not None:
        if 0 < total <= done:
            task.stages.pop(what, None)
        else:
            task.stages[what] = (done, total)
    check_limit()


def turns(what: str, items: Collection[T]) -> Iterator[T]:
    """The items of a loop, each of which is counted by :func:`stage`.

    Args:
        what: their name, in the plural.
        items: what the loop goes through.
    """
    task = THREAD.task
    try:
        for index, item in enumerate(items):
            stage(what, index, len(items))
            yield item
    finally:
        if task is not None:
            task.stages.pop(what, None)


def shows_itself() -> None:
    """Say that the routine in work has a display of its own."""
    if THREAD.task is not None:
        THREAD.task.shows_itself = True


@contextmanager
def silence() -> Iterator[None]:
    """Within it this thread says nothing of its work."""
    outer, THREAD.silent = THREAD.silent, True
    try:
        yield
    finally:
        THREAD.silent = outer


def check_limit() -> None:
    """Raise beyond the limit that :func:`time_limit` set.

    Raises:
        TimeoutError: which says what was in work and how far it had come.
    """
    if (limit := THREAD.limit) is None or time.monotonic() < limit[0]:
        return
    task = THREAD.task
    what = "Work" if task is None else task.name()
    reached = f" Reached: {task.progress()}." if task is not None and task.stages else ""
    raise TimeoutError(
        f"{what} did not end within the {limit[1]:g} s that `time_limit` allows.{reached} Allow more, or ask for less: "
        "fewer points at a time, fewer directions, a table of the metric (`GridMetric`), or a rougher `GeodesicSolver`."
    )


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it no routine of this package goes on for longer: it raises at the next turn of its loops.

    Routines that need more points the more accurate they are stop by themselves, at a number of points that their
    docstrings give, and say in their error what they did not reach; such results are the same on every machine. A limit
    in seconds is for where waiting is worse than no result. What is computed until then is lost, but constants that
    were finished are kept. A compiled program of JAX is not interrupted.

    Args:
        seconds: the limit in seconds, from now on and in this thread; within another one, the shorter of the two.

    Raises:
        ValueError: unless ``seconds`` is positive.
        TimeoutError: from the routine that took longer, with what it had reached.

    Example:
        >>> import pyro_riemann
        >>> with pyro_riemann.time_limit(60):
        ...     print(RiemannianNormal(torch.zeros(2), 0.5, Hyperbolic(2)).log_normalizer().value)
        tensor(0.5356)
    """
    if not seconds > 0:
        raise ValueError(f"`seconds` must be positive, got {seconds!r}.")
    outer, deadline = THREAD.limit, time.monotonic() + seconds
    THREAD.limit = (deadline, seconds) if outer is None or deadline < outer[0] else outer
    try:
        yield
    finally:
        THREAD.limit = outer
