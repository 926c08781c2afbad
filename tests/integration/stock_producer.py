"""Submits one task with stock Celery, and proves that NXS was not imported."""

from __future__ import annotations

import sys

from tests.integration.shop import add

if __name__ == "__main__":
    result = add.delay(20, 3).get(timeout=50)
    loaded = [name for name in sys.modules if name.startswith("nxs_tasks")]
    assert not loaded, loaded
    print(result)
