"""The live state in Redis or Valkey: the only importer of redis.

`keys.py` names every key, `lua/` holds one operation a file, `FleetStore` has one method for each.
"""

from nxs_tasks.store.connect import connect, safe_url
from nxs_tasks.store.keys import Keys, Wire
from nxs_tasks.store.store import FleetStore

__all__ = ["FleetStore", "Keys", "Wire", "connect", "safe_url"]
