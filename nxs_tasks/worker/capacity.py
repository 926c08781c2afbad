"""What the running tasks of this worker take of its slots and its memory, as they declare it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from celery.worker import state

from nxs_tasks.model.demand import Traits


class Capacity:
    """Says whether one more task fits. A task that declares nothing takes one slot."""

    def __init__(
        self, traits: Mapping[str, Traits], slots: Callable[[], int | None], memory: int | None
    ) -> None:
        """`slots` of the pool now; `memory` in bytes for what tasks declare, None = any."""
        self._traits = traits
        self._slots = slots
        self._memory = memory

    def extra(self) -> int:
        """Slots beyond one for each task."""
        return sum(traits.slots - 1 for traits in self._running())

    def reserved(self) -> int:
        """Bytes."""
        return sum(traits.memory for traits in self._running())

    def has_slot(self) -> bool:
        """Whether another task of one slot fits."""
        return not self._traits or self._fits_slots(1)

    def fits(self, task: str) -> bool:
        """Whether a task of that name fits now."""
        wanted = self._traits.get(task)
        if wanted is None:
            return True
        enough = self._memory is None or self.reserved() + wanted.memory <= self._memory
        return self._fits_slots(wanted.slots) and enough

    def _fits_slots(self, wanted: int) -> bool:
        slots = self._slots()
        taken = len(state.reserved_requests) + self.extra()
        return slots is None or taken + wanted <= slots

    def _running(self) -> Iterable[Traits]:
        if not self._traits:
            return ()
        names = (str(request.name) for request in tuple(state.reserved_requests))
        return [self._traits[name] for name in names if name in self._traits]
