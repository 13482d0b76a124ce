"""Resuming: a new run goes on with the walk of one that ended without publishing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import Coverage
from etl.errors import DataRefused
from etl.warehouse.runs import Database, OpenRun

LOG = logging.getLogger(__name__)
DRY_RUN: Final = "dry_run"
"""Status of a run that was not meant to publish, and the key in ``overrides`` that says so."""
RESUMABLE_STATUSES: Final = ("failed", "abandoned")
"""A run that ended in one of these has left a walk that another run may go on with.  What the
audit refused is read again from the beginning: its pages are what was wrong."""
ASCENDING: Final = '{"orderBy":"+createdAt"}'
"""``sync_page.filter`` of a page of the whole list, oldest first."""
RESUMABLE_FOR: Final = timedelta(days=7)
"""A run that did not publish may be resumed for so long (ETL_RESUME_WINDOW at most)."""


def is_past_resuming(sync_run: sa.Table) -> sa.ColumnElement[bool]:
    """Whether no later run can go on from this one, so that nobody needs its pages for that."""
    return sa.and_(
        sync_run.c.status != "running",
        sa.or_(
            sync_run.c.status.not_in(RESUMABLE_STATUSES),
            sync_run.c.started_at < sa.func.clock_timestamp() - RESUMABLE_FOR,
        ),
    )


def resume_walk(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    *,
    range_from: datetime | None,
    range_to: datetime | None,
    window: timedelta,
    page_age_max: timedelta | None,
) -> None:
    """Take over the walk of the newest run that ended without publishing, if it can be trusted.

    That is: the walk is not older than ``window``, its oldest page not older than ``page_age_max``,
    nothing was published since it began, the audit has refused none of its runs, and staging
    still holds what they have staged.
    """
    tables = database.tables
    sync_run, first = tables.sync_run, tables.sync_run.alias("first_run")
    published, staging = tables.sync_run.alias("published"), tables.upload_token_staging
    ended = tables.sync_run.alias("ended")
    now = sa.func.clock_timestamp()
    found = connection.execute(
        sa.select(
            sync_run.c.run_id,
            sync_run.c.walk_id,
            sa.cast(sync_run.c.coverage, sa.Text).label("coverage"),
            sa.cast(sync_run.c.open_coverage, sa.Text).label("open_coverage"),
            *[sync_run.c[name] for name in ("holes", *_COUNTERS)],
            sa.and_(
                first.c.started_at >= now - window,
                sa.not_(
                    sa.exists().where(
                        published.c.partner_id == run.partner_id,
                        published.c.published_at >= first.c.started_at,
                    )
                ),
                # Its staging is gone, or was what the audit refused.
                sa.not_(
                    sa.exists().where(
                        ended.c.partner_id == run.partner_id,
                        ended.c.walk_id == sync_run.c.walk_id,
                        ended.c.status.not_in((*RESUMABLE_STATUSES, "running")),
                    )
                ),
                # A program of an earlier version called it failed.
                sync_run.c.error_kind.is_distinct_from(DataRefused.kind),
                sa.true()
                if page_age_max is None
                else sa.func.coalesce(sync_run.c.oldest_page_at, first.c.started_at)
                >= now - page_age_max,
            ).label("usable"),
        )
        .join(first, first.c.run_id == sync_run.c.walk_id)
        .where(
            sync_run.c.partner_id == run.partner_id,
            sync_run.c.mode == run.mode,
            sync_run.c.range_from.is_not_distinct_from(range_from),
            sync_run.c.range_to.is_not_distinct_from(range_to),
            sync_run.c.status.in_(RESUMABLE_STATUSES),
        )
        .order_by(sync_run.c.run_id.desc())
        .limit(1)
    ).one_or_none()
    if found is None or not found.usable or found.pages == 0:
        return
    staged_now, lookups_until = connection.execute(
        sa.select(
            sa.func.count(), sa.func.max(staging.c.observed_at).filter(staging.c.from_lookup)
        ).where(staging.c.walk_id == found.walk_id)
    ).one()
    if staged_now != found.staged:
        LOG.warning(
            "staging no longer holds what the walk has read (a crash of the server, or a run of "
            "another mode since): the walk starts over",
            extra={"run_id": found.run_id, "staged": found.staged, "found": staged_now},
        )
        return
    run.resumed_from, run.walk_id = found.run_id, found.walk_id
    run.lookups_after = lookups_until
    run.coverage, run.holes = Coverage.from_sql(found.coverage), list(found.holes)
    run.open_coverage = Coverage.from_sql(found.open_coverage)
    for name in _COUNTERS:
        setattr(run, name, getattr(found, name))
    for table in (tables.sync_page, tables.rejected_row):
        copied = [column for column in table.c if column.name != "run_id"]
        connection.execute(
            sa.insert(table).from_select(
                ["run_id", *[column.name for column in copied]],
                sa.select(sa.literal(run.run_id), *copied).where(table.c.run_id == found.run_id),
            )
        )
    page = tables.sync_page
    last, run.oldest_page_at = connection.execute(
        sa.select(sa.func.max(page.c.seq), sa.func.min(page.c.requested_at)).where(
            page.c.run_id == run.run_id
        )
    ).one()
    run.next_seq = 0 if last is None else last + 1
    run.positions = _positions(connection, page, run.run_id)


def _positions(connection: sa.Connection, page: sa.Table, run_id: int) -> list[tuple[int, int]]:
    """Where in the list the pages of the walk lay, as far as the service keeps to page sizes."""
    first, last = (
        sa.cast(sa.func.floor(sa.extract("epoch", column)), sa.BigInteger)
        for column in (page.c.first_created_at, page.c.last_created_at)
    )
    start = (page.c.page_index - 1) * page.c.page_size
    rows = connection.execute(
        sa.select(first, start, last, start + page.c.rows).where(
            page.c.run_id == run_id,
            page.c.filter == ASCENDING,
            page.c.rows == page.c.page_size,
            page.c.first_created_at.is_not(None),
            page.c.last_created_at.is_not(None),
        )
    ).all()
    return [pair for row in rows for pair in ((row[0] - 1, row[1]), (row[2], row[3]))]


_COUNTERS: Final = (
    "pages",
    "rows_read",
    "staged",
    "rejected",
    "total_count_first",
    "total_count_last",
)


def inherited(run: OpenRun) -> dict[str, Any]:
    return {
        "resumed_from": run.resumed_from,
        "coverage": run.coverage.to_sql(),
        "open_coverage": run.open_coverage.to_sql(),
        "holes": run.holes,
        "oldest_page_at": run.oldest_page_at,
        **{name: getattr(run, name) for name in _COUNTERS},
    }
