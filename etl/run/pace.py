"""How many requests may be in flight at a time.

As many as wanted, until the service is in trouble.  Half as many after a request that had to be
repeated: a limit of calls, a timeout, an error of the server.  Half as many on trial when pages
take twice as long as usual: if they become faster, some of the requests had only been waiting for
one another and fewer are as good; if not, the pages have become slower by themselves, as they do
far down a list, and the number returns.  One more after each quiet round, a round being as many
replies as are in flight.
"""

from __future__ import annotations

from statistics import fmean
from typing import Final

SLOW: Final = 2.0
"""Pages that take so many times as long as usual are slow, ..."""

SLOWER_BY_SECONDS: Final = 0.25
"""... if that is noticeable: a quick service is not spared because of a few milliseconds."""

FASTER: Final = 0.75
"""With half the requests in flight, pages of a service at its limit take about half the time."""

FULL: Final = 0.5
"""Only pages of at least this part of the largest tell how fast the service is."""


class Pace:
    """The limit, from what is known of the replies.  Not thread-safe."""

    def __init__(self, most: int) -> None:
        self.limit = most
        """How many requests may be in flight now."""
        self.epoch = 0
        """Counts the changes of the limit: a reply tells about the limit under which its request
        left."""
        self._most = most
        self._rows = 0
        self._usual: float | None = None
        self._times: list[float] = []
        self._on_trial: tuple[int, float] | None = None
        """The limit before the trial, and what a page took under it."""

    def note(self, epoch: int, *, repeated: bool, seconds: float | None, rows: int) -> None:
        """Learn from the reply to a request that left in ``epoch``.

        ``seconds`` is what its last attempt took, None if that failed; ``repeated`` says whether a
        request had to be sent again meanwhile.
        """
        if epoch != self.epoch:
            return
        if repeated:
            self._on_trial = None
            self._change(max(self.limit // 2, 1))
        elif seconds is not None and rows >= self._rows * FULL:
            if self._rows < rows * FULL:
                self._usual, self._times = None, []  # pages of another size: not to be compared
            self._rows = max(self._rows, rows)
            self._note_time(seconds)

    def _note_time(self, seconds: float) -> None:
        self._times.append(seconds)
        if len(self._times) < self.limit:
            return
        if self._usual is None:
            # Of the first pages, those that did not have to wait for others show what is usual.
            self._usual = min(self._times)
        else:
            self._end_round(fmean(self._times), self._usual)
        self._times = []

    def _end_round(self, mean: float, usual: float) -> None:
        if self._on_trial is not None:
            limit, before = self._on_trial
            self._on_trial = None
            if mean > before * FASTER:
                self._usual = mean
                self._change(limit)
        elif self.limit > 1 and mean > usual * SLOW and mean - usual > SLOWER_BY_SECONDS:
            self._on_trial = self.limit, mean
            self._change(self.limit // 2)
        else:
            self._usual = min(usual, mean)
            if self.limit < self._most:
                self._change(self.limit + 1)

    def _change(self, limit: int) -> None:
        self.limit = limit
        self.epoch += 1
        self._times = []
