"""Where in the list some seconds lie: found with pages of one row, several at a time.

All seconds are sought at once, with two rows a round for each: around the place where an earlier
run had it, or where it should be if tokens were created evenly between the nearest known rows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from etl.walk.knowledge import Knowledge, PlacedPage
from etl.walk.planner import PageRequest

ROUNDS_AT_MOST: Final = 40

FIRST_SHARE: Final = 16
"""The two rows lie at most this part of the bracket before and after the presumed position, ..."""

SHARE_AFTER_SUCCESS: Final = 64
"""... and this part, once tokens have turned out to be created evenly enough."""

STRIDE_GROWTH: Final = 4


class Locator:
    """Finds the approximate positions of the first rows that are not older than given seconds.

    ``hints`` are where they lay earlier, None where that is not known.  ``first`` are pages that
    are requested with the first rows.
    """

    def __init__(
        self, known: Knowledge, hints: Mapping[int, int | None], first: Iterable[PageRequest] = ()
    ) -> None:
        self._known = known
        near = max(known.page_size // 4, 1)
        self._places = {second: _Place(second, hint, near) for second, hint in hints.items()}
        self._rows: list[tuple[int, float]] = []  # (position, second)
        self._rounds = 0
        self._asked: list[PageRequest] = []
        self._wanted = deque(first)
        self._plan_round()

    def next_page(self) -> PageRequest | None:
        """The next row to request, or None if replies have to be awaited first."""
        if not self._wanted and not self._asked:
            self._plan_round()
        if not self._wanted:
            return None
        self._asked.append(self._wanted.popleft())
        return self._asked[-1]

    def holds(self, request: PageRequest) -> bool:
        """Whether it is one of the requests of the search."""
        return any(asked is request for asked in self._asked)

    @property
    def done(self) -> bool:
        """Whether all is found, or as nearly as can be, and nothing in flight."""
        return not self._wanted and not self._asked and not self._unfound()

    def note(self, request: PageRequest, page: PlacedPage | None) -> None:
        """Learn from a page; None if it could not be read, and then an estimate has to do."""
        self._asked = [asked for asked in self._asked if asked is not request]
        if page is None:
            self._rounds = ROUNDS_AT_MOST
        elif page.seconds:
            self._rows.append((page.start, page.first))
            if page.rows > 1:
                self._rows.append((page.start + page.rows - 1, page.last))
        else:
            # Rows without a place on the line come before all others; no row comes after the list.
            self._rows.append((page.start, -math.inf if page.rows else math.inf))

    def begin(self, second: int) -> int:
        """The position to begin at: never after the first row that is not older than ``second``
        by more than the list has moved meanwhile."""
        place = self._narrowed(second)
        return min(place.low, place.high)

    def end(self, second: int) -> int:
        """The same for the end: not before the last row that is older than ``second``."""
        place = self._narrowed(second)
        return max(place.low, place.high)

    def _narrowed(self, second: int) -> _Place:
        place = self._places[second]
        place.narrow(self._rows, max(self._known.total_count or 0, 0))
        return place

    def _unfound(self) -> list[_Place]:
        if self._rounds >= ROUNDS_AT_MOST:
            return []
        return [place for second in self._places if not (place := self._narrowed(second)).found]

    def _plan_round(self) -> None:
        """Two rows for each place; before the length of the list is known, for those with a
        hint."""
        if self._known.total_count is not None:
            places = self._unfound()
        else:
            places = [place for place in self._places.values() if place.has_hint]
        self._rounds += 1
        positions = {position for place in places for position in place.probes()}
        self._wanted.extend(PageRequest(position + 1, 1) for position in sorted(positions))


class _Place:
    """The bracket of one second: the row before ``low`` is older, the row at ``high`` is not."""

    def __init__(self, second: int, hint: int | None, near: int) -> None:
        self.second = second
        self.low = self.high = 0
        self._hint = hint
        self._near = near
        self._stride = 0
        self._total = 0
        self._below, self._above = -math.inf, math.inf
        """The seconds of the rows at the ends of the bracket, infinite if unknown."""
        self._tried: tuple[int, int] | None = None
        """The last two rows that were chosen by interpolation."""
        self._share = FIRST_SHARE

    @property
    def has_hint(self) -> bool:
        return self._hint is not None

    @property
    def found(self) -> bool:
        return self.high - self.low <= self._near

    def narrow(self, rows: Sequence[tuple[int, float]], total: int) -> None:
        """Determine the bracket; rows that contradict each other mean that the list has moved."""
        self._total = total
        self.low, self._below = max(
            ((position + 1, second) for position, second in rows if second < self.second),
            default=(0, -math.inf),
        )
        self.high, self._above = min(
            ((position, second) for position, second in rows if second >= self.second),
            default=(total, math.inf),
        )

    def probes(self) -> set[int]:
        """Two positions (at least one, from 0) whose rows narrow the bracket."""
        chosen = self._near_hint() or self._between()
        if self._total:
            chosen = {min(max(position, self.low), self.high - 1) for position in chosen}
        return {max(position, 0) for position in chosen}

    def _near_hint(self) -> set[int] | None:
        """On both sides of the hint; then in growing steps to the side where the place must be."""
        if self._hint is None:
            return None
        hint, stride = self._hint, self._stride
        self._stride = stride * STRIDE_GROWTH**2 if stride else self._near * STRIDE_GROWTH
        if not stride:
            return {hint - self._near // 2, hint + (self._near - 1) // 2}
        if self.low and self.high == self._total:
            return {hint + stride, hint + stride * STRIDE_GROWTH}
        if not self.low and self.high < self._total:
            return {hint - stride, hint - stride * STRIDE_GROWTH}
        self._hint = None
        return None

    def _between(self) -> set[int]:
        """Around the presumed position; at the thirds of the bracket if that has failed."""
        width = self.high - self.low
        missed = False
        if self._tried is not None:
            missed = not (self._tried[0] < self.low and self.high <= self._tried[1])
            self._share = FIRST_SHARE if missed else SHARE_AFTER_SUCCESS
        if missed or not -math.inf < self._below < self._above < math.inf:
            self._tried = None
            return {self.low + width // 3, self.low + 2 * width // 3}
        part = (self.second - self._below) / (self._above - self._below)
        presumed = self.low + round(width * part)
        reach = max((self._near - 1) // 2, width // self._share)
        self._tried = presumed - reach, presumed + reach
        return {*self._tried}
