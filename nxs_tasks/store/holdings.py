"""Which locks are held now, by whom, and by what: for people who look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from nxs_tasks.errors import MessageError
from nxs_tasks.model.state import ENDED
from nxs_tasks.store.connect import explained
from nxs_tasks.store.message import read, unwrap
from nxs_tasks.store.store import FleetStore
from nxs_tasks.store.token import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One lock that is held; times are the server's, s."""

    name: str
    number: int  # what its holder reads as `lock.token`
    since: float
    instance: str  # of the worker of which its holder is part, empty outside of workers
    epoch: int | None
    process: str  # host, pid and a token of the holder
    task: str  # by whose message it is held, empty if by a lease
    task_id: str
    until: float | None  # the end of the lease, if it is not renewed


def holdings(store: FleetStore) -> Iterator[Holding]:
    """Every lock that somebody holds. Looks at all keys of the database. Raises `BrokerError`."""
    start = store.keys.lock("")
    pattern = start.replace("[", "\\[") + "*"
    with explained(store.url):
        found = cast("Iterator[str]", store.client.scan_iter(match=pattern, count=500))
        keys = sorted(set(found))
    for key in keys:
        holding = _holding(store, key, key.removeprefix(start))
        if holding is not None:
            yield holding


def _holding(store: FleetStore, key: str, name: str) -> Holding | None:
    """As `acquire_lock.lua` sees it."""
    with explained(store.url):
        lock = cast("dict[str, str]", store.client.hgetall(key))
        token = parse(lock.get("token", ""))
        if not lock.get("owner"):
            return None
        entry = store.client.hget(lock["inflight"], str(token)) if token is not None else None
    instance, epoch, task, task_id = "", None, "", ""
    until: float | None = float(lock["until"]) / 1000
    if token is not None:
        if entry is None:
            return None
        instance, epoch, until = token.instance, token.epoch, None
        task, task_id = _task_of(str(entry))
    elif until is not None and until <= store.now():
        return None
    elif "epoch" in lock:
        instance, epoch = lock["record"].removeprefix(store.keys.instance("")), int(lock["epoch"])
        if not _has_place(store, lock["record"], lock["epoch"]):
            return None
    return Holding(
        name=name,
        number=int(lock["number"]),
        since=float(lock.get("since", lock["number"])) / 1000,
        instance=instance,
        epoch=epoch,
        process=lock["owner"].rpartition("/")[0],
        task=task,
        task_id=task_id,
        until=until,
    )


def _task_of(entry: str) -> tuple[str, str]:
    try:
        envelope = read(unwrap(entry)[0])
    except MessageError:
        return "", ""
    return envelope.task, envelope.task_id


def _has_place(store: FleetStore, record: str, epoch: str) -> bool:
    with explained(store.url):
        found = cast("list[str | None]", store.client.hmget(record, ["epoch", "state"]))
    return found[0] == epoch and found[1] not in ENDED
