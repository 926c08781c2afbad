"""What wakes a thread, whoever rings, and whatever it interrupts."""

from __future__ import annotations

import subprocess
import sys
import threading

from nxs_tasks.worker.alarm import Alarm

PATIENCE_S = 20.0
RINGS = """
import signal, sys
from nxs_tasks.worker.alarm import Alarm
alarm, rung = Alarm(), 0
def ring(*_):
    global rung
    rung += 1
    alarm.set()
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
while rung < 3000:
    alarm.set()
signal.setitimer(signal.ITIMER_REAL, 0)
print(alarm.wait(0), alarm.wait(0))
"""


def test_it_is_heard_once_and_used_up() -> None:
    alarm = Alarm()
    assert not alarm.wait(0)
    alarm.set()
    alarm.set()
    assert alarm.wait(PATIENCE_S)
    assert not alarm.wait(0)
    alarm.set()
    alarm.clear()
    assert not alarm.wait(0)


def test_a_waiting_thread_wakes() -> None:
    alarm, heard = Alarm(), threading.Event()

    def listen() -> None:
        if alarm.wait(PATIENCE_S):
            heard.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    alarm.set()
    assert heard.wait(PATIENCE_S)
    thread.join(PATIENCE_S)


def test_a_signal_that_comes_within_it_may_ring_too() -> None:
    """A lock would be waited for by the thread that holds it."""
    done = subprocess.run(
        [sys.executable, "-c", RINGS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "True False"
