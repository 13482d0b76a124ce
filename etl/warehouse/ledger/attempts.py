"""Attempts: every start that reaches the warehouse leaves a trace, even if it never gets to read.

A run begins as an attempt: a row of ``sync_run`` that is ``running`` but has no walk, and so does
not hold the lease (``etl.warehouse.ledger.lease`` gives it one).  An attempt that fails, and a run
that fails before it has read a page, do not fill the ledger: if the row before says the same, that
row counts it, and the next attempt takes the row that is left over, so nothing has to be deleted.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from etl.errors import DataRefused, EtlError, LeaseHeld
from etl.process.identity import process_identity
from etl.resources import program_version
from etl.warehouse.engine import require_row_count, transaction
from etl.warehouse.ledger.resume import DRY_RUN
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import alias_of

LOG = logging.getLogger(__name__)
SKIPPED: Final = "skipped"
"""Status of an attempt that found another run at work."""
FOLDED: Final = "folded"
"""``error_kind`` of a spare row, whose status is ``skipped``."""
_SAME: Final = ("status", "mode", "range_from", "range_to", "error_kind", "label", "service")
"""Columns that are equal in equal attempts; the message is compared without its numbers."""
_FOLDABLE: Final = ("failed", "refused", SKIPPED)
_OF_THE_LATER: Final = (
    *("finished_at", "heartbeat_at", "error_message", "host", "pid", "process", "program_version"),
)
_MESSAGE_CHARACTERS_MAX: Final = 2_000


def begin_attempt(
    database: Database,
    *,
    partner_id: int,
    mode: str,
    service: str | None = None,
    label: str | None = None,
    dry_run: bool = False,
) -> int:
    """Record that a run is starting; returns the run_id of its row.  The schema must be current."""
    with transaction(database.engine) as connection:
        return insert_attempt(
            connection,
            database.tables.sync_run,
            partner_id=partner_id,
            mode=mode,
            service=service,
            label=label,
            dry_run=dry_run,
        )


def this_process() -> dict[str, Any]:
    """The columns that tell which process a row of the ledger is of."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": process_identity(),
        "program_version": program_version(),
    }


