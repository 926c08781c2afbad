"""`nxs cordon`, `nxs uncordon`, `nxs drain`: take an instance out of service, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nxs_tasks.cli.output import UNKNOWN, AsJson, console, print_json
from nxs_tasks.clock import wait_until
from nxs_tasks.control.cordoning import Cordoned
from nxs_tasks.control.cordoning import cordon as do_cordon
from nxs_tasks.control.cordoning import drain as do_drain
from nxs_tasks.control.cordoning import uncordon as do_uncordon
from nxs_tasks.errors import BrokerError
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.state import ENDED, State
from nxs_tasks.runtime import Runtime

#: Exit code of a wait that took too long.
EXIT_TIMED_OUT = 3
#: Between two looks at an instance that is waited for, s.
LOOK_S = 0.5
FOREVER_S = 10 * 365 * 24 * 3600.0

Node = Annotated[
    str, typer.Argument(metavar="NODE", help="Instance: NAME@HOST, or NAME if one has it.")
]
For = Annotated[str, typer.Option("--for", metavar="REASON", help="Why, for whoever looks.")]


def cordon(context: typer.Context, node: Node, reason: For = "", as_json: AsJson = False) -> None:
    """Have an instance take no new work, until `nxs uncordon`, also after a restart.

    What it runs goes on. What waits for it moves to others.
    """
    runtime: Runtime = context.obj.runtime()
    done = do_cordon(runtime, node, reason)
    lines = [f"{done.instance.id} takes no new work", *_beside(done)]
    _print({**_as_dict(done), "said": lines}, lines, as_json)


def uncordon(context: typer.Context, node: Node, reason: For = "", as_json: AsJson = False) -> None:
    """Have a cordoned instance take work again."""
    runtime: Runtime = context.obj.runtime()
    done = do_uncordon(runtime, node, reason)
    line = (
        f"{done.instance} was not cordoned"
        if done.before is None
        else f"{done.instance} takes work again (it was cordoned {done.before})"
    )
    _print({**asdict(done), "said": [line]}, [line], as_json)
    if done.before is None:
        raise typer.Exit(1)


def drain(
    context: typer.Context,
    node: Node,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is GONE, and show how far it is.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.0, help="With --wait: no longer; 0 = any time."
        ),
    ] = 0.0,
    reason: For = "",
    as_json: AsJson = False,
) -> None:
    """Have a worker end well: it takes no new work, and ends when it has nothing to do.

    What it runs may finish; what saves checkpoints goes on elsewhere from the next one. What waits
    for it moves to others. Exit code 0; 3 if it was waited for and took too long.
    """
    runtime: Runtime = context.obj.runtime()
    done = do_drain(runtime, node, reason)
    lines = [f"{done.instance.id} is drained", *_beside(done)]
    if done.instance.state is State.ZOMBIE:
        lines.append("! it is a ZOMBIE: it does not hear now, and is evicted if it does not wake")
    if not wait:
        _print({**_as_dict(done), "said": lines}, lines, as_json)
        return
    _tell(lines, as_json)
    left = _wait_until_gone(runtime, done.instance, timeout or FOREVER_S, as_json)
    told = f"not GONE within {timeout:.0f} s: {left}" if left else f"{done.instance.id} is GONE"
    _print({**_as_dict(done), "gone": not left, "said": [*lines, told]}, [told], as_json)
    if left:
        raise typer.Exit(EXIT_TIMED_OUT)


def _wait_until_gone(runtime: Runtime, drained: Instance, seconds: float, as_json: bool) -> str:
    """What it still does when the time is over; "" if its process is gone."""
    seen: list[str] = [""]

    def gone() -> bool:
        try:
            now = runtime.store().snapshot().get(drained.id)
        except BrokerError as error:
            told = f"cannot be seen: {error}"
        else:
            if now is None or now.epoch != drained.epoch or now.state in ENDED:
                return True
            told = _progress(now)
        if told != seen[-1]:
            seen.append(told)
            _tell([f"  {told}"], as_json)
        return False

    return "" if wait_until(gone, seconds, poll_s=LOOK_S) else seen[-1]


def _progress(instance: Instance) -> str:
    held = UNKNOWN if instance.inflight is None else str(instance.inflight)
    waiting = UNKNOWN if instance.queued is None else str(instance.queued)
    stopped = ", its process has stopped" if instance.stopped else ""
    return f"{instance.state}: {held} held, {waiting} waiting in its queue{stopped}"


def _beside(done: Cordoned) -> list[str]:
    lines = [f"{done.moved} task(s) that waited for it wait for others now"] if done.moved else []
    return lines + ([f"it was cordoned before, {done.before}"] if done.before else [])


def _as_dict(done: Cordoned) -> dict[str, object]:
    return {
        "instance": done.instance.id,
        "epoch": done.instance.epoch,
        "state": done.instance.state,
        "before": done.before,
        "moved": done.moved,
    }


def _tell(lines: list[str], as_json: bool) -> None:
    for line in () if as_json else lines:
        console().print(line, markup=False, soft_wrap=True)


def _print(data: object, lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(data)
    _tell(lines, as_json)
