"""Indexes of tables that others use meanwhile: built without a lock that they feel.

An index that is built concurrently waits for every older transaction of the database that holds a
snapshot, an analyst's for one.  Nobody waits for the index meanwhile, so it is given minutes.  It
cannot be built in a transaction, so no lock of ours can be held: two that build the same index at
once find each other in the catalogue, or in a deadlock that Postgres resolves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from sqlalchemy import (
    Connection,
    Index,
    MetaData,
    Table,
    exists,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, DropIndex

from etl.errors import WarehouseUnavailable
from etl.warehouse.engine import (
    DEADLOCK_DETECTED,
    DUPLICATE_TABLE,
    LOCK_NOT_AVAILABLE,
    sqlstate_of,
)
from etl.warehouse.locks import snapshot_holder

LOG = logging.getLogger(__name__)
WAIT_SECONDS: float = 300.0
"""How long an index may wait for the transactions of others."""
POLL_SECONDS: Final = 0.2
_OVERTAKEN: Final = (DEADLOCK_DETECTED, DUPLICATE_TABLE)
"""Another session builds the same index: look again."""
_IS_VALID: Final = text(
    "select indisvalid from pg_index where indexrelid = "
    "to_regclass(format('%I.%I', cast(:schema as text), cast(:name as text)))"
)
_IS_BEING_BUILT: Final = text(
    "select exists (select from pg_locks where granted and pid <> pg_backend_pid() "
    "and mode = 'ShareUpdateExclusiveLock' and relation = "
    "to_regclass(format('%I.%I', cast(:schema as text), cast(:name as text))))"
)
_SETTINGS: Final = ("lock_timeout", "statement_timeout")


def has_rows(connection: Connection, table: Table) -> bool:
    """Whether an index of it is worth building concurrently."""
    return bool(connection.scalar(select(exists(select(literal_column("1")).select_from(table)))))


def table_of(index: Index) -> Table:
    if index.table is None:
        raise ValueError(f"index {index.name} has no table")
    return index.table


def concurrently(index: Index) -> Index:
    """The same index, as one that is created and dropped concurrently."""
    table = table_of(index).to_metadata(MetaData())
    (copy,) = [each for each in table.indexes if each.name == index.name]
    copy.dialect_options["postgresql"]["concurrently"] = True
    return copy


def build_concurrently(connection: Connection, index: Index) -> None:
    """Build the index unless it is there and valid; one that was interrupted is built anew.

    ``connection`` is in autocommit mode.

    Raises:
        WarehouseUnavailable: an older transaction did not end in time; names its session.
    """
    wanted = concurrently(index)
    table = table_of(wanted)
    names = {"schema": table.schema, "name": wanted.name}
    deadline = time.monotonic() + WAIT_SECONDS
    with _patient(connection):
        while not connection.scalar(_IS_VALID, names):
            if connection.scalar(_IS_BEING_BUILT, names | {"name": table.name}):
                if time.monotonic() >= deadline:
                    raise _in_the_way(connection, wanted)
                time.sleep(POLL_SECONDS)
                continue
            # It may take minutes, in silence.
            LOG.info(
                "building an index while others work",
                extra={"index": wanted.name, "of_table": table.name},
            )
            try:
                connection.execute(DropIndex(wanted, if_exists=True))
                connection.execute(CreateIndex(wanted))
            except DBAPIError as error:
                if sqlstate_of(error) == LOCK_NOT_AVAILABLE:
                    raise _in_the_way(connection, wanted) from None
                if sqlstate_of(error) not in _OVERTAKEN:
                    raise


def drop_concurrently(connection: Connection, index: Index) -> None:
    """Drop the index if it is there.  Raises as ``build_concurrently`` does."""
    wanted = concurrently(index)
    with _patient(connection):
        try:
            connection.execute(DropIndex(wanted, if_exists=True))
        except DBAPIError as error:
            if sqlstate_of(error) == LOCK_NOT_AVAILABLE:
                raise _in_the_way(connection, wanted) from None
            raise


@contextmanager
def _patient(connection: Connection) -> Iterator[None]:
    """The session waits for others as long as an index may."""
    values = (f"{round(WAIT_SECONDS * 1000)}", "0")
    for name, value in zip(_SETTINGS, values, strict=True):
        connection.execute(select(func.set_config(literal(name), value, False)))
    try:
        yield
    finally:
        # A pooler may hand the session to another program.
        with suppress(SQLAlchemyError):
            for name in _SETTINGS:
                connection.execute(text(f"reset {name}"))


def _in_the_way(connection: Connection, index: Index) -> WarehouseUnavailable:
    table = table_of(index)
    holder = snapshot_holder(connection, str(table.schema), table.name)
    return WarehouseUnavailable(
        f"Index {index.name} has waited for {WAIT_SECONDS:g} s: it is built while others use "
        f"{table.schema}.{table.name}, and for that every older transaction of the database has to "
        f"end first (SQLSTATE {LOCK_NOT_AVAILABLE}): "
        f"{holder or 'another session was in the way until now'}. Run kaltura-etl migrate again "
        "when it has ended, or have it ended.",
        reason="lock_timeout",
        sqlstate=LOCK_NOT_AVAILABLE,
        **({} if holder is None else holder.fields),
    )
