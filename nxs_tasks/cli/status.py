"""`nxs status`: the fleet now, as one table that fits into 80 columns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nxs_tasks.cli.output import UNKNOWN, AsJson, age, console, number, print_json
from nxs_tasks.cli.pause import pause_line
from nxs_tasks.cli.spool import count_kept, kept_lines
from nxs_tasks.clock import repeat
from nxs_tasks.errors import NxsError
from nxs_tasks.model.decision import Terms
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.intent import InForce
from nxs_tasks.model.shelf import DELAYED, PARKED, QUARANTINE, SHELVES
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.state import ENDED, PLACEABLE, State
from nxs_tasks.policy.fleet.readiness import unready
from nxs_tasks.policy.fleet.score import terms, weigh
from nxs_tasks.runtime import Runtime
from nxs_tasks.store import safe_url
from nxs_tasks.store.events import Events
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.leases import BeatLease
from nxs_tasks.store.queues import Queues
from nxs_tasks.store.shelves import Shelves

STYLES = {
    State.JOINING: "cyan",
    State.ACTIVE: "green",
    State.DEGRADED: "yellow",
    State.LEAVING: "blue",
    State.ZOMBIE: "magenta",
    State.GONE: "dim",
    State.FAILED: "red",
}
#: Ticks missed before the table says that the control plane is away.
MISSED_TICKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instance as shown."""

    instance: str
    state: State
    score: float | None
    terms: Terms
    slots: int | None
    running: int | None
    queued: int | None
    oldest_s: float | None
    heartbeat_s: float | None
    epoch: int
    process: str
    tags: tuple[str, ...]
    succeeded: int
    failed: int
    no_new_work: str  # why it gets none; "" if it does
    unhealthy: str  # what is wrong with how tasks go there; "" = nothing is known to be
    verdict: str  # the last decision of the state machine
    cordoned: str  # who has taken it out of service and why; "" = nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """What `nxs status` shows; `--json` prints exactly this."""

    fleet: str
    broker: str
    taken_at: float
    instances: tuple[Row, ...]
    shared_queue: str
    shared_depth: int | None
    shared_oldest_s: float | None
    control_tick_s: float | None  # since the lifecycle was last evaluated
    control_late_s: float | None
    beat_leader: str | None
    shelves: dict[str, int]  # messages that wait out of every queue, by shelf
    intents: InForce  # what is paused, and how many tasks are cancelled
    notes: tuple[str, ...]


def collect(runtime: Runtime) -> FleetStatus:
    """Look at the fleet. Raises `BrokerError`."""
    store, settings = runtime.store(), runtime.settings
    snapshot = store.snapshot()
    queues = Queues(store)
    rows = tuple(_row(i, snapshot, runtime, queues) for i in snapshot.instances)
    tick = Events(store).last_ticks().get("lifecycle")
    tick_age = None if tick is None else _since(tick.at, snapshot)
    leader = BeatLease(store, runtime.app_name, "", settings.beat_lease).holder()
    intents = Intents(store).in_force()
    shelves = {name: Shelves(store).count(name) for name in SHELVES}
    return FleetStatus(
        fleet=settings.fleet,
        broker=safe_url(runtime.broker_url),
        taken_at=snapshot.taken_at,
        instances=rows,
        shared_queue=snapshot.shared_queue,
        shared_depth=snapshot.shared_depth,
        shared_oldest_s=_since(queues.oldest_at(snapshot.shared_queue), snapshot),
        control_tick_s=tick_age,
        control_late_s=None if tick is None else tick.lateness_s,
        beat_leader=leader,
        shelves=shelves,
        intents=intents,
        notes=(
            *_notes(rows, tick_age, leader, settings.lifecycle_period),
            *_orphan_notes(queues.orphans(snapshot)),
            *_shelf_notes(shelves),
            *(pause_line(p, snapshot.taken_at) for p in intents.pauses),
            *_spool_notes(runtime),
        ),
    )


def _row(instance: Instance, snapshot: Snapshot, runtime: Runtime, queues: Queues) -> Row:
    own = runtime.store().keys.own_queue(instance.id)
    parts = terms(instance, runtime.settings)
    ended = instance.state in ENDED
    return Row(
        instance=instance.id,
        state=instance.state,
        score=None if ended else weigh(parts, runtime.settings.weights),
        terms=parts,
        slots=instance.load.slots,
        running=instance.busy,
        queued=instance.queued,
        oldest_s=_since(queues.oldest_at(own), snapshot) if instance.queued else None,
        heartbeat_s=_since(instance.beat_at, snapshot),
        epoch=instance.epoch,
        process=instance.identity,
        tags=instance.profile.tags if instance.profile else (),
        succeeded=instance.succeeded,
        failed=instance.failed,
        no_new_work=unready(instance, snapshot, runtime.settings),
        unhealthy="" if ended else instance.load.unhealthy,
        verdict=instance.verdict,
        cordoned=instance.cordoned,
    )


def _since(at: float | None, snapshot: Snapshot) -> float | None:
    return None if at is None else round(max(0.0, snapshot.taken_at - at), 3)


