"""The Celery settings that a fleet needs: what is set, why, and what is refused.

`apply` changes an app's configuration; `check` refuses what contradicts a promise (design, section
5) with a message that says which and why. A worker checks again when it starts, because an app
may be configured further after `Fleet(app)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nxs_tasks.errors import SettingError

OPTIONS = "broker_transport_options"
BEAT_SCHEDULER = "nxs_tasks.control.beat:FleetScheduler"


@dataclass(frozen=True, slots=True)
class Need:
    """A Celery setting that NXS sets. `refuse` names the promise that another value contradicts."""

    key: str
    value: Any
    why: str
    refuse: str = ""


NEEDS = (
    Need(
        "task_acks_late",
        True,
        "a task stays the broker's until it is done",
        "I1 (no accepted task is lost): early acknowledgement loses what a killed worker runs",
    ),
    Need(
        "worker_disable_prefetch",
        True,
        "what does not run stays in Redis, where it can be placed and moved",
        "I1 and late binding: a prefetched task is out of everybody's reach",
    ),
    Need(
        "task_reject_on_worker_lost",
        True,
        "a task whose pool process was killed is given back, and counted",
    ),
    Need("worker_prefetch_multiplier", 1, "one message for each slot"),
    Need("beat_scheduler", BEAT_SCHEDULER, "several beats may run, one leads"),
)

#: Transport options that NXS sets in every process; workers add their own keys and names.
TRANSPORT = {"queue_order_strategy": "nxs_tasks.worker.order:OwnFirst"}
#: Transport options that a worker sets for itself when it starts.
WORKER_TRANSPORT = (
    "nxs_tenure",
    "client_name",
    "unacked_key",
    "unacked_index_key",
    "unacked_mutex_key",
    "visibility_timeout",
)
#: Of these, the ones that only NXS may set: option, promise.
OWN_TRANSPORT = {
    "unacked_key": "every worker holds messages under a key of its own",
    "unacked_index_key": "every worker holds messages under a key of its own",
    "client_name": "every connection carries the name of its instance",
}


def explicit(conf: Any, key: str) -> bool:
    """Whether the app itself set a Celery setting, under any name that Celery reads it by.

    Celery's defaults are the last layer. The names depend on the app: with a namespace (Django)
    `task_acks_late` is `CELERY_TASK_ACKS_LATE`.
    """
    return any(name in layer for layer in conf.maps[:-1] for name in conf._to_keys(key))


def check(conf: Any) -> None:
    """Raises `SettingError` for a setting that contradicts a promise."""
    for need in NEEDS:
        if need.refuse and explicit(conf, need.key) and conf[need.key] != need.value:
            raise SettingError(
                f"{need.key}={conf[need.key]!r} contradicts promise {need.refuse}. "
                f"Remove it, or set it to {need.value!r}."
            )
    if explicit(conf, "task_create_missing_queues") and not conf.task_create_missing_queues:
        raise SettingError(
            "task_create_missing_queues=False contradicts promise I1: a retry of a placed task "
            "must find the queue of its instance. Remove it."
        )
    options: Mapping[str, Any] = conf.get(OPTIONS) or {}
    if options.get("ack_emulation") is False:
        raise SettingError(
            f"{OPTIONS}['ack_emulation']=False contradicts promise I1: without it a message is "
            "lost as soon as it is received. Remove it."
        )
    for name, why in OWN_TRANSPORT.items():
        if name in options:
            raise SettingError(
                f"{OPTIONS}[{name!r}]={options[name]!r}: NXS sets this for each worker, "
                f"because {why}. Remove it."
            )


def apply(conf: Any, router: Any, schedule: Mapping[str, Any]) -> Iterator[Change]:
    """Set what is needed, and yield what was changed."""
    for need in NEEDS:
        if explicit(conf, need.key) and not need.refuse:
            yield Change(need.key, conf[need.key], conf[need.key], "kept as the app set it")
            continue
        before = conf[need.key]
        conf[need.key] = need.value
        yield Change(need.key, before, need.value, need.why)
    options = dict(conf.get(OPTIONS) or {})
    conf[OPTIONS] = {**options, **TRANSPORT}
    for name, value in TRANSPORT.items():
        why = "the own queue first, the others in turn"
        yield Change(f"{OPTIONS}.{name}", options.get(name), value, why)
    routes = conf.task_routes
    kept = list(routes) if isinstance(routes, list | tuple) else [routes] if routes else []
    conf.task_routes = [*kept, router]
    yield Change("task_routes", routes, "…, placement", "the app's own routes come first")
    conf.beat_schedule = {**schedule, **(conf.beat_schedule or {})}
    yield Change("beat_schedule", None, ", ".join(sorted(schedule)), "the control plane's jobs")


@dataclass(frozen=True, slots=True)
class Change:
    """A Celery setting as it was and as it is now."""

    key: str
    before: Any
    after: Any
    why: str
