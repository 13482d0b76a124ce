"""The walk: from pages to a certificate.

A *sweep* requests overlapping pages from the start of the target to its end, as many at a time as
the caller likes; a *locator* finds where that is in the list.  Where tokens were added or deleted
meanwhile, or many share a second, a seam between two pages may stay open; the hole is visible in
the coverage, and a *task* closes it, one request at a time.  What no request can close (an
unreadable row, a huge tie that keeps changing) is recorded as a hole.

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
from etl.walk.locate import Locator
from etl.walk.planner import Lookup, PageRequest, PageRows, Request
from etl.walk.progress import NO_PROGRESS, POSITIONS_AT_MOST, Progress
from etl.walk.remembered import Remembered
from etl.walk.sweep import Seam, Sweep
from etl.walk.unreadable import pass_unreadable

REQUESTS_AT_MOST: Final = 500
REQUESTS_PER_PAGE_AT_MOST: Final = 4
"""A walk that needs more is reading a list that changes faster than it can be read."""

TINY_PAGE: Final = 100
"""Pages of so few rows need more requests each: few of their boundaries fall right."""

ROUNDS_OF_A_SHORT_LIST: Final = 4
"""Without the length of the list, the first round of requests is not full.  That is worth saving
where there are few rounds; on a longer list the first reply is awaited, which also shows the ties,
so that the overlap of the next pages is no larger than needed."""

__all__ = ["Hole", "Request", "Walk", "WalkStuck"]


class Walk:
    """A walk over ``target``.  Not thread-safe; ``next_request`` and ``receive`` may interleave.

    Call ``next_request`` until it returns None; pass replies to ``receive`` (pages, in the order in
    which they were requested), ``receive_lookup`` or ``fail``; then call it again, until
    ``finished``.  ``coverage`` is what is known already, for a walk that resumes from a checkpoint.
    ``in_flight`` is how many requests should be under way at a time.  ``newest_first`` suits a
    target that begins near the end of the list.

    Three hints save waiting, and cost requests where they are wrong: ``positions``, pairs of a
    second and the number of rows that are not after it; ``total_count``, the length of the list;
    and ``remembered``, the rows that earlier walks could not read.
    """

    def __init__(
        self,
        target: Span = EVERYTHING,
        *,
        page_size: int = 500,
        coverage: Coverage | None = None,
        holes: Collection[Hole] = (),
        max_unreadable: int = 10,
        in_flight: int = 4,
        newest_first: bool = False,
        positions: Collection[tuple[int, int]] = (),
        total_count: int | None = None,
        remembered: Collection[Remembered] = (),
    ) -> None:
        positions = [(second, at) for second, at in positions if 0 <= at < POSITIONS_AT_MOST]
        if (total_count or 0) > in_flight * page_size * ROUNDS_OF_A_SHORT_LIST:
            total_count = None
        self._known = Knowledge(
            target,
            page_size,
            coverage or Coverage(),
            holes,
            max_unreadable,
            positions,
            total_count,
            remembered,
        )
        self._from_checkpoint = self._known.settled
        self._in_flight = in_flight
        self._in_flight_each = in_flight
        """Requests that should be in flight of each of several stretches."""
        self._asked = 0
        self._progress = Progress()
        self._outstanding: deque[Request] = deque()
        self._tasks: deque[Task] = deque()
        self._task_wants: Request | None = None
        self._task_asked: Request | None = None
        self._located: set[int] = set()
        self._locator: Locator | None = None
        self._to_sweep: list[Span] = []
        """Stretches that are being located."""
        self._sweeps: list[Sweep] = []
        holes_left = self._known.settled.holes(target)
        if newest_first and holes_left and holes_left[-1].upper == POSITIVE_INFINITY:
            lower = holes_left[-1].lower
            self._sweeps = [Sweep(0, lower=lower, descending=True, in_flight=in_flight)]
        else:
            self._begin(holes_left)

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
        """Tokens that could not be read, and seconds that kept changing."""
        return self._known.unreadable

    def next_request(self) -> Request | None:
        """The next request; None if a reply has to be received first, or if all is done.

        Raises:
            WalkStuck: the walk cannot continue.
        """
        request = self._next()
        if request is not None:
            if isinstance(request, PageRequest) and request.end > POSITIONS_AT_MOST:
                raise WalkStuck(NO_PROGRESS, "the list seems to have no end")
            self._outstanding.append(request)
            self._asked += 1
            size = self._known.page_size
            per_page = REQUESTS_PER_PAGE_AT_MOST + TINY_PAGE // size
            if self._asked > REQUESTS_AT_MOST + per_page * (self._known.longest // size):
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
        self._progress.note(request, [token_id for _, token_id in placed[::step]])
        if rows.total_count is not None and rows.total_count < POSITIONS_AT_MOST:
            known.total_count = rows.total_count
        page = PlacedPage(
            known.start_of(request, count),
            count,
            [math.floor(position) for position, _ in placed],
            [token_id for _, token_id in placed],
        )
        known.note_page(request, page, known.total_count)
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
            self._after_failure(request)

    # --- scheduling --------------------------------------------------------------------------

    def _next(self) -> Request | None:
        if self._known.undelivered and not self._tasks:
            self._tasks.append(pass_unreadable(self._known, self._known.take_undelivered()))
        if self._task_asked is None and self._tasks:
            if self._task_wants is None:
                self._advance(None)
            if self._task_wants is not None:
                self._task_asked, self._task_wants = self._task_wants, None
                return self._task_asked
        if self._known.first_hole() is None:
            return None
        if self._locator is not None and (request := self._locator.next_page()) is not None:
            return request
        for sweep in self._sweeps:
            if (page := sweep.next_page(self._known)) is not None:
                return page
        if not self._outstanding and not self._tasks:
            self._continue()
            return self._next()
        return None

    def _continue(self) -> None:
        """Nothing is in flight and a hole is left: after something that a checkpoint already
        covered, locate its position and sweep from there; otherwise close it."""
        holes = self._known.settled.holes(self.target)
        resumed = [hole for hole in holes if self._resumes(hole)]
        if holes[0] in resumed:
            self._begin(resumed)
        else:
            self._tasks.append(close_hole(self._known, holes[0].lower))

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

    def _begin(self, holes: list[Span]) -> None:
        """Sweep these stretches of the list, and locate those that do not begin where it does."""
        known = self._known
        self._sweeps = []
        self._in_flight_each = max(self._in_flight // max(len(holes), 1), 1)
        self._located.update(hole.lower for hole in holes)
        sought: dict[int, int | None] = {}
        for lower, upper in holes:
            if lower == NEGATIVE_INFINITY:
                end = self._hinted_end(upper)
                self._sweeps.append(Sweep(0, upper=upper, end=end, in_flight=self._in_flight_each))
            else:
                sought[lower] = known.position_after(lower) if known.has_positions else None
            if upper != POSITIVE_INFINITY and not known.has_positions:
                sought[upper] = None
        if not sought:
            return
        first = []
        if holes[-1].upper == POSITIVE_INFINITY:
            # Often reaches back far enough.
            first = [PageRequest(1, known.page_size, descending=True)]
        elif not known.has_positions:
            first = [PageRequest(1, 1, descending=True)]
        if not known.has_positions and not self._sweeps:
            first.append(PageRequest(1, 1))
        self._to_sweep = holes
        self._locator = Locator(known, sought, first)

    def _hinted_end(self, upper: int) -> int | None:
        """The position that the last page before ``upper`` should reach; None: the list's end."""
        if upper == POSITIVE_INFINITY:
            return None
        known = self._known
        return known.position_after(upper - 1) + known.overlap if known.has_positions else 0

    def _begin_located(self, locator: Locator) -> None:
        """Sweep from the positions that have been found."""
        known = self._known
        self._locator = None
        for lower, upper in self._to_sweep:
            end = self._hinted_end(upper)
            if upper != POSITIVE_INFINITY and not known.has_positions:
                end = locator.end(upper) + known.overlap
                if lower == NEGATIVE_INFINITY:
                    self._sweeps[0].expect_end(end)
            # The rows of the search may have proved that no token is as old as its first seconds.
            left = known.first_hole(lower)
            if lower != NEGATIVE_INFINITY and left is not None and left.lower < upper:
                begin = locator.begin(lower)
                known.note_position(lower - 1, begin)
                self._sweeps.append(
                    Sweep(
                        begin,
                        upper=upper,
                        end=end,
                        before=Seam(left.lower, begin),
                        other_end_read=upper == POSITIVE_INFINITY,
                        in_flight=self._in_flight_each,
                    )
                )

    def _after_sweep_page(self, request: PageRequest, page: PlacedPage) -> None:
        known = self._known
        if self._locator is not None and self._locator.holds(request):
            self._note_row(self._locator, request, page)
            return
        sweep = next((sweep for sweep in self._sweeps if sweep.holds(request)), None)
        if sweep is None:
            return
        known.note_ties(page.seconds)
        if page.seconds and request.descending:
            known.note_position(page.last, page.start + page.rows)
        seam = sweep.note_page(request, page, known)
        if seam is not None:
            closed = known.settled.contains(seam.second)
            known.note_seam(closed=closed)
            if not closed:
                task = close_hole(known, seam.second, seam.position, ties=seam.ties)
                self._tasks.append(task)
        self._sweeps += sweep.divide(known)

    def _after_failure(self, request: PageRequest) -> None:
        if self._locator is not None and self._locator.holds(request):
            self._note_row(self._locator, request, None)
            return  # the sweep will find the unreadable row
        sweep = next((sweep for sweep in self._sweeps if sweep.holds(request)), None)
        if sweep is not None:
            sweep.note_failure(request)
        self._known.undelivered.append(request)

    def _note_row(self, locator: Locator, request: PageRequest, page: PlacedPage | None) -> None:
        locator.note(request, page)
        if locator.done:
            self._begin_located(locator)
