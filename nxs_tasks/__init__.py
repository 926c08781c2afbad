"""NXS turns a handful of Celery workers into a fleet that places, watches and explains itself.

```python
app = Celery("shop", broker="redis://...", backend="redis://...")
fleet = Fleet(app)
```
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which `nxs probe` has no time to load
if TYPE_CHECKING:
    from typing import Any

    from nxs_tasks.errors import NxsError, SettingError
    from nxs_tasks.fleet import Fleet
    from nxs_tasks.settings import Settings

__all__ = ["Fleet", "NxsError", "SettingError", "Settings"]

#: Loaded when it is wanted: `nxs probe` wants none of it, and Celery takes its time.
_WHERE = {
    "Fleet": "nxs_tasks.fleet",
    "NxsError": "nxs_tasks.errors",
    "SettingError": "nxs_tasks.errors",
    "Settings": "nxs_tasks.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