def _notes(
    rows: tuple[Row, ...], tick_age: float | None, leader: str | None, period: float
) -> list[str]:
    notes: list[str] = []
    if not rows:
        notes.append("no instance has announced itself: start a worker of an app with Fleet(app)")
    if tick_age is None:
        notes.append("no control worker has ever run: nothing becomes ACTIVE; start `nxs node`")
    elif tick_age > MISSED_TICKS * period:
        notes.append(
            f"the control plane has not ticked for {age(tick_age)}: work goes on, states do not"
        )
    if rows and not any(row.state in PLACEABLE for row in rows):
        notes.append("no instance takes work: start `nxs node` or `celery worker`")
    if leader is None and rows:
        notes.append("no beat leads: start `celery beat` or `nxs node` (nxs leader)")
    notes += [
        f"{row.instance} gets no new work: {row.no_new_work}"
        for row in rows
        if row.state is State.ACTIVE and row.no_new_work
    ]
    notes += [
        f"{row.instance} is cordoned {row.cordoned}"
        for row in rows
        if row.state is not State.ACTIVE and row.cordoned
    ]
    notes += [f"{row.instance} is unwell: {row.unhealthy}" for row in rows if row.unhealthy]
    return notes


def _orphan_notes(orphans: dict[str, int]) -> list[str]:
    return [
        f"{count} task(s) are held by a process of {name} that is gone: they are about to be "
        f"rescued (nxs story {name})"
        for name, count in sorted(orphans.items())
        if count
    ]


def _shelf_notes(shelves: dict[str, int]) -> list[str]:
    texts = {
        PARKED: "task(s) are parked: no instance can run them (nxs shelves parked)",
        QUARANTINE: "task(s) are in quarantine (nxs quarantine list)",
    }
    return [f"{shelves[name]} {text}" for name, text in texts.items() if shelves[name]]


def _spool_notes(runtime: Runtime) -> list[str]:
    try:
        lines = kept_lines(count_kept(runtime))
    except NxsError as error:
        return [f"the spool of this machine: {error}"]
    return [f"submissions on this machine: {line} (nxs spool show)" for line in lines]


def render(status: FleetStatus) -> Group:
    """The table and what is below it."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("INSTANCE", overflow="ellipsis", no_wrap=True, max_width=21, min_width=8)
    table.add_column("STATE", no_wrap=True)
    heads = ("SCORE", "cpu", "mem", "que", "lat", "rel", "RUN", "WAIT", "OLD", "BEAT")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in status.instances:
        table.add_row(*_cells(row))
    lines: list[Any] = [table, _footer(status)]
    lines += [Text(f"! {note}", style="yellow") for note in status.notes]
    return Group(*lines)


def _cells(row: Row) -> list[Text]:
    parts, ended = row.terms, row.state in ENDED
    values = (parts.cpu, parts.memory, parts.queue, parts.latency, parts.reliability)
    running = UNKNOWN if row.running is None else str(row.running)
    slots = UNKNOWN if row.slots is None else str(row.slots)
    style = "dim" if ended else ""
    return [
        Text(row.instance, style=style),
        Text(row.state, style=STYLES[row.state]),
        Text(number(row.score), style="bold" if not ended else style),
        *(Text(UNKNOWN if ended else number(v), style=style) for v in values),
        Text(f"{running}/{slots}", style=style),
        Text(UNKNOWN if row.queued is None else str(row.queued), style=style),
        Text(age(row.oldest_s), style=style),
        Text(age(row.heartbeat_s), style=style),
    ]


def _footer(status: FleetStatus) -> Text:
    depth = UNKNOWN if status.shared_depth is None else str(status.shared_depth)
    oldest = f", oldest {age(status.shared_oldest_s)}" if status.shared_oldest_s else ""
    later = f" · {status.shelves[DELAYED]} until their time" if status.shelves[DELAYED] else ""
    cancelled = f" · {status.intents.cancelled} cancelled" if status.intents.cancelled else ""
    control = (
        "never ticked"
        if status.control_tick_s is None
        else f"ticked {age(status.control_tick_s)} ago"
    )
    return Text(
        f"shared queue {status.shared_queue}: {depth} waiting{oldest}{later}{cancelled} · "
        f"control plane {control}",
        style="dim",
    )


def status(
    context: typer.Context,
    as_json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every second, until Ctrl-C.")
    ] = False,
) -> None:
    """Show every instance: state, score and its five terms, slots, queue, heartbeat.

    RUN is tasks held / slots; WAIT and OLD are depth and oldest age of its own queue; BEAT is the
    age of its last heartbeat. "–" means unknown.
    """
    runtime: Runtime = context.obj.runtime()
    if as_json:
        print_json(asdict(collect(runtime)))
    elif watch:
        _watch(runtime)
    else:
        console().print(render(collect(runtime)))


def _watch(runtime: Runtime) -> None:
    with Live(console=console(), auto_refresh=False) as live:

        def refresh() -> None:
            try:
                live.update(render(collect(runtime)), refresh=True)
            except NxsError as error:
                live.update(Text(str(error), style="red"), refresh=True)

        try:
            repeat(refresh, every_s=1.0)
        except KeyboardInterrupt:
            return
