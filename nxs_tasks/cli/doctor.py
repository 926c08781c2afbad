"""`doctor`: is everything there that a fleet needs? It looks, changes nothing, and says what to do.

The rules, alerts and incidents of the Doctor have their own room later; this is the first look.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from nxs_tasks.cli.main import EXIT_ERROR
from nxs_tasks.cli.output import AsJson, age, console, print_json
from nxs_tasks.cli.spool import count_kept, kept_lines
from nxs_tasks.cli.target import Target
from nxs_tasks.errors import NxsError
from nxs_tasks.model.shelf import PARKED
from nxs_tasks.policy.fleet.readiness import unready
from nxs_tasks.runtime import Runtime
from nxs_tasks.store import safe_url
from nxs_tasks.store.events import Events
from nxs_tasks.store.places import Places
from nxs_tasks.store.queues import Queues
from nxs_tasks.store.server import evicts, persistence, try_write
from nxs_tasks.store.shelves import Shelves

cli = typer.Typer(
    name="doctor",
    help="Look at a fleet and say what is wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: well (True), not well (False), or unknown (None)."""

    subject: str
    well: bool | None
    detail: str


def _broker(runtime: Runtime) -> Finding:
    info = runtime.store().check_server()
    version = info.get("valkey_version") or info.get("redis_version")
    return Finding(
        subject="broker", well=True, detail=f"{safe_url(runtime.broker_url)}, version {version}"
    )


def _persistence(runtime: Runtime) -> Finding:
    enabled = persistence(runtime.store())
    detail = {
        True: "the append-only file is on: a restart loses nothing, a crash what was not yet on "
        "the disk (appendfsync)",
        False: "no append-only file, or it is still being read: without one, a restart of the "
        "server loses every task (set appendonly yes)",
        None: "INFO does not tell",
    }[enabled]
    return Finding(subject="persistence", well=enabled, detail=detail)


def _connections(runtime: Runtime) -> Finding:
    seen = runtime.store().connections()
    if seen is None:
        return Finding(
            subject="connections",
            well=False,
            detail="CLIENT LIST is not allowed: without it nobody can be declared GONE "
            "(allow the command in the server's ACL)",
        )
    return Finding(subject="connections", well=True, detail=f"{sum(seen.values())} named")


def _history(runtime: Runtime) -> Finding:
    runtime.history().transitions(limit=1)
    where = safe_url(runtime.settings.history_url) or str(runtime.settings.state_path)
    return Finding(subject="history", well=True, detail=where)


def _control(runtime: Runtime) -> Finding:
    tick = Events(runtime.store()).last_ticks().get("lifecycle")
    if tick is None:
        return Finding(
            subject="control plane", well=False, detail="has never ticked: start `nxs node`"
        )
    since = max(0.0, runtime.store().now() - tick.at)
    late = since > 3 * runtime.settings.lifecycle_period
    return Finding(
        subject="control plane",
        well=not late,
        detail=f"ticked {age(since)} ago on {tick.node}, {tick.lateness_s:.2f} s late",
    )


def _writes(runtime: Runtime) -> Finding:
    store = runtime.store()
    try_write(store)
    policy = evicts(store)
    if policy:
        return Finding(
            subject="writes",
            well=False,
            detail=f"the server may evict keys, and queues are keys (maxmemory-policy {policy}): "
            "set it to noeviction",
        )
    return Finding(subject="writes", well=True, detail="the server takes them and evicts nothing")


def _work(runtime: Runtime) -> Finding:
    """Whether somebody takes what waits, and knows what is parked."""
    store = runtime.store()
    snapshot, queues = store.snapshot(), Queues(store)
    able = [i for i in snapshot.instances if not unready(i, snapshot, runtime.settings)]
    taken = {queue for i in able if i.profile for queue in i.profile.queues}
    taken |= {store.keys.own_queue(i.id) for i in able}
    waiting = {q: sum(queues.depths(q).values()) for q in Places(store).queues(snapshot)}
    left = [f"{count} in {q}" for q, count in waiting.items() if count and q not in taken]
    parked = Shelves(store).count(PARKED)
    told = []
    if left:
        told.append(f"no instance takes what waits: {', '.join(left)}")
    if parked:
        told.append(f"{parked} parked, because no instance can run them (nxs shelves parked)")
    if not able:
        told.append("no instance takes work: start `nxs node` or `celery worker`")
    detail = "; ".join(told) or f"{sum(waiting.values())} waiting, {len(able)} instance(s) take it"
    return Finding(subject="work", well=not told, detail=detail)


def _orphans(runtime: Runtime) -> Finding:
    store = runtime.store()
    count = sum(Queues(store).orphans(store.snapshot()).values())
    if count:
        return Finding(
            subject="held tasks",
            well=False,
            detail=f"{count} are held by processes that are gone: they are rescued within seconds "
            "if a control worker runs (nxs status names the instances)",
        )
    return Finding(subject="held tasks", well=True, detail="every holder is alive")


def _spool(runtime: Runtime) -> Finding:
    kept = count_kept(runtime)
    told = ", ".join(kept_lines(kept)) or "no submission waits on this machine"
    return Finding(subject="spool", well=not kept, detail=told)


#: What needs the broker is not looked at while it does not answer: each look would wait for it.
BROKER = ("broker", _broker)
AT_THE_BROKER: tuple[tuple[str, Callable[[Runtime], Finding]], ...] = (
    ("persistence", _persistence),
    ("writes", _writes),
    ("connections", _connections),
    ("control plane", _control),
    ("held tasks", _orphans),
    ("work", _work),
)
HERE: tuple[tuple[str, Callable[[Runtime], Finding]], ...] = (
    ("spool", _spool),
    ("history", _history),
)


def look(runtime: Runtime) -> list[Finding]:
    """All findings; a check that fails is a finding of its own."""
    broker = _look_at(*BROKER, runtime)
    found = [broker]
    for subject, check in AT_THE_BROKER:
        if broker.well:
            found.append(_look_at(subject, check, runtime))
        else:
            detail = "not looked at: the broker does not answer"
            found.append(Finding(subject=subject, well=None, detail=detail))
    return [*found, *(_look_at(subject, check, runtime) for subject, check in HERE)]


def _look_at(subject: str, check: Callable[[Runtime], Finding], runtime: Runtime) -> Finding:
    try:
        return check(runtime)
    except NxsError as error:
        return Finding(subject=subject, well=False, detail=str(error))


@cli.callback()
def start() -> None:
    """Look at a fleet and say what is wrong."""


@cli.command()
def check(
    app: Annotated[str, typer.Option("--app", "-A", metavar="MODULE", help="The app.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check broker, work, history and control plane. Exit code 1 if something is wrong."""
    findings = look(Target(app).runtime())
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        marks = {True: "ok     ", False: "WRONG  ", None: "unknown"}
        for f in findings:
            console().print(f"{marks[f.well]} {f.subject}: {f.detail}", soft_wrap=True)
    if any(f.well is False for f in findings):
        raise typer.Exit(1)


def run() -> None:
    """Entry point of `doctor`."""
    sys.path.insert(0, os.getcwd())
    try:
        cli(prog_name="doctor")
    except NxsError as error:
        print(f"doctor: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    run()
