"""What ends a supervisor: Ctrl-C, SIGTERM, a closed terminal, Ctrl-\\, all in one way.

Each raises `KeyboardInterrupt` in the main thread, but never between the birth of a child process
and the moment when it is known: such a child would be left behind.

An exception that comes out of nowhere may be swallowed where it strikes (a finalizer, a library
that logs what goes wrong at the closing of a connection) or become another one (the import of a
class). So it comes again until somebody has taken it, and `interrupted` tells.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Until an interrupt that nobody has taken comes again, s.
AGAIN_S = 1.0


class _Interrupts:
    def __init__(self) -> None:
        self.asked = False
        self.held_back = False
        self.pending = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.held_back:
            self.pending = True
        else:
            self.strike()

    def strike(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise KeyboardInterrupt


_interrupts = _Interrupts()


def end_on_signals() -> None:
    """Let every ending signal raise `KeyboardInterrupt` in the main thread."""
    for number in (*ENDING, signal.SIGALRM):
        signal.signal(number, _interrupts.handle)


def interrupted() -> bool:
    """Whether an ending signal has come."""
    return _interrupts.asked


def take() -> None:
    """The interrupt has arrived where it is dealt with: it does not come again."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)


def ignore_signals() -> None:
    """Nothing may interrupt what follows: the last killing of children."""
    take()
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold an interrupt back until the block is over. Other threads than the main get none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _interrupts.held_back = True
    try:
        yield
    finally:
        _interrupts.held_back = False
        if _interrupts.pending:
            _interrupts.pending = False
            _interrupts.strike()
