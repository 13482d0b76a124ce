"""What a walk has learnt so far.  Shared by the sweep and the tasks that close its holes."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Generator
from typing import Final, NamedTuple

from etl.coverage import NEGATIVE_INFINITY, Coverage, Span
from etl.walk.planner import PageRequest, Request

SMALLEST_OVERLAP: Final = 8
"""Minimum of rows that two pages of the sweep share: enough for ties of a few tokens and for a few
deletions between two requests."""

OVERLAP_STEP: Final = 6
SEAMS_BEFORE_SHRINKING: Final = 10


class WalkStuck(Exception):
    """The walk cannot continue; ``reason`` is one of ``unstable``, ``outage``, ``unreadable``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Hole(NamedTuple):
    """Seconds that could not be certified.  ``tokens`` in them could not be read at all."""

    span: Span
    reason: str
    tokens: int


class PlacedPage(NamedTuple):
    """A page as the tasks see it, in ascending order.

    ``start`` is where it probably lay in the ascending list.  ``seconds`` and ``token_ids`` leave
    out the rows that have no place on the line; ``rows`` counts all.
    """

    start: int
    rows: int
    seconds: list[int]
    token_ids: list[str | None]

    @property
    def first(self) -> int:
        return self.seconds[0]

    @property
    def last(self) -> int:
        return self.seconds[-1]


TaskReply = PlacedPage | frozenset[str] | None
"""What a task receives: a page, the listed ids of a lookup, or None for a failure."""

Task = Generator[Request, TaskReply, None]


class Knowledge:
    """Coverage, recorded holes, and the hints that guide the search.

    Only ``coverage`` and ``holes`` matter for correctness; everything else may be wrong or out of
    date, and then costs requests.
    """

    def __init__(
        self,
        target: Span,
        page_size: int,
        coverage: Coverage,
        holes: Collection[Hole],
        max_unreadable: int,
        positions: Collection[tuple[int, int]] = (),
    ) -> None:
        self.target = target
        self.page_size = page_size
        self.coverage = coverage
        self.holes = list(holes)
        self.settled = coverage.union(hole.span for hole in holes)
        """What is covered or recorded as a hole: nothing is left to do there."""
        self.max_unreadable = max_unreadable
        self.total_count: int | None = None
        self.longest = 0
        """The largest length of the list that was reported or seen so far."""
        self.barriers: set[int] = set()
        """Positions of rows that cannot be read."""
        self.extension: Span | None = None
        """A second that has just been certified by more than one page."""
        self._ends = sorted(positions)  # (last second of a page, the position behind it)
        self.has_positions = bool(positions)
        """Whether an earlier run has recorded where its pages lay."""
        self._short: tuple[PageRequest, int] | None = None
        self._overlap = SMALLEST_OVERLAP
        self._closed_seams = 0
        self._open_seams = 0

    @property
    def overlap(self) -> int:
        return min(self._overlap, max(self.page_size // 3, 1))

    @property
    def unreadable(self) -> int:
        """Tokens that could not be read."""
        return sum(hole.tokens for hole in self.holes)

    def first_hole(self, lower: int = NEGATIVE_INFINITY) -> Span | None:
        """The first part of the target at or after ``lower`` that still has to be read."""
        return self.settled.first_hole(Span(max(lower, self.target.lower), self.target.upper))

    def cover(self, span: Span) -> None:
        self.coverage = self.coverage.add(span)
        self.settled = self.settled.add(span)

    def give_up(self, span: Span, reason: str, tokens: int) -> None:
        """Record a hole; it is merged with an adjacent hole of the same reason."""
        merged = Hole(span, reason, tokens)
        apart = []
        for known in self.holes:
            touching = known.span.lower <= span.upper and span.lower <= known.span.upper
            if known.reason == reason and touching:
                lower = min(known.span.lower, merged.span.lower)
                upper = max(known.span.upper, merged.span.upper)
                merged = Hole(Span(lower, upper), reason, merged.tokens + known.tokens)
            else:
                apart.append(known)
        self.holes = sorted([*apart, merged])
        self.settled = self.settled.add(span)
        if self.unreadable > self.max_unreadable:
            raise WalkStuck(
                "unreadable",
                f"{self.unreadable} tokens cannot be read, more than the "
                f"{self.max_unreadable} allowed",
            )

    def start_of(self, request: PageRequest, rows: int) -> int:
        """Where a page probably lay in the ascending list."""
        if request.descending:
            return max((self.total_count or 0) - request.start - rows, 0)
        if self._is_cut_short(request, rows):
            return (request.index - 1) * rows  # the service counts in its own page size
        return request.start

    def note_page(self, request: PageRequest, page: PlacedPage, total_count: int | None) -> None:
        """Learn from the size and the position of a page."""
        if total_count is not None:
            self.longest = max(self.longest, total_count)
        self.longest = max(self.longest, page.start + page.rows if page.rows else 0)
        if page.seconds and not request.descending:
            insort(self._ends, (page.last, page.start + page.rows))
        if self._is_cut_short(request, page.rows):
            # The length that short pages have in common is the largest page size of the service.
            # A single short page may be an accident.  A walk needs pages of at least two rows.
            if self._short is not None and self._short[1] == page.rows:
                self.page_size = min(self.page_size, max(page.rows, 2))
            self._short = request, page.rows

    def _is_cut_short(self, request: PageRequest, rows: int) -> bool:
        """Whether a page has fewer rows than requested although more should follow."""
        total = self.total_count or 0
        if not 0 < rows < request.size or total <= 0:
            return False
        if request.index == 1:
            return total > rows
        return total > request.end or total <= request.start

    def position_after(self, second: int) -> int:
        """Where the list continued after ``second``, according to an earlier page."""
        index = bisect_right(self._ends, (second, self.longest)) - 1
        return self._ends[index][1] if index >= 0 else 0

    def note_position(self, second: int, position: int) -> None:
        """Rows up to ``second`` probably end before ``position``."""
        insort(self._ends, (second, position))

    def note_seam(self, *, closed: bool) -> None:
        """Grow the overlap while seams stay open, a little for a rare one (a large tie somewhere)
        and fast for several in a row; shrink it again while they close."""
        if closed:
            self._open_seams = 0
            self._closed_seams += 1
            if self._closed_seams >= SEAMS_BEFORE_SHRINKING:
                self._closed_seams = 0
                self._overlap = max(SMALLEST_OVERLAP, self._overlap - 1)
        else:
            self._closed_seams = 0
            self._open_seams += 1
            step = OVERLAP_STEP if self._open_seams < 3 else self._overlap
            self._overlap = min(self._overlap + step, max(self.page_size // 3, SMALLEST_OVERLAP))
