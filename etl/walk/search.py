"""Where in a moving list a second lies: bracket it with pages, and discard stale brackets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from etl.coverage import Span
from etl.walk.knowledge import PlacedPage


class Search:
    """The search for a page that closes the hole ``[lower, ...)``.

    Such a page begins before the second ``lower`` and ends after it.  The search is for the
    position of the first row of that second or later.  Every page shows on which side of it the
    position lies, at that instant; a bracket that contradicts itself only means that the list has
    moved, and is restarted from the latest page.
    """

    def __init__(self, hole: Span, end: int) -> None:
        # Zero dates lie together before all other rows, so the first row after them is sought.
        self.lower = max(hole.lower, 0)
        self.end = end
        """Presumed position just after the last row before the hole."""
        self.steps = 0
        self.newest_next = False
        """An ascending page ended with the list: only the newest page can prove what follows."""
        self.newest_tried = False
        self.ends_list = False
        """The list ends with the second ``lower``, and the newest page begins with it too."""
        self.newest_blocked = False
        """The newest page cannot be read."""
        self.found: tuple[int, int] | None = None
        """Where the rows of the second ``lower`` begin, and the least number of them."""
        self.failures = 0
        """Pages that could not be delivered."""
        self._low: int | None = None
        self._high: int | None = None
        self._stride = 0

    @property
    def fresh(self) -> bool:
        """Whether nothing is known but where an earlier page ended."""
        return self.found is None and self._low is None and self._high is None

    def likely_position(self) -> int:
        """The best guess at the position of the first row that the next page must contain."""
        if self.found is not None:
            return self.found[0]
        known = [bound for bound in (self._low, self._high) if bound is not None]
        return known[0] if known else self.end

    def wanted(self, margin: int, page_size: int) -> tuple[int, int]:
        """The first and the last position that the next page should contain."""
        low, high = self._low, self._high
        if low is None and high is None:
            return max(self.end - margin, 0), self.end
        if low is not None and high is not None:
            if high - low >= page_size:
                middle = (low + high) // 2
                return middle, middle
            return max(low - 1, 0), min(high, low + page_size - 2)
        stride = self._stride
        self._stride = stride * 2 if stride else max(page_size // 2, 1)
        if low is not None:
            wanted = max(low - 1, 0) + stride
            return wanted, wanted + 1
        wanted = max((high or 0) - max(stride, 1), 0)
        return wanted, wanted

    def observe(self, page: PlacedPage, *, at_start: bool) -> None:
        """Learn from a page that did not close the hole; ``at_start`` if no row comes before it."""
        index = bisect_left(page.seconds, self.lower)
        behind = page.start + page.rows
        if page.seconds and index == len(page.seconds):
            self._older(behind)
        elif not page.rows or (index == 0 and not at_start):
            self._newer(page.start)
        elif page.seconds:
            ties = bisect_right(page.seconds, self.lower) - index
            self.found = page.start + page.rows - len(page.seconds) + index, ties
            self._low = self._high = None
        else:
            self._older(behind)  # rows without a createdAt come before all others
        if self._low is not None and self._low == self._high:
            self.found = self._low, 1  # a page ends there, and one begins

    def _older(self, behind: int) -> None:
        """The page ended before the position."""
        self.found = None
        self._low = max(behind, self._low or 0)
        if self._high is not None and self._high < self._low:
            self._low, self._high, self._stride = behind, None, 0

    def _newer(self, start: int) -> None:
        """The page began at the position or after it."""
        self.found = None
        self._high = start if self._high is None else min(start, self._high)
        if self._low is not None and self._high < self._low:
            self._low, self._high, self._stride = None, start, 0
