"""The walk: from pages to a certificate.

A *sweep* asks for overlapping pages from the start of the target to its end, as many at a time as
the caller likes.  Where tokens were added or deleted meanwhile, or many share a second, a seam
between two pages may stay open; the hole is visible in the coverage, and a *task* closes it, one
request at a time.  What no request can close (an unreadable row, a huge tie that will not keep
still) is recorded as a hole.

Only three things are ever taken as evidence, whatever happens to the list meanwhile: a page is
complete strictly between its first and last row; page 1 in ascending order has no older row before
it; page 1 in descending order has no newer row after it.  Page sizes, positions and totalCount only
guide the search, so a service that clamps the page size, or changes its mind about it, costs
requests and never a token.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Collection, Generator
from typing import Final, NamedTuple

from etl.coverage import (
    EVERYTHING,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    Coverage,
    Span,
    page_span,
)
from etl.walk.planner import (
    Lookup,
    PageRequest,
    PageRows,
    aligned_blocks,
    page_beginning_soonest,
    page_from_the_end,
    page_reaching_furthest,
)

Request = PageRequest | Lookup

SMALLEST_OVERLAP: Final = 8
"""Rows that two pages of the sweep share at least: enough for ties of a few tokens and for a few
deletions between two requests.  The overlap grows while seams come out open."""

SEAMS_BEFORE_SHRINKING: Final = 40
STEPS_WITHOUT_PROGRESS: Final = 60
"""Requests that a task may spend on one hole without closing any part of it."""

REQUESTS_AT_MOST: Final = 500
REQUESTS_PER_PAGE_AT_MOST: Final = 4
"""A walk that needs more is chasing a list that changes faster than it can be read."""

TIE_ROUNDS: Final = 10
FAILURES_THAT_MEAN_OUTAGE: Final = 6


class WalkStuck(Exception):
    """The walk cannot go on; ``reason`` is one of ``unstable``, ``outage``, ``unreadable``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Hole(NamedTuple):
    """Seconds that could not be certified.  ``tokens`` of them could not be read at all."""

    span: Span
    reason: str
    tokens: int


class _Page(NamedTuple):
    """A page as the tasks see it, in ascending order."""

    seconds: list[int]
    token_ids: list[str | None]
    rows: int

    @property
    def first(self) -> int:
        return self.seconds[0]

    @property
    def last(self) -> int:
        return self.seconds[-1]


