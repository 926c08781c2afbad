"""`countdown`, `eta` and `expires` as a message says them, by Celery's clock and time zone."""

from __future__ import annotations

import logging
from datetime import datetime
from numbers import Real
from typing import Any, NamedTuple

from celery.app.amqp import INT_MIN
from celery.utils.time import add_seconds_to_datetime, maybe_make_aware, subtract_datetimes
from celery.utils.time import maybe_iso8601 as parsed

from nxs_tasks.errors import OptionError

log = logging.getLogger(__name__)


class Times(NamedTuple):
    """When a task is due and until when it is worth running: ISO texts, and seconds from now."""

    eta: str | None = None
    expires: str | None = None
    expires_s: Any = None  # a number


NONE = Times()


def resolve(app: Any, countdown: Any, eta: Any, expires: Any) -> Times:
    """As Celery resolves them. Raises `OptionError` for what is neither a number nor a time."""
    if not countdown and eta is None and expires is None:
        return NONE
    now = app.now()
    if countdown:
        eta = maybe_make_aware(_later(now, countdown, "countdown"), tz=app.timezone)
    if expires is None:
        return Times(_iso(eta, "eta"))
    if isinstance(expires, Real):
        seconds: Any = expires
        expires = maybe_make_aware(_later(now, expires, "expires"), tz=app.timezone)
    else:
        seconds = subtract_datetimes(_time(expires), app.now()).total_seconds()
    if seconds < 0:
        log.warning("expires is %.0f s in the past: the task will be revoked, not run", -seconds)
    return Times(_iso(eta, "eta"), _iso(expires, "expires"), max(seconds, 0))


def _later(now: datetime, seconds: Any, name: str) -> datetime:
    if not isinstance(seconds, Real) or seconds < INT_MIN:
        raise OptionError(f"{name}={seconds!r}: expected a number of seconds above {INT_MIN}")
    try:
        moved: datetime = add_seconds_to_datetime(now, seconds)
    except (OverflowError, ValueError):
        raise OptionError(f"{name}={seconds!r}: no calendar goes so far") from None
    return moved


def _time(expires: Any) -> Any:
    try:
        return parsed(_iso(expires, "expires"))
    except ValueError:
        raise OptionError(f"expires={expires!r}: expected a datetime, or its ISO text") from None


def _iso(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, datetime):
        raise OptionError(f"{name}={value!r}: expected a datetime, or its ISO text")
    return value.isoformat()
