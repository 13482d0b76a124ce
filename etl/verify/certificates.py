"""Derives the certificates of completeness a second time, in Python, from the stored pages.

It shares no code with the SQL of ``sql/checks/certificate_adds_up.sql`` and its neighbours: two
derivations that agree are worth more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from etl.coverage import (
    EVERYTHING,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    TOLERATED,
    Coverage,
    Span,
)
from etl.warehouse.read.published import PublishedPage, PublishedRun

"""Reasons of the holes with which a run may publish."""
OPEN_STATUSES: Final = "0,1,2"


def certificate_breaches(run: PublishedRun) -> Iterable[dict[str, object]]:
    """What is wrong with the certificate of a run."""
    for breach in (*_page_breaches(run.pages), *_coverage_breaches(run)):
        yield {"partner_id": run.partner_id, "run_id": run.run_id, **breach}


def _page_breaches(pages: Iterable[PublishedPage]) -> Iterable[dict[str, object]]:
    """Pages whose span reaches further than their own rows allow."""
    for page in pages:
        # Both ends of the list are proved by a first page only, of either order; a finite end by a
        # row.  A time out of range is stored as NULL, and says nothing here.
        from_row = page.first is None or page.span.lower >= page.first
        to_row = page.last is None or page.span.upper <= page.last + 1
        # A backfill clips its spans to its range, also where the list ends earlier.
        is_oldest, is_newest = (
            page.page_index == 1 and page.filter.get("orderBy") == order
            for order in ("+createdAt", "-createdAt")
        )
        reaches_down = page.span.lower == NEGATIVE_INFINITY or is_oldest
        reaches_up = page.span.upper == POSITIVE_INFINITY or is_newest
        if not ((reaches_down or from_row) and (reaches_up or to_row)):
            yield {
                "seq": page.seq,
                "span": page.span.to_sql(),
                "first": page.first,
                "last": page.last,
            }


def _coverage_breaches(run: PublishedRun) -> Iterable[dict[str, object]]:
    def proved_by(proves: Callable[[dict[str, Any]], bool]) -> Coverage:
        return Coverage(page.span for page in run.pages if proves(page.filter))

    proved = proved_by(lambda where: "idIn" not in where and "statusIn" not in where)
    proved_open = proved_by(lambda where: where.get("statusIn") == OPEN_STATUSES)
    if proved != run.coverage:
        yield {"claimed": run.coverage.to_sql(), "proved": proved.to_sql()}
    if proved_open != run.open_coverage:
        yield {"claimed_open": run.open_coverage.to_sql(), "proved_open": proved_open.to_sql()}
    if proved != run.coverage or proved_open != run.open_coverage:
        return
    settled = proved.union(_stated(run.holes, open_only=False))
    if run.mode == "incremental":
        settled = settled.union(proved_open).union(_stated(run.holes, open_only=True))
    elif run.mode != "full":
        return
    for missing in settled.holes(EVERYTHING):
        yield {"neither_read_nor_a_stated_hole": missing.to_sql()}


def _stated(holes: Iterable[dict[str, Any]], *, open_only: bool) -> Iterable[Span]:
    """The seconds that a run states it could not read."""
    for hole in holes:
        if hole.get("reason") in TOLERATED and bool(hole.get("open_only")) == open_only:
            yield from Coverage.from_sql(str(hole.get("span")))