class _Search:
    """Where in the list a hole may begin.  The list moves, so what a page told may be out of date:
    a bracket that contradicts itself is thrown away.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        """Believed position just behind the last row before the hole."""
        self.beyond = end
        self.steps = 0
        self.newest_next = False
        self._wanted: int | None = None
        self._older: int | None = None
        self._newer: int | None = None
        self._stride = 0

    def wanted_start(self, overlap: int, page_size: int) -> int:
        """Where the next page should begin."""
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            return max(wanted, 0)
        if self._older is None and self._newer is None:
            return max(self.end - overlap, 0)
        self.beyond = 0
        if self._older is not None and self._newer is not None:
            if self._newer - self._older > page_size:
                return (self._older + self._newer) // 2
            return max(min(self._older - overlap, self._newer - 1), 0)
        self._stride = max(self._stride * 2, overlap)
        if self._newer is not None:
            return max(self._newer - self._stride, 0)
        return max((self._older or 0) - 2 * overlap + self._stride, 0)

    def too_new(self, request: PageRequest) -> None:
        """The page began after the hole did."""
        if self._newer is not None and request.start >= self._newer:
            self._older = None
        self._newer = request.start

    def too_old(self, request: PageRequest) -> None:
        """The page ended before the hole began."""
        if self._older is not None and request.end <= self._older:
            self._newer = None
        self._older = request.end

    def begin_at(self, start: int, *, beyond: int) -> None:
        """The next page must begin here or before, and end after ``beyond``."""
        self._wanted = start
        self.beyond = beyond


_Task = Generator[Request, "_Page | frozenset[str] | None", None]


class Walk:
    """A walk over ``target``.  Not thread-safe; ``next_request`` and ``receive`` may interleave.

    Ask ``next_request`` until it returns None; hand in replies with ``receive`` (pages, in the
    order in which they were asked for), ``receive_lookup`` or ``fail``; then ask again, until
    ``finished``.  ``coverage`` is what is known already, for a walk that goes on from a checkpoint.
    """

    def __init__(
        self,
        target: Span = EVERYTHING,
        *,
        page_size: int = 500,
        coverage: Coverage | None = None,
        holes: Collection[Hole] = (),
        max_unreadable: int = 10,
    ) -> None:
        self.target = target
        self.coverage = coverage or Coverage()
        self.holes: list[Hole] = list(holes)
        self.total_count: int | None = None
        self.page_size = page_size
        self._settled = self.coverage.union(hole.span for hole in holes)
        self._max_unreadable = max_unreadable
        self._wanted_overlap = SMALLEST_OVERLAP
        self._closed_seams = 0
        self._short_rows = 0
        self._asked = 0
        self._expected = 0
        self._barriers: set[int] = set()
        self._anchors: list[tuple[int, int]] = []  # (last second of a page, its end position)
        self._outstanding: deque[Request] = deque()
        self._tasks: deque[_Task] = deque()
        self._task_wants: Request | None = None
        self._task_asked: Request | None = None
        self._extension: Span | None = None
        self._sweep_from: int | None = 0
        self._sweep_last: tuple[int, int] | None = None
        self._first_page_known = False
        hole = self._first_hole()
        if hole is None:
            self._sweep_from = None
        elif hole.lower != NEGATIVE_INFINITY:
            self._sweep_from = None
            self._tasks.append(self._locate(hole.lower))

    @property
    def finished(self) -> bool:
        """Nothing is left to ask, and nothing is under way."""
        return not self._outstanding and not self._tasks and self._first_hole() is None

    @property
    def unreadable(self) -> int:
        """Tokens that could not be read."""
        return sum(hole.tokens for hole in self.holes)

    @property
    def _overlap(self) -> int:
        return min(self._wanted_overlap, max(self.page_size // 3, 1))

    def next_request(self) -> Request | None:
        """What to ask for now; None if a reply has to come in first, or if all is done."""
        request = self._next()
        if request is not None:
            self._outstanding.append(request)
            self._asked += 1
            pages = self._expected // self.page_size
            if self._asked > REQUESTS_AT_MOST + REQUESTS_PER_PAGE_AT_MOST * pages:
                raise WalkStuck("unstable", f"not covered after {self._asked} requests")
        return request

    def _next(self) -> Request | None:
        if self._task_asked is None and self._tasks:
            if self._task_wants is None:
                self._advance(None)
            if self._task_wants is not None:
                self._task_asked, self._task_wants = self._task_wants, None
                return self._task_asked
        if self._tasks and not self._first_page_known:
            return None
        if self._sweep_from is not None:
            return self._next_sweep_page()
        if not self._outstanding and not self._tasks and (hole := self._first_hole()) is not None:
            self._tasks.append(self._close(hole.lower))
            return self._next()
        return None

    def _next_sweep_page(self) -> PageRequest | None:
        start = self._sweep_from or 0
        if not self._first_page_known:
            if start or self._outstanding:
                return None
            self._sweep_from = self.page_size
            return PageRequest(1, self.page_size)
        remaining = (self.total_count or 0) - start
        if remaining <= self.page_size - self._overlap:
            # The rest fits in the newest page, which proves the end of the list as well.
            self._sweep_from = None
            return self._next() if not self._outstanding else None
        page = page_reaching_furthest(
            start - self._overlap, self.page_size, barriers=self._barriers, beyond=start
        )
        if page is None:
            # An unreadable row is in the way; the seam before this page will be seen to be open.
            ahead = min((b for b in self._barriers if b >= start - self._overlap), default=start)
            page = page_beginning_soonest(ahead + 1, self.page_size, self._barriers)
        self._sweep_from = page.end
        return page

    def receive(self, request: PageRequest, rows: PageRows) -> Span | None:
        """Take in a page; returns the span that it proves, for the ledger.

        Raises:
            ValueError: the page is not ordered.  It is as if it had never come: the request is
                still outstanding, and may be tried again or failed.
            WalkStuck: no way forward.
        """
        positions = list(rows.positions)
        token_ids = list(rows.token_ids)
        if request.descending:
            positions.reverse()
            token_ids.reverse()
        empty_list = not positions and request.index == 1 and not rows.total_count
        span = page_span(
            positions,
            from_start=empty_list or (request.index == 1 and not request.descending),
            to_end=empty_list or (request.index == 1 and request.descending),
        )
        if not positions and not empty_list:
            span = None
        self._outstanding.remove(request)
        if rows.total_count is not None:
            self.total_count = rows.total_count
            self._expected = self._expected or rows.total_count
        placed = [
            (math.floor(position), token_id)
            for position, token_id in zip(positions, token_ids, strict=True)
            if position is not None
        ]
        page = _Page([second for second, _ in placed], [key for _, key in placed], len(positions))
        self._note_clamp(request, page)
        if span is not None:
            self._cover(span)
        if page.seconds and not request.descending:
            insort(self._anchors, (page.last, request.start + page.rows))
        if request is self._task_asked:
            self._task_asked = None
            self._advance(page)
        else:
            self._after_sweep_page(request, page)
        if self._extension is not None:
            (span,) = Coverage([self._extension, *([span] if span else [])])
            self._extension = None
        return span

    def receive_lookup(self, request: Lookup, listed: Collection[str]) -> None:
        """Take in which of the tokens asked for are listed."""
        self._outstanding.remove(request)
        self._task_asked = None
        self._advance(frozenset(listed))

    def fail(self, request: PageRequest) -> None:
        """The service could not deliver this page, however often it was asked."""
        self._outstanding.remove(request)
        if request is self._task_asked:
            self._task_asked = None
            self._advance(None)
        else:
            self._first_page_known = True
            self._tasks.append(self._isolate(request))

    # --- bookkeeping -------------------------------------------------------------------------

    def _first_hole(self) -> Span | None:
        return self._settled.first_hole(self.target)

    def _cover(self, span: Span) -> None:
        self.coverage = self.coverage.add(span)
        self._settled = self._settled.add(span)

    def _give_up(self, span: Span, reason: str, tokens: int) -> None:
        """Record a hole; one that touches a known one of the same kind is the same hole seen again."""
        for index, known in enumerate(self.holes):
            touching = known.span.lower <= span.upper and span.lower <= known.span.upper
            if known.reason == reason and touching:
                merged = Span(min(known.span.lower, span.lower), max(known.span.upper, span.upper))
                self.holes[index] = Hole(merged, reason, max(known.tokens, tokens))
                break
        else:
            self.holes.append(Hole(span, reason, tokens))
        self._settled = self._settled.add(span)
        if self.unreadable > self._max_unreadable:
            raise WalkStuck(
                "unreadable",
                f"{self.unreadable} tokens cannot be read, more than the {self._max_unreadable} allowed",
            )

    def _note_clamp(self, request: PageRequest, page: _Page) -> None:
        """Learn the largest real page size: the length that short pages with more rows behind them
        have in common.  One such page alone may be an accident.
        """
        expected = min(request.size, self.page_size)
        more = self.total_count is not None and self.total_count > max(
            request.start + page.rows, request.end if request.index > 1 else 0
        )
        if 0 < page.rows < expected and more:
            if page.rows == self._short_rows:
                self.page_size = page.rows
            self._short_rows = page.rows

    def _after_sweep_page(self, request: PageRequest, page: _Page) -> None:
        if not self._first_page_known:
            self._first_page_known = True
            self._sweep_from = page.rows or None
        if not page.rows:
            self._sweep_from = None  # totalCount promised more than there is
        if not page.seconds:
            return
        previous, self._sweep_last = self._sweep_last, (page.last, request.start + page.rows)
        if page.first >= self.target.upper:
            self._sweep_from = None
        if previous is None:
            return
        if self._settled.contains(previous[0]):
            self._closed_seams += 1
            if self._closed_seams >= SEAMS_BEFORE_SHRINKING:
                self._closed_seams = 0
                self._wanted_overlap = max(SMALLEST_OVERLAP, self._wanted_overlap * 3 // 4)
        else:
            self._closed_seams = 0
            self._wanted_overlap = min(self._wanted_overlap * 2, max(self.page_size // 3, 1))
            self._tasks.append(self._close(previous[0], previous[1]))

    # --- tasks -------------------------------------------------------------------------------

    def _advance(self, reply: _Page | frozenset[str] | None) -> None:
        """Let the running task go on until it wants something; then start the next one."""
        while self._tasks:
            try:
                self._task_wants = self._tasks[0].send(reply)
            except StopIteration:
                self._tasks.popleft()
                reply = None
            else:
                return
        self._task_wants = None

    def _position_after(self, second: int) -> int:
        """Where the list continued behind ``second``, as far as an earlier page tells."""
        index = bisect_right(self._anchors, (second, 2**62)) - 1
        return self._anchors[index][1] if index >= 0 else 0

    def _locate(self, second: int) -> _Task:
        """Find the position of ``second`` by halving, with one-row pages; then sweep from there."""
        page = yield PageRequest(1, self.page_size)
        self._first_page_known = True
        low, high = 0, self.total_count or 0
        while low < high:
            middle = (low + high) // 2
            page = yield PageRequest(middle + 1, 1)
            if page is None or not isinstance(page, _Page):
                break  # an unreadable row: start from what is known and let the sweep find it
            if page.seconds and page.first < second:
                low = middle + 1
            elif page.rows and not page.seconds:
                low = middle + 1
            else:
                high = middle
        insort(self._anchors, (second - 1, low))
        self._sweep_from = low
        self._sweep_last = (second, low)

    def _close(self, lower: int, position: int | None = None) -> _Task:
        """Close the hole at ``lower``, which should begin just before ``position``; without a
        position, close it and all that come after it.
        """
        search = _Search(self._position_after(lower) if position is None else position)
        only_this = position is not None
        while (hole := self._settled.first_hole(Span(lower, self.target.upper))) is not None:
            if hole.lower > lower:
                if only_this:
                    return
                lower, search = hole.lower, _Search(self._position_after(hole.lower))
            search.steps += 1
            if search.steps > STEPS_WITHOUT_PROGRESS:
                raise WalkStuck(
                    "unstable",
                    f"the list moves faster than it can be read around createdAt {lower}",
                )
            request = self._page_for(hole, search)
            if request is None:
                yield from self._step_around(hole, search.end)
                continue
            page = yield request
            if not isinstance(page, _Page):
                yield from (
                    self._shrink_newest(hole, request)
                    if request.descending
                    else self._isolate(request)
                )
            elif request.descending or hole.lower == NEGATIVE_INFINITY:
                search.newest_next = False
            elif not self._settled.contains(lower):
                yield from self._look_elsewhere(hole, search, request, page)

    def _look_elsewhere(
        self, hole: Span, search: _Search, request: PageRequest, page: _Page
    ) -> _Task:
        """The page did not close any of the hole: learn from it where to look next."""
        if page.rows < min(request.size, self.page_size) and hole.upper == POSITIVE_INFINITY:
            search.newest_next = True
        if not page.rows or (page.seconds and page.first >= hole.lower and request.index > 1):
            search.too_new(request)
        elif not page.seconds or page.last < hole.lower:
            search.too_old(request)
        else:
            # It ends in the very second where the hole begins: perhaps a tie too large for a page.
            begin = request.start + page.seconds.index(hole.lower)
            further = page_reaching_furthest(
                begin - 1, self.page_size, barriers=self._barriers, beyond=request.end
            )
            if further is not None:
                search.begin_at(begin - 1, beyond=request.end)
                return
            from_end = page_from_the_end(
                begin - 1, request.end, self.page_size, self.total_count or 0
            )
            if from_end is not None:
                yield from_end
            if not self._settled.contains(hole.lower):
                yield from self._cross_tie(hole.lower, begin)

    def _page_for(self, hole: Span, search: _Search) -> PageRequest | None:
        """The page to try next for a hole."""
        if hole.lower == NEGATIVE_INFINITY:
            return PageRequest(1, self.page_size)
        remaining = (self.total_count or 0) - search.end
        if hole.upper == POSITIVE_INFINITY and (
            search.newest_next or remaining <= self.page_size - self._overlap
        ):
            return PageRequest(1, self.page_size, descending=True)
        wanted = search.wanted_start(self._overlap, self.page_size)
        beyond = min(search.beyond, wanted + self.page_size - 1)
        for start in (wanted, max(wanted, beyond - 1)):
            page = page_reaching_furthest(
                start, self.page_size, barriers=self._barriers, beyond=beyond
            )
            if page is not None:
                return page
        if any(barrier >= search.end - self._overlap for barrier in self._barriers):
            return None
        # Every multiple of every size cuts the list here; only small page sizes get this far.
        return page_from_the_end(
            wanted, beyond, self.page_size, self.total_count or 0
        ) or page_reaching_furthest(wanted, self.page_size)

    def _cross_tie(self, second: int, begin: int) -> _Task:
        """Read a second that holds more tokens than a page can cross.

        It is accepted when two readings in a row, with a look-up of every id between them, agree
        on where the group begins and ends, find no further id, and have as many ids as positions.
        """
        known: set[str] = set()
        verified: tuple[int, int] | None = None
        for _ in range(TIE_ROUNDS):
            reading = yield from self._read_tie(second, begin)
            if reading is None:
                continue
            begin, end, seen = reading
            if verified == (begin, end) and seen <= known:
                self._cover(Span(second, second + 1))
                self._extension = Span(second, second + 1)
                return
            verified = None
            known |= seen
            if len(known) > end - begin:
                known = set(seen)
            if len(known) == end - begin and known:
                listed = yield Lookup(tuple(sorted(known)))
                if isinstance(listed, frozenset) and known <= listed:
                    verified = (begin, end)
                else:
                    known = set()
        self._give_up(Span(second, second + 1), "tie_group", 1)

    def _read_tie(
        self, second: int, begin: int
    ) -> Generator[Request, _Page | frozenset[str] | None, tuple[int, int, set[str]] | None]:
        """One reading: the positions that the second takes, and the ids found on them."""
        seen: set[str] = set()
        found: int | None = None
        wanted = max(begin - 1, 0)
        furthest = 0
        overlap = max(self._overlap, self.page_size // 8)
        for _ in range(STEPS_WITHOUT_PROGRESS * 10):
            request = page_reaching_furthest(
                wanted, self.page_size, barriers=self._barriers, beyond=furthest
            ) or page_reaching_furthest(
                furthest, self.page_size, barriers=self._barriers, beyond=furthest
            )
            page = (yield request) if request is not None else None
            if request is None or not isinstance(page, _Page) or not page.seconds:
                return None
            at = [index for index, value in enumerate(page.seconds) if value == second]
            if found is None:
                if page.first >= second and request.index > 1:
                    if wanted == 0:
                        return None
                    wanted = max(0, wanted - overlap)
                    continue
                if not at:
                    if page.last > second:
                        return None
                    wanted = request.end - 1
                    continue
                found = request.start + at[0]
            if not at:
                return None  # the list moved between two pages of this reading
            ids = [page.token_ids[index] for index in at]
            seen.update(token_id for token_id in ids if token_id is not None)
            if page.last > second:
                after = next(i for i, value in enumerate(page.seconds) if value > second)
                return found, request.start + after, seen
            if page.rows < min(request.size, self.page_size):
                return found, request.start + page.rows, seen
            furthest = request.end
            wanted = request.end - overlap
        return None

    # --- unreadable rows ---------------------------------------------------------------------

    def _isolate(self, request: PageRequest) -> _Task:
        """Find the rows that make a page fail, by halving it down to single positions."""
        stack = aligned_blocks(request.start, request.end, self.page_size)[::-1]
        readable = False
        found: list[int] = []
        while stack:
            block = stack.pop()
            page = yield block
            if isinstance(page, _Page):
                readable = True
            elif block.size == 1:
                found.append(block.start)
                if not readable and len(found) >= FAILURES_THAT_MEAN_OUTAGE:
                    raise WalkStuck("outage", "the service fails on every page, whatever its size")
                if len(found) > self._max_unreadable:
                    raise WalkStuck(
                        "unreadable",
                        f"more than the {self._max_unreadable} unreadable tokens allowed, "
                        f"from position {found[0]} on",
                    )
            else:
                half = block.size // 2
                stack.append(PageRequest(block.index * 2, half, probe=True))
                stack.append(PageRequest(block.index * 2 - 1, half, probe=True))
        if found and not readable:
            neighbour = yield PageRequest(max(found[0], 1), 1, probe=True)
            if not isinstance(neighbour, _Page):
                raise WalkStuck("outage", "the service fails on every page, whatever its size")
        self._barriers.update(found)

    def _step_around(self, hole: Span, end: int) -> _Task:
        """No page without an unreadable row leads on: continue right behind it."""
        ahead = sorted(barrier for barrier in self._barriers if barrier >= end - self._overlap)
        if not ahead:
            raise WalkStuck("unstable", f"no page leads on from createdAt {hole.lower}")
        behind = ahead[0]
        while True:
            run = 1
            while behind + run in self._barriers:
                run += 1
            request = page_beginning_soonest(behind + run, self.page_size, self._barriers)
            between = [b for b in self._barriers if behind <= b < request.start]
            page = yield request
            if isinstance(page, _Page):
                break
            yield from self._isolate(request)
        if page.seconds and page.last > hole.lower:
            upper = max(page.first, hole.lower) + 1
            self._give_up(Span(hole.lower, upper), "unreadable", len(between))
            return
        newest = yield PageRequest(1, 1, descending=True)
        upper = newest.first + 1 if isinstance(newest, _Page) and newest.seconds else POSITIVE_INFINITY
        self._give_up(Span(hole.lower, max(upper, hole.lower + 1)), "unreadable", len(between))

    def _shrink_newest(self, hole: Span, request: PageRequest) -> _Task:
        """The newest page holds an unreadable row: prove the end with fewer rows."""
        size = request.size // 2
        while size:
            page = yield PageRequest(1, size, descending=True, probe=True)
            if isinstance(page, _Page):
                return
            size //= 2
        # The newest row itself cannot be read: nothing can prove what comes after the others.
        self._give_up(Span(hole.lower, POSITIVE_INFINITY), "unreadable", 1)
