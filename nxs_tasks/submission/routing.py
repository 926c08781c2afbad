"""Where a submission goes by the user's word: a queue option, or the app's `task_routes`.

What these leave open is placed by the fleet. The user's routers are asked as Celery asks them, by
Celery's own `Router`; only the fleet's router is not among them, because a batch is placed as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery.app.routes import MapRoute, Router
from celery.utils.collections import lpmerge
from kombu.common import Broadcast

#: What a route may say, beside the queue, for a message to be written here.
ROUTE_OPTIONS = frozenset({"compression", "delivery_mode", "priority", "serializer"})


@dataclass(frozen=True, slots=True)
class Route:
    """A queue that the user has named, with what the route says of the message beside it.

    `celery` says why only Celery can write there; "" if it need not.
    """

    queue: str
    options: tuple[tuple[str, Any], ...] = ()
    celery: str = ""


class Routing:
    """The routes of one app without that of its fleet."""

    def __init__(
        self, app: Any, places: Callable[..., Any], own: Sequence[Any], own_queues: str
    ) -> None:
        """`places` is the fleet's router that places, `own` are its others, which do not route."""
        self._app = app
        self._places = places
        self._own = own
        self._own_queues = own_queues
        self._router: Any = None
        #: Whether what no route decides is placed.
        self.places = True
        #: Whether a router must be asked for each message, because it sees the arguments.
        self.asks = False
        self._after = False

    def read(self, routes: Sequence[Any]) -> None:
        """Heed these as the app's routes."""
        others = [route for route in routes if route not in self._own]
        self.places = self._places in others
        mine = others[: others.index(self._places)] if self.places else others
        self._after = self.places and len(mine) + 1 < len(others)
        self.asks = not all(isinstance(route, MapRoute) for route in mine)
        self._router = Router(
            mine, self._app.amqp.queues, self._app.amqp.router.create_missing, self._app
        )

    def route(
        self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task: Any
    ) -> Route | None:
        """The user's route, or None where the fleet places. Raises Celery's `QueueNotFound`."""
        given = dict(options)
        if isinstance(given.get("queue"), str) and given["queue"].startswith(self._own_queues):
            # That was a choice of the fleet's (a retry names it), and it is made anew.
            del given["queue"]
        given = self._router.expand_destination(given)
        before = dict(given)
        found = self._router.lookup_route(name, args or (), kwargs or {}, given, task)
        if given != before:
            return Route("", celery="a router of task_routes changes the options")
        said: dict[str, Any] = {}
        if found:
            said = self._router.expand_destination(
                dict(found) if isinstance(found, Mapping) else found
            )
        elif self._after:
            return Route("", celery="task_routes has routers after that of the fleet")
        elif "queue" not in given and self.places:
            return None
        merged = lpmerge(dict(said), given)
        queue = merged.get("queue") or self._app.amqp.default_queue
        return self._to(queue, said)

    def _to(self, queue: Any, said: dict[str, Any]) -> Route:
        name = str(queue.name)
        rest = {key: value for key, value in said.items() if key != "queue"}
        other = sorted(rest.keys() - ROUTE_OPTIONS)
        if other:
            return Route(name, celery=f"the route names {', '.join(other)}")
        if queue.exchange.delivery_mode:
            rest.setdefault("delivery_mode", queue.exchange.delivery_mode)
        return Route(name, tuple(sorted(rest.items())), celery=special(queue))


def special(queue: Any) -> str:
    """Why a message for this queue cannot simply be put into its list; "" if it can."""
    if isinstance(queue, Broadcast) or queue.exchange.type != "direct":
        return f"queue {queue.name} has a {queue.exchange.type} exchange"
    if queue.expires or queue.queue_arguments:
        return f"queue {queue.name} expires, or has arguments of its own"
    return ""
