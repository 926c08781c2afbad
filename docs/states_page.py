"""Makes `docs/states.md` from the table of the state machine: `python -m docs.states_page`."""

from __future__ import annotations

import re
from pathlib import Path

from nxs_tasks.model.state import Event, State
from nxs_tasks.policy.fleet.transitions import TRANSITIONS

PAGE = Path(__file__).with_name("states.md")
SOURCE = Path(__file__).parents[1] / "nxs_tasks" / "model" / "state.py"

#: What raises each event.
RAISED_BY = {
    Event.JOINED: "the worker, when it starts",
    Event.REPLACED: "the worker that takes the name of one that is no longer there",
    Event.CONFIRMED: "the lifecycle job",
    Event.SHUTDOWN: "the worker, on its shutdown signal",
    Event.DRAINED: "the lifecycle job",
    Event.JOIN_TIMED_OUT: "the lifecycle job",
    Event.UNHEALTHY: "the lifecycle job; the worker, when it ejects itself",
    Event.RECOVERED: "the lifecycle job",
    Event.DEAF: "the lifecycle job",
    Event.SILENT_CONNECTED: "the lifecycle job",
    Event.SILENT_CLOSED: "the lifecycle job",
    Event.TERMINATED: "the lifecycle job",
}


def comments() -> dict[str, str]:
    """The sentence beside each state and event in the source."""
    found = re.findall(r"^    (\w+) = .*?  # (.+)$", SOURCE.read_text(), flags=re.MULTILINE)
    return dict(found)


def page() -> str:
    """The whole page."""
    said = comments()
    lines = [
        "# The states of an instance",
        "",
        "Made from `nxs_tasks/policy/fleet/transitions.py` by `make picture`; a test compares"
        " them.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> JOINING: joined",
        *(
            f"    {source} --> {target}: {event.name.lower().replace('_', ' ')}"
            for (source, event), target in TRANSITIONS.items()
        ),
        "```",
        "",
        "| state | meaning |",
        "| --- | --- |",
        *(f"| {state} | {said[state.name]} |" for state in State),
        "",
        "| event | when | raised by |",
        "| --- | --- | --- |",
        *(f"| {event.name} | {said[event.name]} | {RAISED_BY[event]} |" for event in Event),
        "",
        "A pair of state and event that is not in the diagram is refused by name"
        " (`InvalidTransition`).",
        "",
        "Every transition is made by one script that checks state and epoch and writes the record"
        " of it in the same step; `nxs story INSTANCE` prints them with their evidence.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
