"""Let an instance in at once that the fleet keeps out: a person has seen to what was wrong."""

from __future__ import annotations

from dataclasses import dataclass

from nxs_tasks.control.whoami import whoami
from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.state import State
from nxs_tasks.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was kept out, and how."""

    instance: str
    state: State
    withheld_s: float  # for so much longer it would have been withheld, s

    def __str__(self) -> str:
        """For people."""
        if self.state is State.FAILED:
            return f"{self.instance} is FAILED, and may join again from now on"
        if self.withheld_s:
            return f"{self.instance} was withheld for {self.withheld_s:.0f} s more, and is let in"
        return f"{self.instance} is {self.state} and was not kept out; its losses are forgotten"


def admit(runtime: Runtime, instance: str) -> Admitted:
    """Do it. Raises `IntentRefused` for an instance that is not known, `BrokerError`."""
    store = runtime.store()
    found = store.admit(instance, whoami())
    if found is None:
        known = ", ".join(i.id for i in store.snapshot().instances) or "none"
        raise IntentRefused(f"no instance {instance!r}; known are: {known}")
    state, until = found
    return Admitted(instance, state, max(0.0, until - store.now()))
