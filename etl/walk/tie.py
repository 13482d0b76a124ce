"""A second that no single page can cross: it holds more tokens than a page, or no page boundary
falls right.

Certifying it takes several pages, read at different instants, and a lookup:

1. The pages of the second, one after the other, show where its rows begin and end, and their ids.
2. A lookup of all these ids shows which of them are still listed.
3. Another page shows that the row before the first one is still in its place.

It is accepted if all ids are listed, and are as many as the positions.  ``docs/why.md`` says why
this is enough as long as no token is added to that second, or before it, in the meantime.

It ends: each round asks for each page of the second about once, and there are at most
``TIE_ROUNDS``.  All of them are needed only by a service that shuffles ties on every request; a
second that keeps changing is given up after ``CHANGES_TOLERATED`` rounds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Generator
from enum import Enum
from typing import Final, NamedTuple

from etl.coverage import Span
from etl.walk.knowledge import Knowledge, PlacedPage, TaskReply
from etl.walk.planner import Lookup, PageRequest, Request, page_holding, page_reaching_furthest

TIE_ROUNDS: Final = 20
"""If the service shuffles ties on every request, a reading shows two thirds or more of the ids that
are still unknown."""

CHANGES_TOLERATED: Final = 8
"""Rounds that show another number of tokens than the round before, or one that is gone."""


class Verdict(Enum):
    """What came of an attempt to certify a second."""

    CHANGING = "changing"
    """The list did not stand still for long enough."""
    UNREADABLE = "unreadable"
    """One of its pages cannot be read."""
    UNPLACED = "unplaced"
    """No page with some of its rows keeps clear of the barriers."""


class Certified(NamedTuple):
    """The second is certified, or has no rows.  Its rows, or older ones, end before the position
    ``end``, where one of the second ``newer`` follows, or none does (None)."""

    end: int
    newer: int | None


class _Reading(NamedTuple):
    begin: int
    end: int
    newer: int | None
    token_ids: frozenset[str]


def certify_second(
    known: Knowledge, second: int, begin: int, barriers: Collection[int] = ()
) -> Generator[Request, TaskReply, Certified | Verdict]:
    """Certify ``second``, whose rows begin near position ``begin``, with pages that hold none of
    the positions ``barriers``; record nothing otherwise."""
    barriers = known.barriers.union(barriers)
    ids: frozenset[str] = frozenset()
    previous: tuple[int, int] | None = None
    changes = 0
    for _ in range(TIE_ROUNDS):
        if changes >= CHANGES_TOLERATED:
            break
        reading = yield from _read_second(known, second, begin, barriers)
        if isinstance(reading, Certified) or reading in {Verdict.UNREADABLE, Verdict.UNPLACED}:
            return reading
        if not isinstance(reading, _Reading):
            changes += 1
            continue
        begin, end = reading.begin, reading.end
        changes += previous not in {None, (begin, end)}
        previous = begin, end
        ids |= reading.token_ids
        if len(ids) < end - begin:
            continue  # ties are shuffled, or the list has moved: read again
        listed = yield Lookup(tuple(sorted(ids)))
        if isinstance(listed, frozenset) and ids <= listed and len(ids) == end - begin:
            if (yield from _begins_at(known, second, begin, barriers)):
                return Certified(end, reading.newer)
        elif isinstance(listed, frozenset):
            ids &= listed
        changes += 1
    return Verdict.CHANGING


def _read_second(
    known: Knowledge, second: int, begin: int, barriers: Collection[int]
) -> Generator[Request, TaskReply, _Reading | Certified | Verdict]:
    """Read its rows once, page by page, from before the first one to after the last."""
    page = yield from _find_begin(known, second, begin, barriers)
    if not isinstance(page, PlacedPage):
        return page
    if second not in page.seconds:
        return Certified(page.start, page.first)
    begin = page.start + page.rows - len(page.seconds) + page.seconds.index(second)
    token_ids = _ids_of(page, second)
    pages_at_most = 3 + 2 * known.longest // known.page_size
    while page.last == second and pages_at_most:
        pages_at_most -= 1
        behind = page.start + page.rows
        request = _page_with(known, behind, barriers, overlap=known.overlap)
        reply = (yield request) if request is not None else None
        if not isinstance(reply, PlacedPage):
            return Verdict.UNPLACED if request is None else Verdict.UNREADABLE
        if not reply.rows or reply.start + reply.rows <= behind:
            # The list seems to end with the group: confirmed if no row comes after it.
            reply = yield PageRequest(behind + 1, 1)
            if isinstance(reply, PlacedPage) and not reply.rows:
                return _Reading(begin, behind, None, frozenset(token_ids))
            break
        if not reply.seconds or reply.last < second:
            break  # the list moved between two pages of this reading
        page = reply
        token_ids += _ids_of(page, second)
    if page.last == second:
        return Verdict.CHANGING
    after = bisect_right(page.seconds, second)
    end = page.start + page.rows - len(page.seconds) + after
    return _Reading(begin, end, page.seconds[after], frozenset(token_ids))


def _find_begin(
    known: Knowledge, second: int, begin: int, barriers: Collection[int]
) -> Generator[Request, TaskReply, PlacedPage | Verdict]:
    """The page with the first row of the second, which follows a row that is older, if any is."""
    wanted = max(begin - 1, 0)
    older_end = None
    """The position behind the last row that is known to be older."""
    for attempt in range(1, TIE_ROUNDS):
        request = _page_with(known, wanted, barriers)
        page = (yield request) if request is not None else None
        if not isinstance(page, PlacedPage):
            return Verdict.UNPLACED if request is None else Verdict.UNREADABLE
        if not page.rows:
            return Verdict.CHANGING
        # Rows without a place on the line come before all others.
        begins_older = page.rows > len(page.seconds) or page.first < second
        if not page.seconds or page.last < second:
            wanted = older_end = page.start + page.rows
        elif not begins_older and page.start > 0 and page.start != older_end:
            wanted = max(0, page.start - attempt * known.overlap)
        elif second in page.seconds or page.start == older_end:
            return page
        else:
            return Verdict.CHANGING  # no longer there, and the page has closed the hole
    return Verdict.CHANGING


def _begins_at(
    known: Knowledge, second: int, begin: int, barriers: Collection[int]
) -> Generator[Request, TaskReply, bool]:
    """Whether the second still begins there: then it is certified, by a page with rows of it."""
    request = page_holding(max(begin - 1, 0), begin, known.page_size, barriers=barriers)
    if request is None:
        page = yield PageRequest(begin, 1)
        if not isinstance(page, PlacedPage) or not page.rows or second in page.seconds:
            return False
    page = yield request or PageRequest(begin + 1, 1)
    if not isinstance(page, PlacedPage) or second not in page.seconds:
        return False
    first = page.start + page.rows - len(page.seconds) + page.seconds.index(second)
    if first != begin:
        return False
    known.cover(Span(second, second + 1))
    known.extension = Span(second, second + 1)
    return True


def _page_with(
    known: Knowledge, position: int, barriers: Collection[int], *, overlap: int = 0
) -> PageRequest | None:
    """A page that holds this position, and some before it, without unreadable rows."""
    for before in (overlap, 0):
        page = page_reaching_furthest(
            position - before, known.page_size, barriers=barriers, beyond=position
        )
        if page is not None:
            return page
    return None


def _ids_of(page: PlacedPage, second: int) -> list[str]:
    return [
        token_id
        for value, token_id in zip(page.seconds, page.token_ids, strict=True)
        if value == second and token_id is not None
    ]
