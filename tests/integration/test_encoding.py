"""What `submit()` writes into a list is what stock Celery and kombu write there, to the letter.

Both are asked for the same task with the same id on a real server, and both texts are compared:
those of a stock app, and those of an app with a fleet.
"""

from __future__ import annotations

import json
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
from celery import Celery, Task, signals
from celery._state import _task_stack

from nxs_tasks import Fleet
from nxs_tasks.store import connect
from tests.integration.encodings import ARGUMENTS, CONFIGURATIONS, LONG_WAYS, NOW, OPTIONS

PLACED = "nxs"


class FrozenCelery(Celery):
    """Time stands still in it, so that both sides mean the same moment by "in 5 s"."""

    def now(self) -> datetime:
        return NOW


class Side:
    """An app, and the one message that it has put into its broker."""

    def __init__(self, app: Any, url: str) -> None:
        self.app = app
        self.client = connect(url)
        task = app.task
        self.add = task(_add, name="shop.add", shared=False)
        self.tuned = task(_add, name="shop.tuned", shared=False, **TUNED)
        self.named = task(_add, name="shop.named", shared=False, shadow_name=_shadow)

    def take(self) -> tuple[str, dict[str, Any]]:
        """The list and the message, which are taken away."""
        [key] = self.client.scan_iter(_type="list")
        [raw] = self.client.lrange(key, 0, -1)
        self.client.delete(key)
        return key, json.loads(raw)


TUNED: dict[str, Any] = {
    "priority": 6,
    "expires": 90,
    "time_limit": 30,
    "soft_time_limit": 20,
    "ignore_result": True,
    "serializer": "json",
}


def _add(*args: Any, **kwargs: Any) -> None: ...


def _shadow(task: Any, args: Any, kwargs: Any, options: Any) -> str:
    return f"{task.name} of {len(args or ())} with {sorted(options)}"


class Both:
    """The same task by a stock app and by a fleet."""

    def __init__(self, stock: Side, ours: Side, fleet: Fleet) -> None:
        self.stock, self.ours, self.fleet = stock, ours, fleet

    def told(
        self, task: str, args: Any = (), kwargs: Any = None, **options: Any
    ) -> tuple[str, dict[str, Any]]:
        """What stock Celery puts where; `task` is an attribute of a side, or a name."""
        if "." in task:
            self.stock.app.send_task(task, args, kwargs, **options)
        else:
            getattr(self.stock, task).apply_async(args, kwargs, **options)
        return comparable(self.stock)

    def same(
        self,
        task: str,
        args: Any = (),
        kwargs: Any = None,
        *,
        by_celery: bool = False,
        **options: Any,
    ) -> tuple[str, dict[str, Any]]:
        """Sends by both and requires that the outcome is the same, to the order of its keys."""
        options.setdefault("task_id", str(uuid.uuid4()))
        expected = self.told(task, args, kwargs, **options)
        mine = task if "." in task else getattr(self.ours, task)
        submission = self.fleet.submit(mine, args, kwargs, **options)
        assert submission.outcome == "accepted"
        assert submission.id == options["task_id"]
        assert ("by Celery itself" in submission.reason) is by_celery
        found = comparable(self.ours)
        assert found[0] == expected[0]
        assert list(lines(found[1])) == list(lines(expected[1])), f"{args} {kwargs} {options}"
        assert json.dumps(found) == json.dumps(expected), "another order of keys"
        return found


def comparable(side: Side) -> tuple[str, dict[str, Any]]:
    """What cannot be the same is checked here, and removed."""
    key, message = side.take()
    message["headers"].pop(PLACED, None)
    tag = message["properties"].pop("delivery_tag")
    assert uuid.UUID(tag).version == 4
    if message["properties"]["reply_to"] == side.app.thread_oid:
        message["properties"]["reply_to"] = "this thread"
    return key, message


def lines(message: Any, path: str = "") -> Iterator[str]:
    """One for each value, so that a difference is easy to see."""
    if isinstance(message, dict) and message:
        for key, value in message.items():
            yield from lines(value, f"{path}.{key}")
    else:
        yield f"{path} = {message!r}"


def body_of(message: dict[str, Any]) -> Any:
    return json.loads(b64decode(message["body"]))


MakeBoth = Callable[..., Both]


@pytest.fixture
def make_both(url: str, tmp_path: Path) -> Iterator[MakeBoth]:
    """`make_both(conf)`: the fleet has database 0, the stock app database 1."""
    fleets: list[Fleet] = []
    apps: list[Any] = []

    def make(conf: dict[str, Any] | None = None) -> Both:
        urls = url.removesuffix("/0") + "/1", url
        stock, mine = (
            FrozenCelery("shop", broker=u, backend=u, set_as_current=False) for u in urls
        )
        for app in (stock, mine):
            app.conf.update(conf or {})
            apps.append(app)
        fleets.append(Fleet(mine, state_dir=tmp_path, placement_sample=0.0))
        with connect(urls[0]) as client:
            client.flushdb()
        return Both(Side(stock, urls[0]), Side(mine, urls[1]), fleets[-1])

    yield make
    for fleet in fleets:
        signals.before_task_publish.disconnect(fleet.submitter.on_publish)
        fleet.outbox.close()
        fleet.runtime.store().client.close()
    for app in apps:
        app.close()
    kombu.pools.reset()


