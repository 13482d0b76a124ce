"""Resuming: a new run continues the walk of one that ended without publishing."""

from __future__ import annotations

import logging
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import Coverage
from etl.errors import DataRefused
from etl.warehouse.engine import require_row_count
from etl.warehouse.ledger.certificates import walk_began_with
from etl.warehouse.ledger.run import OpenRun, StagedWalk, WalkCounts
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

LOG = logging.getLogger(__name__)
DRY_RUN: Final = "dry_run"
"""Status of a run that was not meant to publish, and the key in ``overrides`` that marks it."""
RESUMABLE_STATUSES: Final = ("failed", "abandoned")
"""Statuses of an ended run whose walk another run may resume.  A walk that the audit refused is
read again from the start: its pages are what was wrong."""
ASCENDING: Final = '{"orderBy":"+createdAt"}'
"""``sync_page.filter`` of a page of the whole list, oldest first."""
RESUMABLE_FOR: Final = timedelta(days=7)
"""How long a run that did not publish may be resumed (maximum of ETL_RESUME_WINDOW)."""
_COUNTERS: Final = tuple(each.name for each in fields(WalkCounts))
_CLOCK_SLACK: Final = timedelta(minutes=1)


def is_past_resuming(sync_run: sa.Table) -> sa.ColumnElement[bool]:
    """Whether no later run can resume this one, so that its pages are not needed for that."""
    return sa.and_(
        sync_run.c.status != "running",
        sa.or_(
            sync_run.c.status.not_in(RESUMABLE_STATUSES),
            sync_run.c.started_at < sa.func.statement_timestamp() - RESUMABLE_FOR,
        ),
    )


def resume_walk(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    *,
    service: str | None,
    range_from: datetime | None,
    range_to: datetime | None,
    window: timedelta,
    page_age_max: timedelta | None,
) -> None:
    """Resume the walk of the account's newest run, if that ended without publishing.

    Older walks have no staging any more: each run that opens deletes the rows of other walks.  And
    what the audit refused is read again.  So the newest run that has read anything must have failed
    or been abandoned, have the same mode and range, and be usable: its walk not older than
    ``window``, its oldest page not older than ``page_age_max``, read from the same ``service`` (as
    far as that was recorded), and its staging unchanged.
    """
    tables = database.tables
    sync_run, first = tables.sync_run, alias_of(tables.sync_run, "first_run")
    staging = tables.upload_token_staging
    now = sa.func.statement_timestamp()
    oldest_page_at = sa.func.coalesce(sync_run.c.oldest_page_at, first.c.started_at)
    # The age of what seems to come from the future is not known: the clock was set back since.
    is_young = sa.and_(
        first.c.started_at.between(now - window, now + _CLOCK_SLACK),
        sa.true()
        if page_age_max is None
        else oldest_page_at.between(now - page_age_max, now + _CLOCK_SLACK),
    )
    found = connection.execute(
        sa.select(
            *[sync_run.c[name] for name in ("run_id", "walk_id", "mode", "status", "error_kind")],
            *[sync_run.c[name] for name in ("range_from", "range_to", "service", "holes")],
            *[sync_run.c[name] for name in _COUNTERS],
            sa.cast(sync_run.c.coverage, sa.Text).label("coverage"),
            sa.cast(sync_run.c.open_coverage, sa.Text).label("open_coverage"),
            is_young.label("is_young"),
        )
        .join(first, walk_began_with(first, sync_run))
        .where(
            sync_run.c.partner_id == run.partner_id,
            sync_run.c.run_id != run.run_id,
            # An attempt that read nothing hides no walk.
            sa.or_(sync_run.c.pages > 0, sync_run.c.published_at.is_not(None)),
        )
        .order_by(sync_run.c.run_id.desc())
        .limit(1)
    ).one_or_none()
    if (
        found is None
        or found.status not in RESUMABLE_STATUSES
        # Earlier program versions stored it as failed.
        or found.error_kind == DataRefused.kind
        or (found.mode, found.range_from, found.range_to) != (run.mode, range_from, range_to)
        or not found.is_young
    ):
        return
    if None not in (found.service, service) and found.service != service:
        # Pages of two services prove nothing about either.
        LOG.warning(
            "the walk starts over: it read another service",
            extra={"run_id": found.run_id, "service": service, "walked": found.service},
        )
        return
    staged_now, lookups_until, in_the_future = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.max(staging.c.observed_at).filter(staging.c.from_lookup),
            sa.func.coalesce(sa.func.max(staging.c.observed_at) > now + _CLOCK_SLACK, False),
        ).where(staging.c.partner_id == run.partner_id, staging.c.walk_id == found.walk_id)
    ).one()
    if staged_now != found.staged or in_the_future:
        LOG.warning(
            "the walk starts over: %s",
            "the server's clock was set back"
            if in_the_future
            else "what it had staged is gone (another run came between, or the server crashed)",
            extra={"run_id": found.run_id, "staged": found.staged, "found": staged_now},
        )
        return
    run.resumed_from = found.run_id
    for table in (tables.sync_page, tables.rejected_row):
        _take_over(connection, table, found.run_id, run.run_id)
    page = tables.sync_page
    last_seq, oldest_page_at = connection.execute(
        sa.select(sa.func.max(page.c.seq), sa.func.min(page.c.requested_at)).where(
            page.c.run_id == run.run_id
        )
    ).one()
    run.walk = StagedWalk(
        walk_id=found.walk_id,
        coverage=Coverage.from_sql(found.coverage),
        open_coverage=Coverage.from_sql(found.open_coverage),
        holes=list(found.holes),
        counts=WalkCounts(**{name: getattr(found, name) for name in _COUNTERS}),
        next_seq=0 if last_seq is None else last_seq + 1,
        oldest_page_at=oldest_page_at,
        lookups_after=lookups_until,
        positions=_positions(connection, page, run.run_id),
    )


def _take_over(connection: sa.Connection, table: sa.Table, old_run: int, new_run: int) -> None:
    """Copy the rows of one run to another."""
    names = [column.name for column in table.c if column.name != "run_id"]
    rows = sa.select(*[table.c[name] for name in names]).where(table.c.run_id == old_run)
    meant = connection.scalar(sa.select(sa.func.count()).select_from(rows.subquery()))
    done = connection.execute(
        sa.insert(table).from_select([*names, "run_id"], rows.add_columns(sa.literal(new_run))),
        execution_options={"preserve_rowcount": True},
    )
    require_row_count(table.name, changed=done.rowcount, meant=meant or 0)


def _positions(connection: sa.Connection, page: sa.Table, run_id: int) -> list[tuple[int, int]]:
    """Where in the list the pages of the walk lay, if the service respects page sizes."""
    first, last = (
        sa.cast(sa.func.floor(sa.extract("epoch", column)), sa.BigInteger)
        for column in (page.c.first_created_at, page.c.last_created_at)
    )
    start = (sa.cast(page.c.page_index, sa.BigInteger) - 1) * page.c.page_size
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


def inherited(run: OpenRun) -> dict[str, Any]:
    """The columns of the ledger row that a run inherits from the walk that it resumes."""
    walk = run.walk
    return {
        "resumed_from": run.resumed_from,
        "walk_id": walk.walk_id,
        "coverage": walk.coverage.to_sql(),
        "open_coverage": walk.open_coverage.to_sql(),
        "holes": walk.holes,
        "oldest_page_at": walk.oldest_page_at,
        **walk.counts.columns(),
    }
