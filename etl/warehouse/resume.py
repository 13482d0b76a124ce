"""Resuming: a new run goes on with the walk of one that ended without publishing."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import Coverage
from etl.warehouse.runs import Database, OpenRun

LOG = logging.getLogger(__name__)
DRY_RUN: Final = "dry_run"
"""``error_kind`` of a run that was not meant to publish."""
ASCENDING: Final = '{"orderBy":"+createdAt"}'
"""``sync_page.filter`` of a page of the whole list, oldest first."""
RESUMABLE: Final = timedelta(days=7)
"""A run that did not publish may be resumed for so long (ETL_RESUME_WINDOW at most)."""


def is_past_resuming(sync_run: sa.Table) -> sa.ColumnElement[bool]:
    """Whether no later run can go on from this one, so that nobody needs its pages for that."""
    return sa.or_(
        sync_run.c.status == "succeeded",
        sa.and_(
            sync_run.c.status != "running",
            sync_run.c.started_at < sa.func.clock_timestamp() - RESUMABLE,
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
) -> None:
    """Take over the walk of the newest run that ended without publishing, if it can be trusted."""
    tables = database.tables
    sync_run, first = tables.sync_run, tables.sync_run.alias("first_run")
    published, staging = tables.sync_run.alias("published"), tables.upload_token_staging
    found = connection.execute(
        sa.select(
            sync_run.c.run_id,
            sync_run.c.walk_id,
            sa.cast(sync_run.c.coverage, sa.Text).label("coverage"),
            sa.cast(sync_run.c.open_coverage, sa.Text).label("open_coverage"),
            *[sync_run.c[name] for name in ("holes", *_COUNTERS)],
            (
                (first.c.started_at >= sa.func.clock_timestamp() - window)
                & sa.not_(
                    sa.exists().where(
                        published.c.partner_id == run.partner_id,
                        published.c.published_at >= first.c.started_at,
                    )
                )
                & sync_run.c.error_kind.is_distinct_from(DRY_RUN)
            ).label("usable"),
        )
        .join(first, first.c.run_id == sync_run.c.walk_id)
        .where(
            sync_run.c.partner_id == run.partner_id,
            sync_run.c.mode == run.mode,
            sync_run.c.range_from.is_not_distinct_from(range_from),
            sync_run.c.range_to.is_not_distinct_from(range_to),
            sync_run.c.status.in_(("failed", "abandoned")),
        )
        .order_by(sync_run.c.run_id.desc())
        .limit(1)
    ).one_or_none()
    if found is None or not found.usable or found.pages == 0:
        return
    staged_now = connection.scalar(
        sa.select(sa.func.count()).where(staging.c.walk_id == found.walk_id)
    )
    if staged_now != found.staged:
        LOG.warning(
            "a crash of the server emptied the staging table: the walk starts over",
            extra={"run_id": found.run_id, "staged": found.staged, "found": staged_now},
        )
        return
    run.resumed_from, run.walk_id = found.run_id, found.walk_id
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
    last = connection.scalar(sa.select(sa.func.max(page.c.seq)).where(page.c.run_id == run.run_id))
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
        **{name: getattr(run, name) for name in _COUNTERS},
    }
