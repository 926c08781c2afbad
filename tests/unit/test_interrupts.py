"""Ending signals: what strikes where it is swallowed comes again."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal, threading
from nxs_tasks.cli.interrupts import end_on_signals, interrupted, take

end_on_signals()
assert not interrupted()
try:
    os.kill(os.getpid(), signal.SIGQUIT)
except KeyboardInterrupt:
    print("swallowed")
try:
    threading.Event().wait(60)
except KeyboardInterrupt:
    print("came again", interrupted())
take()
print("quiet", signal.getitimer(signal.ITIMER_REAL)[0])
"""


def test_an_interrupt_that_nobody_took_comes_again() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.splitlines() == ["swallowed", "came again True", "quiet 0.0"]
