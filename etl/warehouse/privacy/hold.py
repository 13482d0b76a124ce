"""The lease of an account for longer than one transaction, so that no run is at work meanwhile.

It is a row of the ledger like that of a run, marked in ``overrides``.  If its holder is killed
while it erases an *account*, the row stays until the command is run again: an account of which a
part is gone must not be synced.  A hold for rewriting an *archive* is abandoned like a run without
heartbeat: both the warehouse and the archive are whole at any time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import sqlalchemy as sa

from etl.errors import EtlError, LeaseHeld
from etl.warehouse.engine import transaction
from etl.warehouse.ledger.attempts import finished_now, insert_attempt, this_process
from etl.warehouse.ledger.lease import (
    ERASING,
    abandon_dead_runs,
    is_another_run,
    is_at_work,
    lease_held,
    take_lease,
)
from etl.warehouse.privacy.rights import require_rights
from etl.warehouse.schema.database import Database

Purpose = Literal["account", "archive"]
ERASED_ROWS: Final = "erased_rows"
"""Key in ``overrides``: the numbers of rows deleted so far, by table."""
ACCOUNT_ERASED: Final = "account_erased"
"""``error_kind`` of the row that remains of an erased account."""
ADVICE: Final = (
    "Erase as the role that owns the tables (the one that runs kaltura-etl migrate), not as the "
    "loader."
)


@dataclass(slots=True)
class Hold:
    """The lease of an account, held by this process."""

    database: Database
    partner_id: int
    run_id: int
    purpose: Purpose
    erased_rows: dict[str, int] = field(default_factory=dict)
    """By table; those of an interrupted erasure that it continues are included."""

    def fence(self, connection: sa.Connection) -> None:
        """Save the heartbeat and the counts; raises LeaseHeld if another process took it over."""
        self._update(
            connection,
            heartbeat_at=sa.func.statement_timestamp(),
            overrides=_marks(self.purpose, self.erased_rows),
        )

    def beat(self) -> None:
        """``fence`` in a transaction of its own."""
        with transaction(self.database.engine) as connection:
            self.fence(connection)

    def release(self) -> None:
        """Give the lease back and leave nothing in the ledger."""
        sync_run = self.database.tables.sync_run
        with transaction(self.database.engine) as connection:
            connection.execute(sa.delete(sync_run).where(*self._is_held(sync_run)))

    def leave_record(self, connection: sa.Connection) -> None:
        """Give the lease back; the row remains as the record of the account's erasure."""
        rows = sum(self.erased_rows.values())
        self._update(
            connection,
            status="skipped",
            finished_at=finished_now(self.database.tables.sync_run),
            error_kind=ACCOUNT_ERASED,
            error_message=f"Account {self.partner_id} was erased: {rows} rows, by kaltura-etl "
            "erase --account.",
            overrides={ERASED_ROWS: self.erased_rows},
        )

    def _update(self, connection: sa.Connection, **values: Any) -> None:
        sync_run = self.database.tables.sync_run
        done = connection.execute(
            sa.update(sync_run).where(*self._is_held(sync_run)).values(values)
        )
        if done.rowcount != 1:
            raise LeaseHeld(
                f"Another process continues this erasure of account {self.partner_id}, or its "
                "lease ran out. Run the command again.",
                run_id=self.run_id,
            )

    def _is_held(self, sync_run: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            sync_run.c.run_id == self.run_id,
            sync_run.c.status == "running",
            sync_run.c.host == socket.gethostname(),
            sync_run.c.pid == os.getpid(),
        )


def take_hold(
    database: Database,
    partner_id: int,
    purpose: Purpose,
    *,
    lease_seconds: float,
    privileges: Iterable[tuple[str, str]],
) -> Hold:
    """Take the lease of the account, or that of an erasure which was interrupted.

    An erasure that is still at work loses it, and stops: what both do is the same.  One that was
    killed is not told by its process: the next one takes its lease over, and leaves no row.

    Raises:
        CredentialsRefused: the role lacks one of ``privileges``.
        LeaseHeld: a run of the account is running, or for a hold for an archive: the account itself
            is being erased.
    """
    sync_run = database.tables.sync_run
    try:
        with transaction(database.engine, durable=True) as connection:
            require_rights(connection, database, privileges, to="rewrite history", advice=ADVICE)
            abandon_dead_runs(connection, sync_run, partner_id, lease_seconds)
            found = connection.execute(
                sa.select(sync_run.c.run_id, sync_run.c.overrides)
                .where(
                    sync_run.c.partner_id == partner_id,
                    is_at_work(sync_run),
                    sync_run.c.overrides.has_key(ERASING),
                )
                .with_for_update()
            ).one_or_none()
            if found is None:
                run_id = insert_attempt(
                    connection,
                    sync_run,
                    partner_id=partner_id,
                    mode="full",
                    overrides=_marks(purpose, {}),
                )
                take_lease(connection, sync_run, run_id, process=None)
                return Hold(database, partner_id, run_id, purpose)
            if purpose == "archive" and found.overrides[ERASING] == "account":
                raise lease_held(database, partner_id)
            hold = Hold(
                database,
                partner_id,
                found.run_id,
                purpose,
                dict(found.overrides.get(ERASED_ROWS, {})),
            )
            connection.execute(
                sa.update(sync_run)
                .where(sync_run.c.run_id == hold.run_id)
                .values(
                    overrides=_marks(purpose, hold.erased_rows),
                    heartbeat_at=sa.func.statement_timestamp(),
                    **this_process() | {"process": None},
                )
            )
            return hold
    except EtlError as error:
        if is_another_run(error):
            raise lease_held(database, partner_id) from None
        raise


def _marks(purpose: Purpose, erased_rows: dict[str, int]) -> dict[str, Any]:
    return {ERASING: purpose, ERASED_ROWS: erased_rows}
