"""A second that holds more tokens than a page can cross.

No page begins before such a second and ends after it, so certifying it takes several pages, read at
different instants.  It is accepted when two consecutive readings, with a lookup of every id between
them, agree on the positions where the group begins and ends, find no further id, and have as many
ids as positions.  ``docs/why.md`` says why this is enough as long as no token is added to that
second, or before it, in the meantime; if it is not reached, the second is recorded as a hole.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from etl.coverage import Span
from etl.walk.knowledge import Knowledge, PlacedPage, Task, TaskReply
from etl.walk.planner import Lookup, PageRequest, Request, page_reaching_furthest

TIE_ROUNDS: Final = 20
"""Readings of one group.  If the service shuffles ties on every request, each reading shows about
two thirds of the ids that are still unknown."""


class _Reading(NamedTuple):
    begin: int
    end: int
    token_ids: frozenset[str]


def cross_tie(known: Knowledge, second: int, begin: int) -> Task:
    """Certify ``second``, whose rows begin near position ``begin``, or record it as a hole."""
    ids: frozenset[str] = frozenset()
    verified: tuple[int, int] | None = None
    for _ in range(TIE_ROUNDS):
        reading = yield from _read_tie(known, second, begin)
        if reading is None:
            verified = None
            continue
        begin, end = reading.begin, reading.end
        if verified == (begin, end) and reading.token_ids <= ids:
            known.cover(Span(second, second + 1))
            known.extension = Span(second, second + 1)
            return
        verified = None
        ids |= reading.token_ids
        if len(ids) >= end - begin > 0:
            listed = yield Lookup(tuple(sorted(ids)))
            if not isinstance(listed, frozenset):
                continue
            if ids <= listed and len(ids) == end - begin:
                verified = begin, end
            ids &= listed
    if not known.settled.contains(second):
        known.give_up(Span(second, second + 1), "tie_group", 1)


def _read_tie(  # noqa: PLR0911 - each return is one way for a reading to fail
    known: Knowledge, second: int, begin: int
) -> Generator[Request, TaskReply, _Reading | None]:
    """Read the group once, with overlapping pages from before its first row to after its last."""
    overlap = max(known.overlap, known.page_size // 8)
    page = yield from _find_begin(known, second, begin, overlap)
    if page is None:
        return None
    begin = page.start + page.rows - len(page.seconds) + page.seconds.index(second)
    token_ids: set[str] = set()
    at_most = 2 + 2 * known.longest // max(known.page_size - overlap, 1)
    for _ in range(at_most):
        token_ids.update(_ids_of(page, second))
        behind = page.start + page.rows
        if page.last > second:
            after = next(i for i, value in enumerate(page.seconds) if value > second)
            return _Reading(begin, behind - len(page.seconds) + after, frozenset(token_ids))
        request = page_reaching_furthest(
            behind - overlap, known.page_size, barriers=known.barriers, beyond=behind
        )
        if request is None:
            return None
        reply = yield request
        if not isinstance(reply, PlacedPage):
            return None
        if not reply.rows or reply.start + reply.rows <= behind:
            # The list seems to end with the group: confirmed if no row comes after it.
            reply = yield PageRequest(behind + 1, 1)
            if isinstance(reply, PlacedPage) and not reply.rows:
                return _Reading(begin, behind, frozenset(token_ids))
            return None
        if second not in reply.seconds:
            return None  # the list moved between two pages of this reading
        page = reply
    return None


def _find_begin(
    known: Knowledge, second: int, begin: int, overlap: int
) -> Generator[Request, TaskReply, PlacedPage | None]:
    """The page with the first row of the group, and the row before it if there is one."""
    wanted = max(begin - 1, 0)
    for attempt in range(1, TIE_ROUNDS):
        request = page_reaching_furthest(wanted, known.page_size, barriers=known.barriers)
        page = (yield request) if request is not None else None
        if request is None or not isinstance(page, PlacedPage) or not page.seconds:
            return None
        if page.first >= second and page.start > 0:
            wanted = max(0, request.start - overlap * attempt)
        elif page.last < second:
            wanted = request.end - 1
        elif second in page.seconds:
            return page
        else:
            return None  # no longer there, and the page has closed the hole
    return None


def _ids_of(page: PlacedPage, second: int) -> list[str]:
    return [
        token_id
        for value, token_id in zip(page.seconds, page.token_ids, strict=True)
        if value == second and token_id is not None
    ]
