"""The command line in a process of its own."""

from __future__ import annotations

import sys

_PROGRAM = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('pyro_riemann', run_name='__main__', alter_sys=True)"
)


def interruptible(*arguments: str) -> list[str]:
    """``python -m pyro_riemann`` with these arguments, which SIGINT interrupts.

    Where the tests run in the background of a script, SIGINT is ignored, and children inherit that.
    """
    return [sys.executable, "-c", _PROGRAM, *arguments]
