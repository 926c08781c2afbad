"""An instance, as a person names it."""

from __future__ import annotations

import difflib

from nxs_tasks.errors import IntentRefused
from nxs_tasks.model.instance import Instance
from nxs_tasks.model.snapshot import Snapshot


def instance_of(name: str, snapshot: Snapshot) -> Instance:
    """The instance of a name, or of the part of it before the @ if only one has that.

    Raises `IntentRefused` with the nearest name if there is none.
    """
    exact = snapshot.get(name)
    if exact is not None:
        return exact
    short = [i for i in snapshot.instances if i.id.partition("@")[0] == name]
    if len(short) == 1:
        return short[0]
    if short:
        raise IntentRefused(
            f"{name!r} may be {' or '.join(i.id for i in short)}: name it with its host"
        )
    ids = [i.id for i in snapshot.instances]
    near = difflib.get_close_matches(name, [*ids, *(i.partition("@")[0] for i in ids)], n=1)
    meant = f", did you mean {near[0]!r}?" if near else "; `nxs status` lists them"
    raise IntentRefused(f"no instance has the name {name!r}{meant}")
