"""Derives the certificates of completeness a second time, in Python, from the stored pages.

It shares no code with the SQL of ``sql/checks/certificate_adds_up.sql`` and its neighbours: two
derivations that agree are worth more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from etl.coverage import EVERYTHING, NEGATIVE_INFINITY, POSITIVE_INFINITY, Coverage, Span
from etl.warehouse.schema.tables import Tables

CERTIFICATES_DERIVED: Final = 20
UNREADABLE: Final = "unreadable"
"""Reason of the only holes with which a run may publish."""
OPEN_STATUSES: Final = "0,1,2"


class _Page(NamedTuple):
    seq: int
    page_index: int
    filter: dict[str, Any]
    span: Span
    first: int | None
    last: int | None
    """createdAt of its oldest and its newest row in Unix seconds; None for nonsense."""


def certificate_breaches(
    connection: sa.Connection, tables: Tables, partner_id: int | None
) -> list[dict[str, Any]]:
    """What is wrong with the certificates of the last published runs that have their pages."""
    run, page = tables.sync_run, tables.sync_page
    query = (
        sa.select(
            run.c.partner_id,
            run.c.run_id,
            sa.func.coalesce(run.c.overrides["replayed_mode"].astext, run.c.mode).label("mode"),
            run.c.holes,
            sa.cast(run.c.coverage, sa.Text).label("coverage"),
            sa.cast(run.c.open_coverage, sa.Text).label("open_coverage"),
        )
        .where(run.c.status == "succeeded", sa.exists().where(page.c.run_id == run.c.run_id))
        .order_by(run.c.run_id.desc())
        .limit(CERTIFICATES_DERIVED)
    )
    if partner_id is not None:
        query = query.where(run.c.partner_id == partner_id)
    found = []
    for published in connection.execute(query).all():
        pages = _pages(connection, page, published.run_id)
        breaches = [*_page_breaches(pages), *_coverage_breaches(published, pages)]
        found += [
            {"partner_id": published.partner_id, "run_id": published.run_id, **breach}
            for breach in breaches
        ]
    return found


def _pages(connection: sa.Connection, page: sa.Table, run_id: int) -> list[_Page]:
    """The pages of a run that prove something."""
    first, last = (
        sa.cast(sa.func.floor(sa.extract("epoch", column)), sa.BigInteger)
        for column in (page.c.first_created_at, page.c.last_created_at)
    )
    query = sa.select(
        page.c.seq,
        page.c.page_index,
        page.c.filter,
        sa.cast(page.c.span, sa.Text).label("span"),
        sa.func.least(first, last).label("first"),
        sa.func.greatest(first, last).label("last"),
    ).where(
        page.c.run_id == run_id, page.c.span.is_not(None), sa.not_(sa.func.isempty(page.c.span))
    )
    return [
        _Page(
            row.seq,
            row.page_index,
            msgspec.json.decode(row.filter, type=dict[str, Any]),
            next(iter(Coverage.from_sql(row.span))),
            row.first,
            row.last,
        )
        for row in connection.execute(query)
    ]


def _page_breaches(pages: Iterable[_Page]) -> Iterable[dict[str, object]]:
    """Pages whose span reaches further than their own rows allow."""
    for page in pages:
        # Both ends of the list are proved by a first page only, of either order; a finite end by a
        # row.  A time out of all bounds is kept as NULL, and says nothing here.
        from_row = page.first is None or page.span.lower >= page.first
        to_row = page.last is None or page.span.upper <= page.last + 1
        # A backfill cuts its spans off at the ends of its range, also where the list ends earlier.
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


def _coverage_breaches(
    published: sa.Row[Any], pages: Iterable[_Page]
) -> Iterable[dict[str, object]]:
    pages = list(pages)

    def proved_by(tells: Callable[[dict[str, Any]], bool]) -> Coverage:
        return Coverage(page.span for page in pages if tells(page.filter))

    claimed = Coverage.from_sql(published.coverage)
    claimed_open = Coverage.from_sql(published.open_coverage)
    proved = proved_by(lambda where: "idIn" not in where and "statusIn" not in where)
    proved_open = proved_by(lambda where: where.get("statusIn") == OPEN_STATUSES)
    if proved != claimed:
        yield {"claimed": claimed.to_sql(), "proved": proved.to_sql()}
    if proved_open != claimed_open:
        yield {"claimed_open": claimed_open.to_sql(), "proved_open": proved_open.to_sql()}
    if proved != claimed or proved_open != claimed_open:
        return
    settled = proved.union(_stated(published.holes, open_only=False))
    if published.mode == "incremental":
        settled = settled.union(proved_open).union(_stated(published.holes, open_only=True))
    elif published.mode != "full":
        return
    for missing in settled.holes(EVERYTHING):
        yield {"neither_read_nor_a_stated_hole": missing.to_sql()}


def _stated(holes: Iterable[dict[str, Any]], *, open_only: bool) -> Iterable[Span]:
    """The seconds of which a run says that they could not be read."""
    for hole in holes:
        if hole.get("reason") == UNREADABLE and bool(hole.get("open_only")) == open_only:
            yield from Coverage.from_sql(str(hole.get("span")))
