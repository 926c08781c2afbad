"""What the running tasks of this worker take of its slots and its memory, as they declare it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from celery.worker import state

from nxs_tasks.model.demand import Traits


class Capacity:
    """Says whether one more task fits. A task that declares nothing takes one slot."""

    def __init__(
        self,
        traits: Mapping[str, Traits],
        slots: Callable[[], int | None],
        memory: int | None,
        limited: Callable[[], list[str]] = list,
    ) -> None:
        """`slots` of the pool now; `memory` in bytes for what tasks declare, None = any.

        `limited` are the names of what waits here for a rate limit: Celery starts it unasked.
        """
        self._limited = limited
        self._traits = traits
        self._slots = slots
        self._memory = memory

    def extra(self) -> int:
        """Slots beyond one for each task."""
        return self._extra(self._names() if self._traits else ())

    def reserved(self) -> int:
        """Bytes."""
        names = self._names() if self._traits else ()
        return sum(self._traits[name].memory for name in names if name in self._traits)

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
        names = self._names()
        if slots is None or not names:
            # A pool that has shrunk would else keep a task, and take no other, for good.
            return True
        return len(names) + self._extra(names) + wanted <= slots

    def _names(self) -> list[str]:
        return [*taken_up(), *(name for name in self._limited() if name in self._traits)]

    def _extra(self, names: Iterable[str]) -> int:
        return sum(self._traits[name].slots - 1 for name in names if name in self._traits)


def taken_up() -> list[str]:
    """Names of what Celery has taken up and not ended."""
    while True:
        try:
            return [str(request.name) for request in list(state.reserved_requests)]
        except RuntimeError:
            # Another thread changed the set while it was read. Between two changes there is time.
            continue
