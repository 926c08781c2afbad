"""How NXS places: what a process that submits does, with its view and its policy as they are."""

from __future__ import annotations

from bench.sim.loop import LoopClock
from bench.sim.work import Job
from bench.sim.world import World
from nxs_tasks.breaker import Breaker
from nxs_tasks.model.demand import Demand
from nxs_tasks.settings import Settings
from nxs_tasks.view import View


class Nxs:
    """One process that submits to a fleet."""

    def __init__(self, world: World, settings: Settings) -> None:
        clock = LoopClock(world.loop)
        self._view = View(world.snapshot, settings, clock, Breaker())

    def choose(self, job: Job) -> str | None:
        """As the router does."""
        placer = self._view.placer()
        if placer is None:
            return None
        demand = Demand(job.task, key=job.key)
        placement = placer.place(demand)
        job.limit = placement.limit
        if placement.instance is not None:
            self._view.count(demand, (placement,))
        return placement.instance
