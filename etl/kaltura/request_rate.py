"""At most so many requests per second begin, in all threads and runs of a job together."""

from __future__ import annotations

import threading


class RequestRate:
    """Gives each request its turn, evenly spaced: no burst follows a pause.  Thread-safe."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._lock = threading.Lock()
        self._next = float("-inf")

    def take_turn(self, now: float) -> float:
        """Take the next free turn: at ``now`` (monotonic seconds) or later, when it returns."""
        with self._lock:
            turn = max(now, self._next)
            self._next = turn + self._interval
            return turn


def request_rate(per_second: float | None) -> RequestRate | None:
    """None: there is no limit."""
    return None if per_second is None else RequestRate(per_second)
