"""Publishing: one transaction that makes a walk visible, or changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from etl.errors import DataRefused, WarehouseUnavailable
from etl.warehouse.engine import (
    SETTINGS,
    is_rolled_back,
    lock_until_commit,
    require_row_count,
    transaction,
)
from etl.warehouse.ledger.attempts import finished_now
from etl.warehouse.ledger.ending import settle_commit
from etl.warehouse.ledger.lease import fence, last_published
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.arrivals import log_arrivals
from etl.warehouse.load.counts import log_counts
from etl.warehouse.load.moments import is_moment, log_moments
from etl.warehouse.load.planning import (
    WORK_MEM,
    in_walk,
    whole_walk,
    whole_walk_seconds,
)
from etl.warehouse.load.resolve import (
    VERSION_COLUMNS,
    AuditCounts,
    first_versions,
    outcomes,
    replaced_versions,
    unobserved,
)
from etl.warehouse.load.witnesses import Witnesses, load_witnesses
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.revision import require_current

LOG = logging.getLogger(__name__)
PUBLISH_SECONDS_MIN: Final = 3_600
"""The limit of each of its statements, for a walk that is not long."""
_WRITTEN: Final = {
    "first_seen": "new tokens",
    "changed": "changed tokens",
    "absent": "absent tokens",
    "relisted": "relisted tokens",
    "moved": "superseded versions",
    "moments": "status moments",
    "status_counts": "counts of statuses",
    "arrivals": "rows of bytes that arrived",
}
"""What publishing writes, in the words of messages."""


def publish(
    database: Database,
    run: OpenRun,
    counts: AuditCounts,
    *,
    holes: list[dict[str, Any]],
    overrides: Mapping[str, Any],
    requests: int,
    retries: int,
    unreadable: int = 0,
    page_age_max: timedelta | None = None,
    stamp: datetime | None = None,
    ledger: Mapping[str, Any] | None = None,
) -> datetime:
    """Make the walk visible and end the run; returns its publication timestamp.

    All or nothing.  If the connection is lost in the commit, the ledger tells what happened.
    Raises DataRefused with ``fields['reason']`` ``other_run_published``, ``staging_lost``,
    ``pages_too_old`` (than ``page_age_max``) or ``row_count_mismatch``, LeaseHeld if the run no
    longer holds its lease, and ConfigurationError if the schema was migrated since the run began.

    A replay passes the ``stamp`` (publication timestamp) of the run that it replays, and in
    ``ledger`` the values of its row that replace those of the replay itself.
    """
    given_stamp, stamp = stamp, None
    try:
        with transaction(
            database.engine,
            durable=True,
            statement_seconds=max(PUBLISH_SECONDS_MIN, whole_walk_seconds(run)),
            work_mem=WORK_MEM,
            **SETTINGS,
        ) as connection:
            fence(connection, database, run)
            stamp = _take_stamp(connection, database, run, given_stamp)
            if page_age_max is not None:
                # Not the stamp, which may be ahead of the clock.
                now = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
                require_fresh_pages(run.walk.oldest_page_at, now=now, age_max=page_age_max)
            _check_staging(connection, database, run)
            if counts.pending or counts.rejected_known:
                _write_unobserved(connection, database, run, counts)
            if counts.versions:
                _write_versions(connection, database, run, counts, stamp)
            fence(
                connection,
                database,
                run,
                status="succeeded",
                published_at=stamp,
                finished_at=finished_now(database.tables.sync_run),
                coverage=run.walk.coverage.to_sql(),
                open_coverage=run.walk.open_coverage.to_sql(),
                holes=holes,
                overrides=dict(overrides),
                requests=requests,
                retries=retries,
                pages=run.walk.counts.pages,
                rows_read=run.walk.counts.rows_read,
                tokens_read=counts.tokens_read,
                inserted=counts.inserted,
                changed=counts.changed,
                unchanged=counts.unchanged,
                rejected=counts.rejected,
                absent=counts.absent,
                relisted=counts.relisted,
                unreadable=unreadable,
                unobserved=counts.pending + counts.rejected_known,
                listed_before=counts.listed_before,
                total_count_first=run.walk.counts.total_count_first,
                total_count_last=run.walk.counts.total_count_last,
                oldest_page_at=run.walk.oldest_page_at,
                error_kind=None,
                error_message=None,
            )
            if ledger:
                sync_run = database.tables.sync_run
                told = connection.execute(
                    sa.update(sync_run).where(sync_run.c.run_id == run.run_id).values(**ledger)
                )
                require_row_count(sync_run.name, changed=told.rowcount, meant=1)
            staging = database.tables.upload_token_staging
            if run.walk.counts.staged:
                done = connection.execute(sa.delete(staging).where(in_walk(staging, run)))
                require_row_count(staging.name, changed=done.rowcount, meant=run.walk.counts.staged)
            # Last: a migration that came before, or that this has waited for, keeps things with
            # the versions of which this program does not know (``hold_publications``).
            require_current(connection, database.schema)
    except WarehouseUnavailable as error:
        # Without a stamp nothing can have been committed, nor if Postgres refused a statement.
        # Otherwise perhaps only the reply to the COMMIT was lost.
        if stamp is None or is_rolled_back(error) or not settle_commit(database, run):
            raise
        LOG.warning(
            "the reply to the commit was lost, but the run has published",
            extra={"run_id": run.run_id},
        )
    assert stamp is not None  # noqa: S101 - the transaction has set it
    return stamp


def require_fresh_pages(oldest: datetime | None, *, now: datetime, age_max: timedelta) -> None:
    """Raise DataRefused if a walk's oldest page, requested at ``oldest``, is older than allowed.

    Its content may be out of date.  So may that of a page which seems to come from a future as far
    away: the server's clock was set back, and nobody knows by how much.
    """
    if oldest is None or abs(now - oldest) <= age_max:
        return
    if oldest > now:
        raise DataRefused(
            f"The oldest page of this walk was read at {oldest:%Y-%m-%d %H:%M:%S %Z}, which is yet "
            "to come: the database server's clock was set back, so the age of the page is not "
            "known. Nothing was published; the next run reads the whole list again.",
            reason="pages_too_old",
        )
    age, most = (timedelta(seconds=round(each.total_seconds())) for each in (now - oldest, age_max))
    raise DataRefused(
        f"The oldest page of this walk was read {age} ago, and no page older than {most} is "
        "published (ETL_PUBLISH_AGE_MAX). Nothing was published; the next run reads the whole list "
        "again. If one walk takes that long, read more pages at a time (ETL_CONCURRENCY) or allow "
        "older ones.",
        reason="pages_too_old",
    )


def _take_stamp(
    connection: sa.Connection, database: Database, run: OpenRun, given: datetime | None
) -> datetime:
    """Lock the partner, then read the clock: stamps increase in the order of the commits."""
    lock_until_commit(connection, f"kaltura-etl {database.schema} {run.partner_id}")
    last = connection.execute(last_published(database, run.partner_id)).one_or_none()
    last_run_id = None if last is None else last.run_id
    if last_run_id != run.baseline.last_published_run_id:
        raise DataRefused(
            f"Run {last_run_id} has published since run {run.run_id} started: the versions that "
            "this run compared with are no longer current. Nothing was published; the next run "
            "reads the list again.",
            reason="other_run_published",
            run_id=run.run_id,
            other_run_id=last_run_id,
        )
    if given is not None:
        if last is not None and given <= last.published_at:
            raise DataRefused(
                f"Run {run.run_id} was published before run {last_run_id}, which is in the "
                "warehouse already: runs are replayed in the order in which they were published.",
                reason="replay_order",
                run_id=run.run_id,
            )
        return given
    now = sa.func.clock_timestamp()
    stamp: datetime = connection.execute(
        sa.select(now)
        if last is None
        # Even if the server's clock was set back.
        else sa.select(
            sa.func.greatest(
                now, sa.literal(last.published_at + timedelta(microseconds=1), sa.DateTime(True))
            )
        )
    ).scalar_one()
    return stamp


def _check_staging(connection: sa.Connection, database: Database, run: OpenRun) -> None:
    staging, expected = database.tables.upload_token_staging, run.walk.counts.staged
    found = connection.scalar(sa.select(sa.func.count()).where(in_walk(staging, run)))
    if found != expected:
        raise DataRefused(
            f"The staging table has {found} rows of the walk instead of {expected}: a crash of the "
            "server has emptied it. Nothing was published; the next run reads the list again.",
            reason="staging_lost",
            run_id=run.run_id,
        )


def _write_versions(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    counts: AuditCounts,
    stamp: datetime,
) -> None:
    """Copy the versions that are about to be replaced, write the new ones, then the logs."""
    witnesses = None
    moved = 0
    if counts.versions > counts.inserted:
        witnesses = load_witnesses(connection, database, run.partner_id)
        moved = _move_replaced(connection, database, run, stamp)
    moments = 0
    if run.baseline.knows_tokens:
        kinds, moments = _upsert(connection, database, run, witnesses, stamp)
    else:
        kinds = {"first_seen": _insert_first_load(connection, database, run, counts, stamp)}
    kinds["moved"], kinds["moments"] = moved, 0
    if witnesses is not None:
        kinds["moments"] = log_moments(connection, database, run, stamp)
    counted = 0
    if counts.inserted or moments:
        kinds["status_counts"], counted = log_counts(connection, database, run, stamp)
    arrived = 0
    if counts.versions > counts.absent:
        kinds["arrivals"], arrived = log_arrivals(
            connection,
            database,
            run,
            stamp,
            first_seen=counts.inserted > 0,
            changed=counts.changed + counts.relisted > 0,
        )
    expected = {
        "first_seen": counts.inserted,
        "changed": counts.changed,
        "absent": counts.absent,
        "relisted": counts.relisted,
        "moved": counts.versions - counts.inserted,
        "moments": moments,
        "status_counts": counted,
        "arrivals": arrived,
    }
    differing = [
        f"{kinds.get(kind, 0)} instead of {count} {_WRITTEN[kind]}"
        for kind, count in expected.items()
        if kinds.get(kind, 0) != count
    ]
    if differing:
        raise DataRefused(
            f"Postgres did not write the rows that it was given: {', '.join(differing)}. "
            "A trigger, a rule or row-level security on the tables may have dropped rows.",
            reason="row_count_mismatch",
            run_id=run.run_id,
            expected=expected,
            written=kinds,
        )


def _move_replaced(
    connection: sa.Connection, database: Database, run: OpenRun, stamp: datetime
) -> int:
    """Copy the known versions of the tokens that have a new one; returns how many."""
    superseded = database.tables.upload_token_superseded
    old, query = replaced_versions(database, run)
    # A superseded version has no digest: nothing is compared with it any more.
    names = [column.name for column in old.c if column.name in superseded.c]
    done = connection.execute(
        sa.insert(superseded).from_select(
            [*names, "valid_to", "superseded_by_run_id"],
            query.with_only_columns(
                *[old.c[name] for name in names],
                sa.literal(stamp, sa.DateTime(timezone=True)),
                sa.literal(run.run_id, sa.BigInteger),
            ),
        ),
        execution_options={"preserve_rowcount": True},
    )
    return int(done.rowcount)


def _insert_first_load(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    counts: AuditCounts,
    stamp: datetime,
) -> int:
    """Write the versions of an account of which nothing is known; returns how many.

    Nothing can conflict: ON CONFLICT would write a tenth more WAL, a record per row that confirms
    its speculative insertion.  A token that another program has written meanwhile fails it.
    """
    done = connection.execute(
        sa.insert(database.tables.upload_token).from_select(
            [*VERSION_COLUMNS, "valid_from", "run_id"],
            _stamped(first_versions(database, run, by_creation=counts.created_once), run, stamp),
        ),
        execution_options={"preserve_rowcount": True},
    )
    return int(done.rowcount)


def _stamped(versions: sa.Select[Any], run: OpenRun, stamp: datetime) -> sa.Select[Any]:
    """The new versions, in the order in which the next walk reads them.

    So neighbours on a page become neighbours on disk.
    """
    new = versions.subquery("new_version")
    return sa.select(
        *[new.c[name] for name in VERSION_COLUMNS],
        sa.cast(stamp, sa.DateTime(timezone=True)).label("valid_from"),
        sa.cast(run.run_id, sa.BigInteger).label("run_id"),
    ).order_by(new.c.created_at, new.c.token_id)


def _upsert(
    connection: sa.Connection,
    database: Database,
    run: OpenRun,
    witnesses: Witnesses | None,
    stamp: datetime,
) -> tuple[dict[str, int], int]:
    """Write the new versions; returns how many of each kind, and how many changed the status."""
    token = database.tables.upload_token
    upsert = insert(token).from_select(
        [*VERSION_COLUMNS, "valid_from", "run_id"],
        _stamped(outcomes(database, run, witnesses), run, stamp),
    )
    written = (
        upsert.on_conflict_do_update(
            index_elements=["partner_id", "token_id"],
            set_={
                column.name: upsert.excluded[column.name]
                for column in token.c
                if not column.primary_key
            },
            # A version that another process wrote meanwhile is not replaced: the count shows it.
            where=token.c.version == upsert.excluded.version - 1,
        )
        .returning(token.c.change_kind, token.c.changed_columns)
        .cte("written")
    )
    moments = sa.func.count().filter(is_moment(written))
    rows = connection.execute(
        sa.select(written.c.change_kind, sa.func.count(), moments).group_by(written.c.change_kind)
    ).all()
    return {kind: count for kind, count, _ in rows}, sum(row[2] for row in rows)


def _write_unobserved(
    connection: sa.Connection, database: Database, run: OpenRun, counts: AuditCounts
) -> None:
    """Record the known tokens that this run covered without seeing: it is no witness of those."""
    found = unobserved(database, run).subquery()
    token_id, reason = found.c.token_id, found.c.reason
    table = database.tables.unobserved_token
    done = connection.execute(
        sa.insert(table).from_select(
            ["partner_id", "token_id", "run_id", "reason"],
            sa.select(
                sa.literal(run.partner_id, sa.Integer),
                token_id,
                sa.literal(run.run_id, sa.BigInteger),
                reason,
            ),
        ),
        execution_options={"preserve_rowcount": True},
    )
    require_row_count(
        table.name, changed=done.rowcount, meant=counts.pending + counts.rejected_known
    )


def plan_changes(database: Database, run: OpenRun, limit: int) -> list[dict[str, Any]]:
    """What publishing would write: token_id, change_kind, changed_columns; by token_id."""
    versions = outcomes(database, run).subquery()
    with whole_walk(database, run) as connection:
        return [
            dict(row)
            for row in connection.execute(
                sa.select(versions.c.token_id, versions.c.change_kind, versions.c.changed_columns)
                .order_by(versions.c.token_id)
                .limit(limit)
            ).mappings()
        ]
