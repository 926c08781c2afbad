"""How tasks of one name with the same options are written: found out once, and then known.

It is found out anew when the app's settings or routes have changed. What a task is by itself (its
`priority`, its `expires`, …) is read once, as by Celery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from celery.app import amqp as celery_amqp
from celery.app import base as celery_base
from celery.app import task as celery_task
from celery.local import Proxy
from celery.utils.collections import lpmerge
from kombu.entity import maybe_delivery_mode
from kombu.serialization import registry
from kombu.utils import json

from nxs_tasks.errors import OptionError
from nxs_tasks.runtime import CONTROL_TASKS
from nxs_tasks.submission.draft import TOLD, level
from nxs_tasks.submission.encoder import Encoder
from nxs_tasks.submission.options import check_known, for_celery
from nxs_tasks.submission.publishing import TaskSender
from nxs_tasks.submission.routing import Route, Routing, special

#: Different options for which plans are kept.
KEPT = 1000
#: Where a result backend has nothing to do at a submission, or only what `get()` does as well.
IDLE_BACKENDS = frozenset(
    {"celery.backends.base", "celery.backends.redis", "nxs_tasks.transport.results"}
)
#: What has done its part once there is a plan, and is no part of a message.
SPENT = frozenset({"add_to_parent", "exchange", "expires", "immediate", "mandatory", "queue"})
PROTOCOL = 2


@dataclass(slots=True, eq=False)
class Target:
    """A task as the caller named it.

    `task` is the object, if that was given: then it is sent as by `apply_async`, else as by
    `send_task`. `known` is the task that this process has under the name, if it has one.
    """

    name: str
    task: Any
    known: Any
    #: The plan for no options, and of which settings.
    plain_plan: Plan | None = None
    plain_of: Any = None

    def resolved(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options with the task's own."""
        if self.task is not None:
            merged = {**self.task._get_exec_options(), **given}
            merged.setdefault("ignore_result", self.task.ignore_result)
            return merged
        own = self.known._get_exec_options() if self.known is not None else {}
        named = {key: value for key, value in own.items() if value is not None}
        return {**named, **given, "ignore_result": given.get("ignore_result")}


@dataclass(slots=True, eq=False)
class Plan:
    """How to write a task with some options."""

    target: Target
    options: dict[str, Any]  # all that the message is made of, but for what has a slot
    expires: Any  # the task's own
    route: Route | None  # None = placed by the fleet
    celery: str  # why only Celery can send it; "" if it need not
    plain: bool  # whether the encoder can write it
    inherits: bool  # whether in a worker it takes the priority of its parent
    check: Callable[..., Any] | None  # of the arguments
    announced: bool  # whether a `task-sent` event is wanted
    eager: bool  # whether it is run at once, in this process
    level: int  # the priority by which kombu chooses the list
    kept: bool = True  # for the next call
    encoders: dict[bool, Encoder] = field(default_factory=dict)

    def encoder(self, app: Any, *, expiring: bool) -> Encoder:
        """The encoder, made when it is wanted for the first time."""
        found = self.encoders.get(expiring)
        if found is None:
            found = self.encoders[expiring] = Encoder(
                app, self.target.name, self.options, placed=self.route is None, expiring=expiring
            )
        return found


