"""Instances that take no new work because a person has said so."""

from __future__ import annotations

from nxs_tasks.errors import Stale
from nxs_tasks.model.instance import Instance
from nxs_tasks.store.store import STREAM_LENGTH, FleetStore

#: What `cordon.lua` and `uncordon.lua` answer.
CHANGED = 1


class Cordons:
    """Those of one fleet. Every method raises `BrokerError`, and `Stale`."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def cordon(self, instance: Instance, who_and_why: str, *, drains: bool = False) -> str:
        """Take it out of service; who had done so before and why, "" if nobody."""
        word = "drained" if drains else "cordoned"
        return self._call(
            "cordon",
            instance,
            [who_and_why, int(drains), f"{word} {who_and_why}", STREAM_LENGTH],
        )[1]

    def uncordon(self, instance: Instance, who_and_why: str) -> str | None:
        """Take it back; who had cordoned it and why, None if nobody had."""
        done, before = self._call(
            "uncordon", instance, [f"taken back into service {who_and_why}", STREAM_LENGTH]
        )
        return before if done == CHANGED else None

    def _call(self, script: str, instance: Instance, arguments: list[str | int]) -> tuple[int, str]:
        keys = self._store.keys
        done, detail = self._store.call(
            script,
            [keys.instance(instance.id), keys.transitions()],
            [instance.id, instance.epoch, instance.state, *arguments],
        )
        if not done:
            raise Stale(f"{instance.id} is now {detail}")
        return int(done), str(detail)
