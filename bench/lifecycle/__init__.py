"""The bench `lifecycle`: what becomes of a fleet whose processes die, freeze and lie.

One scenario a file.

Leaders (`leaders`, real)
    Four beats stand by for each other, and the one that leads is struck a hundred times: killed, or
    frozen and woken 0.5 to 14 s later, in turn by chance, 0.2 to 3 s after it began to lead. Then
    ten times at the worst moment: it is frozen between its decision to send and its write, and
    woken when another leads. What arrives is read from the queues, by who knows nothing of the
    beats. A tick is doubled if it comes within half of its period after the last one, or is the
    second of its minute; it is missed if it comes more than 15 s late, or there is none in its
    minute. RedBeat is struck in the same way at the same time, with a lock of the same length.
"""

from bench.lifecycle.runner import run

__all__ = ["run"]
