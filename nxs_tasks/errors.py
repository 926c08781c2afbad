"""Every error that NXS raises on purpose.

```
NxsError
├── SettingError        a setting is unknown, malformed, or contradicts a promise
├── OptionError         an option of a submission is unknown or malformed
├── BrokerError         the Redis or Valkey server
│   ├── BrokerUnreachable
│   ├── BrokerRefused   wrong password, missing permission
│   └── BrokerTooOld
├── SubmissionRejected  a task was not taken in, neither by the broker nor by the spool
├── AlreadySubmitted    another task has its unique_key
├── SpoolError          what waits on this machine for the broker cannot be kept or read
├── StateDirError       the state directory cannot be written
├── NameTaken           a living worker already has this node name
├── JoinRefused         an instance that FAILED may not join again yet
├── HistoryError        the history database
│   ├── HistoryTooNew   it was made by a newer NXS
│   └── RecordRefused   one record cannot be kept as it is
├── IntentRefused       what a person wants cannot be done
├── ResultsUnreachable  the result backend cannot be told
├── CheckpointError     a task cannot save how far it is
├── LockTaken           a lock is held by another, and was not free in time
├── MessageError        a message in a queue is not what kombu writes
└── Stale               a precondition (state, epoch) no longer holds
```

A message names the place (setting, key, file), says what was found, and says what to do.
It never holds a password: addresses go through `nxs_tasks.store.connect.safe_url`.
"""

from __future__ import annotations

from kombu.exceptions import OperationalError


class NxsError(Exception):
    """The root: whatever NXS raises on purpose."""


class SettingError(NxsError):
    """A setting is unknown, malformed, or contradicts a promise."""


class OptionError(NxsError):
    """An option or argument of a submission is unknown or malformed: nothing was sent."""


class BrokerError(NxsError):
    """The Redis or Valkey server cannot serve us."""


class BrokerUnreachable(BrokerError):
    """Nothing answers at the address."""


class BrokerRefused(BrokerError):
    """The server answers and refuses: wrong password, missing permission."""


class BrokerTooOld(BrokerError):
    """The server's version is below the one that NXS needs."""


class SubmissionRejected(NxsError, OperationalError):
    """A task was not taken in, neither by the broker nor by the spool; the message says why.

    Also what kombu raises for a broker that cannot be reached, so that it is caught as that.
    `for_now` says that the same may be taken in later.
    """

    for_now: bool = False


class AlreadySubmitted(NxsError):
    """Another task has the `unique_key`; `task_id` is its id."""

    def __init__(self, task_id: str, unique_key: str) -> None:
        super().__init__(f"task {task_id} has the unique_key {unique_key!r}, and is not done yet")
        self.task_id = task_id
        self.unique_key = unique_key

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.task_id, self.unique_key)


class SpoolError(NxsError):
    """The spool of this machine cannot be written or read."""


class StateDirError(NxsError):
    """The state directory cannot be created or written."""


class NameTaken(NxsError):
    """A living worker already has this node name."""


class JoinRefused(NxsError):
    """An instance that did not become ACTIVE in time may not join again yet."""


class HistoryError(NxsError):
    """The history database cannot serve us."""


class HistoryTooNew(HistoryError):
    """The history database was made by a newer NXS."""


class RecordRefused(HistoryError):
    """One record cannot be kept as it is; the message names its event id."""


class IntentRefused(NxsError):
    """What a person wants of the fleet cannot be done; the message says why."""


class ResultsUnreachable(NxsError):
    """The result backend cannot be told of a cancelled task."""


class CheckpointError(NxsError):
    """How far a task is cannot be saved: not JSON, too large, or nobody's to save."""


class LockTaken(NxsError):
    """A lock is held by another, and was not free within the time that was given."""


class MessageError(NxsError):
    """A message in a queue is not what kombu writes."""


class Stale(NxsError):
    """A precondition (state, epoch) no longer holds: nothing was changed."""
