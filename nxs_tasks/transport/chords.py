"""The parts of a chord: counted only while a message is held, and the body is always started."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from nxs_tasks.clock import wait_until
from nxs_tasks.transport.guarded import Guarded

log = logging.getLogger(__name__)

#: A claim on a chord's body is looked at so often, s; from, to, and for how long in all. Celery's
#: own claims last for seconds, and longer only where a time-out of the app is longer.
CLAIM_LOOK_S = 0.05
CLAIM_LOOK_SLOWEST_S = 1.0
CLAIM_ENDS_WITHIN_S = 300.0


class GuardedPart(Guarded):
    """Celery's script that counts a part of a chord and says who starts the body.

    Celery lets the process that counts the last part claim the body for a while, and start it. If
    that process dies in between, its message is run again, and comes back here while the claim
    lasts: Celery would go on, and nobody would ever start the body. So the second run waits until
    the claim is over or the body is started.
    """

    def __call__(self, keys: Iterable[Any], args: Iterable[Any], client: Any = None) -> Any:
        """Count. Raises as any guarded script does."""
        keys, args, acting = list(keys), list(args), self._desk.fence.acting()
        answer: list[Any] = super().__call__(keys, args, client)
        if acting is None:
            return answer
        if acting.redelivered and _claimed_by_another(answer):
            log.warning("the body of the chord of %s is claimed by another process", acting)

            def decided() -> bool:
                answer[:] = Guarded.__call__(self, keys, args, client)
                return not _claimed_by_another(answer)

            if not wait_until(decided, CLAIM_ENDS_WITHIN_S, CLAIM_LOOK_S, CLAIM_LOOK_SLOWEST_S):
                log.error("the claim on the body of the chord of %s does not end", acting)
        acting.starts_body = bool(answer[3])
        return answer


def _claimed_by_another(answer: list[Any]) -> bool:
    counted, grown, size, claimed = answer
    return size is not None and int(counted) == int(size) + int(grown or 0) and not claimed
