"""Take an instance out of service, for a while or for good: cordon, uncordon, drain."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from nxs_tasks.control.nodes import instance_of
from nxs_tasks.control.whoami import whoami
from nxs_tasks.errors import IntentRefused, Stale
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.policy.fleet.cordon import release_of
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.cordons import Cordons

#: An instance may change its state between a look and the act that relies on it, but seldom does.
TRIES = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cordoned:
    """What a cordon or a drain did."""

    instance: Instance  # as it was
    before: str  # who had cordoned it and why; "" if nobody
    moved: int = 0  # tasks that waited for it, and wait for others now


@dataclass(frozen=True, slots=True)
class Uncordoned:
    """What taking it back did."""

    instance: str
    before: str | None  # who had cordoned it and why; None if nobody


def cordon(runtime: Runtime, name: str, reason: str = "") -> Cordoned:
    """Have an instance take no new work; what it runs goes on, what waits for it moves.

    It holds through restarts under its name, until `uncordon`. Raises `IntentRefused` for a name
    that nobody has, `BrokerError`.
    """

    def act(instance: Instance) -> Cordoned:
        before = Cordons(runtime.store()).cordon(instance, _signed(reason))
        return Cordoned(instance, before, _release(runtime, instance))

    return _try(runtime, name, act)


def uncordon(runtime: Runtime, name: str, reason: str = "") -> Uncordoned:
    """Have it take work again. Raises `IntentRefused` for a name that nobody has, `BrokerError`."""

    def act(instance: Instance) -> Uncordoned:
        before = Cordons(runtime.store()).uncordon(instance, _signed(reason))
        return Uncordoned(instance.id, before)

    return _try(runtime, name, act)


def drain(runtime: Runtime, name: str, reason: str = "") -> Cordoned:
    """Cordon it, and have its process end as on SIGTERM: what can stop half-way goes on elsewhere.

    Returns when that is asked. It holds for this process only: who comes next under that name takes
    work, unless the name was cordoned too. Raises `IntentRefused` if it has ended, `BrokerError`.
    """

    def act(instance: Instance) -> Cordoned:
        if instance.state in ENDED:
            raise IntentRefused(f"{instance.id} is {instance.state} already")
        before = Cordons(runtime.store()).cordon(instance, _signed(reason), drains=True)
        moved = _release(runtime, instance)
        if instance.state is not State.LEAVING:
            # The quick way. A worker without remote control reads it in its record.
            runtime.app.control.shutdown(destination=[instance.id])
        return Cordoned(instance, before, moved)

    return _try(runtime, name, act)


def _release(runtime: Runtime, instance: Instance) -> int:
    if not instance.queued or instance.state in ENDED:
        return 0
    store = runtime.store()
    # If it has changed meanwhile, the lifecycle job does it.
    with suppress(Stale):
        now = replace(instance, cordoned=_signed(""))
        return store.release(release_of(now, store.snapshot()))
    return 0


def _try(runtime: Runtime, name: str, act: Callable[[Instance], T]) -> T:
    for left in reversed(range(TRIES)):
        try:
            return act(instance_of(name, runtime.store().snapshot()))
        except Stale as error:
            if not left:
                raise IntentRefused(f"{name} changes all the time: {error}") from None
    raise AssertionError("unreachable")


def _signed(reason: str) -> str:
    # Also the signs that separate the fields of a record are white space.
    words = " ".join(reason.split())
    return f"by {whoami()}" + (f": {words}" if words else "")
