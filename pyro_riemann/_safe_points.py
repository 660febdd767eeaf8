"""When a long computation is saved: after a minute, and when a signal asks it to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SECONDS = 60.0
"""Work that a crash may cost."""
Agreed = Callable[[int, bool], tuple[int, bool]]


class SafePoints:
    """Puts SIGINT and SIGTERM off to the next moment at which all can be saved; a second one acts at once.

    While the block runs, whoever computes calls :meth:`reached` between two steps. A signal that came in meanwhile is
    then raised again, after the saving, for the handler that was there before: Ctrl-C is a ``KeyboardInterrupt`` still,
    and SIGTERM ends the process unless the program has a handler of its own. Signals that are ignored stay ignored, and
    threads other than the main one, which can have no handlers, are only saved by the clock.

    Args:
        active: false where there is nothing to save to: signals then act as ever.
        agreed: makes of the signal that came, or 0, and of whether a minute is over what holds for all processes that
            compute together; by default there are no others.
    """

    def __init__(self, active: bool, agreed: Agreed = lambda asked, due: (asked, due)) -> None:
        self.active, self.last, self.asked, self.agreed = active, time.monotonic(), 0, agreed
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> SafePoints:
        if self.active and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self.previous[number] = handler
                    signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.asked and kind is None:  # asked after the last step: all is saved
            signal.raise_signal(self.asked)

    def reached(self, save: Callable[[], None]) -> None:
        """All is consistent now: save it if that is due, and stop if that was asked for."""
        if not self.active:
            return
        # a signal that comes while the processes agree is not part of what they agree on: it stays for the next time
        number, due = self.agreed(self.asked, time.monotonic() - self.last >= SECONDS)
        if not (number or due):
            return
        save()
        self.last = time.monotonic()
        if number:
            self.asked = 0
            self._restore()
            signal.raise_signal(number)

    def saved(self) -> None:
        """All was saved for another reason."""
        self.last = time.monotonic()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.asked = 0
            self._restore()
            signal.raise_signal(number)
        else:
            self.asked = number

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
