"""What happened, kept in SQL: SQLite by default, PostgreSQL by one setting.

`open_history` brings the schema up and gives a `History`, which takes and returns the records of
`nxs_tasks.model.record`. Nothing outside this package knows that SQL is behind it.
"""

from nxs_tasks.history.database import open_history
from nxs_tasks.history.history import History

__all__ = ["History", "open_history"]
