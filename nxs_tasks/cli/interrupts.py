"""What ends a supervisor: Ctrl-C, SIGTERM, a closed terminal, Ctrl-\\, all in one way.

Each raises `KeyboardInterrupt` in the main thread, but never between the birth of a child process
and the moment when it is known: such a child would be left behind.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _Interrupts:
    def __init__(self) -> None:
        self.held_back = False
        self.pending = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.held_back:
            self.pending = True
        else:
            raise KeyboardInterrupt


_interrupts = _Interrupts()


def end_on_signals() -> None:
    """Let every ending signal raise `KeyboardInterrupt` in the main thread."""
    for number in ENDING:
        signal.signal(number, _interrupts.handle)


def ignore_signals() -> None:
    """Nothing may interrupt what follows: the last killing of children."""
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
            raise KeyboardInterrupt
