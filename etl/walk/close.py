"""Closing a hole that the sweep has left, one request at a time."""

from __future__ import annotations

from typing import Final

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY, Span
from etl.walk.knowledge import Knowledge, PlacedPage, Task, WalkStuck
from etl.walk.planner import (
    PageRequest,
    is_clear,
    page_beginning_soonest,
    page_holding,
    page_reaching_furthest,
)
from etl.walk.search import Search
from etl.walk.tie import cross_tie
from etl.walk.unreadable import isolate, prove_end_with_less, step_around

STEPS_WITHOUT_PROGRESS: Final = 60
"""Maximum of requests for one hole that do not close any part of it."""

STEPS_REACHING_FAR: Final = 3
"""Attempts with the page that reaches furthest; then the page with most room on both sides."""


def close_hole(known: Knowledge, lower: int, position: int | None = None, *, ties: int = 0) -> Task:
    """Close the hole at ``lower``, which should begin just before ``position``; without a
    position, close it and all holes after it.

    ``ties`` is how many rows before ``position`` presumably are of that second; 0: not known.
    """
    only_this = position is not None
    hole = known.first_hole(lower)
    if hole is None:
        return
    search = Search(hole, known.position_after(hole.lower) if position is None else position)
    if ties and position is not None:
        search.found = position - ties, ties
    while True:
        search.steps += 1
        if search.steps > STEPS_WITHOUT_PROGRESS:
            raise WalkStuck(
                "unstable",
                f"the list moves faster than it can be read around createdAt {hole.lower}",
            )
        yield from _try_once(known, hole, search)
        left = known.first_hole(lower)
        if left is None or (only_this and left.lower > hole.lower):
            return
        if left.lower > hole.lower:
            search = Search(left, known.position_after(left.lower))
        hole = left


def _try_once(known: Knowledge, hole: Span, search: Search) -> Task:
    """One page, and what follows from it."""
    if _is_newest_next(known, hole, search):
        search.newest_next, search.newest_tried = False, True
        request = PageRequest(1, known.page_size, descending=True)
    elif hole.lower == NEGATIVE_INFINITY:
        size = min([known.page_size, *known.barriers])
        if not size:
            yield from step_around(known, hole, 0)
            return
        request = PageRequest(1, size)
    elif search.found is not None:
        held = None if search.ends_list else _page_holding_tie(known, search)
        if held is None:
            yield from _no_page_holds(known, hole, search)
            return
        request = held
    else:
        sought = _page_seeking(known, search)
        # Between two unreadable rows only tiny pages fit: the same one again tells nothing new.
        if sought is None or (sought == search.sought and known.barriers):
            yield from step_around(known, hole, search.likely_position())
            return
        request = search.sought = sought
    page = yield request
    if isinstance(page, PlacedPage):
        if not known.settled.contains(hole.lower):
            _learn(known, hole, search, request, page)
    elif request.descending and request.index == 1:
        search.newest_blocked = not (yield from prove_end_with_less(request))
    else:
        yield from isolate(known, request)


def _is_newest_next(known: Knowledge, hole: Span, search: Search) -> bool:
    """Whether the rest of the list fits in the newest page, which also proves its end."""
    if search.newest_blocked or hole.lower == NEGATIVE_INFINITY:
        return False
    if search.newest_next or hole.upper != POSITIVE_INFINITY:
        return search.newest_next
    remaining = (known.total_count or 0) - search.likely_position()
    return remaining <= known.page_size - known.overlap


def _page_holding_tie(known: Knowledge, search: Search) -> PageRequest | None:
    begin, ties = search.found or (0, 0)
    return page_holding(
        max(begin - 1, 0),
        begin + ties,
        known.page_size,
        barriers=known.barriers,
        total_count=known.total_count,
        centred=search.steps > STEPS_REACHING_FAR,
    )


def _page_seeking(known: Knowledge, search: Search) -> PageRequest | None:
    """A page that helps to locate the hole, or None if the hole begins with an unreadable row."""
    first, last = search.wanted(known.overlap, known.page_size)
    page = page_reaching_furthest(first, known.page_size, barriers=known.barriers, beyond=last)
    if page is not None:
        return page
    # Only small page sizes, or unreadable rows, get this far.
    if search.fresh:
        first = max(last - 1, 0)
    page = page_holding(
        first,
        min(first + 1, last),
        known.page_size,
        barriers=known.barriers,
        total_count=known.total_count,
    )
    if page is not None:
        return page
    blocked = not is_clear(first, last + 1, known.barriers)
    if blocked and (search.fresh or search.bracketed):
        return None
    return page_beginning_soonest(last, known.page_size, known.barriers)


def _no_page_holds(known: Knowledge, hole: Span, search: Search) -> Task:
    """The second is known, but no page begins before it and ends after it."""
    begin, ties = search.found or (0, 0)
    if not is_clear(begin - 1, begin + ties + 1, known.barriers):
        yield from step_around(known, hole, begin)
        return
    near = known.page_size
    if ties < near // 2 and not is_clear(begin - near, begin + near, known.barriers):
        # With an unreadable row nearby no page size fits; the rows themselves were read.
        known.give_up(Span(hole.lower, search.lower + 1), "unreadable", 0)
        return
    yield from cross_tie(known, search.lower, begin)
    search.found, search.ends_list = None, False


def _learn(
    known: Knowledge, hole: Span, search: Search, request: PageRequest, page: PlacedPage
) -> None:
    ends_early = not request.descending and page.rows < min(request.size, known.page_size)
    untried = not search.newest_tried and hole.lower in page.seconds
    if ends_early and (hole.upper == POSITIVE_INFINITY or untried):
        search.newest_next = True
    search.ends_list = ends_early and search.newest_tried and hole.lower in page.seconds
    search.observe(page, at_start=request.index == 1 and not request.descending)
