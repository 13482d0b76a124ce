"""A stretch of the list that is swept page by page.

Within a lane each page is planned from the one before it, so that the overlap is as large as the
tie at their seam and no larger; several concurrent lanes keep the service busy.
"""

from __future__ import annotations

from typing import Final

from etl.walk.knowledge import Knowledge, PlacedPage
from etl.walk.planner import PageRequest, page_beginning_soonest, page_reaching_furthest

PAGES_A_LANE: Final = 25
"""A shorter lane is not worth its last page, which partly belongs to the next lane."""

ROWS_BEFORE_A_TIE: Final = 3
"""The row before the tie, and two for rows that may have been deleted since."""


NEWEST_PAGES_AT_MOST: Final = 40
"""Pages that are read one after the other from the newest back; the rest is read from the other end
by several concurrent lanes."""


class Lane:
    """The state of one lane.  Positions count from 0 at the oldest token."""

    def __init__(self, start: int, last: tuple[int, int] | None = None) -> None:
        self.end = start
        """Where the pages of the lane end so far."""
        self.last = last
        """The last second seen, and the position after it."""
        self.asked: PageRequest | None = None
        self.done = False
        self._tie = 0
        self._skip = False

    def next_page(self, known: Knowledge) -> PageRequest:
        """The page that continues from here."""
        overlap = known.overlap
        if self._tie + ROWS_BEFORE_A_TIE <= known.page_size // 2:
            overlap = max(overlap, self._tie + ROWS_BEFORE_A_TIE)
        page = None
        if not self._skip:
            page = page_reaching_furthest(
                self.end - overlap, known.page_size, barriers=known.barriers, beyond=self.end
            )
        if page is None:
            # An unreadable row is in the way; the seam before this page will stay open.
            ahead = [barrier for barrier in known.barriers if barrier >= self.end - overlap]
            page = page_beginning_soonest(
                max(self.end, min(ahead, default=0) + 1), known.page_size, known.barriers
            )
        self._skip = False
        self.asked = page
        return page

    def note_page(self, page: PlacedPage) -> tuple[int, int] | None:
        """Advance past this page; returns the last second before it, whose seam it should close."""
        self.asked = None
        previous = self.last
        if not page.rows:
            self.done = True  # totalCount was larger than the list
        self.end = max(self.end, page.start + page.rows)
        if page.seconds:
            self.last = (page.last, page.start + page.rows)
            self._tie = len(page.seconds) - page.seconds.index(page.last)
            return previous
        return None

    def note_failure(self) -> None:
        """Skip the page that could not be read; a task looks for the unreadable rows."""
        if self.asked is not None:
            self.end = self.asked.end
            self._skip = True
        self.asked = None


class NewestLane:
    """A lane from the newest token back.  Positions count from 0 at the newest."""

    def __init__(self) -> None:
        self.asked: PageRequest | None = None
        self.done = False
        self.exhausted = False
        """Whether the list seems to have no row older than those seen."""
        self._end = 0
        self._pages = 0
        self._tie = 0

    def next_page(self, known: Knowledge) -> PageRequest:
        """The page that continues from here."""
        overlap = known.overlap
        if self._tie + ROWS_BEFORE_A_TIE <= known.page_size // 2:
            overlap = max(overlap, self._tie + ROWS_BEFORE_A_TIE)
        page = page_reaching_furthest(self._end - overlap, known.page_size, beyond=self._end)
        index, size = (page.index, page.size) if page is not None else (1, known.page_size)
        self.asked = PageRequest(index, size, descending=True)
        return self.asked

    def note_page(self, request: PageRequest, page: PlacedPage, known: Knowledge) -> None:
        """Advance past this page, unless the target is read or lies far away."""
        self.asked = None
        self._pages += 1
        before, self._end = self._end, max(self._end, request.start + page.rows)
        self.exhausted = self._end >= (known.total_count or 0)
        stuck = self._end == before and self._pages > 1
        reached = page.seconds and page.first < known.target.lower
        if not page.seconds or reached or stuck or self.exhausted:
            self.done = True
        else:
            self._tie = len([second for second in page.seconds if second == page.first])
            self.done = self._pages >= NEWEST_PAGES_AT_MOST


def lanes_between(start: int, end: int, page_size: int, at_most: int) -> list[Lane]:
    """Divide ``[start, end)`` into lanes of about equal length."""
    number = max(1, min(at_most, (end - start) // (page_size * PAGES_A_LANE)))
    return [Lane(start + (end - start) * index // number) for index in range(number)]
