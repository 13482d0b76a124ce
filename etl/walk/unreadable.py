"""Rows that make every page with them fail: pass them, and prove everything around them.

A *passage* reads the stretch of a page that could not be delivered, from its beginning to its end,
one request at a time.  All positions before ``_at`` have been passed: they have been read, or have
been found unreadable.  ``_fails_before`` is the end of the shortest page from ``_at`` on that
failed, if one did: an unreadable row is before it.  The next page holds the position ``_at``, and

* without a failed page, reaches as far as possible;
* with one, ends about half way to its end, and always before it;
* before a row that is suspected, because it failed earlier in this walk or in an earlier run
  (``etl.walk.remembered``), ends there instead, if that is sooner;
* if that leaves the one position ``_at``, is that row alone.

**It ends**, because the pair (positions left, positions under suspicion) falls with every request,
compared like words in a dictionary: a page that is read passes ``_at`` at least, and leaves fewer
positions; one that fails leaves fewer under suspicion; and a single row that fails is passed as
unreadable.  A suspicion can only make a page end sooner, and it holds ``_at`` nevertheless.  A page
in descending order that leads no further is asked for once in each second, at most.
Positions only grow, whatever the list does meanwhile: what has moved, a seam of the
coverage shows, and it is read again like any other.

**It is cheap**: of a page of n rows, about log₂ n requests find an unreadable row, two confirm it
(it is asked for again), and as the pages overlap, they have proved what is before it.  Few pages
begin just behind it, where a multiple of their size must lie; after some of growing size the
passage is back at full pages.  Where no page with a seam between two others exists, its second is
certified by several (``etl.walk.tie``).  ``tests/property/test_walk_unreadable.py`` has the bound:
2·⌈log₂ n⌉ + 20 requests for each unreadable row of a quiet list whose ties keep their order.  On
average it is 13 to 14 for n = 500, and about 6 for a row that is remembered.

**The hole** of an unreadable row reaches from the second of the row before it to that of the row
after it, both included: it may have been created in either, since no page shows it.  It cannot be
narrower, or a token that nobody has read would lie in the coverage.

A service may order the tokens of one second differently each time.  Then an unreadable row among
them is now here and now there, all of its positions can be passed, and what remains is that no page
with the whole second can be read: that is its hole.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Generator
from typing import Final

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY, UNREADABLE, Span
from etl.walk.knowledge import Knowledge, PlacedPage, Task, TaskReply, WalkStuck
from etl.walk.planner import PageRequest, Request, page_ending_near
from etl.walk.tie import Certified, Verdict, certify_second

FAILURES_THAT_MEAN_OUTAGE: Final = 6
"""Single rows that fail one after the other while nothing at all can be read."""

ASKED_WHETHER_IT_IS_ANOTHER: Final = 5
"""How often a row is asked for again before a second one of the same second counts as another: it
may be the same, in another place."""


def pass_unreadable(
    known: Knowledge, request: PageRequest, since: int | None = None, until: int | None = None
) -> Task:
    """Read the stretch of a page that could not be delivered, and of those that follow it.

    What other passages have read is left out, unless it has to be read again ``since`` a position,
    and ``until`` a second is settled.
    """
    stretch = Span(*request.ascending(known.total_count))
    if since is None:
        left = known.passed.holes(stretch)
    else:
        left = [Span(max(since - known.overlap, 0), stretch.upper)]
    for start, end in left:
        begin = start if start <= stretch.lower else max(start - known.overlap, 0)
        behind = end if end == stretch.upper else end + known.overlap
        if begin < end:
            yield from _Passage(known, begin, behind, until).run()


class _Passage:
    def __init__(self, known: Knowledge, start: int, end: int, until: int | None) -> None:
        self._known = known
        self._start = self._at = start
        self._end = end
        self._until = until
        """The second that has to be settled besides."""
        self._fails_before: int | None = None
        self._floor = max(
            [0, start - known.overlap, *(row + 1 for row in known.barriers if row < start)]
        )
        """No page begins earlier: behind the last unreadable row, or where other pages read."""
        self._reach = known.page_size
        """How many positions the next page should pass."""
        self._roams = False
        """Whether a failed page turned out to have no unreadable row: it is now here, now there."""
        self._ascends_in: int | None = None
        """The second in which a page in descending order has not led any further."""
        self._fails_for_sure = True
        """Whether an unreadable row must be before ``_fails_before``: the page that failed may have
        been one in descending order, with other tokens of its last second."""
        self._has_read = False
        self._last: int | None = None
        """The second of the last row before ``_at``, unreadable ones left out."""
        self._last_begins = start
        """The position of the first row of that second."""
        self._unreadable: list[int] = []
        """Rows just before ``_at`` that failed; the row after them is still to be read."""
        self._frontier: int | None = None
        """The first second that is not settled, from where the pages read so far are on."""
        self._before_frontier = start
        """The position of the last row that is older than it."""
        self._firsts: list[tuple[int, int]] = []
        """Where the pages read so far begin, and with which second."""
        self._failed_from = start
        """Where the last page begins that should have proved a second and failed."""
        self._follows: int | None = None
        """The second of the row after those that were last certified."""

    def run(self) -> Task:
        """Read to the end of the stretch."""
        while not self._is_done():
            if self._length is not None and self._at >= self._length:
                yield from self._prove_end()
                break
            request = self._next_page()
            page = yield request
            if isinstance(page, PlacedPage):
                if not page.rows:
                    yield from self._prove_end()
                    break
                shown = self._shown_by(request, page)
                if shown is None:
                    self._ascends_in = self._last
                else:
                    yield from self._note_page(shown)
            elif request.size == 1 and not request.descending:
                yield from self._note_unreadable()
            else:
                self._fails_before = self._end_of(request)
                self._fails_for_sure = not request.descending
            start, end = request.ascending(self._length)
            self._known.suspects.note(start, end, failed=not isinstance(page, PlacedPage))
        self._known.passed = self._known.passed.add(Span(self._start, self._at))

    def _is_done(self) -> bool:
        is_in_hole = self._last is not None and self._known.is_given_up(self._last)
        if is_in_hole and (self._length is None or self._at < self._length):
            return False  # what can be read in it is read
        if self._known.first_hole(self._frontier or NEGATIVE_INFINITY) is None:
            return True
        for request in tuple(self._known.undelivered):
            start, end = request.ascending(self._length)
            if self._start <= start <= self._at:
                self._known.undelivered.remove(request)
                self._end = max(self._end, end)
        if self._unreadable or self._at < self._end:
            return False
        until = self._until
        if (
            until is not None
            and (self._frontier is None or self._frontier <= until)
            and not self._known.settled.contains(until)
        ):
            return False
        return self._length is None or self._at < self._length

    @property
    def _length(self) -> int | None:
        total = self._known.total_count
        return total if total is not None and total > 0 else None

    def _end_of(self, request: PageRequest) -> int:
        return (self._length or 0) - request.start if request.descending else request.end

    def _shown_by(self, request: PageRequest, page: PlacedPage) -> PlacedPage | None:
        """The rows of a page whose positions are known; None if they do not continue from ``_at``.

        The service may give the tokens of one second in the same order whether the list ascends or
        descends.  Then a page in descending order has others of its first and of its last second
        than the positions say, and only the rows between them are where they should be.
        """
        if not request.descending:
            return page
        if not page.seconds or self._last is None or page.first > self._last:
            return None  # totalCount is wrong
        if page.first == self._last and page.start > self._last_begins:
            return None  # rows of that second may be missing
        rows = len(page.seconds)
        if request.index > 1:
            rows = bisect_left(page.seconds, page.last)
        if page.start + page.rows - len(page.seconds) + rows <= self._at:
            return None
        return PlacedPage(
            page.start,
            page.rows - len(page.seconds) + rows,
            page.seconds[:rows],
            page.token_ids[:rows],
        )

    # --- which page next ---------------------------------------------------------------------

    def _next_page(self) -> PageRequest:
        at = self._at
        single = PageRequest(at + 1, 1, probe=True)
        if self._fails_before is None:
            wanted, ceiling, tolerance = at + self._reach, math.inf, math.inf
        else:
            left = self._fails_before - at
            if left <= 1:
                return single
            wanted, ceiling, tolerance = at + left // 2, self._fails_before - 1, left / 4
        suspect = self._suspect(min(ceiling, at + self._known.page_size) + 1)
        if suspect is not None:
            if suspect == at:
                return single
            wanted = ceiling = suspect
        if self._roams or self._unreadable:
            return self._page_from(at, wanted, ceiling, floor=at) or single
        # With rows to spare for what is deleted meanwhile; ...
        closing = min(self._before_frontier, at)
        page = self._page_from(min(at - self._known.overlap, closing), wanted, ceiling)
        if page is not None and abs(self._end_of(page) - wanted) <= tolerance:
            return page
        # ... or just so that the seam closes; or so that only one second there is not proved.
        for first in (closing, at - 1):
            page = self._page_from(first, wanted, ceiling)
            if page is not None:
                return page
        return self._page_from(at, wanted, ceiling, floor=at) or single

    def _suspect(self, before: float) -> int | None:
        """The next position, from ``_at`` on, of a row that is not likely to be read; None if that
        is not ``before`` a position."""
        failed = min((row for row in self._known.barriers if row >= self._at), default=before)
        remembered = self._known.suspects.next_from(self._at, failed, self._tie_before)
        if remembered is not None:
            return remembered
        return int(failed) if failed < before else None

    def _tie_before(self, second: int) -> tuple[int, int]:
        """A second whose rows have just been read, and where they begin; before anything is read,
        one that begins not after ``second``."""
        if self._last is not None:
            return self._last, self._last_begins
        last, behind = self._known.end_before(second)
        return last + (last > NEGATIVE_INFINITY), behind

    def _page_from(
        self, first: int, wanted: int, ceiling: float, *, floor: int | None = None
    ) -> PageRequest | None:
        """The page from ``first`` or before it, or from ``floor`` on, that ends near ``wanted``."""
        may_count = self._last not in {None, self._ascends_in} and floor is None
        floor = self._floor if floor is None else floor
        return page_ending_near(
            max(first, floor),
            self._at,
            wanted,
            self._known.page_size,
            floor=floor,
            ceiling=ceiling,
            total_count=self._length if may_count else None,
        )

    # --- what a page shows -------------------------------------------------------------------

    def _note_page(self, page: PlacedPage) -> Task:
        known = self._known
        self._has_read = True
        self._at = max(self._at + 1, page.start + page.rows)
        known.barriers.difference_update(range(page.start, page.start + page.rows))
        if self._fails_before is None:
            self._reach = min(2 * self._reach, known.page_size)
        elif self._at >= self._fails_before:
            if self._fails_for_sure:
                self._reach, self._roams = 1, True
            else:
                self._ascends_in = page.last if page.seconds else None
            self._fails_before, self._fails_for_sure = None, True
        if not page.seconds:
            return  # rows without a place on the line
        if self._unreadable:
            yield from self._give_up_rows(page.first + 1)
        yield from self._advance_frontier(page)
        if page.last != self._last:
            begin = page.start + page.rows - len(page.seconds)
            self._last_begins = begin + bisect_left(page.seconds, page.last)
        self._last = page.last
        self._firsts.append((page.start, page.first))

    def _advance_frontier(self, page: PlacedPage) -> Task:
        known, frontier = self._known, self._frontier
        begin = page.start + page.rows - len(page.seconds)
        if frontier is None or page.last > frontier or known.settled.contains(frontier):
            if frontier is None and not known.settled.contains(page.first):
                # The stretch begins among tokens of one second.
                yield from certify_second(known, page.first, begin, {self._at})
            elif frontier is not None and not known.settled.contains(frontier):
                yield from self._close_seam(frontier, page)
            hole = known.first_hole(page.last)
            self._frontier = page.last if hole is None else hole.lower
            self._before_frontier = max(begin + bisect_left(page.seconds, self._frontier) - 1, 0)
            if self._roams:
                self._roams, self._reach = False, known.page_size
                # The unreadable row is before that, wherever: no page should hold many of its ties.
                self._floor = max(self._floor, self._before_frontier)
        elif older := bisect_left(page.seconds, frontier):
            self._before_frontier = begin + older - 1

    # --- seams between two pages -------------------------------------------------------------

    def _close_seam(self, frontier: int, page: PlacedPage) -> Task:
        """The page begins too late to prove the second ``frontier``: prove it otherwise."""
        known = self._known
        begin = page.start + page.rows - len(page.seconds)
        older = min(self._before_frontier, begin)
        if page.last == page.first:
            upper, behind = page.first, begin
        else:
            upper, behind = page.first + 1, begin + page.seconds.count(page.first)
        proved, self._follows = None, None
        if not self._roams:
            proved = yield from self._proved_by_one(frontier, older, behind)
            if proved:
                return
        if frontier == self._last and frontier < page.first:
            proved = yield from self._prove(frontier, older, begin)
        adjacent = self._follows == page.first or known.is_given_up(frontier - 1)
        if proved is not False and page.first < upper:
            older = older if page.first == frontier else max(begin - 1, 0)
            proved = yield from self._prove(page.first, older, behind)
        for between in known.settled.holes(Span(frontier, upper)):
            if proved is False or not adjacent:
                continue
            if not (yield from self._proved_by_one(between.lower, max(begin - 1, 0), begin)):
                # No row lies between the two seconds, but no page that can be read holds both.
                known.give_up(between, UNREADABLE, 0)

    def _prove(self, second: int, older: int, newer: int) -> Generator[Request, TaskReply, bool]:
        """Prove a second whose rows lie between two positions, or record it as a hole; False if
        the list moves."""
        known = self._known
        if known.settled.contains(second):
            return True
        proved = yield from self._proved_by_one(second, older, newer)
        if proved:
            return True
        verdict: Certified | Verdict = Verdict.UNREADABLE
        if proved is None:
            self._failed_from = self._floor
            verdict = yield from certify_second(known, second, older + 1, self._barriers)
        if isinstance(verdict, Certified):
            self._follows = verdict.newer
        elif verdict is Verdict.UNREADABLE:
            # A row that is now here and now there is counted once.
            since = max(
                (first for start, first in self._firsts if start <= self._failed_from),
                default=NEGATIVE_INFINITY,
            )
            counted = known.has_given_up(Span(since, second + 1))
            known.presume_unreadable(second, counted=counted)
        return verdict not in {Verdict.CHANGING, Verdict.UNPLACED}

    def _proved_by_one(
        self, second: int, older: int, newer: int
    ) -> Generator[Request, TaskReply, bool | None]:
        """Whether one page proves the second; False if it is unreadable, None if there is none."""
        known = self._known
        for length in (self._length, None):
            # Of the pages that hold these rows, one with few others.
            page = page_ending_near(
                older,
                newer,
                newer + 1,
                known.page_size,
                floor=self._floor,
                ceiling=self._at,
                total_count=length,
            )
            if page is None or isinstance((yield page), PlacedPage):
                break
            if not page.descending:
                self._failed_from, _ = page.ascending(self._length)
                return False
        return known.settled.contains(second) or None

    @property
    def _barriers(self) -> set[int]:
        """Positions that no page may hold if it is to be read: what is around the pages so far."""
        return self._known.barriers | {self._floor - 1, self._at, *self._unreadable}

    # --- unreadable rows ---------------------------------------------------------------------

    def _note_unreadable(self) -> Task:
        """The row at ``_at`` failed: pass it."""
        known = self._known
        self._unreadable.append(self._at)
        self._at += 1
        self._floor, self._fails_before, self._reach = self._at, None, known.page_size
        self._fails_for_sure = True
        failed, too_many = len(self._unreadable), len(self._unreadable) > known.max_unreadable
        if self._has_read and not too_many:
            return
        if failed == 1 or too_many:
            before = yield PageRequest(max(self._unreadable[0], 1), 1, probe=True)
            newest = yield PageRequest(1, 1, descending=True, probe=True)
            self._has_read = isinstance(before, PlacedPage) or isinstance(newest, PlacedPage)
            if self._has_read and too_many:
                raise WalkStuck(
                    UNREADABLE,
                    f"more than the {known.max_unreadable} unreadable tokens allowed, "
                    f"from position {self._unreadable[0]} on",
                )
        if not self._has_read:
            if too_many or failed >= FAILURES_THAT_MEAN_OUTAGE:
                raise _outage()
            self._reach = 1

    def _give_up_rows(self, upper: int) -> Task:
        """Record the hole of the rows before ``_at`` that failed, and fail again; it ends before
        the second ``upper``."""
        known = self._known
        failed, self._unreadable = self._unreadable, []
        rows = []
        for row in failed:
            if not isinstance((yield PageRequest(row + 1, 1, probe=True)), PlacedPage):
                rows.append(row)
        tokens = len(set(rows) - known.barriers)
        known.barriers.update(rows)
        if not rows:
            return  # the list has moved
        lower = self._last
        while lower is None and rows[0] > 0 and len(rows) <= known.max_unreadable:
            before = yield PageRequest(rows[0], 1, probe=True)
            if isinstance(before, PlacedPage):
                lower = before.last if before.seconds else NEGATIVE_INFINITY
            else:
                rows.insert(0, rows[0] - 1)
        lower = NEGATIVE_INFINITY if lower is None else lower
        span = Span(lower, max(upper, lower + 1)).clipped(known.target)
        if span.lower >= span.upper or known.coverage.contains_span(span):
            return
        if tokens and known.is_given_up(lower) and not (yield from self._is_another(rows[0])):
            tokens = 0
        after = rows[0] - self._last_begins if lower == self._last else 0
        known.give_up_rows(span, tokens, max(after, 0))

    def _is_another(self, row: int) -> Generator[Request, TaskReply, bool]:
        """Whether this row is another one than the one of the same second that is known."""
        for _ in range(ASKED_WHETHER_IT_IS_ANOTHER):
            if isinstance((yield PageRequest(row + 1, 1, probe=True)), PlacedPage):
                return False
        return True

    # --- the end of the list -----------------------------------------------------------------

    def _prove_end(self) -> Task:
        """All rows are passed: prove with the newest page that none comes after them."""
        known = self._known
        if self._frontier is None and not self._unreadable:
            return
        first = max(min(self._before_frontier, self._at), self._floor)
        size = min(self._at - first, known.page_size)
        shown: PlacedPage | None = None
        failed = False
        while size > 0 and shown is None:
            page = yield PageRequest(1, size, descending=True, probe=True)
            if isinstance(page, PlacedPage) and page.seconds:
                shown = page
            else:
                failed, size = True, size // 2
        if self._unreadable:
            yield from self._give_up_rows(POSITIVE_INFINITY if shown is None else shown.first + 1)
        lower = self._frontier if self._frontier is not None else self._last
        hole = None if lower is None else known.first_hole(lower)
        if hole is None:
            return
        if shown is None:
            if hole.upper == POSITIVE_INFINITY:
                known.give_up(hole, UNREADABLE, 1)
        elif hole.lower <= shown.first:
            if failed:
                tokens = 0 if known.is_given_up(hole.lower) else 1
                known.give_up(Span(hole.lower, shown.first + 1), UNREADABLE, tokens)
            else:
                yield from self._close_seam(hole.lower, shown)


def _outage() -> WalkStuck:
    return WalkStuck("outage", "the service fails on every page, whatever its size")
