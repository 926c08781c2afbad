"""NXS turns a handful of Celery workers into a fleet that places, watches and explains itself.

```python
app = Celery("shop", broker="redis://...", backend="redis://...")
fleet = Fleet(app)
```
"""

from nxs_tasks.errors import NxsError, SettingError
from nxs_tasks.fleet import Fleet
from nxs_tasks.settings import Settings

__all__ = ["Fleet", "NxsError", "SettingError", "Settings"]
