"""Every Redis key of NXS, as functions; and the names of kombu's keys that NXS reads.

NXS keys carry the fleet in a hash tag (`nxs:{default}:…`), so that those of one script live on one
slot. kombu's keys keep kombu's layout: a queue is a list, one more per priority step
(`celery`, `celery\\x06\\x163`, …), producers LPUSH, workers BRPOP, so the oldest is at the right.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

#: What kombu puts between a queue's name and its priority.
SEPARATOR = "\x06\x16"
#: Its control queue has the short name that the documentation shows.
DEFAULT_FLEET = "default"
#: What the control queues of all fleets begin with.
CONTROL_QUEUES = "nxs.control"
#: kombu's default priorities, most urgent first.
PRIORITY_STEPS = (0, 3, 6, 9)


@dataclass(frozen=True, slots=True)
class Wire:
    """How kombu's Redis transport is set up for this app: what its keys look like."""

    prefix: str = ""  # broker_transport_options["global_keyprefix"]
    sep: str = SEPARATOR
    steps: tuple[int, ...] = PRIORITY_STEPS

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Wire:
        """From `broker_transport_options`."""
        return cls(
            prefix=str(options.get("global_keyprefix") or ""),
            sep=str(options.get("sep") or SEPARATOR),
            steps=tuple(options.get("priority_steps") or PRIORITY_STEPS),
        )

    def list_of(self, queue: str, priority: int) -> str:
        """The list of a queue that kombu puts a message of that priority into."""
        # As kombu does it: below the first step this is -1, the last one.
        return self.queue_keys(queue)[bisect(self.steps, priority) - 1]

    def queue_keys(self, queue: str) -> list[str]:
        """The lists of one queue, most urgent first."""
        return [
            f"{self.prefix}{queue}{self.sep}{s}" if s else self.prefix + queue for s in self.steps
        ]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one fleet."""

    fleet: str

    def _key(self, *parts: str) -> str:
        return ":".join((f"nxs:{{{self.fleet}}}", *parts))

    def members(self) -> str:
        """Set: the ids of all instances with a record."""
        return self._key("members")

    def instance(self, instance_id: str) -> str:
        """Hash: the record of one instance (state, epoch, load, …)."""
        return self._key("instance", instance_id)

    def waiting(self) -> str:
        """Sorted set: instance id by how many messages wait in its own queue, lately."""
        return self._key("waiting")

    def ejected(self) -> str:
        """Sorted set: ejected instances by until when, s."""
        return self._key("ejected")

    def runs(self, instance_id: str) -> str:
        """What the hashes begin with that count how tasks ended in a minute: `ok:NAME`, …

        Of one instance, or of the fleet if the id is empty; the number of the minute follows.
        """
        return self._key("runs", instance_id, "")

    def outcomes(self, instance_id: str) -> str:
        """Hash: `<hour>:ok` and `<hour>:failed` counts of the reliability window."""
        return self._key("outcomes", instance_id)

    def trial(self) -> str:
        """Text: written to see whether the server takes a write."""
        return self._key("trial")

    def losses(self) -> str:
        """Stream: tasks that lost their holder, until the history has them."""
        return self._key("losses")

    def named_queues(self) -> str:
        """Set: queues that a submission has named, whoever consumes them."""
        return self._key("named-queues")

    def epochs(self) -> str:
        """Hash: instance id to the last epoch given out; outlives the record."""
        return self._key("epochs")

    def profiles(self) -> str:
        """Hash: digest to profile JSON (tasks, queues, tags, versions)."""
        return self._key("profiles")

    def observation(self) -> str:
        """Hash: since when the lifecycle is evaluated without a break, and when it was last."""
        return self._key("observation")

    def transitions(self) -> str:
        """Stream: state transitions on their way into the history."""
        return self._key("transitions")

    def placements(self) -> str:
        """Stream: sampled placements on their way into the history."""
        return self._key("placements")

    def ticks(self) -> str:
        """Stream: runs of control jobs on their way into the history."""
        return self._key("ticks")

    def last_ticks(self) -> str:
        """Hash: control job to its last run, JSON."""
        return self._key("last-ticks")

    def beat_lease(self, app: str) -> str:
        """String with TTL: who leads among the beats of one app, each of which has a schedule."""
        return self._key("beat", app, "lease")

    def beat_term(self, app: str) -> str:
        """Counter: rises with every change of the leading beat."""
        return self._key("beat", app, "term")

    def beat_lead(self, app: str) -> str:
        """Hash: since when the leader of this term leads, when it renewed, when it resigned."""
        return self._key("beat", app, "lead")

    def beats(self, app: str) -> str:
        """Sorted set: every beat of an app, the leading one too, by when it asked last, s."""
        return self._key("beat", app, "all")

    def beat_apps(self) -> str:
        """Set: names of the apps that have beats."""
        return self._key("beat-apps")

    def beat_runs(self, app: str) -> str:
        """Hash: schedule entry to its last run, JSON; lets a new leader go on where the old was."""
        return self._key("beat", app, "runs")

    def inflight_base(self) -> str:
        """What the keys of all in-flight hashes begin with."""
        return self._key("inflight", "")

    def inflight(self, instance_id: str, epoch: int) -> str:
        """Hash in kombu's layout (`unacked_key`): delivery tag to held message."""
        return self._key("inflight", instance_id, str(epoch))

    def inflight_index(self, instance_id: str, epoch: int) -> str:
        """Sorted set, as kombu's (`unacked_index_key`): delivery tag by time of receipt."""
        return self._key("inflight-index", instance_id, str(epoch))

    def inflight_mutex(self, instance_id: str, epoch: int) -> str:
        """Lock of kombu's own sweep (`unacked_mutex_key`)."""
        return self._key("inflight-mutex", instance_id, str(epoch))

    def holders(self) -> str:
        """Set: `<instance id>:<epoch>` of every process that may hold messages."""
        return self._key("holders")

    def shelf(self, name: str) -> str:
        """Hash: entry id to a message that is out of every queue, with the list it belongs to.

        Which shelves there are, and for what: `model/shelf.py`.
        """
        return self._key("shelf", name)

    def shelf_index(self, name: str) -> str:
        """Sorted set: entry id by time, s: when it is due, or when it was put there."""
        return self._key("shelf-index", name)

    def producer(self, producer_id: str) -> str:
        """String with TTL: sequence number of the last write that was accepted of a producer."""
        return self._key("producer", producer_id)

    def unique(self, unique_key: str) -> str:
        """String: id of the task that has a `unique_key` now."""
        return self._key("unique", unique_key)

    def lock(self, name: str) -> str:
        """Hash: who holds a lock, by what (a task's token, or until when), and its number."""
        return self._key("lock", name)

    def checkpoint(self, task_id: str) -> str:
        """Hash with TTL: what a task saved last, JSON; who saved it; whether it is to move."""
        return self._key("checkpoint", task_id)

    def cancelled(self) -> str:
        """Sorted set: id of a cancelled task by the time when that may be forgotten, s."""
        return self._key("cancelled")

    def cancellations(self) -> str:
        """Hash: id of a cancelled task to when and by whom, JSON."""
        return self._key("cancelled", "by")

    def untold(self) -> str:
        """Hash: id of a cancelled task whose result does not say REVOKED yet to its name."""
        return self._key("cancelled", "untold")

    def paused_queues(self) -> str:
        """Set: names of queues from which nothing is taken."""
        return self._key("paused", "queues")

    def paused_tasks(self) -> str:
        """Set: names of tasks that are not started."""
        return self._key("paused", "tasks")

    def pauses(self) -> str:
        """Hash: `queue:NAME` or `task:NAME` to since when it is paused, by whom and why, JSON."""
        return self._key("paused", "by")

    def client_name(self, instance_id: str, epoch: int) -> str:
        """Name of every connection of a process, as CLIENT LIST shows it: no sign is special."""
        return f"nxs:{self.fleet}:{quote(instance_id, safe='@')}:{epoch}"

    def own_queue(self, instance_id: str) -> str:
        """kombu queue that only this instance consumes."""
        return f"nxs.{self.fleet}/{instance_id}"

    def control_queue(self) -> str:
        """kombu queue of the control worker; nothing else is ever sent there."""
        return CONTROL_QUEUES if self.fleet == DEFAULT_FLEET else f"{CONTROL_QUEUES}.{self.fleet}"


def owner_of(inflight_key: str) -> tuple[str, int]:
    """Instance id and epoch of an in-flight hash's key."""
    _, _, rest = inflight_key.partition("}:inflight:")
    instance_id, _, epoch = rest.rpartition(":")
    return instance_id, int(epoch)
