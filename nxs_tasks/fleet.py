"""`Fleet(app)`: the composition root, the only file that knows everybody.

It uses Celery's extension points and nothing else: settings, a task router, a worker bootstep, a
signal, a beat scheduler, a few tasks. Take the line away and the app is a plain Celery app again;
what waits in Redis is in kombu's own layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celery import signals

from nxs_tasks.celery_settings import Change, apply, check
from nxs_tasks.clock import SYSTEM, Clock
from nxs_tasks.control import tasks
from nxs_tasks.control.admission import Admitted, admit
from nxs_tasks.control.cancelling import cancel, selection, undo
from nxs_tasks.control.moving import migrate, stay
from nxs_tasks.control.pausing import Paused, Resumed, pause, queue_or_task, resume
from nxs_tasks.control.schedule import beat_schedule
from nxs_tasks.control.whereabouts import why
from nxs_tasks.errors import SettingError
from nxs_tasks.model.checkpoint import Migration
from nxs_tasks.model.decision import Explanation
from nxs_tasks.model.intent import Cancellation, InForce, Undone
from nxs_tasks.model.snapshot import Snapshot
from nxs_tasks.model.why import Why
from nxs_tasks.policy.fleet.placement import explain
from nxs_tasks.runtime import ATTRIBUTE, Runtime
from nxs_tasks.settings import Settings, load
from nxs_tasks.store.connect import check_scheme
from nxs_tasks.store.intents import Intents
from nxs_tasks.store.locks import Lock
from nxs_tasks.store.quarantine import Quarantine
from nxs_tasks.submission.client import Client
from nxs_tasks.submission.outbox import ATTRIBUTE as OUTBOX
from nxs_tasks.submission.outbox import Outbox
from nxs_tasks.submission.outcome import BatchResult, Submission
from nxs_tasks.submission.publishing import install
from nxs_tasks.submit import Submitter
from nxs_tasks.transport import fence
from nxs_tasks.transport.checkpoint import Checkpoint, checkpoint_of
from nxs_tasks.transport.redis import Connection
from nxs_tasks.transport.results import fence_results
from nxs_tasks.worker.step import InstanceStep

#: Characters of a worker's progress that are kept.
PROGRESS_LENGTH = 200


class Fleet:
    """Turns the workers of a Celery app into a fleet.

    ```python
    app = Celery("shop", broker="redis://...", backend="redis://...")
    fleet = Fleet(app)
    ```

    Keyword arguments are settings (`nxs_tasks.settings.Settings`). Nothing is connected to here.
    Raises `SettingError` for an unknown setting, for a broker that is not Redis or Valkey, and for
    a Celery setting that contradicts a promise; where the app is configured later, then.
    """

    def __init__(self, app: Any, *, clock: Clock = SYSTEM, **settings: Any) -> None:
        if hasattr(app, ATTRIBUTE):
            raise SettingError(f"the Celery app {app.main!r} already has a fleet")
        self.app = app
        self.runtime = Runtime(app, load(settings), clock)
        self.submitter = Submitter(self.runtime)
        self.outbox = Outbox(self.runtime)
        setattr(app, OUTBOX, self.outbox)
        self.fence = fence.Fence(
            app,
            self.runtime.store,
            clock,
            self.runtime.breaker,
            self.runtime.settings.submit_deadline,
        )
        setattr(app, fence.ATTRIBUTE, self.fence)
        self.client = Client(
            self.runtime,
            self.outbox,
            self.submitter,
            places=self.submitter.route,
            checks=self.fence.route,
            receiver=self.submitter.on_publish,
        )
        if app.configured:
            self._configure()
        else:
            # Read when the app reads its configuration, and heard when it refuses: Celery only
            # logs what the receiver of a signal raises.
            app.add_defaults(self._configure)
        # An app may be configured once more.
        app.on_after_configure.connect(self._configure_again, weak=False)
        app.steps["worker"].add(InstanceStep)
        tasks.register(app)
        signals.before_task_publish.connect(self.submitter.on_publish, weak=False)
        setattr(app, ATTRIBUTE, self.runtime)

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        return self.runtime.settings

    def submit(
        self,
        task: Any,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Submission:
        """Submit a task, named or as an object: as its `apply_async` does, in less time.

        Options are those of `apply_async`, and `unique_key`: while a task has that key there is no
        second one, and the answer has the id of the one there is. Raises `OptionError` for an
        option that is unknown, and whatever `apply_async` raises for arguments that do not fit.
        """
        return self.client.submit(task, args, kwargs, **options)

    def submit_many(
        self, task: Any, args_list: Iterable[Sequence[Any]], **options: Any
    ) -> BatchResult:
        """Submit a task once for each list of arguments, in order, in a few writes.

        The options are the same for all. Arguments that do not fit the task raise before anything
        is sent; a task whose arguments cannot be encoded is rejected, and the others are sent.
        """
        return self.client.submit_many(task, args_list, **options)

    def snapshot(self) -> Snapshot:
        """The fleet now. Raises `BrokerError`."""
        return self.runtime.store().snapshot()

    def explain(self, task: str) -> Explanation:
        """Where a task of that name would be placed now, and why not elsewhere."""
        return explain(task, self.snapshot(), self.settings)

    def why(self, task_id: Any) -> Why:
        """Why a task does not run now, on each instance, and when it may start.

        An id, or a result. Reads every queue until it is found. Raises `BrokerError`.
        """
        return why(self.runtime, task_id)

    def quarantine(self) -> Quarantine:
        """What nothing runs until a person has looked at it."""
        return Quarantine(self.runtime.store())

    def cancel(
        self,
        *ids: Any,
        task: str = "",
        group: str = "",
        terminate: bool = False,
        dry_run: bool = False,
    ) -> Cancellation:
        """Have tasks not run: ids or results, and all that wait now of a task or of a group."""
        wanted = selection(ids, task, group)
        return cancel(self.runtime, wanted, terminate=terminate, dry_run=dry_run)

    def uncancel(self, *ids: Any, task: str = "", group: str = "") -> Undone:
        """Take cancellations back: what waited then waits again, at the front."""
        return undo(self.runtime, selection(ids, task, group))

    def pause(self, *, queue: str = "", task: str = "", reason: str = "") -> Paused:
        """Have a queue, or the tasks of a name, wait until `resume`, whatever starts or ends."""
        return pause(self.runtime, *queue_or_task(queue, task), reason)

    def resume(self, *, queue: str = "", task: str = "") -> Resumed:
        """End a pause; what was put aside goes to the front of its queue, in order."""
        return resume(self.runtime, *queue_or_task(queue, task))

    def migrate(self, task_id: Any, to: str | None = None) -> Migration:
        """Have a running task stop at its next checkpoint and go on with `to`, or another instance.

        An id, or a result. Raises `IntentRefused` with the reason if that cannot be.
        """
        return migrate(self.runtime, task_id, to or "")

    def stay(self, task_id: Any) -> bool:
        """Take `migrate` back; False if nobody had asked, or the task has moved already."""
        return stay(self.runtime, task_id)

    def checkpoint(self) -> Checkpoint:
        """How far the task has come that runs in this thread: `.state`, and `.save(state)`.

        For a task with `checkpoint=True`. Raises `CheckpointError` for any other, and outside.
        """
        return checkpoint_of(self.fence, self.app.tasks, self.settings)

    def intents(self) -> InForce:
        """What is paused, and how many tasks are cancelled."""
        return Intents(self.runtime.store()).in_force()

    def progress(self, text: str) -> None:
        """Say how far this worker is before it can work; an empty text says that it is ready.

        Until then it stays JOINING and takes nothing. A new text gives it another `join_grace`, up
        to `join_most`. For the worker's main process: call it before it is ready (`worker_init`)
        with a first text, and from a thread of yours until the model is loaded.
        """
        self.runtime.progress = str(text)[:PROGRESS_LENGTH]

    def admit(self, instance: str) -> Admitted:
        """Let an instance in that is FAILED or withheld, now. Raises `BrokerError`."""
        return admit(self.runtime, instance)

    def lock(self, name: str, *, wait: float = 10.0, lease: float = 30.0) -> Lock:
        """A lock for the fleet: `with fleet.lock("x"): …`.

        `wait` is how long it may take to get it, s. A task holds it until it gives it up, ends, or
        loses its message; anybody else for `lease` s at a time, renewed while the process lives,
        and in a worker until that is given up.
        """
        acting = self.fence.acting()
        return Lock(
            self.runtime.store(),
            name,
            owner=self.runtime.identity(),
            task=None if acting is None else acting.token,
            place=self.fence.place(),
            wait_s=wait,
            lease_s=lease,
        )

    def _configure(self) -> dict[str, Any]:
        conf = self.app.conf
        check_scheme(self.runtime.broker_url)
        check(conf)
        schedule = beat_schedule(self.settings)
        changes = apply(conf, self.submitter.route, schedule)
        why = "a result counts while its message is held"
        fenced = Change("override_backends", None, fence_results(self.app), why)
        self.runtime.changes = (*changes, fenced)
        # Before the app's own routes: the first one that answers is the last one to be asked.
        conf.task_routes = [self.fence.route, *conf.task_routes]
        self.app.amqp.Connection = Connection
        install(self.runtime, self.outbox, self.submitter.placed)
        return {}  # no defaults beside

    def _configure_again(self, **_: Any) -> None:
        if self.submitter.route in (self.app.conf.task_routes or ()):
            return
        try:
            self._configure()
        except SettingError as error:
            # Raised again where it is heard: at the next submission, and when a worker starts.
            self.runtime.refusal = error
            raise
