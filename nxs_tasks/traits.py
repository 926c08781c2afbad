"""What a task declares about the instance it wants: read from the task where its code is.

```python
@app.task(needs={"gpu"}, memory="6 GB", affinity="model:{model}")
def generate(model, prompt): ...

@app.task(io=True, slots=2)
def copy(source, target): ...
```

`affinity` is a template over the arguments, or a function of them that returns a text or None. An
argument that is left out has its default, if that is a text, a number, True, False or None. A
process without the code knows what workers tell of a task, which is all but a function.
"""

from __future__ import annotations

import inspect
import logging
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha1
from typing import Any

from nxs_tasks.errors import SettingError
from nxs_tasks.model.demand import PLAIN, PLAIN_VALUES, Demand, Traits

log = logging.getLogger(__name__)

#: A longer affinity key goes by its digest: every heartbeat carries some.
LONGEST_KEY = 80
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", re.IGNORECASE)

Affinity = Callable[..., Any]
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Declared:
    """What one task declares, and how its affinity key is found."""

    __slots__ = (
        "_defaults",
        "_function",
        "_has_fields",
        "_names",
        "_plain",
        "_task",
        "_told",
        "traits",
    )

    def __init__(self, task: str, traits: Traits, function: Affinity | None = None) -> None:
        self.traits = traits
        self._task = task
        self._function = function
        self._names = traits.arguments
        self._defaults = dict(traits.defaults)
        self._has_fields = bool(_fields(traits.affinity))
        self._plain = _demand(task, traits, "")
        self._told = False

    @property
    def has_keys(self) -> bool:
        """Whether its tasks differ in what they ask."""
        return self._function is not None or self._has_fields

    def demand(self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> Demand:
        """What a task with these arguments asks. Never raises: a task without a key runs too."""
        if not self.has_keys:
            return self._plain
        try:
            key = self._key(args or (), kwargs or {})
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            if not self._told:
                # Without its text, which may hold an argument.
                log.warning("%s has no affinity key: %s", self._task, type(error).__name__)
            self._told = True
            return self._plain
        return _demand(self._task, self.traits, key) if key else self._plain

    def _key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        if self._function is not None:
            found = self._function(*args, **kwargs)
            return "" if found is None else short(str(found))
        named = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
        return short(self.traits.affinity.format_map(named))


def short(key: str) -> str:
    """An affinity key that is not too long to be told."""
    if len(key) <= LONGEST_KEY:
        return key
    return sha1(key.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def _demand(task: str, traits: Traits, key: str) -> Demand:
    return Demand(task, key, traits.io, traits.slots, traits.memory)


def _fields(template: str) -> tuple[str, ...]:
    """Names that a template takes from the arguments. Raises `ValueError` for a bad one."""
    names = (name for _, name, _, _ in string.Formatter().parse(template) if name is not None)
    return tuple(re.split(r"[.\[]", name)[0] for name in names)


def declared(task: Any) -> Declared:
    """What a Celery task declares. Raises `SettingError` that names the task and the option."""
    name = str(task.name)
    affinity = getattr(task, "affinity", None)
    traits = Traits(
        needs=_tags(name, getattr(task, "needs", ())),
        io=_flag(name, "io", getattr(task, "io", False)),
        slots=_slots(name, getattr(task, "slots", 1)),
        memory=_memory(name, getattr(task, "memory", 0)),
    )
    if affinity is None:
        return Declared(name, traits)
    if callable(affinity):
        if getattr(affinity, "__self__", None) == task:
            # As an attribute of a class it is taken for a method; `task` may be a proxy.
            affinity = affinity.__func__
        return Declared(name, traits, affinity)
    if not isinstance(affinity, str) or not affinity:
        raise _unfit(
            name, "affinity", affinity, "a template such as 'model:{model}', or a function"
        )
    return Declared(name, _with_affinity(name, traits, affinity, inspect.signature(task.run)))


def _with_affinity(
    name: str, traits: Traits, template: str, signature: inspect.Signature
) -> Traits:
    single = {n: p for n, p in signature.parameters.items() if p.kind not in SEVERAL}
    try:
        wanted = _fields(template)
    except ValueError as error:
        raise _unfit(name, "affinity", template, f"a template ({error})") from None
    unknown = [field for field in wanted if field not in single]
    if unknown or not wanted:
        known = ", ".join(single) or "none"
        raise _unfit(name, "affinity", template, f"a template over its arguments ({known})")
    return replace(
        traits,
        affinity=template,
        arguments=tuple(n for n, p in single.items() if p.kind in BY_POSITION),
        defaults=tuple(
            (field, single[field].default)
            for field in dict.fromkeys(wanted)
            if isinstance(single[field].default, PLAIN_VALUES)
        ),
    )


def _unfit(task: str, option: str, value: Any, expected: str) -> SettingError:
    return SettingError(f"task {task}: {option}={value!r}: expected {expected}")


def _tags(task: str, value: Any) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else value or ()
    several = isinstance(found, Iterable) and not isinstance(found, Mapping)
    if not several or not all(isinstance(t, str) and t for t in found):
        raise _unfit(task, "needs", value, "tags such as {'gpu', 'ssd'}")
    if any("," in tag or tag != tag.strip() for tag in found):
        # NXS_TAGS is split there, so no instance could ever have it.
        raise _unfit(task, "needs", value, "tags without commas or spaces around them")
    return tuple(sorted(set(found)))


def _flag(task: str, option: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _unfit(task, option, value, "True or False")
    return value


def _slots(task: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _unfit(task, "slots", value, "a whole number of slots of the pool, at least 1")
    return value


def _memory(task: str, value: Any) -> int:
    if isinstance(value, str) and (match := _AMOUNT.fullmatch(value)):
        return int(float(match[1]) * UNITS[match[2].upper()])
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise _unfit(task, "memory", value, f"bytes, or a text such as '6 GB' ({', '.join(UNITS)})")


class Demands:
    """What tasks ask, for one process that submits."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: dict[str, tuple[Any, Declared]] = {}
        self._told: dict[tuple[str, Traits], Declared] = {}

    def of(self, name: str, told: Callable[[str], Traits]) -> Declared:
        """What a task declares; `told` gives what the workers tell of one without code here."""
        # Not `app.tasks`: a name can be sent before, and without, the app's being finalized.
        task = self._app._tasks.get(name)
        if task is None:
            return self._from_fleet(name, told(name))
        found = self._known.get(name)
        if found is None or found[0] is not task:
            found = self._known[name] = (task, self._declared(task))
        return found[1]

    def _declared(self, task: Any) -> Declared:
        try:
            return declared(task)
        except SettingError as error:
            # Its worker refuses to start; a submission must not fail for it.
            log.error("%s: placed as if it declared nothing", error)
            return Declared(str(task.name), PLAIN)

    def _from_fleet(self, name: str, traits: Traits) -> Declared:
        found = self._told.get((name, traits))
        if found is None:
            try:
                found = Declared(name, traits)
            except ValueError:
                # From a newer NXS; what else it says holds.
                found = Declared(name, replace(traits, affinity=""))
            self._told[name, traits] = found
        return found
