"""`nxs leader`: which beat leads, which stand by, and what of the schedule was sent and is due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import typer
from rich.table import Table

from nxs_tasks.cli.output import UNKNOWN, AsJson, age, console, listing, print_json
from nxs_tasks.model.lead import Lead, Run
from nxs_tasks.model.record import TickRecord
from nxs_tasks.runtime import Runtime
from nxs_tasks.store.events import Events
from nxs_tasks.store.leases import leads

#: What an entry of the control plane is called: this, and the name of its job.
JOB_ENTRY = "nxs-"
#: A beat that has not asked for so many leases is told as silent.
SILENT_AFTER = 1.0
START = "start `celery beat` or `nxs node`"


class Nobody(typer.Exit):
    """Nobody leads in some app that has beats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaders:
    """What `nxs leader` shows; `--json` prints exactly this. Times are the server's, s."""

    now: float
    lease_s: float
    leads: tuple[Lead, ...]
    jobs: dict[str, TickRecord]  # the last run of each control job


def collect(runtime: Runtime) -> Leaders:
    """Look. Raises `BrokerError`."""
    store = runtime.store()
    return Leaders(
        leads=tuple(leads(store)),
        jobs=Events(store).last_ticks(),
        lease_s=runtime.settings.beat_lease,
        now=store.now(),
    )


def leader(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the beats of each app: who leads since when, who stands by, what was sent, what is due.

    SENT is the age of the last run that a beat has sent; RAN and LATE are of the control job's last
    run. Exit code 1 if nobody leads.
    """
    found = collect(context.obj.runtime())
    if as_json:
        print_json(asdict(found))
    else:
        _show(found)
    if not found.leads or not all(lead.leader for lead in found.leads):
        raise Nobody(1)


def _show(found: Leaders) -> None:
    out = console()
    if not found.leads:
        out.print(f"nobody leads: no beat has ever asked; {START}", markup=False)
    for lead in found.leads:
        for line in who(lead, found.lease_s, found.now):
            out.print(line, markup=False, soft_wrap=True)
        if lead.runs:
            out.print(_entries(lead, found))


def who(lead: Lead, lease_s: float, now: float) -> Iterator[str]:
    """Who leads and who stands by, or why nobody leads and what will be."""
    beats = [
        f"{s.beat} (asked {age(now - s.asked_at)} ago)"
        for s in lead.standbys
        if now - s.asked_at <= SILENT_AFTER * lease_s
    ]
    silent = [s.beat for s in lead.standbys if now - s.asked_at > SILENT_AFTER * lease_s]
    if lead.leader:
        yield (
            f"{lead.app}: {lead.leader} leads for {_since(lead.since, now)}, term {lead.term}, "
            f"renewed {_since(lead.renewed_at, now)} ago"
        )
    else:
        yield f"{lead.app}: nobody leads; {_why(lead, now)}"
    if beats:
        takes_over = "" if lead.leader else ", and will lead in a moment"
        yield f"  stands by: {', '.join(beats)}{takes_over}"
    else:
        yield (
            f"  nobody stands by: {START} on another machine"
            if lead.leader
            else (f"  nobody stands by, so nothing periodic is sent: {START}")
        )
    if silent:
        yield f"  not heard of lately: {', '.join(silent)}"


def _since(at: float | None, now: float) -> str:
    return age(None if at is None else now - at)


def _why(lead: Lead, now: float) -> str:
    if not lead.last:
        return "nobody ever has"
    if lead.resigned_at is not None:
        return f"{lead.last} resigned {_since(lead.resigned_at, now)} ago (term {lead.term})"
    return (
        f"the lease of {lead.last} ran out (term {lead.term}): it renewed last "
        f"{_since(lead.renewed_at, now)} ago, and is dead, frozen or cut off"
    )


def _entries(lead: Lead, found: Leaders) -> Table:
    table = listing("ENTRY", "RUNS", "SENT", "TERM", "DUE", "RAN", "LATE")
    for name, run in sorted(lead.runs.items(), key=_by_due):
        job = found.jobs.get(name.removeprefix(JOB_ENTRY)) if name.startswith(JOB_ENTRY) else None
        table.add_row(
            name,
            str(run.count),
            age(found.now - run.at) if run.count else UNKNOWN,
            str(run.term) if run.term else UNKNOWN,
            _due(run, found.now),
            UNKNOWN if job is None else age(found.now - job.at),
            UNKNOWN if job is None else f"{job.lateness_s:.1f}s",
        )
    return table


def _by_due(entry: tuple[str, Run]) -> tuple[bool, float, str]:
    name, run = entry
    return run.due is None, run.due or 0.0, name


def _due(run: Run, now: float) -> str:
    if run.due is None:
        return UNKNOWN
    return f"in {age(run.due - now)}" if run.due >= now else f"{age(now - run.due)} overdue"
