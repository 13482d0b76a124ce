"""One limit of requests in flight for several runs in one process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

CHECK_SECONDS: Final = 0.5


class RequestLimit:
    """At most so many requests at a time, in the order in which they were wanted.  Thread-safe.

    A semaphore has no order: the thread that has just ended a request takes the place again before
    those that wait for it are awake, so that one run can keep the others out.  Here the place is
    handed to the one that has waited longest.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._free = most
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def place(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold a place in the block; ``check`` is called while waiting, to end that by raising."""
        self._take(check)
        try:
            yield
        finally:
            with self._lock:
                self._hand_over()

    def _take(self, check: Callable[[], None]) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            while not turn.wait(CHECK_SECONDS):
                check()
        except BaseException:
            with self._lock:
                if turn.is_set():
                    self._hand_over()
                else:
                    self._waiting.remove(turn)
            raise

    def _hand_over(self) -> None:
        """Give the place to the one that has waited longest; the caller holds the lock."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
