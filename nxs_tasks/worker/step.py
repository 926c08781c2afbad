"""The bootstep: what NXS adds to a `celery worker`, in the order in which it happens.

1. Before anything connects: wait for the broker, take the node name, give back what the process
   before held, and set up the transport so that every message that this process holds lies under a
   key of its own, and every connection carries its name.
2. Consume the own queue first, then what the worker was started for.
3. When the pool has started: begin the heartbeat.
4. On a shutdown signal: announce LEAVING; give back what waits, and in the end what is still held;
   say when it is over.

A control worker (`-Q nxs.control`, for a fleet with a name of its own
`-Q nxs.control.NAME`) is no instance: it takes no name and no work of users. It leaves a life sign
as all do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click
from celery import bootsteps, signals
from celery.worker.control import control_command
from kombu import Exchange, Queue

from nxs_tasks.celery_settings import check
from nxs_tasks.clock import wait_until
from nxs_tasks.errors import BrokerUnreachable, NxsError, SettingError
from nxs_tasks.lifesign import Sign
from nxs_tasks.model.decision import Release, Transition
from nxs_tasks.model.instance import Profile
from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.lifecycle import evaluate
from nxs_tasks.runtime import ASK_TO_END, runtime_of
from nxs_tasks.store.homes import homes
from nxs_tasks.store.keys import CONTROL_QUEUES
from nxs_tasks.store.queues import Queues
from nxs_tasks.transport.ahead import Ahead
from nxs_tasks.transport.checkpoint import ENDS, Quietly, declares
from nxs_tasks.transport.fence import fence_of
from nxs_tasks.transport.results import why_unfenced
from nxs_tasks.transport.tenure import Tenure
from nxs_tasks.worker.acklast import AckLastMixin
from nxs_tasks.worker.ahead import short_slots
from nxs_tasks.worker.capacity import Capacity
from nxs_tasks.worker.consumption import read_consumption, slots_of
from nxs_tasks.worker.displaced import (
    drain_worker,
    end_worker,
    rescue_predecessors,
    stop_displaced,
)
from nxs_tasks.worker.ejecting import Ejecting
from nxs_tasks.worker.endings import EndingMixin
from nxs_tasks.worker.escapes import tell_what_escapes
from nxs_tasks.worker.gate import Gate
from nxs_tasks.worker.handover import keep_handed
from nxs_tasks.worker.healing import Healing
from nxs_tasks.worker.heartbeat import Heartbeat, Identity
from nxs_tasks.worker.intents import WorkerIntents
from nxs_tasks.worker.keeping import Keeping
from nxs_tasks.worker.lease import Lease
from nxs_tasks.worker.leaving import Leaving
from nxs_tasks.worker.lifesign import ControlSign, Lifesigns
from nxs_tasks.worker.naming import take_name
from nxs_tasks.worker.profile import read_profile
from nxs_tasks.worker.remedies import end
from nxs_tasks.worker.slots import free_slot
from nxs_tasks.worker.stealing import Stealing
from nxs_tasks.worker.strays import Strays, give_back_unread, known_tokens, rate_limited
from nxs_tasks.worker.tally import Tally, count_tasks

log = logging.getLogger(__name__)

#: kombu puts a held message back after this. Held messages are NXS's to rescue, and a task may be
#: long, so kombu's own clock must never strike: ten years.
NEVER_S = 10 * 365 * 24 * 3600
#: What was taken ahead waits no longer than so many times what a short task takes.
AHEAD_MEANS = 2
#: Between two tries to reach a broker that is not up yet, and how long in all.
RETRY_S = 2.0
RETRY_IN_ALL_S = 24 * 3600.0

T = TypeVar("T")


class WorkerRefused(click.ClickException):
    """A worker that cannot be part of the fleet: `celery worker` prints the reason and ends."""


class InstanceStep(bootsteps.StartStopStep):
    """Makes a worker an instance of the fleet."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._runtime = runtime_of(worker.app)
        self._lifesigns = Lifesigns(worker, self._runtime)
        self._heartbeat: Heartbeat | None = None
        self._stealing: Stealing | None = None
        self._ejecting: Ejecting | None = None
        self._identity: Identity | None = None
        self._tenure: Tenure | None = None
        queues = list(worker.app.amqp.queues.consume_from)
        conf = worker.app.conf
        try:
            self._runtime.require_accepted()
            # The app may have been configured further after Fleet(app).
            check(conf)
            self._patient = is_patient(conf)
            self._patiently(self._runtime.store().check_server)
            self._refuse_foreign_control(queues)
            if self._runtime.keys.control_queue() in queues:
                self._be_control_worker(worker, queues)
            else:
                self._be_instance(worker, queues)
        except NxsError as error:
            self._lifesigns.stop()
            raise WorkerRefused(str(error)) from None

    def _refuse_foreign_control(self, queues: list[str]) -> None:
        ours = self._runtime.keys.control_queue()
        foreign = [q for q in queues if q.startswith(CONTROL_QUEUES) and q != ours]
        if foreign:
            raise SettingError(
                f"-Q {foreign[0]}: the control queue of fleet "
                f"{self._runtime.settings.fleet!r} is {ours}"
            )

    def _be_control_worker(self, worker: Any, queues: list[str]) -> None:
        if len(queues) > 1:
            raise SettingError(
                f"-Q {','.join(queues)}: a control worker consumes its queue and nothing else, "
                "so that the work of users can never starve it (promise I6)"
            )
        name = self._runtime.store().keys.client_name(worker.hostname, 0)
        set_transport_options(worker.app, client_name=name)
        # Also what processes of an older version hold: they told nobody that they may.
        self._patiently(Queues(self._runtime.store()).register_holders)

    def _be_instance(self, worker: Any, queues: list[str]) -> None:
        runtime, app = self._runtime, worker.app
        profile = read_profile(worker, runtime, queues)
        self._identity = Identity(process=runtime.identity(), profile=profile)
        for task, why in profile.unable.items():
            log.warning("this worker cannot run %s: %s", task, why)
        tenure = self._patiently(partial(self._take_place, worker.hostname, profile))
        store = tenure.store
        # Made before the pool forks, which reads what the heartbeat writes.
        fence = fence_of(app)
        lease = self._lease = fence.lease = Lease(runtime.settings.gone_after)
        fence.instance = tenure.instance

        def is_fresh(epoch: int) -> bool:
            return lease.fresh(epoch, runtime.clock.elapsed())

        keys = runtime.settings.affinity_keys
        tenure.gate = Gate(app, tenure, WorkerIntents(store), profile, is_fresh, keys)
        able = {name: t for name, t in profile.traits.items() if name not in profile.unable}
        slots = partial(slots_of, worker)

        def limited() -> list[str]:
            return [str(request.name) for request in rate_limited(worker)]

        self._capacity = Capacity(able, slots, profile.memory, limited)
        tenure.room = self._capacity
        tenure.on_stumble = partial(free_slot, worker)
        tenure.progress = lambda: runtime.progress
        tenure.has_tasks = lambda queue: queue in app.amqp.queues.consume_from
        tenure.has_checkpoint = lambda task: declares(app.tasks.get(task))
        logging.getLogger(ENDS).addFilter(Quietly())
        self._tenure = tenure
        self._name_connections(app, tenure)
        own = store.keys.own_queue(worker.hostname)
        app.amqp.queues[own] = Queue(own, Exchange(""), routing_key=own, no_declare=True)
        app.amqp.queues.select([own, *queues])
        self._needed = [own, *(q for q in queues if q == runtime.shared_queue)]
        tally = self._tally = Tally()
        wait = runtime.settings.affinity_wait
        tenure.longest_s = lambda: wait * (tally.mean_s or 0.0)
        short_s = runtime.settings.claim_ahead
        if short_s:
            rule = short_slots(tally, slots, limited, short_s)
            tenure.ahead = Ahead(rule, longest_s=AHEAD_MEANS * short_s)
        count_tasks(app, self._tally, AckLastMixin, EndingMixin, tenure=tenure)
        unfenced = why_unfenced(app)
        if unfenced:
            log.warning("results are not fenced: %s", unfenced)

    def _patiently(self, action: Callable[[], T]) -> T:
        """As `patiently`; says meanwhile that it lives, and waits."""
        return patiently(action, self._patient, self._lifesigns.leave)

    def _take_place(self, name: str, profile: Profile) -> Tenure:
        """Take the node name, and give back what the process before held."""
        runtime, store = self._runtime, self._runtime.store()
        settings = runtime.settings
        epoch = take_name(store, name, runtime.identity(), profile, settings)
        tenure = Tenure(store, name, epoch, settings=settings)
        rescue_predecessors(tenure)
        return tenure

    def _name_connections(self, app: Any, tenure: Tenure) -> None:
        keys, name, epoch = tenure.store.keys, tenure.instance, tenure.epoch
        set_transport_options(
            app,
            nxs_tenure=tenure,
            client_name=keys.client_name(name, epoch),
            unacked_key=keys.inflight(name, epoch),
            unacked_index_key=keys.inflight_index(name, epoch),
            unacked_mutex_key=keys.inflight_mutex(name, epoch),
            visibility_timeout=NEVER_S,
        )

    def start(self, worker: Any) -> None:
        """Begin the heartbeat. The pool has forked by now: a fork does not copy threads."""
        tenure = self._tenure
        signals.worker_shutdown.connect(self._on_shutdown, sender=worker)
        if self._identity is None or tenure is None:
            self._lifesigns.start_with(ControlSign(self._runtime))
            return
        keep_handed(worker.pool)
        tell_what_escapes(worker.pool, worker.app.tasks)
        clock, settings = self._runtime.clock, self._runtime.settings
        keeping = Keeping(tenure)
        strays = Strays(tenure, partial(known_tokens, worker), clock)

        name = tenure.store.keys.client_name(tenure.instance, tenure.epoch)
        store = self._runtime.new_store(name)
        look = partial(read_consumption, worker, self._needed, self._capacity)
        healing = Healing(worker, store, tenure, settings, clock, look, self._needed)
        leaving = Leaving(worker.app, tenure)

        def upkeep() -> None:
            strays.look()
            keeping.look()
            healing.tend(heartbeat.state)
            if heartbeat.leaving:
                leaving.ask()
            self._runtime.keep_up()

        heartbeat = self._heartbeat = Heartbeat(
            store,
            self._identity,
            tenure,
            self._tally,
            settings,
            clock,
            look=healing.look,
            upkeep=upkeep,
            on_new_epoch=partial(self._on_new_epoch, worker),
            on_replaced=end_worker,
            on_drain=drain_worker,
            lease=self._lease,
        )
        heartbeat.start()
        self._stealing = Stealing(self._runtime.new_store(name), tenure, settings, clock)
        self._stealing.start()
        self._ejecting = Ejecting(self._runtime.new_store(name), tenure, self._tally, settings)
        self._ejecting.start()
        signals.worker_shutting_down.connect(self._on_shutting_down, sender=worker.hostname)
        self._lifesigns.start_with(self._complete)

    def _complete(self, sign: Sign, now: float) -> Sign:
        """What the life sign of an instance says beside."""
        heartbeat, tenure = self._heartbeat, self._tenure
        if heartbeat is None or tenure is None:
            return sign
        seen = heartbeat.look(now)
        return sign.having(
            state=heartbeat.state,
            answers_since=heartbeat.answers_since(now),
            consuming=seen.consuming,
            asked_s=seen.asked_s,
            cordoned=tenure.cordoned,
            leaving=heartbeat.leaving,
        )

    def ask_to_end(self, worker: Any, epoch: int) -> None:
        """Somebody took us for a silent ZOMBIE of that epoch: end, if we soon are not heard again.

        Who hears this is awake, so it first gets the time for a heartbeat.
        """
        patience = 2 * self._runtime.settings.broker_timeout
        worker.consumer.timer.call_after(patience, self._end_unless_heard, (epoch,))

    def _end_unless_heard(self, epoch: int) -> None:
        tenure, heartbeat = self._tenure, self._heartbeat
        if tenure is None or heartbeat is None or tenure.epoch != epoch:
            return
        heard = self._lease.fresh(epoch, self._runtime.clock.elapsed())
        if heard and heartbeat.state is not State.ZOMBIE:
            log.warning("not ended, though asked to: the fleet hears of this worker again")
            return
        log.error("the fleet does not hear of this worker, which ends to be started anew")
        end()

    def _on_new_epoch(self, worker: Any, epoch: int) -> None:
        if self._tenure is not None:
            self._name_connections(worker.app, self._tenure)
            stop_displaced(epoch)

    def _on_shutting_down(self, sig: Any = None, how: Any = None, **_: Any) -> None:
        if self._heartbeat is not None:
            self._heartbeat.leave(f"shutdown signal {sig} ({how})")

    def stop(self, worker: Any) -> None:
        """The consumer has stopped, the pool still finishes: give back what only waited."""
        self._stop_threads()
        if self._heartbeat is not None:
            # A remote shutdown comes without the signal.
            self._heartbeat.leave_now("told to stop")
        self._give_back_waiting(worker)
        self._give_back()

    def terminate(self, worker: Any) -> None:
        """A cold shutdown sends no later signal."""
        self._on_shutdown()

    def _stop_threads(self) -> None:
        for thread in (self._stealing, self._ejecting):
            if thread is not None:
                thread.stop()
        self._stealing = self._ejecting = None

    def _on_shutdown(self, **_: Any) -> None:
        self._stop_threads()
        if self._heartbeat is not None:
            self._give_up_held()
            self._heartbeat.stop()
            self._give_back()
            self._say_drained()
            self._heartbeat = None
        self._lifesigns.stop()

    def _give_back_waiting(self, worker: Any) -> None:
        """What is held and was not started is not to wait until all that runs has ended."""
        tenure = self._tenure
        if tenure is None:
            return
        tenure.give_back_kept(leaving=True)
        try:
            give_back_unread(tenure, known_tokens(worker))
        except (NxsError, RuntimeError) as error:
            # Celery's sets may change while they are read.
            log.warning("what was taken last is given back at the end: %s", error)

    def _give_up_held(self) -> None:
        """The pool is gone: what is still held was not done, and no heartbeat will find it."""
        tenure = self._tenure
        if tenure is None:
            return
        tenure.settle_all()
        try:
            held = tenure.inflight.tokens(tenure.instance, tenure.epoch)
            # What is done, and could not be told just now, is not to run again.
            undone = set(held) - tenure.settling()
            back = tenure.inflight.give_back(
                tenure.instance, tenure.epoch, homes(tenure.store), tokens=undone
            )
            tenure.settle_all()
        except NxsError as error:
            log.warning("held tasks are left for the control worker to move: %s", error)
        else:
            if back.to_queues:
                log.info("%d task(s) that were not done given back", back.to_queues)

    def _say_drained(self) -> None:
        """LEAVING → GONE at once, if nothing is left: the control worker would see it later."""
        if self._tenure is None:
            return
        store = self._runtime.store()
        try:
            snapshot = store.snapshot()
            for decision in evaluate(snapshot, self._runtime.settings, snapshot.taken_at):
                mine = decision.instance == self._tenure.instance
                if mine and isinstance(decision, Transition) and decision.event is Event.DRAINED:
                    store.transition(decision)
        except NxsError as error:
            log.warning("the control worker will see that this worker is gone: %s", error)

    def _give_back(self) -> None:
        if self._tenure is None:
            return
        try:
            moved = self._runtime.store().release(
                Release(
                    instance=self._tenure.instance,
                    epoch=self._tenure.epoch,
                    source=State.LEAVING,
                    target=self._runtime.shared_queue,
                    reason="the worker shuts down",
                )
            )
        except NxsError as error:
            log.warning("waiting tasks are left for the control worker to move: %s", error)
        else:
            if moved:
                log.info("%d waiting task(s) given back", moved)


