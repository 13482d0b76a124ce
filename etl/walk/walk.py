"""The walk: from pages to a certificate.

A *sweep* requests overlapping pages from the start of the target to its end, as many at a time as
the caller likes.  Where tokens were added or deleted meanwhile, or many share a second, a seam
between two pages may stay open; the hole is visible in the coverage, and a *task* closes it, one
request at a time.  What no request can close (an unreadable row, a huge tie that keeps changing)
is recorded as a hole.

Only three facts count as evidence, whatever happens to the list meanwhile: a page is
complete strictly between its first and last row; page 1 in ascending order has no older row before
it; page 1 in descending order has no newer row after it.  Page sizes, positions and totalCount only
guide the search, so a service that clamps the page size, or changes its mind about it, costs
requests and never a token.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from typing import Final

from etl.coverage import (
    EVERYTHING,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    Coverage,
    Span,
    page_span,
)
from etl.walk.close import close_hole
from etl.walk.knowledge import Hole, Knowledge, PlacedPage, Task, TaskReply, WalkStuck
from etl.walk.lane import Lane, NewestLane
from etl.walk.locate import find_begin, spread_lanes
from etl.walk.planner import (
    Lookup,
    PageRequest,
    PageRows,
    Request,
)
from etl.walk.unreadable import isolate

REQUESTS_AT_MOST: Final = 500
REQUESTS_PER_PAGE_AT_MOST: Final = 4
"""A walk that needs more is reading a list that changes faster than it can be read."""

__all__ = ["Hole", "Request", "Walk", "WalkStuck"]


class Walk:
    """A walk over ``target``.  Not thread-safe; ``next_request`` and ``receive`` may interleave.

    Call ``next_request`` until it returns None; pass replies to ``receive`` (pages, in the order in
    which they were requested), ``receive_lookup`` or ``fail``; then call it again, until
    ``finished``.  ``coverage`` is what is known already, for a walk that resumes from a checkpoint;
    ``positions`` are hints at where its seconds lay in the list.  ``newest_first`` suits a target
    that begins near the end of the list.
    """

    def __init__(
        self,
        target: Span = EVERYTHING,
        *,
        page_size: int = 500,
        coverage: Coverage | None = None,
        holes: Collection[Hole] = (),
        max_unreadable: int = 10,
        lanes: int = 4,
        newest_first: bool = False,
        positions: Collection[tuple[int, int]] = (),
    ) -> None:
        self._known = Knowledge(
            target, page_size, coverage or Coverage(), holes, max_unreadable, positions
        )
        self._from_checkpoint = self._known.settled
        self._asked = 0
        self._outstanding: deque[Request] = deque()
        self._tasks: deque[Task] = deque()
        self._task_wants: Request | None = None
        self._task_asked: Request | None = None
        self._located: set[int] = set()
        self._first_page: PageRequest | None = None
        self._first_page_known = False
        self._lanes_at_most = lanes
        self._lanes: list[Lane] = []
        self._first_page_was_short = False
        self._newest: NewestLane | None = None
        holes_left = self._known.settled.holes(target)
        if newest_first and holes_left and holes_left[-1].upper == POSITIVE_INFINITY:
            self._newest = NewestLane()
        hole = self._known.first_hole()
        if hole is None or hole.lower != NEGATIVE_INFINITY:
            self._first_page_known = True

    @property
    def target(self) -> Span:
        return self._known.target

    @property
    def coverage(self) -> Coverage:
        """What is proved: the certificate, once it contains the target."""
        return self._known.coverage

    @property
    def holes(self) -> list[Hole]:
        """What could not be certified, in ascending order."""
        return self._known.holes

    @property
    def total_count(self) -> int | None:
        """The service's latest hint at the length of the list."""
        return self._known.total_count

    @property
    def page_size(self) -> int:
        """The largest page size that the service seems to serve."""
        return self._known.page_size

    @property
    def finished(self) -> bool:
        """Whether nothing is left to request, and nothing is in flight."""
        return not self._outstanding and not self._tasks and self._known.first_hole() is None

    @property
    def unreadable(self) -> int:
        """Tokens that could not be read."""
        return self._known.unreadable

    def next_request(self) -> Request | None:
        """The next request; None if a reply has to be received first, or if all is done.

        Raises:
            WalkStuck: the walk cannot continue.
        """
        request = self._next()
        if request is not None:
            self._outstanding.append(request)
            self._asked += 1
            pages = self._known.longest // self._known.page_size
            if self._asked > REQUESTS_AT_MOST + REQUESTS_PER_PAGE_AT_MOST * pages:
                raise WalkStuck("unstable", f"not covered after {self._asked} requests")
        return request

    def receive(self, request: PageRequest, rows: PageRows) -> Span | None:
        """Receive a page; returns the span that it proves, for the ledger.

        Where the page completes the reading of a tie group (``docs/why.md``), the span holds that
        second too, although only part of its tokens are on this very page.

        Raises:
            ValueError: the page is not ordered.  The walk is unchanged: the request is still
                outstanding, and may be retried or failed.
            WalkStuck: the walk cannot continue.
        """
        known = self._known
        step = -1 if request.descending else 1
        placed = [
            (position, token_id)
            for position, token_id in zip(
                rows.positions[::step], rows.token_ids[::step], strict=True
            )
            if position is not None
        ]
        count = len(rows.positions)
        is_empty_list = not count and request.index == 1 and (rows.total_count or 0) <= 0
        span = page_span(
            [position for position, _ in placed],
            from_start=is_empty_list or (request.index == 1 and not request.descending),
            to_end=is_empty_list or (request.index == 1 and request.descending),
        )
        self._outstanding.remove(request)
        if rows.total_count is not None:
            known.total_count = rows.total_count
        page = PlacedPage(
            known.start_of(request, count),
            count,
            [math.floor(position) for position, _ in placed],
            [token_id for _, token_id in placed],
        )
        known.note_page(request, page, rows.total_count)
        if span is not None:
            known.cover(span)
        if request is self._task_asked:
            self._answer_task(page)
        else:
            self._after_sweep_page(request, page)
        if known.extension is not None:
            (span,) = Coverage([known.extension, *([span] if span else [])])
            known.extension = None
        return span

    def receive_lookup(self, request: Lookup, listed: Collection[str]) -> None:
        """Receive the answer to a lookup: which of its tokens are listed."""
        self._outstanding.remove(request)
        self._answer_task(frozenset(listed))

    def fail(self, request: Request) -> None:
        """The service could not deliver this request, retries included."""
        self._outstanding.remove(request)
        if request is self._task_asked:
            self._answer_task(None)
        elif isinstance(request, PageRequest):
            for lane in self._lanes:
                if lane.asked is request:
                    lane.note_failure()
            if self._newest is not None and self._newest.asked is request:
                self._newest = None  # from the other end the row can be stepped around
            if not self._first_page_known:
                self._first_page_known = True
            self._tasks.append(isolate(self._known, request))

    # --- scheduling --------------------------------------------------------------------------

    def _next(self) -> Request | None:
        if self._task_asked is None and self._tasks:
            if self._task_wants is None:
                self._advance(None)
            if self._task_wants is not None:
                self._task_asked, self._task_wants = self._task_wants, None
                return self._task_asked
        if not self._first_page_known:
            if self._outstanding:
                return None
            self._first_page = PageRequest(1, self._known.page_size)
            return self._first_page
        if self._newest is not None and not self._newest.done:
            return self._newest.next_page(self._known) if self._newest.asked is None else None
        return self._next_of_lanes()

    def _next_of_lanes(self) -> Request | None:
        lane = next((lane for lane in self._lanes if self._may_go_on(lane)), None)
        if lane is not None:
            return lane.next_page(self._known)
        if not self._outstanding and not self._tasks and (hole := self._known.first_hole()):
            self._tasks.append(self._task_for(hole))
            return self._next()
        return None

    def _task_for(self, hole: Span) -> Task:
        """What to do about a hole when nothing is in flight: after something that a checkpoint
        already covered, locate its position and sweep from there; otherwise close it."""
        holes = [hole for hole in self._known.settled.holes(self.target) if self._resumes(hole)]
        if hole in holes and not (self._newest is not None and self._newest.exhausted):
            self._located.update(each.lower for each in holes)
            return self._locate(holes)
        return close_hole(self._known, hole.lower)

    def _resumes(self, hole: Span) -> bool:
        """Whether the hole begins where the target does, or after what a checkpoint covered."""
        lower = hole.lower
        begins = lower == self.target.lower or self._from_checkpoint.contains(lower - 1)
        return begins and lower != NEGATIVE_INFINITY and lower not in self._located

    def _answer_task(self, reply: TaskReply) -> None:
        self._task_asked = None
        self._advance(reply)

    def _advance(self, reply: TaskReply) -> None:
        """Run the current task until it wants something; when it ends, start the next one."""
        while self._tasks:
            try:
                self._task_wants = self._tasks[0].send(reply)
            except StopIteration:
                self._tasks.popleft()
                reply = None
            else:
                return
        self._task_wants = None

    # --- the sweep ---------------------------------------------------------------------------

    def _locate(self, holes: list[Span]) -> Task:
        """Locate where the holes begin; sweep from each while the next one is being located."""
        known = self._known
        self._lanes = []
        if known.total_count is None or holes[-1].upper == POSITIVE_INFINITY:
            # Shows the length of the list, and often reaches back far enough.
            yield PageRequest(1, known.page_size, descending=True)
        at_most = max(self._lanes_at_most // len(holes), 1)
        for hole in holes:
            if known.settled.contains(hole.lower):
                continue
            hint = known.position_after(hole.lower) if known.has_positions else None
            position = yield from find_begin(known, hole.lower, hint=hint)
            known.note_position(hole.lower - 1, position)
            self._lanes.append(Lane(position, (hole.lower, position)))
            yield from spread_lanes(known, self._lanes, position, hole, at_most)

    def _may_go_on(self, lane: Lane) -> bool:
        """Whether a lane has a page to request.  One near the end of the list has none: the rest
        fits in the newest page, which proves the end as well."""
        known = self._known
        if lane.asked is None and not lane.done:
            left = (known.total_count or 0) - lane.end
            lane.done = left <= known.page_size - known.overlap
        return lane.asked is None and not lane.done

    def _after_sweep_page(self, request: PageRequest, page: PlacedPage) -> None:
        if not self._first_page_known:
            self._after_first_page(request, page)
            return
        known = self._known
        if self._newest is not None and self._newest.asked is request:
            self._newest.note_page(request, page, known)
            if page.seconds:
                known.note_position(page.last, page.start + page.rows)
            return
        lane = next((lane for lane in self._lanes if lane.asked is request), None)
        if lane is None:
            return
        previous = lane.note_page(page)
        if page.seconds and (page.last >= self.target.upper or known.settled.contains(page.last)):
            lane.done = True  # from here on, another lane or an earlier run has read
        if previous is not None:
            closed = known.settled.contains(previous[0])
            known.note_seam(closed=closed)
            if not closed:
                self._tasks.append(close_hole(known, previous[0], previous[1]))

    def _after_first_page(self, request: PageRequest, page: PlacedPage) -> None:
        """Learn the page size and the length of the list, and divide it into lanes."""
        known = self._known
        is_short = page.rows < request.size and page.rows < (known.total_count or 0)
        if is_short and page.seconds and not self._first_page_was_short:
            self._first_page_was_short = True
            return  # clamped, or an accident?  The same page again will show
        self._first_page_known = True
        if not page.rows:
            return
        # The first lane continues from this page.
        first = Lane(page.rows)
        first.asked = request
        first.note_page(page)
        self._lanes = [first]
        hole = known.first_hole()
        if page.seconds and hole is not None and page.last < self.target.upper:
            whole = Span(hole.lower, self.target.upper)
            self._tasks.append(
                spread_lanes(known, self._lanes, page.rows, whole, self._lanes_at_most)
            )
