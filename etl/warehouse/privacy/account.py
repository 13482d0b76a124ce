"""Erasure of an account that leaves: every row of it, in every table, in bounded transactions.

The account's lease is held from the first transaction to the last (``hold``), so that no run is at
work.  An interrupted erasure is continued by the next call.  What remains is the row of the ledger
that held the lease: when, on which host, how many rows of which table.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from psycopg import sql

from etl.process.stop import Stop
from etl.warehouse.engine import SETTINGS, driver_connection, require_row_count, transaction
from etl.warehouse.privacy.hold import ACCOUNT_ERASED, Hold
from etl.warehouse.privacy.prune import lock_prunes
from etl.warehouse.privacy.subject import VERSION_TABLES
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.tables import Tables

ROWS_AT_ONCE: Final = 20_000
RUNS_AT_ONCE: Final = 500
STATEMENT_SECONDS: Final = 3_600
_LAST: Final = ("erasure", "erasure_key", "sync_run")
"""Deleted last, in this order: the rest is found through the ledger."""
_WITHOUT_KEY: Final = {
    "upload_token_staging": ("walk_id", "created_at"),
    "rejected_row": ("run_id",),
}
"""The order of rows that have no primary key; rows with equal values are deleted together."""


def account_tables(tables: Tables) -> list[sa.Table]:
    """The tables with rows of accounts, in the order in which an account is deleted from them."""
    found = [
        table
        for table in tables.metadata.sorted_tables
        if "partner_id" in table.c or "run_id" in table.c
    ]
    found.sort(key=lambda table: _LAST.index(table.name) if table.name in _LAST else -1)
    return found


def privileges_to_erase(tables: Tables) -> list[tuple[str, str]]:
    """What a role needs to erase an account; no loader has it."""
    needed = [
        (str(table.name), privilege)
        for table in account_tables(tables)
        for privilege in ("SELECT", "DELETE")
    ]
    needed += [(name, "INSERT") for name in (*VERSION_TABLES, "rejected_row", "sync_run")]
    return [*needed, ("sync_run", "UPDATE")]


def count_account(database: Database, partner_id: int) -> dict[str, int]:
    """The number of rows of the account, by table, without the record of an earlier erasure."""
    sync_run = database.tables.sync_run
    with transaction(
        database.engine, statement_seconds=STATEMENT_SECONDS, transaction_read_only="on"
    ) as connection:
        counts = {}
        for table in account_tables(database.tables):
            of_account = _of_account(database.tables, table, partner_id)
            if table is sync_run:
                of_account &= sync_run.c.error_kind.is_distinct_from(ACCOUNT_ERASED)
            counted = sa.select(sa.func.count()).select_from(table).where(of_account)
            counts[str(table.name)] = connection.scalar(counted) or 0
        return counts


def erase_account_rows(hold: Hold, *, stop: Stop) -> dict[str, int]:
    """Delete every row of the held account and leave the record; returns rows deleted, by table.

    Each transaction deletes a bounded number of rows and counts them in the held row, so those of
    an interrupted erasure are included.  Raises Interrupted between two transactions; DataRefused,
    which rolls back, where Postgres does not delete what it was told to.
    """
    database = hold.database
    for table in account_tables(database.tables):
        name, left = str(table.name), True
        while left:
            stop.check()
            with _transaction(database) as connection:
                deleted, left = _delete_part(connection, hold, table)
                if not left:
                    _forget_values(connection, hold, table)
                hold.erased_rows[name] = hold.erased_rows.get(name, 0) + deleted
                hold.fence(connection)
    with _transaction(database) as connection:
        hold.leave_record(connection)
    return dict(hold.erased_rows)


def _transaction(database: Database) -> AbstractContextManager[sa.Connection]:
    return transaction(
        database.engine, durable=True, statement_seconds=STATEMENT_SECONDS, **SETTINGS
    )


def _delete_part(connection: sa.Connection, hold: Hold, table: sa.Table) -> tuple[int, bool]:
    """Delete up to about ``ROWS_AT_ONCE`` rows, the last ones by key first; whether more are left.

    In that order, because a run may name an earlier one that it resumed.
    """
    # The nightly pruning of another account deletes pages of all accounts.
    lock_prunes(connection, hold.database)
    rows, more_runs = _rows_of(connection, hold, table)
    order = [table.c[name] for name in _order_of(table)]
    # No index finds the runs that resumed a run, so each one is looked for in the whole ledger.
    at_once = RUNS_AT_ONCE if table is hold.database.tables.sync_run else ROWS_AT_ONCE
    bound = connection.execute(
        sa.select(*order)
        .where(rows)
        .order_by(*[column.desc() for column in order])
        .offset(at_once - 1)
        .limit(1)
    ).one_or_none()
    if bound is not None:
        rows = sa.and_(rows, sa.tuple_(*order) >= sa.tuple_(*bound))
    meant = connection.scalar(sa.select(sa.func.count()).select_from(table).where(rows)) or 0
    done = connection.execute(sa.delete(table).where(rows))
    require_row_count(table.name, changed=done.rowcount, meant=meant)
    return meant, bound is not None or more_runs


def _rows_of(
    connection: sa.Connection, hold: Hold, table: sa.Table
) -> tuple[sa.ColumnElement[bool], bool]:
    """Which rows to delete next, and whether there may be rows of further runs."""
    sync_run = hold.database.tables.sync_run
    if "partner_id" in table.c:
        rows = table.c.partner_id == hold.partner_id
        return rows if table is not sync_run else rows & (table.c.run_id != hold.run_id), False
    runs = connection.scalars(
        sa.select(sync_run.c.run_id)
        .where(
            sync_run.c.partner_id == hold.partner_id,
            sa.exists().where(table.c.run_id == sync_run.c.run_id),
        )
        .order_by(sync_run.c.run_id.desc())
        .limit(RUNS_AT_ONCE)
    ).all()
    return table.c.run_id == sa.any_(sa.cast(list(runs), sa.ARRAY(sa.BigInteger))), bool(runs)


def _order_of(table: sa.Table) -> Sequence[str]:
    key = [column.name for column in table.primary_key.columns]
    return [name for name in key or _WITHOUT_KEY[table.name] if name != "partner_id"] or key


def _of_account(tables: Tables, table: sa.Table, partner_id: int) -> sa.ColumnElement[bool]:
    if "partner_id" in table.c:
        return table.c.partner_id == partner_id
    runs = sa.select(tables.sync_run.c.run_id).where(tables.sync_run.c.partner_id == partner_id)
    return table.c.run_id.in_(runs)


def _forget_values(connection: sa.Connection, hold: Hold, table: sa.Table) -> None:
    """Renew the planner's statistics, which contain frequent values verbatim.

    ANALYZE keeps the old ones of a table or partition that is empty.  So it gets a row to look at
    where the account had some, which no other session sees: it is deleted in this transaction.
    """
    if table.name in VERSION_TABLES:
        stand_in = sa.insert(table).values(_stand_in(table.name, hold))
        is_stand_in = table.c.partner_id == hold.partner_id
    elif table is hold.database.tables.rejected_row:
        run = hold.database.tables.sync_run
        of_account = run.c.partner_id == hold.partner_id
        stand_in = sa.insert(table).from_select(
            ["run_id", "reason", "payload"],
            sa.select(run.c.run_id, sa.literal(ACCOUNT_ERASED), sa.literal(b"")).where(of_account),
        )
        is_stand_in = table.c.run_id.in_(sa.select(run.c.run_id).where(of_account))
    else:
        return
    connection.execute(stand_in)
    driver_connection(connection).execute(
        sql.SQL("analyze {}").format(sql.Identifier(hold.database.schema, table.name)),
        prepare=False,
    )
    connection.execute(sa.delete(table).where(is_stand_in))


def _stand_in(name: str, hold: Hold) -> dict[str, Any]:
    """The values of a row that the constraints of the table let pass."""
    moment = datetime(2000, 1, 1, tzinfo=UTC)
    token = {
        "partner_id": hold.partner_id,
        "token_id": "",
        "created_at": moment,
        "observed_at": moment,
    }
    if name == "upload_token_staging":
        return token | {"walk_id": hold.run_id, "kind": "missing", "from_lookup": False}
    version = token | {
        "is_listed": True,
        "version": 1,
        "change_kind": "first_seen",
        "valid_from": moment,
        "run_id": hold.run_id,
    }
    if name == "upload_token":
        return version
    return version | {"valid_to": moment + timedelta(days=1), "superseded_by_run_id": hold.run_id}
