"""Every error that NXS raises on purpose.

```
NxsError
├── SettingError        a setting is unknown, malformed, or contradicts a promise
├── BrokerError         the Redis or Valkey server
│   ├── BrokerUnreachable
│   ├── BrokerRefused   wrong password, missing permission
│   └── BrokerTooOld
├── StateDirError       the state directory cannot be written
├── NameTaken           a living worker already has this node name
├── HistoryError        the history database
│   ├── HistoryTooNew   it was made by a newer NXS
│   └── RecordRefused   one record cannot be kept as it is
├── MessageError        a message in a queue is not what kombu writes
└── Stale               a precondition (state, epoch) no longer holds
```

A message names the place (setting, key, file), says what was found, and says what to do.
It never holds a password: addresses go through `nxs_tasks.store.connect.safe_url`.
"""

from __future__ import annotations


class NxsError(Exception):
    """The root: whatever NXS raises on purpose."""


class SettingError(NxsError):
    """A setting is unknown, malformed, or contradicts a promise."""


class BrokerError(NxsError):
    """The Redis or Valkey server cannot serve us."""


class BrokerUnreachable(BrokerError):
    """Nothing answers at the address."""


class BrokerRefused(BrokerError):
    """The server answers and refuses: wrong password, missing permission."""


class BrokerTooOld(BrokerError):
    """The server's version is below the one that NXS needs."""


class StateDirError(NxsError):
    """The state directory cannot be created or written."""


class NameTaken(NxsError):
    """A living worker already has this node name."""


class HistoryError(NxsError):
    """The history database cannot serve us."""


class HistoryTooNew(HistoryError):
    """The history database was made by a newer NXS."""


class RecordRefused(HistoryError):
    """One record cannot be kept as it is; the message names its event id."""


class MessageError(NxsError):
    """A message in a queue is not what kombu writes."""


class Stale(NxsError):
    """A precondition (state, epoch) no longer holds: nothing was changed."""
