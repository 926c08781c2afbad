"""Exact answers for M/M/k: what the simulator must find before anything else of it is believed."""

from __future__ import annotations


def waits(slots: int, load: float) -> float:
    """Share of jobs that wait (Erlang C); `load` is λ/μ in Erlang, below `slots`."""
    blocked = 1.0
    for n in range(1, slots + 1):
        # Erlang B by its recursion, which does not overflow.
        blocked = load * blocked / (n + load * blocked)
    return slots * blocked / (slots - load * (1.0 - blocked))


def mean_wait(slots: int, rho: float, service: float = 1.0) -> float:
    """Mean wait, s, of M/M/k at utilisation `rho` with a mean service time, s."""
    return waits(slots, rho * slots) * service / (slots * (1.0 - rho))
