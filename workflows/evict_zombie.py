"""A silent zombie is evicted: `python -m workflows.evict_zombie` prints the steps.

1. `ask`: a message to its remote control asks it to end.
2. `cut`: if it has not answered within the grace (30 s), the server closes its connections.
3. `end`: it is GONE; what it held goes to others, and the locks of its process are free.

Before each step it is looked whether it is alive again: then the story ends with that.
"""

from __future__ import annotations

from celery import Celery

from nxs_tasks.control.evicting import STEPS
from nxs_tasks.control.workflows import evict_zombie
from nxs_tasks.settings import load

__all__ = ["evict_zombie"]

if __name__ == "__main__":
    settings = load().settings
    grace_s = settings.evict_after - settings.zombie_after
    for step in evict_zombie(
        Celery(set_as_current=False), "NODE", 1, grace_s, settings.evict_after
    ).tasks:
        name = step.task.rpartition(".")[2]
        after = f"after {step.options.get('countdown', 0.0):g} s"
        print(f"{step.task} ({after}): {(STEPS[name].__doc__ or '').partition(chr(10))[0]}")
