"""The ledger: the lease of a run, its heartbeat and fence.

The row of ``sync_run`` with status ``running`` and a walk is the lease; a partial unique index
allows one per partner.  Every transaction of a run updates that row (``fence``) before it writes
anything else: if another run has taken over the lease, no row matches and nothing is written.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from etl.coverage import NEGATIVE_INFINITY, POSITIVE_INFINITY, Span
from etl.errors import EtlError, LeaseHeld
from etl.process.identity import has_certainly_ended
from etl.warehouse.connecting import APPLICATION
from etl.warehouse.engine import (
    LOCK_NOT_AVAILABLE,
    SETTINGS,
    UNIQUE_VIOLATION,
    require_row_count,
    transaction,
)
from etl.warehouse.ledger.attempts import finished_now, insert_attempt, is_starting
from etl.warehouse.ledger.resume import (
    inherited,
    resume_walk,
)
from etl.warehouse.ledger.run import STAGING_SECONDS, Baseline, OpenRun, StagedWalk
from etl.warehouse.schema.database import Database

LOG = logging.getLogger(__name__)
ABANDONED: Final = "abandoned"
"""``error_kind`` of a run that did not end itself."""
ERASING: Final = "erasing"
"""Key in ``overrides`` of a lease that ``erase`` holds: for what, ``account`` or ``archive``."""


def open_run(
    database: Database,
    *,
    partner_id: int,
    mode: str,
    service: str | None = None,
    range_from: datetime | None = None,
    range_to: datetime | None = None,
    lease_seconds: float,
    resume_window: timedelta | None,
    page_age_max: timedelta | None = None,
    dry_run: bool = False,
    label: str | None = None,
    attempt: int | None = None,
) -> OpenRun:
    """Take the partner's lease, and resume the walk of a run that ended without publishing.

    ``service`` is the address of the service that the run reads, without credentials.
    ``attempt`` is the run_id of the row that becomes the run's, None: a new one is written.  A run
    whose heartbeat is older than ``lease_seconds`` (by the database's clock), or whose process was
    one of this machine and is dead, is marked abandoned.  ``resume_walk`` says what is resumed;
    ``resume_window`` None: nothing, ``page_age_max`` None: pages of any age.  Raises LeaseHeld,
    naming the holder.  The schema must be current.
    """
    sync_run = database.tables.sync_run
    try:
        with transaction(
            database.engine, statement_seconds=STAGING_SECONDS, **SETTINGS
        ) as connection:
            abandon_dead_runs(connection, sync_run, partner_id, lease_seconds)
            if attempt is None or not is_starting(connection, sync_run, attempt):
                run_id = insert_attempt(
                    connection,
                    sync_run,
                    partner_id=partner_id,
                    mode=mode,
                    service=service,
                    label=label,
                    dry_run=dry_run,
                )
            else:
                run_id = attempt
            started_at = take_lease(
                connection, sync_run, run_id, mode=mode, range_from=range_from, range_to=range_to
            )
            run = OpenRun(
                run_id=run_id,
                partner_id=partner_id,
                mode=mode,
                started_at=started_at,
                walk=StagedWalk(walk_id=run_id),
                baseline=load_baseline(connection, database, partner_id),
                range=_seconds_of(range_from, range_to),
                dry_run=dry_run,
            )
            if resume_window is not None:
                resume_walk(
                    connection,
                    database,
                    run,
                    service=service,
                    range_from=range_from,
                    range_to=range_to,
                    window=resume_window,
                    page_age_max=page_age_max,
                )
            # No other run of the partner is alive, so rows of other walks are orphans.
            staging = database.tables.upload_token_staging
            connection.execute(
                sa.delete(staging).where(
                    staging.c.partner_id == partner_id,
                    staging.c.walk_id != run.walk.walk_id,
                )
            )
            fence(connection, database, run, **inherited(run))
            run.clock = _database_clock(connection)
    except EtlError as error:
        if is_another_run(error):
            raise lease_held(database, partner_id) from None
        raise
    return run


def is_another_run(error: EtlError) -> bool:
    """Whether a run was in the way when the lease could not be taken.

    Its own row, or a transaction of its that touches that row; not a table lock, and not a session
    of another program.
    """
    if error.fields.get("sqlstate") == UNIQUE_VIOLATION:
        return True
    return (
        error.fields.get("sqlstate") == LOCK_NOT_AVAILABLE
        and not error.fields.get("whole_table")
        and error.fields.get("holder_application", APPLICATION) == APPLICATION
    )


def take_lease(
    connection: sa.Connection, sync_run: sa.Table, run_id: int, **values: Any
) -> datetime:
    """Let the row of an attempt hold the lease; returns its new ``started_at``.

    Violates the unique index while another run of the account holds it.
    """
    now = sa.func.statement_timestamp()
    taken = connection.scalars(
        sa.update(sync_run)
        .where(sync_run.c.run_id == run_id)
        .values(walk_id=run_id, started_at=now, heartbeat_at=now, **values)
        .returning(sync_run.c.started_at)
    ).all()
    require_row_count(sync_run.name, changed=len(taken), meant=1)
    started_at: datetime = taken[0]
    return started_at


def fence(connection: sa.Connection, database: Database, run: OpenRun, **values: Any) -> None:
    """Update the heartbeat and save ``values``; raises LeaseHeld if the run no longer runs.

    The row stays locked until the transaction ends, so no other run takes over the lease meanwhile.
    """
    sync_run = database.tables.sync_run
    alive = connection.execute(
        sa.update(sync_run)
        .where(sync_run.c.run_id == run.run_id, sync_run.c.status == "running")
        .values(heartbeat_at=sa.func.statement_timestamp(), **values)
        .returning(sync_run.c.run_id)
    ).one_or_none()
    if alive is None:
        holds = sa.select(sync_run.c.status).where(sync_run.c.run_id == run.run_id)
        if connection.scalar(holds) == "running":
            require_row_count(sync_run.name, changed=0, meant=1)
        raise LeaseHeld(
            f"Run {run.run_id} no longer holds the lease of partner {run.partner_id}: another run "
            "took it over, or another process ended the run. Nothing more was written.",
            run_id=run.run_id,
        )


def restart_walk(database: Database, run: OpenRun) -> None:
    """Discard what the walk has read: it starts over in this run, which then resumes nothing."""
    tables = database.tables
    with transaction(database.engine, statement_seconds=STAGING_SECONDS) as connection:
        old_walk_id = run.walk.walk_id
        run.walk, run.resumed_from = StagedWalk(walk_id=run.run_id), None
        fence(connection, database, run, **inherited(run))
        for table in (tables.sync_page, tables.rejected_row):
            connection.execute(sa.delete(table).where(table.c.run_id == run.run_id))
        staging = tables.upload_token_staging
        connection.execute(
            sa.delete(staging).where(
                staging.c.partner_id == run.partner_id,
                staging.c.walk_id.in_((old_walk_id, run.run_id)),
            )
        )


def status_of(database: Database, run_id: int) -> str | None:
    """The current status of a run in the ledger."""
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        return connection.scalar(sa.select(sync_run.c.status).where(sync_run.c.run_id == run_id))


def _seconds_of(range_from: datetime | None, range_to: datetime | None) -> Span:
    """The seconds of a range, both ends inclusive; None leaves an end open."""
    return Span(
        NEGATIVE_INFINITY if range_from is None else math.floor(range_from.timestamp()),
        POSITIVE_INFINITY if range_to is None else math.floor(range_to.timestamp()) + 1,
    )


def abandon_dead_runs(
    connection: sa.Connection, sync_run: sa.Table, partner_id: int, lease_seconds: float
) -> None:
    """End runs that will not end themselves: an old heartbeat, or a process that is no more."""
    running = sa.and_(sync_run.c.partner_id == partner_id, is_at_work(sync_run))
    is_dead = sync_run.c.run_id.in_(ended_processes(connection, sync_run, running))
    abandoned = connection.execute(
        sa.update(sync_run)
        .where(
            running,
            sa.or_(is_dead, is_silent(sync_run, lease_seconds)),
            # An account of which a part is erased must not be synced.
            sync_run.c.overrides[ERASING].astext.is_distinct_from("account"),
        )
        .values(
            status="abandoned",
            # One that was starting is a walk of its own, without pages.
            walk_id=sa.func.coalesce(sync_run.c.walk_id, sync_run.c.run_id),
            finished_at=finished_now(sync_run),
            error_kind=ABANDONED,
            error_message=sa.case(
                (is_dead, "The process of the run died, and did not end the run."),
                else_="The run sent no heartbeat for longer than its lease.",
            ),
        )
        .returning(sync_run.c.run_id, sync_run.c.error_message)
    ).all()
    for run_id, reason in abandoned:
        LOG.warning("an abandoned run was ended: %s", reason, extra={"run_id": run_id})


def is_at_work(run: Any) -> sa.ColumnElement[bool]:
    """Whether a row of ``sync_run``, or of an alias, says that its run is at work or starting.

    No such run has published: the condition that lets the index of those find it.
    """
    return sa.and_(run.c.status == "running", run.c.published_at.is_(None))


def ended_processes(
    connection: sa.Connection, sync_run: sa.Table, running: sa.ColumnElement[bool]
) -> list[int]:
    """The run_ids, of those that meet ``running``, whose process was one of this machine and is no
    more."""
    holders = connection.execute(sa.select(sync_run.c.run_id, sync_run.c.process).where(running))
    return [holder.run_id for holder in holders if has_certainly_ended(holder.process)]


def is_silent(sync_run: sa.Table, lease_seconds: float) -> sa.ColumnElement[bool]:
    """Whether a run's last heartbeat is older than the lease, by the database's clock.

    One that is as far in the future is from before the clock was set back; a run that is at work
    has renewed it since.
    """
    now, lease = sa.func.statement_timestamp(), timedelta(seconds=lease_seconds)
    return sa.not_(sync_run.c.heartbeat_at.between(now - lease, now + lease))


def load_baseline(connection: sa.Connection, database: Database, partner_id: int) -> Baseline:
    """What is known of the partner; counted from the indexes of listed tokens and of runs."""
    token, sync_run = database.tables.upload_token, database.tables.sync_run
    of_partner = token.c.partner_id == partner_id
    listed = connection.scalar(sa.select(sa.func.count()).where(of_partner, token.c.is_listed))
    return Baseline(
        listed_before=listed or 0,
        knows_tokens=bool(connection.scalar(sa.select(sa.exists().where(of_partner)))),
        last_published_run_id=connection.scalar(
            last_published(database, partner_id).with_only_columns(sync_run.c.run_id)
        ),
        published_runs=connection.scalar(
            sa.select(sa.func.count()).where(
                sync_run.c.partner_id == partner_id, sync_run.c.published_at.is_not(None)
            )
        )
        or 0,
    )


def last_published(database: Database, partner_id: int) -> sa.Select[Any]:
    """The newest published run of a partner: run_id and published_at."""
    sync_run = database.tables.sync_run
    return (
        sa.select(sync_run.c.run_id, sync_run.c.published_at)
        .where(sync_run.c.partner_id == partner_id, sync_run.c.published_at.is_not(None))
        .order_by(sync_run.c.published_at.desc())
        .limit(1)
    )


def _database_clock(connection: sa.Connection) -> Callable[[], datetime]:
    # Read before the query: the clock may be ahead by the query's round trip, never behind, so that
    # nothing is observed before it happened.
    started = time.monotonic()
    opened: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return lambda: opened + timedelta(seconds=time.monotonic() - started)


def lease_held(database: Database, partner_id: int) -> LeaseHeld:
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        holder = connection.execute(
            sa.select(
                sync_run.c.run_id,
                sync_run.c.host,
                sync_run.c.pid,
                sync_run.c.started_at,
                sa.extract("epoch", sa.func.statement_timestamp() - sync_run.c.heartbeat_at).label(
                    "silent_seconds"
                ),
                sync_run.c.overrides[ERASING].astext.label("erasing"),
            ).where(
                sync_run.c.partner_id == partner_id,
                sync_run.c.status == "running",
                sync_run.c.walk_id.is_not(None),
            )
        ).one_or_none()
    if holder is None:
        return LeaseHeld(f"Another run of partner {partner_id} was running just now: try again")
    if holder.erasing == "account":
        return LeaseHeld(
            f"Account {partner_id} is being erased, since {holder.started_at:%Y-%m-%d %H:%M:%S} "
            "UTC. If that was interrupted, run kaltura-etl erase --account --apply again to "
            "finish it.",
            holder_run_id=holder.run_id,
            host=holder.host,
            pid=holder.pid,
        )
    return LeaseHeld(
        f"Run {holder.run_id} of partner {partner_id} has been running on {holder.host} (process "
        f"{holder.pid}) since {holder.started_at:%Y-%m-%d %H:%M:%S} UTC; its last heartbeat was "
        f"{float(holder.silent_seconds):.0f} s ago. Try again when it has ended.",
        holder_run_id=holder.run_id,
        host=holder.host,
        pid=holder.pid,
        started_at=holder.started_at.isoformat(),
        heartbeat_age_seconds=float(holder.silent_seconds),
    )
