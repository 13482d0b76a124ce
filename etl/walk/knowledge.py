"""What a walk has learnt so far.  Shared by the sweep and the tasks that close its holes."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Generator, Iterable, Sequence
from operator import eq, itemgetter
from typing import Final, NamedTuple

from etl.coverage import NEGATIVE_INFINITY, TIE_GROUP, UNREADABLE, Coverage, Span
from etl.walk.planner import PageRequest, Request
from etl.walk.remembered import Remembered, Suspects

SMALLEST_OVERLAP: Final = 8
"""Minimum of rows that two pages of the sweep share: enough for ties of a few tokens and for a few
deletions between two requests."""

OVERLAP_STEP: Final = 6
SEAMS_BEFORE_SHRINKING: Final = 10

OVERLAPS: Final = (SMALLEST_OVERLAP, 16, 24, 32, 48, 64, 96, 128)
"""Choices of an overlap that is large enough for most of the ties."""

OVERLAP_BY_CHANCE: Final = 12
"""Pages overlap by some more rows than wanted, because of where they may begin."""

OVERLAP_UNTIL_TIES_ARE_KNOWN: Final = 32

PAGES_AN_OPEN_SEAM_COSTS: Final = 2.5
"""The request that closes it, and the wait for it."""

TIES_REMEMBERED: Final = 0.95
"""How much of what is known about ties is kept from one page to the next: about 20 pages."""


class WalkStuck(Exception):
    """The walk cannot continue; ``reason`` is one of ``unstable``, ``outage``, ``unreadable``,
    ``no_progress``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Hole(NamedTuple):
    """Seconds that could not be certified.  ``tokens`` in them could not be read at all; where they
    are known, ``after`` is how many rows of the first second come before them."""

    span: Span
    reason: str
    tokens: int
    after: int | None = None


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
        total_count: int | None = None,
        remembered: Collection[Remembered] = (),
    ) -> None:
        self.target = target
        self.page_size = page_size
        self.coverage = coverage
        self.holes = list(holes)
        self.settled = coverage.union(hole.span for hole in holes)
        """What is covered or recorded as a hole: nothing is left to do there."""
        self.max_unreadable = max_unreadable
        self.total_count = total_count
        self.longest = 0
        """The largest length of the list that was reported or seen so far."""
        self.barriers: set[int] = set()
        """Positions of rows that cannot be read."""
        self.suspects = Suspects(remembered)
        self._presumed: set[int] = set()
        """Seconds that were given up for one unreadable row each that is not located."""
        self.undelivered: list[PageRequest] = []
        """Pages of the sweeps that the service could not deliver, until a task passes them."""
        self.passed = Coverage()
        """The positions that passages along unreadable rows have read."""
        self.extension: Span | None = None
        """A second that has just been certified by more than one page."""
        self._ends = sorted(positions)  # (last second of a page, the position behind it)
        self.has_positions = bool(positions)
        """Whether an earlier run has recorded where its pages lay."""
        self._short: tuple[PageRequest, int] | None = None
        self._overlap = SMALLEST_OVERLAP
        self._rows_seen = 0.0
        self._tied = [0.0] * len(OVERLAPS)
        self._overlap_for_ties = OVERLAP_UNTIL_TIES_ARE_KNOWN
        self.cost_of_planning_ahead = 0.0
        """Pages that an unknown tie at its seam adds to each page: a larger overlap, or a seam that
        stays open."""
        self._closed_seams = 0
        self._open_seams = 0

    @property
    def overlap(self) -> int:
        """Rows that two adjacent pages should share, the tie at their seam being known."""
        return self._at_most(self._overlap)

    @property
    def has_seen_ties(self) -> bool:
        """Whether a page has shown how many tokens share their seconds."""
        return self._rows_seen > 0

    @property
    def overlap_ahead(self) -> int:
        """The same before the tie is known."""
        return self._at_most(max(self._overlap, self._overlap_for_ties))

    def _at_most(self, overlap: int) -> int:
        # With fewer than two rows, no seam is closed.
        return min(overlap, max(self.page_size // 3, 2), max(self.page_size - 1, 1))

    @property
    def unreadable(self) -> int:
        """Tokens that could not be read, and seconds that kept changing."""
        return sum(hole.tokens for hole in self.holes)

    def first_hole(self, lower: int = NEGATIVE_INFINITY) -> Span | None:
        """The first part of the target at or after ``lower`` that still has to be read."""
        return self.settled.first_hole(Span(max(lower, self.target.lower), self.target.upper))

    def is_given_up(self, second: int) -> bool:
        """Whether the second lies in a recorded hole."""
        return self.has_given_up(Span(second, second + 1))

    def has_given_up(self, seconds: Span) -> bool:
        """Whether a recorded hole has some of these seconds."""
        return any(
            hole.span.lower < seconds.upper and seconds.lower < hole.span.upper
            for hole in self.holes
        )

    def presume_unreadable(self, second: int, *, counted: bool) -> None:
        """Give up a second because a page with it cannot be read, although none of its rows is
        known to be unreadable; ``counted`` if such a row in the neighbourhood explains it."""
        if not counted:
            self._presumed.add(second)
        self.give_up(Span(second, second + 1), UNREADABLE, 0 if counted else 1)

    def give_up_rows(self, span: Span, rows: int, after: int) -> None:
        """Give up the seconds around so many unreadable rows, which come after so many of the first
        second."""
        presumed = {second for second in self._presumed if span.lower <= second < span.upper}
        self._presumed -= presumed
        self.give_up(span, UNREADABLE, max(rows - len(presumed), 0), after)

    def cover(self, span: Span) -> None:
        self.coverage = self.coverage.add(span)
        self.settled = self.settled.add(span)

    def give_up(self, span: Span, reason: str, tokens: int, after: int | None = None) -> None:
        """Record a hole; it is merged with an adjacent hole of the same reason, unless one
        of the two has rows, which are found again by where their hole begins."""
        merged = Hole(span, reason, tokens, after)
        apart = []
        for known in self.holes:
            if known.reason == reason and _is_one(known, merged):
                lower = min(known.span.lower, merged.span.lower)
                upper = max(known.span.upper, merged.span.upper)
                first = min((h.after for h in (merged, known) if h.after is not None), default=None)
                merged = Hole(Span(lower, upper), reason, merged.tokens + known.tokens, first)
            else:
                apart.append(known)
        self.holes = sorted([*apart, merged], key=itemgetter(0))
        self.settled = self.settled.add(span)
        if self.unreadable > self.max_unreadable:
            raise WalkStuck(
                "unreadable",
                f"{what_was_not_read(self.holes)}, more than the {self.max_unreadable} allowed",
            )

    def take_undelivered(self) -> PageRequest:
        """The undelivered page that is first in the list."""
        first = min(self.undelivered, key=lambda each: each.ascending(self.total_count))
        self.undelivered.remove(first)
        return first

    def start_of(self, request: PageRequest, rows: int) -> int:
        """Where a page probably lay in the ascending list."""
        start = request.start
        if self._is_cut_short(request, rows):
            start = (request.index - 1) * rows  # the service counts in its own page size
        return max((self.total_count or 0) - start - rows, 0) if request.descending else start

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
        return self.end_before(second)[1]

    def end_before(self, second: int) -> tuple[int, int]:
        """The last second of an earlier page that is not after ``second``, and the position behind
        that page; the beginning of the list if there is none."""
        index = bisect_right(self._ends, second, key=itemgetter(0)) - 1
        return self._ends[index] if index >= 0 else (NEGATIVE_INFINITY, 0)

    def note_position(self, second: int, position: int) -> None:
        """Rows up to ``second`` probably end before ``position``."""
        insort(self._ends, (second, position))

    def note_ties(self, seconds: Sequence[int]) -> None:
        """Learn from the seconds of a page which overlap costs least.

        A seam stays open where all rows of the overlap have the same second, so the share of
        places where that is so is the share of seams that would need a request of their own.
        """
        if not seconds:
            return
        self._rows_seen = self._rows_seen * TIES_REMEMBERED + len(seconds)
        tied = len(seconds)
        for index, overlap in enumerate(OVERLAPS):
            if tied:
                tied = sum(map(eq, seconds, seconds[overlap + OVERLAP_BY_CHANCE - 1 :]))
            self._tied[index] = self._tied[index] * TIES_REMEMBERED + tied
        price = PAGES_AN_OPEN_SEAM_COSTS * self.page_size / self._rows_seen
        costs = [overlap + price * tied for overlap, tied in zip(OVERLAPS, self._tied, strict=True)]
        self._overlap_for_ties = OVERLAPS[costs.index(min(costs))]
        self.cost_of_planning_ahead = (min(costs) - SMALLEST_OVERLAP) / self.page_size

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


def what_was_not_read(holes: Iterable[Hole], looked_up: int = 0) -> str:
    """In words, for a message: ``3 tokens cannot be read and 1 second kept changing``.

    A hole of a second that kept changing counts it, not its tokens, whose number is not known.
    ``looked_up``: tokens that could not be read by their ids.
    """
    counts = {True: 0, False: looked_up}
    for hole in holes:
        counts[hole.reason == TIE_GROUP] += hole.tokens
    seconds, tokens = counts[True], counts[False]
    parts = []
    if tokens or not seconds:
        parts.append(f"{tokens} token{'' if tokens == 1 else 's'} cannot be read")
    if seconds:
        parts.append(f"{seconds} second{'' if seconds == 1 else 's'} kept changing")
    return " and ".join(parts)


def _is_one(hole: Hole, other: Hole) -> bool:
    """Whether two holes are the same or touch, and, if one has rows, the other adds no seconds."""
    both = Span(max(hole.span.lower, other.span.lower), min(hole.span.upper, other.span.upper))
    if both.lower > both.upper or not (hole.tokens or other.tokens):
        return both.lower <= both.upper
    return both in {hole.span, other.span}