@control_command(name=ASK_TO_END, args=[("epoch", int)])
def _asked_to_end(state: Any, epoch: int, **_: Any) -> dict[str, str]:
    """Sent to a worker that fell silent, by who evicts it."""
    worker = state.consumer.controller
    for step in worker.steps:
        if isinstance(step, InstanceStep):
            step.ask_to_end(worker, int(epoch))
    return {"ok": "it ends, if it is not heard again"}


def set_transport_options(app: Any, **options: Any) -> None:
    """Set broker transport options of this process; connections made from now on have them."""
    app.conf.broker_transport_options = {**(app.conf.broker_transport_options or {}), **options}


def patiently(
    action: Callable[[], T], patient: bool, before: Callable[[], object] = lambda: None
) -> T:
    """What `action` returns. Broker unreachable = try again if `patient`; else raise.

    `before` is called before each try.
    """
    found: list[T] = []

    def done() -> bool:
        before()
        try:
            found.append(action())
        except BrokerUnreachable as error:
            if not patient:
                raise
            log.error("%s  Trying again in %.0f s.", error, RETRY_S)
            return False
        return True

    if not wait_until(done, RETRY_IN_ALL_S, RETRY_S):
        raise BrokerUnreachable(f"no server for {RETRY_IN_ALL_S / 3600:.0f} hours")
    return found[0]


def is_patient(conf: Any) -> bool:
    """Whether Celery itself would try again to reach a broker at the start."""
    at_startup = conf.broker_connection_retry_on_startup
    return bool(conf.broker_connection_retry if at_startup is None else at_startup)
