"""In which order a worker takes from its queues: its own first, the others in turn.

kombu asks a cycle for the order at each look. Its own choices are strict priority, which starves
the last of several queues, and round robin, which lets a task that was placed wait behind one that
was not. Named as `queue_order_strategy` in the transport options.
"""

from __future__ import annotations

from kombu.utils.scheduling import round_robin_cycle


class OwnFirst(round_robin_cycle):
    """Keeps the first queue first, and moves any other that gave a message to the end."""

    def rotate(self, last_used: str) -> str:
        """Called by kombu with the queue that the last message came from."""
        if self.items and last_used != self.items[0]:
            super().rotate(last_used)
        return last_used
