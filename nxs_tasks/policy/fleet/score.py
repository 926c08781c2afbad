"""The instance score of spec 1.1: Σ weightᵢ × metricᵢ, each metric clamped to 0..1.

| metric | value |
| --- | --- |
| cpu | 1 − load_avg / cores |
| memory | 1 − used / total |
| queue | 1 − queued / max_queue |
| latency | 1 − latency_ms / max_latency_ms |
| reliability | succeeded / (succeeded + failed) over the window |

Unknown is never zero: a metric that could not be read leaves the sum, and the weights of the
others are scaled up to 1. An instance of which nothing is known has no score (`None`).
"""

from __future__ import annotations

from nxs_tasks.model.decision import Terms
from nxs_tasks.model.instance import Instance
from nxs_tasks.settings import Settings, Weights


def clamp(value: float) -> float:
    """`value` within 0..1."""
    return 0.0 if value < 0.0 else 1.0 if value > 1.0 else value


def _free(part: float | None, whole: float | None) -> float | None:
    if part is None or not whole:
        return None
    return clamp(1.0 - part / whole)


def terms(instance: Instance, settings: Settings, placed: int = 0) -> Terms:
    """The five terms of an instance; `placed` own placements count as already queued."""
    load = instance.load
    queued = instance.queued if instance.queued is not None else load.queued
    runs = instance.succeeded + instance.failed
    return Terms(
        cpu=_free(load.load_avg, load.cores),
        memory=_free(load.memory_used, load.memory_total),
        queue=None if queued is None else _free(queued + placed, settings.max_queue),
        latency=_free(load.latency_ms, settings.max_latency_ms),
        reliability=instance.succeeded / runs if runs else None,
    )


def weigh(parts: Terms, weights: Weights) -> float | None:
    """The weighted sum of the known terms, scaled to the weight that is known; None if none is."""
    total = known = 0.0
    for value, weight in (
        (parts.cpu, weights.cpu),
        (parts.memory, weights.memory),
        (parts.queue, weights.queue),
        (parts.latency, weights.latency),
        (parts.reliability, weights.reliability),
    ):
        if value is not None:
            total += weight * value
            known += weight
    return total / known if known else None


def score(instance: Instance, settings: Settings, placed: int = 0) -> float | None:
    """The score of an instance, 0..1, or None if nothing is known of it."""
    return weigh(terms(instance, settings, placed), settings.weights)
