"""Which page to ask for, when a page can only begin at a multiple of its own size.

Adjacent pages must overlap, because a page proves nothing about the seconds of its own first and
last row.  The service knows no offsets, only ``pageIndex`` and ``pageSize``; so for a wanted start
the planner varies the page size until some multiple of it lies just before that start.  Among the
sizes from 80 % to 100 % of the largest there nearly always is one close by: this costs 6 to 8 %
more pages than a plain walk, and no extra requests.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page: ``index`` counts from 1.  ``start`` and ``end`` are positions in the ordered list,
    ``start <= p < end``, counted from 0 at the oldest token (from the newest when ``descending``).
    They hold only while nobody adds or deletes tokens: a plan, never evidence.
    """

    index: int
    size: int
    descending: bool = False
    probe: bool = field(default=False, compare=False)
    """Part of a search for unreadable rows: it is expected to fail, so it gets few retries."""

    @property
    def start(self) -> int:
        return (self.index - 1) * self.size

    @property
    def end(self) -> int:
        return self.index * self.size


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask for these tokens by id (any number; the caller cuts it into requests)."""

    token_ids: tuple[str, ...]


class PageRows(NamedTuple):
    """What a page said, in the order of the request.

    ``positions`` are createdAt in Unix seconds, None for a row without a place on the line;
    ``token_ids`` runs parallel to it.  ``total_count`` is the service's hint, or None.
    """

    positions: Sequence[float | None]
    token_ids: Sequence[str | None]
    total_count: int | None = None


def page_reaching_furthest(
    wanted_start: int, largest: int, *, barriers: Collection[int] = (), beyond: int = 0
) -> PageRequest | None:
    """The page that begins at or before ``wanted_start`` and ends as late as possible.

    ``barriers`` are positions that no page may hold.  Sizes below 80 % of ``largest`` are tried only
    where none of the others ends after ``beyond``.  None if no page does.
    """
    usual = range(max(1, largest * 4 // 5), largest + 1)
    for sizes in (usual, range(1, usual.start)):
        best: PageRequest | None = None
        for size in sizes:
            page = PageRequest(max(wanted_start, 0) // size + 1, size)
            if page.end <= beyond or (best is not None and page.end < best.end):
                continue
            if not any(page.start <= barrier < page.end for barrier in barriers):
                best = page
        if best is not None:
            return best
    return None


def page_from_the_end(
    wanted_start: int, beyond: int, largest: int, total_count: int
) -> PageRequest | None:
    """A page in descending order that holds the ascending positions ``wanted_start`` to ``beyond``.

    Its cuts lie elsewhere, because they are counted from the other end: a second chance where
    every multiple of every size would cut a tie in two.
    """
    best: tuple[int, PageRequest] | None = None
    for size in range(1, largest + 1):
        index = -(-(total_count - max(wanted_start, 0)) // size)
        end = total_count - (index - 1) * size
        if index >= 1 and end > beyond and (best is None or end > best[0]):
            best = end, PageRequest(index, size, descending=True)
    return best[1] if best else None


def page_beginning_soonest(not_before: int, largest: int, barriers: Collection[int]) -> PageRequest:
    """The page that begins as soon as possible at or after ``not_before``, of at least half the
    largest size where the barriers allow it."""
    candidates = []
    for size in range(1, largest + 1):
        page = PageRequest(-(-not_before // size) + 1, size)
        if not any(page.start <= barrier < page.end for barrier in barriers):
            candidates.append((size < largest // 2, page.start, -size, page))
    return min(candidates, key=lambda candidate: candidate[:3])[3]


def aligned_blocks(start: int, end: int, largest: int) -> list[PageRequest]:
    """Cut ``[start, end)`` into pages of power-of-two sizes that each lie wholly inside it."""
    blocks = []
    position = start
    while position < end:
        size = 1
        while position % (size * 2) == 0 and position + size * 2 <= end and size * 2 <= largest:
            size *= 2
        blocks.append(PageRequest(position // size + 1, size, probe=True))
        position += size
    return blocks
