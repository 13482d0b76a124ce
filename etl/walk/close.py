"""Closing a hole that the sweep has left, one request at a time."""

from __future__ import annotations

from typing import Final

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY, TIE_GROUP, UNREADABLE, Span
from etl.walk.knowledge import Knowledge, PlacedPage, Task, WalkStuck
from etl.walk.planner import (
    PageRequest,
    page_beginning_soonest,
    page_holding,
    page_reaching_furthest,
)
from etl.walk.search import Search
from etl.walk.tie import Certified, Verdict, certify_second
from etl.walk.unreadable import pass_unreadable

STEPS_WITHOUT_PROGRESS: Final = 60
"""Maximum of requests for one hole that do not close any part of it."""

FAILURES_TOLERATED: Final = 3
"""Pages for one hole that fail, although what made the ones before fail has been passed."""

STEPS_REACHING_FAR: Final = 3
"""Attempts with the page that reaches furthest; then the page with most room on both sides."""


def close_hole(known: Knowledge, lower: int, position: int | None = None, *, ties: int = 0) -> Task:
    """Close the hole at ``lower``, which should begin just before ``position``; without a
    position, close it and all holes after it.

    ``ties`` is how many rows before ``position`` presumably are of that second; 0: not known.
    """
    only_this = position is not None
    hole = known.first_hole(lower)
    if hole is None or (only_this and hole.lower > lower):
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
        request = PageRequest(1, known.page_size)
    elif search.found is not None:
        held = None if search.ends_list else _page_holding_tie(known, search)
        if held is None:
            yield from _cross_tie(known, search)
            return
        request = held
    else:
        request = _page_seeking(known, search)
    page = yield request
    if isinstance(page, PlacedPage):
        if not known.settled.contains(hole.lower):
            _learn(known, hole, search, request, page)
        return
    yield from pass_unreadable(known, request, since=search.likely_position(), until=hole.lower)
    search.failures += 1
    if known.settled.contains(hole.lower):
        return
    if request.descending and request.index == 1:
        search.newest_blocked = True
    if search.failures >= FAILURES_TOLERATED and hole.lower != NEGATIVE_INFINITY:
        # The list moves, and an unreadable row with it.
        known.presume_unreadable(hole.lower, counted=known.is_given_up(hole.lower - 1))


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
        total_count=known.total_count,
        centred=search.steps > STEPS_REACHING_FAR,
    )


def _page_seeking(known: Knowledge, search: Search) -> PageRequest:
    """A page that helps to locate the hole."""
    first, last = search.wanted(known.overlap, known.page_size)
    page = page_reaching_furthest(first, known.page_size, beyond=last)
    if page is not None:
        return page
    # Only small page sizes get this far.
    if search.fresh:
        first = max(last - 1, 0)
    page = page_holding(first, min(first + 1, last), known.page_size, total_count=known.total_count)
    return page or page_beginning_soonest(last, known.page_size)


def _cross_tie(known: Knowledge, search: Search) -> Task:
    """The second is known, but no page begins before it and ends after it."""
    begin, _ = search.found or (0, 0)
    second = search.lower
    crossed = yield from certify_second(known, second, begin)
    if isinstance(crossed, Certified):
        yield from _cross_gap(known, second, crossed)
    elif crossed is Verdict.UNREADABLE:
        around = PageRequest(begin // known.page_size + 1, known.page_size)
        yield from pass_unreadable(known, around, since=begin, until=second)
        if not known.settled.contains(second):
            known.presume_unreadable(second, counted=known.is_given_up(second - 1))
    elif crossed is Verdict.UNPLACED:
        # All of its rows can be read, but not together: unreadable ones are too near.
        known.give_up(Span(second, second + 1), UNREADABLE, 0)
    elif not known.settled.contains(second):
        known.give_up(Span(second, second + 1), TIE_GROUP, 1)
    search.found, search.ends_list = None, False


def _cross_gap(known: Knowledge, second: int, crossed: Certified) -> Task:
    """Prove the seconds up to the next row with a page that holds both rows.  Where pages of all
    sizes begin there is none, if they are tiny: no token was created in these seconds, and they
    are given up."""
    last, hole = crossed.end - 1, known.first_hole(second)
    if hole is None or crossed.newer is None or crossed.newer <= hole.lower:
        return
    page = page_holding(last, last + 1, known.page_size, total_count=known.total_count)
    if page is not None:
        yield page
    else:
        known.give_up(Span(hole.lower, crossed.newer), TIE_GROUP, 0)


def _learn(
    known: Knowledge, hole: Span, search: Search, request: PageRequest, page: PlacedPage
) -> None:
    ends_early = not request.descending and page.rows < min(request.size, known.page_size)
    untried = not search.newest_tried and hole.lower in page.seconds
    if ends_early and (hole.upper == POSITIVE_INFINITY or untried):
        search.newest_next = True
    search.ends_list = ends_early and search.newest_tried and hole.lower in page.seconds
    search.observe(page, at_start=request.index == 1 and not request.descending)
