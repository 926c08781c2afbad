"""`nxs probe`: whether a worker on this machine is live, and ready, as its own life sign says.

For a supervisor that asks every few seconds: no broker is asked, and neither the app nor Celery is
loaded. Exit code 0 = yes, 1 = no, 2 = it cannot be said (no such worker here, bad arguments).
"""

from __future__ import annotations

import os
import sys
import time

from nxs_tasks import lifesign
from nxs_tasks.folders import state_folder

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than all that is here
if TYPE_CHECKING:
    from collections.abc import Sequence

YES, NO, UNSAID = 0, 1, 2
QUESTIONS = ("live", "ready")
USAGE = "usage: nxs probe [live|ready] [NODE] [--state-dir DIR]"
HELP = f"""{USAGE}

Whether a worker on this machine is live (a restart would not mend anything) and ready (it takes
work). Reads what the worker leaves in the state directory (NXS_STATE_DIR, --state-dir), and asks no
broker. Without live or ready: both.

NODE is NAME@HOST, or NAME. It may be left out where one worker runs.

Exit code 0 = yes, 1 = no, 2 = it cannot be said: no such worker here, or bad arguments.
"""


class Unsaid(Exception):
    """There is no answer; the message says why."""


def probe(arguments: Sequence[str]) -> int:
    """Answer, and return the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return YES
    try:
        questions, node, state = _parse(arguments)
        sign, touched_s = _find(node, state)
    except (Unsaid, lifesign.Unreadable) as error:
        print(f"nxs: {error}", file=sys.stderr)
        return UNSAID
    now = time.monotonic()  # noqa: TID251 - the clock's module takes longer to load than this
    there = lifesign.is_there(sign)
    verdict = lifesign.judge(sign, there=there, now=now, touched_s=touched_s)
    why_not = {"live": verdict.not_live, "ready": verdict.not_ready}
    for question in questions:
        reason = why_not[question]
        told = f"is not {question}: {reason}" if reason else f"is {question}{_beside(sign)}"
        print(f"{sign.node} {told}")
    return NO if any(why_not[question] for question in questions) else YES


def _beside(sign: lifesign.Sign) -> str:
    known = sign.running is not None and sign.slots is not None
    return f" ({sign.state}, {sign.running} of {sign.slots} slots)" if known else f" ({sign.state})"


def _parse(arguments: Sequence[str]) -> tuple[tuple[str, ...], str, str]:
    """What is asked, about which node ("" = the only one), in which state directory."""
    rest, state = list(arguments), os.environ.get("NXS_STATE_DIR", "")
    for place, argument in enumerate(rest):
        name, given, value = argument.partition("=")
        if name == "--state-dir":
            value = value if given else "".join(rest[place + 1 : place + 2])
            if not value:
                raise Unsaid(f"--state-dir needs a folder ({USAGE})")
            del rest[place : place + (1 if given else 2)]
            state = value
            break
    unknown = next((a for a in rest if a.startswith("-")), None)
    if unknown is not None:
        raise Unsaid(f"unknown option {unknown} ({USAGE})")
    questions: tuple[str, ...] = QUESTIONS
    if rest and rest[0] in QUESTIONS:
        questions = (rest.pop(0),)
    if len(rest) > 1:
        raise Unsaid(f"more than one node: {' '.join(rest)} ({USAGE})")
    return questions, "".join(rest), state_folder(state)


def _age_of(path: str) -> float:
    return time.time() - os.stat(path).st_mtime  # noqa: TID251 - as above


def _find(node: str, state: str) -> tuple[lifesign.Sign, float | None]:
    """The sign that is meant, and the age of its file by the wall clock, s."""
    found = []
    for path in lifesign.paths(state):
        try:
            found.append((lifesign.read(path), _age_of(path)))
        except FileNotFoundError:
            continue  # it has just ended
    known = [(s, age) for s, age in found if node in ("", s.node, s.node.partition("@")[0])]
    # A worker that was killed could not take its sign away.
    meant = [one for one in known if lifesign.is_there(one[0])] or known
    if not node and len(meant) > 1:
        # A node has a control worker beside its task worker.
        meant = [one for one in meant if one[0].state != lifesign.CONTROL] or meant
    if len(meant) == 1:
        return meant[0]
    if meant:
        names = ", ".join(sorted({f"{s.node} (fleet {s.fleet})" for s, _ in meant}))
        raise Unsaid(f"several workers here: name one of {names} as NODE")
    if found:
        names = ", ".join(sorted({s.node for s, _ in found}))
        raise Unsaid(f"no worker {node!r} here; there is {names}")
    raise Unsaid(
        f"no worker of a fleet has left a sign of life in {state}: none has started here, or its "
        "state directory is another (NXS_STATE_DIR, --state-dir)"
    )
