"""The shop's fleet, with faults of a consumer that can be made from outside."""

from __future__ import annotations

from bench.lifecycle import mischief
from tests.integration.shop_fleet import app

__all__ = ["app", "mischief"]
