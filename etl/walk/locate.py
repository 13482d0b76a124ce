"""Where in the list a second lies: found by binary search, with pages of one row."""

from __future__ import annotations

from collections.abc import Generator

from etl.coverage import POSITIVE_INFINITY, Span
from etl.walk.knowledge import Knowledge, PlacedPage, TaskReply
from etl.walk.lane import PAGES_A_LANE, Lane, lanes_between
from etl.walk.planner import PageRequest, Request

Found = Generator[Request, TaskReply, int]


def find_begin(known: Knowledge, second: int, *, hint: int | None = None) -> Found:
    """The approximate position of the first row that is not older than ``second``; never after it
    by more than the list has moved meanwhile.

    ``hint`` is where it lay earlier: two rows around it are requested first.
    """
    near = max(known.page_size // 4, 1)
    low = 0 if hint is not None else known.position_after(second - 1)
    first_try = None if hint is None else hint - near // 2
    return (yield from _halve(known, second, low, first_try, near))


def spread_lanes(
    known: Knowledge, lanes: list[Lane], start: int, hole: Span, at_most: int
) -> Generator[Request, TaskReply, None]:
    """Add lanes to the one that begins the hole at position ``start``, if the hole is long.

    One row shows whether the hole ends within the length of a lane.
    """
    known_end = known.total_count or 0
    if hole.upper != POSITIVE_INFINITY:
        hint = known.position_after(hole.upper - 1)
        if known.has_positions and hint > start:
            known_end = hint
        elif known_end - start > known.page_size * PAGES_A_LANE and at_most > 1:
            lane = known.page_size * PAGES_A_LANE
            known_end = yield from _halve(
                known, hole.upper, start, start + lane, lane, roughly=True
            )
    lanes.extend(lanes_between(start, known_end, known.page_size, at_most)[1:])


def _halve(
    known: Knowledge,
    second: int,
    low: int,
    first_try: int | None,
    step: int,
    *,
    roughly: bool = False,
) -> Found:
    """The lower end of a bracket at most ``step`` wide.  From ``first_try`` on, go in growing
    steps until the position is bracketed; without it, halve at once.  ``roughly``: the longer the
    way from ``low``, the less exact."""
    enough = step
    start, high = low, max(known.total_count or 0, low)
    halving = first_try is None
    wanted = (low + high) // 2 if first_try is None else first_try
    low_seen = high_seen = False
    while high - low > max(enough, (low - start) // 8 if roughly else 0):
        wanted = min(max(wanted, low), high - 1)
        page = yield PageRequest(wanted + 1, 1)
        if not isinstance(page, PlacedPage):
            break  # an unreadable row: start from what is known; the sweep will find it
        if page.first < second if page.seconds else page.rows > 0:
            low, low_seen = wanted + 1, True
            wanted += step
        else:
            high, high_seen = wanted, True
            wanted -= step
        step *= 2
        if halving or (low_seen and high_seen):
            wanted = (low + high) // 2
    return low