@pytest.fixture
def both(make_both: MakeBoth) -> Both:
    return make_both()


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Somebody listens to the signals of publishing: the way that is not the quick one."""
    names: list[str] = []

    def before(sender: str, **_: Any) -> None:
        names.append(f"before {sender}")

    def after(sender: str, **_: Any) -> None:
        names.append(f"after {sender}")

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    yield names
    signals.before_task_publish.disconnect(before)
    signals.after_task_publish.disconnect(after)


pytestmark = pytest.mark.filterwarnings(r"ignore:\s*The 'priority' task attribute is deprecated")
TARGETS = ["add", "tuned", "named", "shop.add", "shop.tuned", "shop.elsewhere"]


@pytest.mark.parametrize("task", TARGETS)
class TestOneByOne:
    """All in one app, so that what it remembers of one case is there in the next."""

    def test_arguments(self, both: Both, task: str) -> None:
        for args, kwargs in (*ARGUMENTS.values(), *ARGUMENTS.values()):
            both.same(task, args, kwargs)

    def test_options(self, both: Both, task: str) -> None:
        for options in OPTIONS.values():
            both.same(task, (1, "é"), {"k": [2]}, **options)
            both.same(task, (3,), **options)

    def test_arguments_while_somebody_listens(
        self, both: Both, heard: list[str], task: str
    ) -> None:
        for args, kwargs in ARGUMENTS.values():
            both.same(task, args, kwargs)
        assert len(heard) == 4 * len(ARGUMENTS)

    def test_options_while_somebody_listens(self, both: Both, heard: list[str], task: str) -> None:
        name = task if "." in task else f"shop.{task}"
        for options in OPTIONS.values():
            both.same(task, (1, "é"), {"k": [2]}, **options)
        assert heard == [f"before {name}", f"after {name}"] * 2 * len(OPTIONS)


@pytest.mark.parametrize("task", ["add", "shop.add", "shop.elsewhere"])
class TestConfigured:
    @pytest.mark.parametrize("conf", CONFIGURATIONS)
    def test_alike(self, make_both: MakeBoth, task: str, conf: str) -> None:
        both = make_both(CONFIGURATIONS[conf])
        both.same(task, ([[[[[1]]]]],), {"a": 1}, countdown=5, expires=60)
        both.same(task, (1,))
        both.same(task, (2,), priority=6)
        both.same(task, (3,), queue="mine")

    @pytest.mark.parametrize("conf", LONG_WAYS)
    def test_by_celery_itself(self, make_both: MakeBoth, task: str, conf: str) -> None:
        both = make_both(LONG_WAYS[conf])
        both.same(task, (1, "é"), {"a": 1}, expires=60, by_celery=True)


class TestByCeleryItself:
    @pytest.mark.parametrize(
        "options",
        [
            {"exchange": "celery", "routing_key": "celery"},
            {"retry": False},
            {"message_id": "m"},
            {"retry_policy": {"max_retries": 1}},
        ],
        ids=lambda options: "-".join(options),
    )
    def test_options(self, both: Both, options: dict[str, Any]) -> None:
        both.same("add", (1,), by_celery=True, **options)

    def test_a_task_with_an_apply_async_of_its_own(self, both: Both) -> None:
        for side in (both.stock, both.ours):
            side.add = side.app.task(_add, name="shop.wrapped", base=Wrapped, shared=False)
        _, message = both.same("add", (1,), by_celery=True)
        assert message["headers"]["tenant"] == "a"


class Wrapped(Task):
    """Adds a header to each submission, as tracing does."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        return super().apply_async(*args, **{**options, "headers": {"tenant": "a"}})


@pytest.mark.parametrize("task", ["add", "tuned", "shop.add", "shop.elsewhere"])
class TestInsideOfATask:
    """What a task submits names it, and is one of its children."""

    @pytest.mark.parametrize(
        ("conf", "by_celery"),
        [({}, False), ({"task_inherit_parent_priority": True}, None)],
        ids=["plain", "inherits its priority"],
    )
    def test_lineage(
        self, make_both: MakeBoth, task: str, conf: dict[str, Any], by_celery: bool | None
    ) -> None:
        both = make_both(conf)
        for options in ({}, {"root_id": "r"}, {"parent_id": "p"}, {"priority": 3}):
            inherits = task != "tuned" and "priority" not in options
            both.same(
                task,
                (1,),
                by_celery=inherits if by_celery is None else by_celery,
                **options,
            )

    @pytest.fixture(autouse=True)
    def running(self, both: Both) -> Iterator[Any]:
        outer = both.stock.app.task(_add, name="shop.outer", shared=False, bind=True)
        outer.push_request(
            id="i" * 36,
            root_id="o" * 36,
            called_directly=False,
            delivery_info={"priority": 6},
            children=[],
        )
        _task_stack.push(outer)
        yield outer
        _task_stack.pop()
        outer.pop_request()

    def test_children(self, both: Both, task: str, running: Any) -> None:
        mine = task if "." in task else getattr(both.ours, task)
        both.fleet.submit(mine, (1,), task_id="first")
        both.fleet.submit(mine, (1,), task_id="hidden", add_to_parent=False)
        both.fleet.submit_many(mine, [(1,), (2,)])
        [first, *others] = [child.id for child in running.request.children]
        assert (first, len(others), "hidden" in others) == ("first", 2, False)


@pytest.mark.parametrize("task", TARGETS)
def test_many_are_as_one_by_one(both: Both, task: str) -> None:
    many = [(n, "é") for n in range(3)]
    mine = task if "." in task else getattr(both.ours, task)
    client = both.ours.client
    for options in OPTIONS.values():
        result = both.fleet.submit_many(mine, many, **options)
        [key] = client.scan_iter(_type="list")
        raws = list(reversed(client.lrange(key, 0, -1)))
        client.delete(key)
        for args, raw, submission in zip(many, raws, result, strict=True):
            expected = both.told(task, args, None, task_id=submission.id, **options)
            client.lpush(key, raw)
            assert comparable(both.ours) == expected
