"""The certificates of published runs, and the pages that must prove them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from etl.coverage import Coverage, Span
from etl.warehouse.read.queries import read_only
from etl.warehouse.schema.database import Database

STATEMENT_SECONDS: Final = 3600


class PublishedPage(NamedTuple):
    """A page that proves something: its span is not empty."""

    seq: int
    page_index: int
    filter: dict[str, Any]
    span: Span
    first: int | None
    last: int | None
    """createdAt of its oldest and its newest row in Unix seconds; None if out of range."""


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """What a published run claims, and its pages."""

    partner_id: int
    run_id: int
    mode: str
    """Of a replay, that of the run that it replayed."""
    holes: list[dict[str, Any]]
    coverage: Coverage
    open_coverage: Coverage
    pages: list[PublishedPage]


def anything_published(database: Database, partner_id: int | None) -> bool:
    """Whether a run has published, of one account or of any."""
    run = database.tables.sync_run
    published = sa.select(run.c.run_id).where(run.c.status == "succeeded")
    if partner_id is not None:
        published = published.where(run.c.partner_id == partner_id)
    with read_only(database, STATEMENT_SECONDS) as connection:
        return bool(connection.scalar(sa.select(sa.exists(published))))


def last_published_runs(
    database: Database, partner_id: int | None, limit: int
) -> Iterator[PublishedRun]:
    """The last published runs whose pages were not pruned, newest first; all of one snapshot.

    The pages of one run at a time are in memory.
    """
    run, page = database.tables.sync_run, database.tables.sync_page
    query = (
        sa.select(
            run.c.partner_id,
            run.c.run_id,
            sa.func.coalesce(run.c.overrides["replayed_mode"].astext, run.c.mode).label("mode"),
            run.c.holes,
            sa.cast(run.c.coverage, sa.Text).label("coverage"),
            sa.cast(run.c.open_coverage, sa.Text).label("open_coverage"),
        )
        .where(run.c.status == "succeeded", run.c.pages_pruned == 0)
        .order_by(run.c.run_id.desc())
        .limit(limit)
    )
    if partner_id is not None:
        query = query.where(run.c.partner_id == partner_id)
    with read_only(database, STATEMENT_SECONDS) as connection:
        for row in connection.execute(query).all():
            yield PublishedRun(
                row.partner_id,
                row.run_id,
                row.mode,
                row.holes,
                Coverage.from_sql(row.coverage),
                Coverage.from_sql(row.open_coverage),
                _pages(connection, page, row.run_id),
            )


def _pages(connection: sa.Connection, page: sa.Table, run_id: int) -> list[PublishedPage]:
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
        PublishedPage(
            row.seq,
            row.page_index,
            msgspec.json.decode(row.filter, type=dict[str, Any]),
            next(iter(Coverage.from_sql(row.span))),
            row.first,
            row.last,
        )
        for row in connection.execute(query)
    ]
