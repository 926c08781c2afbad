"""Waking a thread, also out of a signal handler that strikes anywhere."""

from __future__ import annotations

import subprocess
import sys
import threading

from nxs_tasks.clock import SYSTEM
from nxs_tasks.worker.waking import Waker

#: Longer than any machine takes.
LONG_S = 60.0

#: A signal arrives every 50 µs, while the main thread does what the handler does.
PROGRAM = """
import signal, sys
from nxs_tasks.worker.waking import Waker

waker, count = Waker(), 0

def handle(number, frame):
    global count
    count += 1
    waker.wake()

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
while count < 2000:
    waker.wake()
signal.setitimer(signal.ITIMER_REAL, 0)
waker.wait(60)
print("woken", count >= 2000)
"""


def test_a_wake_before_the_wait_is_not_lost() -> None:
    waker = Waker()
    waker.wake()
    waker.wake()
    begun = SYSTEM.monotonic()
    waker.wait(LONG_S)
    assert SYSTEM.monotonic() - begun < LONG_S
    waker.wait(0.0)  # both were one


def test_it_wakes_a_thread_that_waits() -> None:
    waker = Waker()
    waiting = threading.Thread(target=waker.wait, args=(LONG_S,))
    waiting.start()
    waker.wake()
    waiting.join(LONG_S / 2)
    assert not waiting.is_alive()


def test_a_signal_that_wakes_while_its_thread_wakes_waits_for_nobody() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=LONG_S, check=True
    )
    assert told.stdout == "woken True\n"