def insert_attempt(
    connection: sa.Connection,
    sync_run: sa.Table,
    *,
    partner_id: int,
    mode: str,
    service: str | None = None,
    label: str | None = None,
    dry_run: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Write the row of an attempt, into a spare row if the account's newest is one."""
    now = sa.func.statement_timestamp()
    values: dict[str, Any] = {
        "partner_id": partner_id,
        "mode": mode,
        "status": "running",
        "started_at": now,
        "heartbeat_at": now,
        "overrides": overrides or ({DRY_RUN: True} if dry_run else {}),
        "service": service,
        "label": label,
        "attempts": 1,
        **this_process(),
    }
    newest = (
        sa.select(sa.func.max(sync_run.c.run_id))
        .where(sync_run.c.partner_id == partner_id)
        .scalar_subquery()
    )
    cleared = dict.fromkeys(("walk_id", "finished_at", "error_kind", "error_message"))
    spare = connection.scalar(
        sa.update(sync_run)
        # Of two starts at the same time the second finds it taken, and inserts.
        .where(sync_run.c.run_id == newest, sync_run.c.attempts == 0)
        .values(**values, **cleared)
        .returning(sync_run.c.run_id)
    )
    if spare is not None:
        return int(spare)
    inserted = connection.scalars(
        sa.insert(sync_run).values(**values).returning(sync_run.c.run_id)
    ).all()
    require_row_count(sync_run.name, changed=len(inserted), meant=1)
    return int(inserted[0])


def is_starting(connection: sa.Connection, sync_run: sa.Table, run_id: int) -> bool:
    """Whether the attempt has neither ended nor become a run; its row is locked."""
    starting = connection.scalar(
        sa.select(sync_run.c.run_id)
        .where(
            sync_run.c.run_id == run_id,
            sync_run.c.status == "running",
            sync_run.c.walk_id.is_(None),
        )
        .with_for_update()
    )
    return starting is not None


def still_starting(database: Database, attempt: int) -> None:
    """Renew the heartbeat of an attempt that waits for the lease."""
    sync_run = database.tables.sync_run
    with transaction(database.engine) as connection:
        connection.execute(
            sa.update(sync_run)
            .where(sync_run.c.run_id == attempt, sync_run.c.status == "running")
            .values(heartbeat_at=sa.func.statement_timestamp())
        )


@contextmanager
def recorded_attempt(
    database: Database, attempt: int, sent: Callable[[], Mapping[str, int]]
) -> Iterator[None]:
    """Record how the attempt ended if the block, in which it is to become a run, raises.

    ``sent`` gives the requests and retries that it has made by then.
    """
    try:
        yield
    except EtlError as error:
        told_in = end_attempt(database, attempt, error, **sent())
        if told_in is not None:
            error.fields.setdefault("run_id", told_in)
        raise
    except BaseException as error:
        bug = EtlError(f"This is a bug: {type(error).__name__}")
        end_attempt(database, attempt, bug, **sent())
        raise


def end_attempt(
    database: Database, attempt: int, error: EtlError, *, requests: int = 0, retries: int = 0
) -> int | None:
    """Record the error with which the attempt ended; returns the run_id of the row that tells it.

    None if the attempt had become a run, whose end is told elsewhere, or if nothing could be
    written: never raises, so as not to hide the error.
    """
    sync_run = database.tables.sync_run
    status = SKIPPED if isinstance(error, LeaseHeld) else None
    try:
        with transaction(database.engine) as connection:
            return end_row(
                connection,
                sync_run,
                attempt,
                sync_run.c.walk_id.is_(None),
                requests=requests,
                retries=retries,
                **ended_by(error, status=status),
            )
    except EtlError as second:
        # The next run marks it abandoned once its heartbeat is old.
        LOG.warning(
            "the failure could not be recorded in the ledger",
            extra={"run_id": attempt, "error": second.kind},
        )
        return None


def ended_by(error: EtlError, *, status: str | None = None) -> dict[str, Any]:
    """The columns that tell an error: ``status`` (by default that of a run), kind and message."""
    text = "".join(character if character.isprintable() else " " for character in error.message)
    if status is None:
        status = "refused" if isinstance(error, DataRefused) else "failed"
    return {
        "status": status,
        "error_kind": error.kind,
        "error_message": text[:_MESSAGE_CHARACTERS_MAX],
    }


def finished_now(sync_run: sa.Table) -> sa.ColumnElement[Any]:
    """The time at which a run ends: never before it began, even if the server's clock was set back
    meanwhile."""
    return sa.func.greatest(sa.func.statement_timestamp(), sync_run.c.started_at)


def end_row(
    connection: sa.Connection,
    sync_run: sa.Table,
    run_id: int,
    *conditions: sa.ColumnElement[bool],
    **values: Any,
) -> int | None:
    """End a running row; returns the run_id of the row that tells it, None if none was running.

    Another row than its own tells it if that is an equal attempt just before.
    """
    ended = connection.execute(
        sa.update(sync_run)
        .where(sync_run.c.run_id == run_id, sync_run.c.status == "running", *conditions)
        .values(
            # A start that never became a run is a walk of its own, without pages.
            walk_id=sa.func.coalesce(sync_run.c.walk_id, sync_run.c.run_id),
            finished_at=finished_now(sync_run),
            **values,
        )
        .returning(sync_run)
    ).one_or_none()
    if ended is None:
        return None
    if ended.status not in _FOLDABLE or ended.pages:
        return run_id
    return _fold(connection, sync_run, ended)


def _fold(connection: sa.Connection, sync_run: sa.Table, ended: Any) -> int:
    """Count the attempt in the row before it if that tells the same; returns the row that tells it.

    The later message stands.  Its own row becomes spare.
    """
    before = alias_of(sync_run, "before")
    newest_before = (
        sa.select(sa.func.max(before.c.run_id))
        .where(before.c.partner_id == ended.partner_id, before.c.run_id < ended.run_id)
        .scalar_subquery()
    )
    told_in = connection.scalar(
        sa.update(sync_run)
        .where(
            sync_run.c.run_id == newest_before,
            sync_run.c.pages == 0,
            sync_run.c.attempts > 0,
            _without_numbers(sync_run.c.error_message)
            == _without_numbers(sa.literal(ended.error_message)),
            *[sync_run.c[name].is_not_distinct_from(ended._mapping[name]) for name in _SAME],
        )
        .values(
            attempts=sync_run.c.attempts + ended.attempts,
            requests=sync_run.c.requests + ended.requests,
            retries=sync_run.c.retries + ended.retries,
            **{name: ended._mapping[name] for name in _OF_THE_LATER},
        )
        .returning(sync_run.c.run_id)
    )
    if told_in is None:
        return int(ended.run_id)
    connection.execute(
        sa.update(sync_run)
        .where(sync_run.c.run_id == ended.run_id)
        .values(
            status=SKIPPED,
            attempts=0,
            requests=0,
            retries=0,
            error_kind=FOLDED,
            error_message=f"Counted in run {told_in}, which says the same.",
        )
    )
    return int(told_in)


def _without_numbers(text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """A message apart from its numbers: ages, process ids, seconds."""
    return sa.func.regexp_replace(text, "[0-9]+", "0", "g")
