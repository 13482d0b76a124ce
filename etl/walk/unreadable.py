"""Rows that make every page with them fail: find them, and step around them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from etl.coverage import POSITIVE_INFINITY, Span
from etl.walk.knowledge import Knowledge, PlacedPage, Task, TaskReply, WalkStuck
from etl.walk.planner import PageRequest, Request, aligned_blocks, page_beginning_soonest

FAILURES_THAT_MEAN_OUTAGE: Final = 6


def isolate(known: Knowledge, request: PageRequest) -> Task:
    """Find the rows that make a page fail, by halving it down to single positions."""
    start, end = request.start, request.end
    if request.descending:
        total = known.total_count or 0
        start, end = max(total - request.end, 0), max(total - request.start, 0)
    stack = aligned_blocks(start, end, known.page_size)[::-1]
    readable = False
    found: list[int] = []
    while stack:
        block = stack.pop()
        page = yield block
        if isinstance(page, PlacedPage):
            readable = True
        elif block.size == 1:
            found.append(block.start)
            if not readable and len(found) >= FAILURES_THAT_MEAN_OUTAGE:
                raise _outage()
            if len(found) > known.max_unreadable:
                raise WalkStuck(
                    "unreadable",
                    f"more than the {known.max_unreadable} unreadable tokens allowed, "
                    f"from position {found[0]} on",
                )
        else:
            half = block.size // 2
            stack.append(PageRequest(block.index * 2, half, probe=True))
            stack.append(PageRequest(block.index * 2 - 1, half, probe=True))
    if found and not readable:
        neighbour = yield PageRequest(max(found[0], 1), 1, probe=True)
        beyond_them = yield PageRequest(found[-1] + 2, 1, probe=True)
        if not isinstance(neighbour, PlacedPage) and not isinstance(beyond_them, PlacedPage):
            raise _outage()
    known.barriers = {b for b in known.barriers if not start <= b < end} | set(found)


def step_around(known: Knowledge, hole: Span, end: int) -> Task:
    """No page without an unreadable row continues from about position ``end``: continue after that
    row, and record what lies between as a hole.

    ``end`` is a guess, so an earlier row may be found first: then the page after it ends before the
    hole begins, and the next one is tried.
    """
    ahead = sorted(b for b in known.barriers if b >= end - known.overlap)
    if not ahead:
        raise WalkStuck("unstable", f"no page continues from createdAt {hole.lower}")
    for behind in ahead:
        if behind - 1 in known.barriers and behind != ahead[0]:
            continue  # one of several adjacent ones
        again = yield PageRequest(behind + 1, 1, probe=True)
        if isinstance(again, PlacedPage):
            known.barriers.discard(behind)  # the list has moved, and with it the row
            return
        run = 1
        while behind + run in known.barriers:
            run += 1
        request = page_beginning_soonest(behind + run, known.page_size, known.barriers)
        page = yield request
        if not isinstance(page, PlacedPage):
            yield from isolate(known, request)
            return
        # No page that proves anything begins earlier.  The rows between are read nevertheless.
        for block in _blocks_between(known, behind + run, request.start):
            between = yield block
            if not isinstance(between, PlacedPage):
                yield from isolate(known, block)  # one more: search again
                return
        if known.settled.contains(hole.lower):
            return
        unreadable = sum(1 for barrier in known.barriers if behind <= barrier < request.start)
        if page.seconds and page.last > hole.lower:
            upper = max(page.first, hole.lower) + 1
            known.give_up(Span(hole.lower, upper), "unreadable", unreadable)
            return
        if not page.rows:
            yield from _give_up_newest(known, hole, unreadable)
            return


def _blocks_between(known: Knowledge, start: int, end: int) -> list[PageRequest]:
    """Pages of the readable positions in ``[start, end)``: the others are known to fail."""
    blocks: list[PageRequest] = []
    for stop in (*sorted(b for b in known.barriers if start <= b < end), end):
        blocks += aligned_blocks(start, stop, known.page_size)
        start = stop + 1
    return blocks


def _give_up_newest(known: Knowledge, hole: Span, unreadable: int) -> Task:
    """No row comes after the unreadable one, unless the list has grown meanwhile."""
    newest = yield PageRequest(1, 1, descending=True, probe=True)
    readable = isinstance(newest, PlacedPage) and bool(newest.seconds)
    upper = newest.first + 1 if isinstance(newest, PlacedPage) and readable else POSITIVE_INFINITY
    known.give_up(Span(hole.lower, max(upper, hole.lower + 1)), "unreadable", unreadable)


def prove_end_with_less(request: PageRequest) -> Generator[Request, TaskReply, bool]:
    """The newest page holds an unreadable row: prove the end of the list with fewer rows.  False
    if the newest row itself cannot be read, because then nothing can prove what comes after."""
    size = request.size // 2
    while size:
        page = yield PageRequest(1, size, descending=True, probe=True)
        if isinstance(page, PlacedPage):
            return True
        size //= 2
    return False


def _outage() -> WalkStuck:
    return WalkStuck("outage", "the service fails on every page, whatever its size")
