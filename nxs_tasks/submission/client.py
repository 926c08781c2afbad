"""`submit()` and `submit_many()`: tasks to the broker without Celery's way there.

What is written is what Celery would write. What cannot be written here, Celery sends as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kombu.exceptions import EncodeError

from nxs_tasks.errors import AlreadySubmitted, OptionError, SubmissionRejected
from nxs_tasks.runtime import Runtime
from nxs_tasks.submission.announce import Announcer
from nxs_tasks.submission.call import Call, Calls
from nxs_tasks.submission.destination import Destinations, Placing
from nxs_tasks.submission.encoder import new_id, new_ids
from nxs_tasks.submission.options import UNIQUE, refuse_early, unique_key, with_unique_header
from nxs_tasks.submission.outbox import Outbox
from nxs_tasks.submission.outcome import BatchResult, Fate, Submission, SubmitOutcome
from nxs_tasks.submission.plan import Planner
from nxs_tasks.submission.publishing import told_receipts
from nxs_tasks.submission.routing import Routing
from nxs_tasks.submission.stream import Stream
from nxs_tasks.submission.writer import Writer, cannot_be_encoded

NOTHING: Mapping[str, Any] = {}
#: What positional arguments come in.
ARGUMENTS = (list, tuple)


class Client:
    """Submits tasks of one app in one process. For any number of threads."""

    def __init__(
        self,
        runtime: Runtime,
        outbox: Outbox,
        placing: Placing,
        *,
        places: Callable[..., Any],
        checks: Callable[..., Any],
        receiver: Callable[..., None],
    ) -> None:
        """`places` and `checks` are the fleet's own routers, `receiver` is its own of signals.

        `checks` is called with the name of the task before anything is sent, and may raise.
        """
        self._runtime = runtime
        self._app = runtime.app
        self._outbox = outbox
        self._placing = placing
        self._checks = checks
        self._routing = Routing(self._app, places, (checks,), runtime.keys.own_queue(""))
        self._calls = Calls(self._app, Planner(self._app, self._routing))
        destinations = Destinations(runtime, placing)
        announcer = Announcer(self._app, receiver)
        self._writer = Writer(self._app, outbox, destinations, announcer)

    def submit(
        self,
        task: Any,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Submission:
        """Submit one task: see `Fleet.submit`."""
        args, kwargs = args or (), kwargs or NOTHING
        if not isinstance(args, ARGUMENTS):
            raise _unfit_args("args", args)
        if kwargs is not NOTHING and not isinstance(kwargs, Mapping):
            raise OptionError(f"kwargs is {type(kwargs).__name__}: expected a mapping")
        if UNIQUE in options:
            options = dict(with_unique_header(options))
        call = self._calls.understand(task, args, kwargs, options)
        if call.options and unique_key(call.options):
            target = call.plan.target
            refuse_early(target.known if target.task is None else target.task)
        self._runtime.require_accepted()
        if call.celery:
            id_, fate = self._by_celery(call, call.task_id or new_id(), args, kwargs)
            return Submission(id_, *fate)
        plan = call.plan
        if plan.check is not None:
            plan.check(*args, **kwargs)
        self._checks(plan.target.name)
        submission = self._writer.write_one(call, call.task_id or new_id(), args, kwargs)
        if plan.route is None:
            self._placing.send_samples()
        if call.worker_task is not None:
            self._add_to_parent(call, (submission,))
        return submission

    def submit_many(
        self, task: Any, args_list: Iterable[Sequence[Any]], **options: Any
    ) -> BatchResult:
        """Submit many tasks of one name: see `Fleet.submit_many`."""
        if "task_id" in options:
            raise OptionError("submit_many() has no option 'task_id': each task gets its own")
        if UNIQUE in options or unique_key(options):
            raise OptionError("submit_many() has no unique_key: all but one would have to go")
        tasks = args_list if isinstance(args_list, list | tuple) else list(args_list)
        for n, args in enumerate(tasks):
            if not isinstance(args, ARGUMENTS):
                raise _unfit_args(f"args_list[{n}]", args)
        runs = self._runs(task, tasks, options)
        self._runtime.require_accepted()
        stream, ids, fates = Stream(self._outbox), new_ids(len(tasks)), list[Fate]()
        for call, start, stop in runs:
            some = ids[start:stop]
            if call.celery:
                fates += [self._one_by_celery(call, ids[n], tasks[n]) for n in range(start, stop)]
                continue
            made = self._writer.write(call, stream, some, tasks[start:stop])
            if call.plan.route is None:
                self._placing.send_samples()
            if call.worker_task is not None:
                self._add_to_parent(call, BatchResult(some, made))
            fates += made
        return BatchResult(ids, fates)

    def _runs(
        self, task: Any, tasks: Sequence[Any], options: Mapping[str, Any]
    ) -> list[tuple[Call, int, int]]:
        """Neighbours that are written in the same way; all, if no router sees the arguments.

        All arguments are checked before anything is sent.
        """
        if not tasks:
            self._calls.understand(task, (), None, options)
            return []
        first = self._calls.understand(task, tasks[0], None, options)
        if first.plan.check is not None:
            _check_all(first.plan.check, tasks)
        self._checks(first.plan.target.name)
        if not self._routing.asks:
            return [(first, 0, len(tasks))]
        runs: list[tuple[Call, int, int]] = []
        for n, args in enumerate(tasks):
            call = self._calls.understand(task, args, None, options)
            if runs and runs[-1][0].plan is call.plan:
                runs[-1] = (runs[-1][0], runs[-1][1], n + 1)
            else:
                runs.append((call, n, n + 1))
        return runs

    def _one_by_celery(self, call: Call, id_: str, args: Any) -> Fate:
        """One of a batch: if it cannot be encoded, the others are sent all the same."""
        try:
            return self._by_celery(call, id_, args, None)[1]
        except EncodeError as unfit:
            return Fate(SubmitOutcome.REJECTED, cannot_be_encoded(unfit), "")

    def _by_celery(self, call: Call, id_: str, args: Any, kwargs: Any) -> tuple[str, Fate]:
        target, why = call.plan.target, f"by Celery itself: {call.celery}"
        options = {**call.options, "task_id": id_}
        with told_receipts() as receipts:
            try:
                if target.task is not None:
                    target.task.apply_async(args, kwargs, **options)
                else:
                    self._app.send_task(target.name, args, kwargs, **options)
            except AlreadySubmitted as error:
                return error.task_id, Fate(SubmitOutcome.ACCEPTED, str(error), "")
            except SubmissionRejected as error:
                return id_, Fate(SubmitOutcome.REJECTED, str(error), "")
        spooled = [r for r in receipts if r.outcome is SubmitOutcome.SPOOLED]
        if spooled:
            return id_, Fate(SubmitOutcome.SPOOLED, spooled[0].reason, "")
        return id_, Fate(SubmitOutcome.ACCEPTED, why, "")

    def _add_to_parent(self, call: Call, submissions: Iterable[Submission]) -> None:
        if not call.options.get("add_to_parent", True):
            return
        for submission in submissions:
            if submission.outcome is not SubmitOutcome.REJECTED:
                call.worker_task.add_trail(self._app.AsyncResult(submission.id))


def _unfit_args(name: str, args: Any) -> OptionError:
    return OptionError(
        f"{name} is {type(args).__name__}: expected a list or tuple of the task's arguments"
    )


def _check_all(check: Callable[..., Any], tasks: Sequence[Sequence[Any]]) -> None:
    for n, args in enumerate(tasks):
        try:
            check(*args)
        except TypeError as error:
            raise TypeError(f"args_list[{n}]: {error}") from None