class Planner:
    """The plans of one app."""

    def __init__(self, app: Any, routing: Routing) -> None:
        self._app = app
        #: That of the app, whose property is slow; not read before it is wanted.
        self._amqp: Any = None
        self._routing = routing
        self._targets: dict[int, tuple[Any, Target]] = {}
        self._named: dict[str, Target] = {}
        self._plans: dict[Any, Plan] = {}
        self._settings: list[Any] = []

    def target(self, task: Any) -> Target:
        """The task that was meant. Raises `OptionError` for what is none of this app's."""
        if type(task) is str:
            return self._named_target(task)
        kept = self._targets.get(id(task))
        if kept is not None and kept[0] is task:
            return kept[1]
        if not isinstance(task, celery_task.Task):
            raise OptionError(
                f"task={task!r}: expected a task of this app, or the name of one"
                + (" (a signature is sent by its own apply_async())" if _is_signature(task) else "")
            )
        if task.app is not self._app:
            raise OptionError(f"task {task.name!r} belongs to another app than this fleet")
        # An app gives out proxies. What they stand for is quicker.
        real = task._get_current_object() if issubclass(type(task), Proxy) else task
        target = Target(str(task.name), real, real)
        _keep(self._targets, id(task), (task, target))
        return target

    def _named_target(self, name: str) -> Target:
        # Not `app.tasks`: a name can be sent before, and without, the app's being finalized.
        known = self._app._tasks.get(name)
        found = self._named.get(name)
        if found is None or found.known is not known:
            found = Target(name, None, known)
            _keep(self._named, name, found)
        return found

    def plan(self, target: Target, given: Mapping[str, Any], args: Any, kwargs: Any) -> Plan:
        """The plan for some options, of which none varies between the messages it is for.

        Raises `OptionError` for an option that nobody knows.
        """
        routing = self._routing
        if self._amqp is None:
            self._amqp = self._app.amqp
        # What an app sets while it runs lies in the one dictionary.
        settings = [self._amqp.routes, *self._app.conf.changes.values()]
        if settings != self._settings:
            routing.read(settings[0])
            self._plans.clear()
            self._settings = settings
        plain = not given and not routing.asks
        if plain and target.plain_of is self._settings:
            return cast("Plan", target.plain_plan)
        route: Route | None = None
        if routing.asks:
            options = target.resolved(given)
            route = routing.route(target.name, args, kwargs, options, target.known)
        found = self._kept(target, given, route, args, kwargs)
        if plain:
            target.plain_plan, target.plain_of = found, self._settings
        return found

    def _kept(
        self, target: Target, given: Mapping[str, Any], route: Route | None, args: Any, kwargs: Any
    ) -> Plan:
        # With the types, because 1 and True are equal, and not the same in a message.
        types = map(type, given.values())
        key: Any = (target.name, id(target.task), id(target.known), route, *given.items(), *types)
        try:
            found = self._plans.get(key)
        except TypeError:  # an option without a hash
            found = self._made(target, given, route, args, kwargs)
            found.kept = False
            return found
        if found is None:
            found = self._made(target, given, route, args, kwargs)
            _keep(self._plans, key, found)
        return found

    def _made(
        self, target: Target, given: Mapping[str, Any], route: Route | None, args: Any, kwargs: Any
    ) -> Plan:
        check_known(given)
        options = target.resolved(given)
        if not self._routing.asks:
            route = self._routing.route(target.name, args, kwargs, options, target.known)
        merged = _merged(options, route)
        conf, task = self._app.conf, target.task
        return Plan(
            target=target,
            options={k: v for k, v in merged.items() if k not in SPENT and k != "routing_key"},
            expires=options.get("expires"),
            route=route,
            celery=self._why_celery(target, options, route),
            plain=_plain(merged, conf, task),
            inherits=bool(conf.task_inherit_parent_priority) and "priority" not in merged,
            check=getattr(task, "__header__", None) if task is not None and task.typing else None,
            announced=bool(conf.task_send_sent_event),
            eager=task is not None and bool(conf.task_always_eager),
            level=level(merged.get("priority")),
        )

    def _why_celery(self, target: Target, options: Mapping[str, Any], route: Route | None) -> str:
        if target.name.startswith(CONTROL_TASKS):
            return "control tasks have a queue of their own"
        if name := for_celery(options):
            return f"the option {name} is about Celery's own way of sending"
        if route is not None and route.celery:
            return route.celery
        if route is None and (why := self._why_not_shared()):
            return why
        return _changed(self._app, target.task) or self._backend_wants(options)

    def _why_not_shared(self) -> str:
        queue = self._app.amqp.default_queue
        mode = queue.exchange.delivery_mode
        if mode and maybe_delivery_mode(mode) != maybe_delivery_mode(
            self._app.conf.task_default_delivery_mode
        ):
            return f"queue {queue.name} has a delivery mode of its own"
        return special(queue)

    def _backend_wants(self, options: Mapping[str, Any]) -> str:
        if options.get("ignore_result"):
            return ""
        hook = type(self._app.backend).on_task_call
        return "" if hook.__module__ in IDLE_BACKENDS else "the result backend wants to know first"


def _merged(options: Mapping[str, Any], route: Route | None) -> dict[str, Any]:
    """As Celery's router merges: an option that is None leaves the word to the route.

    What `send_task` takes by name does not come before the router.
    """
    named = {key: value for key, value in options.items() if key in TOLD}
    others = {key: value for key, value in options.items() if key not in TOLD}
    merged: dict[str, Any] = lpmerge(dict(route.options) if route is not None else {}, others)
    return {**merged, **named}


def _changed(app: Any, task: Any) -> str:
    """What was put in the place of Celery's own; "" if nothing was."""
    if app.conf.task_protocol != PROTOCOL:
        return f"task_protocol is {app.conf.task_protocol}"
    parts = [
        ("send_task()", app.send_task, celery_base),
        ("create_task_message()", app.amqp.create_task_message, celery_amqp),
    ]
    if not isinstance(app.amqp.send_task_message, TaskSender):
        return "send_task_message() is not the fleet's own here"
    if task is not None:
        parts.append(("apply_async()", task.apply_async, celery_task))
        if task.__v2_compat__ or task._dump_pydantic_arguments is not None:
            return "the task changes its arguments before they are sent"
        if task.soft_time_limit and task.time_limit and task.soft_time_limit > task.time_limit:
            return "its time limits contradict each other"
    for name, function, module in parts:
        plain = getattr(function, "__func__", function)
        # A wrapper may copy the name and the module of what it wraps, but not where it was written.
        if getattr(plain, "__globals__", None) is not vars(module):
            return f"{name} is not Celery's own here"
    return ""


def _plain(options: Mapping[str, Any], conf: Any, task: Any) -> bool:
    if (options.get("serializer") or conf.task_serializer) != "json":
        return False
    if registry._encoders["json"].encoder is not json.dumps:
        return False
    if options.get("compression") or conf.task_compression:
        return False
    shadows = task is not None and type(task).shadow_name is not celery_task.Task.shadow_name
    return bool(options.get("shadow")) or not shadows


def _is_signature(task: Any) -> bool:
    """Whether it looks like a signature of Celery's canvas."""
    return isinstance(task, dict) and callable(task)


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = value
