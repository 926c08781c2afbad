"""Records to fill a history with, and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nxs_tasks.history import History
from nxs_tasks.model.record import (
    LossRecord,
    PlacementRecord,
    Record,
    TickRecord,
    TransitionRecord,
)

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_700_000_000.0
DAY = 86_400.0


def transition(event_id: str = "1-0", **values: Any) -> TransitionRecord:
    defaults = {
        "at": NOW,
        "instance": "i-1",
        "epoch": 3,
        "source": "JOINING",
        "target": "ACTIVE",
        "event": "joined",
        "reason": "3 heartbeats in a row",
        "evidence": {"beats": [1, 2, 3], "latency_ms": None},
    }
    return TransitionRecord(event_id=event_id, **{**defaults, **values})


def placement(event_id: str = "p-1", **values: Any) -> PlacementRecord:
    defaults = {
        "at": NOW,
        "task_id": "t-1",
        "task": "shop.pay",
        "instance": "i-1",
        "score": 0.75,
        "reason": "highest score",
        "candidates": ({"instance": "i-1", "score": 0.75}, {"instance": "i-2", "why_not": "full"}),
    }
    return PlacementRecord(event_id=event_id, **{**defaults, **values})


def loss(event_id: str = "l-1", **values: Any) -> LossRecord:
    defaults = {
        "at": NOW,
        "task_id": "t-1",
        "task": "shop.pay",
        "instance": "i-1",
        "epoch": 3,
        "became": "given back",
    }
    return LossRecord(event_id=event_id, **{**defaults, **values})


def tick(event_id: str = "k-1", **values: Any) -> TickRecord:
    defaults = {"at": NOW, "job": "lifecycle", "lateness_s": 0.01, "took_s": 0.2, "node": "n-1"}
    return TickRecord(event_id=event_id, **{**defaults, **values})


def everything(history: History) -> list[Record]:
    placements, losses = history.placements(limit=9999), history.losses(limit=9999)
    return [*history.transitions(limit=9999), *placements, *losses, *history.ticks()]


def ids(records: list[Any]) -> list[str]:
    return [record.event_id for record in records]
