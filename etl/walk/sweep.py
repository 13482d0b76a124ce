"""One pass over a stretch of the list with overlapping pages.

Usually it is planned ahead: a page may only begin at a multiple of its own size, so where each page
begins and ends is known before it arrives, and the next one is requested at once, with an overlap
that suits the ties and the deletions seen so far.  Where that was too small the seam stays open,
and a task closes it.

Where large ties are frequent that costs too many pages.  Then a long stretch is divided, so that as
many sweeps as requests are wanted in flight go on side by side, and each plans a page from the one
before it, when the tie at their seam is known.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY
from etl.walk.knowledge import Knowledge, PlacedPage
from etl.walk.planner import PageRequest, page_beginning_soonest, page_reaching_furthest

ROWS_BEFORE_A_TIE: Final = 3
"""The row before the tie, and two for rows that may have been deleted since."""

SHARE_OF_NEW_ROWS: Final = 0.9
"""How much of its size a page adds to those before it, or a little more."""

PAGES_A_PART: Final = 3
"""A shorter part is not worth its last page, which partly belongs to the next part."""

PAGES_BEYOND_AT_FIRST: Final = 2
"""Pages that are requested at once when a stretch turns out to be longer than presumed; each time
twice as many, so that fewer are requested in vain than are needed."""


class Seam(NamedTuple):
    """Where two pages of a sweep meet: the last second of the older one, and where that ends.

    ``ties`` is the number of rows of that second, if the newer page begins with it.
    """

    second: int
    position: int
    ties: int = 0


class Sweep:
    """The state of one pass.  Positions count from 0 at the oldest token; from the newest in a
    ``descending`` sweep, which begins there.

    It ends at the second ``upper`` (``lower`` if descending), or where earlier pages have read.
    The last page should reach beyond the position ``end``; None: to the end of the list, or, if
    descending, to where ``Knowledge`` presumes the second.  ``before`` is the seam that the first
    page should close.  ``in_flight`` is how many requests are wanted in flight; with 1, each page
    is planned from the one before it.
    """

    def __init__(
        self,
        start: int,
        *,
        lower: int = NEGATIVE_INFINITY,
        upper: int = POSITIVE_INFINITY,
        end: int | None = None,
        before: Seam | None = None,
        descending: bool = False,
        other_end_read: bool = False,
        in_flight: int = 1,
    ) -> None:
        self.done = False
        self._in_flight = in_flight
        self._descending = descending
        self._lower, self._upper = lower, upper
        self._end = end
        self._beyond = PAGES_BEYOND_AT_FIRST
        self._planned = start
        """Where the last requested page ends."""
        self._read = start
        """Where the last received page ended."""
        self._asked: deque[PageRequest] = deque()
        self._before = before
        self._previous: PlacedPage | None = None
        self._tie = 0
        self._steady = True
        """Whether the last page was as long as requested, so that the plan can be relied on."""
        self._other_end_asked = other_end_read
        self._closing: PageRequest | None = None
        """The page at the other end of the list, if it closes the sweep."""

    def next_page(self, known: Knowledge) -> PageRequest | None:
        """The next page; None if replies have to be awaited first, or if all is requested."""
        request = None if self.done else self._next(known)
        if request is not None:
            self._asked.append(request)
        return request

    def expect_end(self, position: int) -> None:
        """The last page presumably reaches beyond this position."""
        self._end = position

    def holds(self, request: PageRequest) -> bool:
        """Whether this request is part of the plan: a short page makes those after it obsolete."""
        return any(asked is request for asked in self._asked)

    def is_at_other_end(self, request: PageRequest) -> bool:
        """Whether it is the page at the end of the list where the sweep does not begin."""
        return request.descending != self._descending

    def note_page(self, request: PageRequest, page: PlacedPage, known: Knowledge) -> Seam | None:
        """Advance past this page; returns the seam that it should have closed."""
        self._asked.popleft()
        if self.is_at_other_end(request):
            self.done |= request is self._closing
        else:
            self._note_length(request, page, known)
        if not page.seconds or (self.is_at_other_end(request) and request is not self._closing):
            return None
        previous, self._previous = self._previous, page
        if self._descending:
            self._tie = page.seconds.count(page.first)
            self.done |= page.first < self._lower
            return None if previous is None else _seam_between(page, previous)
        self._tie = page.seconds.count(page.last)
        if page.last >= self._upper or known.settled.contains(page.last):
            self.done = True  # from here on, this walk or an earlier one has read
        before, self._before = self._before, None
        return before if previous is None else _seam_between(previous, page)

    def note_failure(self, request: PageRequest) -> None:
        """Go on behind a page that could not be read; a task passes its unreadable rows."""
        self._asked.popleft()
        if self.is_at_other_end(request):
            self.done |= request is self._closing
        else:
            self._read = max(self._read, request.end)
            self._previous = self._before = None  # the task closes these seams

    def divide(self, known: Knowledge) -> list[Sweep]:
        """Divide what is left between this sweep and new ones, which are returned, if that costs
        fewer pages than planning ahead: each part wastes about half of its last page."""
        end = self._end if self._upper != POSITIVE_INFINITY else known.total_count
        if self.done or self._descending or self._in_flight == 1 or end is None:
            return []
        advance = known.page_size * SHARE_OF_NEW_ROWS
        pages = (end - self._planned) / advance
        parts = min(self._in_flight, int(pages / PAGES_A_PART))
        if parts < 2 or pages * known.cost_of_planning_ahead <= parts / 2:
            return []
        self._in_flight, self._end = 1, None
        starts = [
            self._planned + round(advance * round(pages * i / parts)) for i in range(1, parts)
        ]
        sweeps = [Sweep(start, other_end_read=True) for start in starts]
        sweeps[-1]._upper, self._upper = self._upper, POSITIVE_INFINITY
        sweeps[-1]._other_end_asked, self._other_end_asked = self._other_end_asked, True
        return sweeps

    def _next(self, known: Knowledge) -> PageRequest | None:
        total = known.total_count
        if total is None:
            # A list with two open ends needs the page at the other end, whatever its length.
            open_ended = (self._lower, self._upper) == (NEGATIVE_INFINITY, POSITIVE_INFINITY)
            if not self._asked:
                return self._next_here(known)
            return self._page_at_other_end(known) if open_ended else None
        if self._asked and (not self._steady or len(self._asked) >= self._at_most(known)):
            return None
        if self._is_at_presumed_end(known, total):
            if self._asked:
                return None
            self._end = self._planned + self._beyond * known.page_size
            self._beyond *= 2
        if self._planned and total - self._planned <= known.page_size - known.overlap:
            # The rest of the list fits in the page at its other end, which also proves that end.
            self._closing = self._page_at_other_end(known)
            self.done = self._closing is None and not self._asked
            return self._closing
        return self._next_here(known)

    def _at_most(self, known: Knowledge) -> float:
        """Pages to be planned ahead; not more than needed while the ties are not known."""
        return math.inf if self._in_flight > 1 and known.has_seen_ties else self._in_flight

    def _is_at_presumed_end(self, known: Knowledge, total: int) -> bool:
        if self._descending and self._end is None:
            before = known.position_after(self._lower - 1) if known.has_positions else total
            self._end = max(total - before, 0) + known.overlap
        return self._end is not None and self._planned >= self._end

    def _next_here(self, known: Knowledge) -> PageRequest:
        """The page that continues from what was planned so far."""
        overlap = known.overlap_ahead
        if not self._asked and self._tie + ROWS_BEFORE_A_TIE <= known.page_size // 2:
            overlap = max(known.overlap, self._tie + ROWS_BEFORE_A_TIE)
        page = page_reaching_furthest(
            self._planned - overlap, known.page_size, beyond=self._planned
        ) or page_beginning_soonest(self._planned, known.page_size)
        self._planned = page.end
        return PageRequest(page.index, page.size, self._descending)

    def _page_at_other_end(self, known: Knowledge) -> PageRequest | None:
        if self._other_end_asked:
            return None
        self._other_end_asked = True
        return PageRequest(1, known.page_size, not self._descending)

    def _note_length(self, request: PageRequest, page: PlacedPage, known: Knowledge) -> None:
        self._steady = page.rows >= min(request.size, known.page_size)
        behind = page.start + page.rows
        if self._descending:
            behind = (known.total_count or 0) - page.start
        stuck = self._descending and behind <= self._read
        self._read = max(self._read, behind)
        if not page.rows or stuck:
            self.done = True  # totalCount was larger than the list
        elif not self._steady:
            # The pages planned after it may leave a gap: they are received, but not relied on.
            self._planned = self._read
            self._asked.clear()


def _seam_between(older: PlacedPage, newer: PlacedPage) -> Seam:
    second, end = older.last, older.start + older.rows
    if newer.first != second:
        return Seam(second, end)
    begin = end - older.seconds.count(second)
    end = newer.start + newer.rows - len(newer.seconds) + newer.seconds.count(second)
    return Seam(second, end, max(end - begin, 0))
