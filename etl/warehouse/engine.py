"""Access to Postgres: the engine, transactions, and the translation of errors.

No session state: PgBouncer in transaction mode may run each transaction on another server
connection.  Each transaction sets what it needs locally (``set_config(…, is_local => true)``).

Errors raised here never contain a row, a parameter or a part of the URL other than host, port and
database.  The texts of libpq and of Postgres may, so only the SQLSTATE and a sentence of ours are
passed on, and the cause is dropped (``from None``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain, repeat
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.exc import DBAPIError, DisconnectionError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    WarehouseUnavailable,
)
from etl.settings.values import database_address
from etl.warehouse.compiled import STATEMENTS
from etl.warehouse.connecting import POOLER, normalise_url, open_driver_connection, place_text
from etl.warehouse.locks import ROW_LOCKS, LockHolder, lock_holder
from etl.warehouse.row_security import LIMITS_SOMEBODY, show_rows

LOCK_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 300
IDLE_SECONDS: Final = 300

SETTINGS: Final[dict[str, Any]] = {
    # An index is used, however small the statistics say that the table is.
    "enable_seqscan": "off",
    # To start workers takes longer than a batch.
    "max_parallel_workers_per_gather": "0",
}
"""Server settings of the transactions that compare, publish, and ask what is known."""

# SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
FEATURE_NOT_SUPPORTED: Final = "0A000"
UNIQUE_VIOLATION: Final = "23505"
DEADLOCK_DETECTED: Final = "40P01"
PROTOCOL_VIOLATION: Final = "08P01"
READ_ONLY_TRANSACTION: Final = "25006"
DEPENDENT_PRIVILEGES: Final = "2BP01"
INVALID_CATALOG_NAME: Final = "3D000"
INVALID_SCHEMA_NAME: Final = "3F000"
INSUFFICIENT_PRIVILEGE: Final = "42501"
UNDEFINED_COLUMN: Final = "42703"
UNDEFINED_OBJECT: Final = "42704"
UNDEFINED_FUNCTION: Final = "42883"
UNDEFINED_TABLE: Final = "42P01"
DUPLICATE_TABLE: Final = "42P07"
INVALID_COLUMN_REFERENCE: Final = "42P10"
INVALID_FUNCTION_DEFINITION: Final = "42P13"
INVALID_TABLE_DEFINITION: Final = "42P16"
WRONG_OBJECT_TYPE: Final = "42809"
DISK_FULL: Final = "53100"
OBJECT_NOT_IN_PREREQUISITE_STATE: Final = "55000"
LOCK_NOT_AVAILABLE: Final = "55P03"
QUERY_CANCELED: Final = "57014"
RAISE_EXCEPTION: Final = "P0001"

TIME_ZONE: Final = "kaltura.time_zone"
"""The setting that views read, for the zone in which they cut days."""

SCHEMA_OPTION: Final = "kaltura_etl_schema"
"""Execution option of an engine: the schema of its transactions, for ``holders_named``."""


def connect(url: str) -> sa.Engine:
    """An engine for ``url`` that pools one connection, opened when first needed.

    ``etl.warehouse.connecting`` says how connections are opened, and which errors that raises.
    The engine's own URL has nothing but host, port and database.
    """
    normal = normalise_url(url)
    return sa.create_engine(
        sa.URL.create("postgresql+psycopg", **database_address(normal, os.environ)),  # type: ignore[arg-type]
        creator=lambda: open_driver_connection(normal),
        # Sent with every BEGIN, whatever the role's default is.
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        use_native_hstore=False,
        pool_size=1,
        max_overflow=2,
        execution_options={"compiled_cache": STATEMENTS},
    )


@contextmanager
def transaction(
    engine: sa.Engine,
    *,
    durable: bool = False,
    statement_seconds: float = STATEMENT_SECONDS,
    **settings: str,
) -> Iterator[sa.Connection]:
    """One transaction, committed at the end.  ``durable`` pins ``synchronous_commit`` to on.

    ``settings`` are further server settings, such as ``work_mem``.  Raises the errors that
    ``translate_error`` names.
    """
    local = {
        "timezone": "UTC",
        "datestyle": "ISO, MDY",
        "standard_conforming_strings": "on",
        "lock_timeout": str(round(LOCK_SECONDS * 1000)),
        "statement_timeout": str(round(statement_seconds * 1000)),
        "idle_in_transaction_session_timeout": str(IDLE_SECONDS * 1000),
        # Each statement runs once: compiling it would cost more than it saves.
        "jit": "off",
        # What would hide rows is an error instead.
        "row_security": "off",
        **settings,
    }
    if durable:
        local["synchronous_commit"] = "on"
    schema = engine.get_execution_options().get(SCHEMA_OPTION)
    with translated_errors(engine), holders_named(engine), engine.begin() as connection:
        values = enumerate(chain.from_iterable(local.items()))
        *_, limits, time_zone, citus = connection.execute(
            _setting(len(local)), {f"setting_{number}": value for number, value in values}
        ).one()
        if limits and local["row_security"] == "off" and schema is not None:
            local["row_security"] = show_rows(connection, schema)
        if citus is not None:
            # Its workers do not get what set_config() sets.
            set_local(
                connection,
                {"citus.propagate_set_commands": "local"} | local | {TIME_ZONE: time_zone or "UTC"},
            )
        yield connection


@cache
def _setting(count: int) -> sa.Select[Any]:
    """What sets so many settings; ``setting_0`` is the name of the first, ``setting_1`` its value.

    It begins every transaction, and to put it together each time took more than all of the rest.
    """
    bound = [sa.bindparam(f"setting_{number}", type_=sa.Text) for number in range(2 * count)]
    return sa.select(
        *map(sa.func.set_config, bound[::2], bound[1::2], repeat(True)),
        LIMITS_SOMEBODY,
        sa.func.current_setting(TIME_ZONE, True),
        sa.func.current_setting("citus.version", True),
    )


def set_local(connection: sa.Connection, settings: Mapping[str, str]) -> None:
    """Set them for the transaction: on every node, if ``transaction`` opened it."""
    driver_connection(connection).execute(local_settings(settings))


def local_settings(settings: Mapping[str, str]) -> sql.Composed:
    """The statements that set them for a transaction, on every node; ``set_config()`` would not."""
    return sql.SQL("; ").join(
        sql.SQL("set local {} = {}").format(sql.Identifier(*name.split(".")), sql.Literal(value))
        for name, value in settings.items()
    )


@contextmanager
def holders_named(engine: sa.Engine, *, weakest: int = ROW_LOCKS) -> Iterator[None]:
    """Turn the error of a lock that was not granted into ours, which says who holds it.

    ``weakest`` as in ``locks``.  The holder is looked up on another connection, as soon as the
    transaction has ended.
    """
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
            raise
        holder = _holder(engine, advisory=_advisory_lock(error), weakest=weakest)
        if holder is None:
            raise
        raise WarehouseUnavailable(
            f"A lock was not granted in time (SQLSTATE {LOCK_NOT_AVAILABLE}): {holder}. Try again "
            "when it has ended, or have it ended.",
            reason="lock_timeout",
            sqlstate=LOCK_NOT_AVAILABLE,
            **holder.fields,
        ) from None


def _advisory_lock(error: BaseException) -> str | None:
    """The name that ``lock_until_commit`` waited for; None if it was another statement."""
    if isinstance(error, DBAPIError) and "pg_advisory" in (error.statement or ""):
        values = error.params.values() if isinstance(error.params, dict) else error.params or ()
        return next((each for each in values if isinstance(each, str)), None)
    return None


def _holder(engine: sa.Engine, *, advisory: str | None, weakest: int) -> LockHolder | None:
    """None also if it cannot be looked up."""
    schema = engine.get_execution_options().get(SCHEMA_OPTION)
    try:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.set_config("statement_timeout", "5000", True)))
            return lock_holder(connection, schema=schema, advisory=advisory, weakest=weakest)
    except (SQLAlchemyError, psycopg.Error, EtlError):
        return None


@contextmanager
def translated_errors(engine: sa.Engine | None = None) -> Iterator[None]:
    """Turn errors of Postgres, and of the way to it, into ours; ``engine`` tells where it was.

    What SQLAlchemy and psycopg say of how they are used passes through: that is a bug, and no
    retry helps.
    """
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        if _is_misuse(error):
            raise
        raise translate_error(error, engine) from None


_OF_THE_CONNECTION: Final = (DisconnectionError, PendingRollbackError, NoConnectionFree)
"""Of SQLAlchemy's own errors, those of a connection that was lost, or is not to be had."""


def _is_misuse(error: BaseException) -> bool:
    """Whether SQLAlchemy or psycopg found the request wrong, before Postgres saw it."""
    original: BaseException | None = error
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        original = error.orig
    elif isinstance(error, SQLAlchemyError):
        return not isinstance(error, _OF_THE_CONNECTION)
    refused = isinstance(original, (psycopg.ProgrammingError, psycopg.NotSupportedError))
    return refused and sqlstate_of(error) is None


def _place(engine: sa.Engine | None) -> str:
    if engine is None:
        return ""
    url = engine.url
    return f", {place_text(url.host, url.port, url.database)},"


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE that Postgres sent, or None."""
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_rolled_back(error: EtlError) -> bool:
    """Whether Postgres itself said that the transaction failed, so that it is not committed.

    Not if the connection may have ended with the error: the COMMIT may have come before it.
    """
    state = error.fields.get("sqlstate")
    return isinstance(state, str) and not state.startswith(_CONNECTION_ENDS)


def translate_error(error: BaseException, engine: sa.Engine | None = None) -> EtlError:
    """The error of ours for ``error``; ``fields['sqlstate']`` has its code.

    A connection that cannot be opened has its own errors, see ``etl.warehouse.connecting``.

    WarehouseUnavailable unless a retry certainly cannot help: CredentialsRefused (the login, a
    privilege), ConfigurationError (the schema, the URL, row-level security) or DataRefused (a
    value that Postgres rejects).
    """
    state = sqlstate_of(error)
    original = error.orig if isinstance(error, DBAPIError) else error
    if state in (None, PROTOCOL_VIOLATION):
        for cause in POOLER:
            if re.search(cause.pattern, str(original)):
                return cause.kind(
                    f"No transaction is possible: {cause.said}", reason=cause.reason, sqlstate=state
                )
    if state is None and isinstance(original, psycopg.DataError):
        return DataRefused(
            "A value cannot be sent to Postgres, or not be read: it has no form in the type of its "
            "column",
            reason="value_refused",
            sqlstate=None,
        )
    if state is None:
        return WarehouseUnavailable(
            f"The connection to the warehouse{_place(engine)} was lost: check that Postgres runs, "
            "and try again later",
            reason="connection_lost",
            sqlstate=None,
        )
    if state == INSUFFICIENT_PRIVILEGE and _by_row_security(error):
        return ConfigurationError(
            "Row-level security hides rows from the database role, so they cannot be read as they "
            f"are (SQLSTATE {state}): 'kaltura-etl check' says how to lift it",
            reason="row_security",
            sqlstate=state,
        )
    for prefixes, kind, reason, text in _MEANINGS:
        if state.startswith(prefixes):
            return kind(f"{text} (SQLSTATE {state})", reason=reason, sqlstate=state)
    return WarehouseUnavailable(
        f"Postgres refused a statement (SQLSTATE {state}): see the server's log", sqlstate=state
    )


_CONNECTION_ENDS: Final = ("08", "40003", "57P", "58", "XX")
"""Connection exceptions, an unknown completion, shutdowns, system and internal errors."""

_MEANINGS: Final[tuple[tuple[tuple[str, ...], type[EtlError], str, str], ...]] = (
    (
        ("28",),
        CredentialsRefused,
        "login",
        "Postgres refused the user or the password: check DATABASE_URL",
    ),
    (
        (INSUFFICIENT_PRIVILEGE,),
        CredentialsRefused,
        "privilege",
        "The database role lacks a privilege: 'kaltura-etl check' says which, the owner grants it "
        "with 'kaltura-etl grant'",
    ),
    (
        (INVALID_CATALOG_NAME,),
        ConfigurationError,
        "no_database",
        "The database does not exist: create it, or correct DATABASE_URL",
    ),
    (
        (
            *(UNDEFINED_TABLE, UNDEFINED_COLUMN, UNDEFINED_OBJECT, UNDEFINED_FUNCTION),
            *(INVALID_COLUMN_REFERENCE, INVALID_SCHEMA_NAME),
        ),
        ConfigurationError,
        "schema_version",
        "An object of the schema is missing or of another version: run 'kaltura-etl migrate' or, "
        "if there is nothing to migrate, 'kaltura-etl migrate --repair'; 'kaltura-etl check' says "
        "which",
    ),
    (
        (OBJECT_NOT_IN_PREREQUISITE_STATE,),
        ConfigurationError,
        "publication",
        "Postgres does not change a table as it is set up, most likely because it is published for "
        "logical replication without its key: see 'kaltura-etl check'",
    ),
    (
        (READ_ONLY_TRANSACTION,),
        WarehouseUnavailable,
        "read_only",
        "Postgres is read-only (a standby, or default_transaction_read_only): connect to the "
        "primary, or wait until a failover is over",
    ),
    (
        (LOCK_NOT_AVAILABLE,),
        WarehouseUnavailable,
        "lock_timeout",
        "A lock was not granted in time: another session holds it",
    ),
    (
        (QUERY_CANCELED,),
        WarehouseUnavailable,
        "statement_canceled",
        "Postgres cancelled a statement, or it took too long",
    ),
    (
        (DISK_FULL,),
        WarehouseUnavailable,
        "disk_full",
        "The disk of Postgres is full: free some space",
    ),
    (
        (RAISE_EXCEPTION,),
        ConfigurationError,
        "raised",
        "A trigger or a rule of somebody else on the tables raised an error: 'kaltura-etl check' "
        "names them, the server's log has its text",
    ),
    (
        ("53", "57", "08"),
        WarehouseUnavailable,
        "unavailable",
        "Postgres is not available now: try again later",
    ),
    (
        ("40",),
        WarehouseUnavailable,
        "transaction_aborted",
        "Postgres aborted a transaction: try again",
    ),
    (
        ("22", "23"),
        DataRefused,
        "value_refused",
        "Postgres rejected a value, or a constraint forbids it",
    ),
)


def _by_row_security(error: BaseException) -> bool:
    """Whether Postgres refused to leave out rows, rather than for want of a privilege.

    Both have one SQLSTATE, and the texts are translated; the name of the C function is not.
    """
    original = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(original, psycopg.Error) and (
        original.diag.source_function == "check_enable_rls"
    )


def lock_until_commit(connection: sa.Connection, name: str) -> None:
    """Serialise the transactions that take the lock ``name``.

    The lock is the transaction's, on the connection that writes, so it cannot be lost without it.
    """
    key = sa.func.hashtextextended(name, sa.literal(0, sa.BigInteger))
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def require_row_count(table: str, *, changed: int, meant: int) -> None:
    """Raise DataRefused, which rolls back, unless all rows named by their keys were changed."""
    if changed != meant:
        raise DataRefused(
            f"Postgres changed {changed} rows of {table} and not the {meant} that were named: "
            "a trigger, a rule, row-level security or another program changed the outcome. "
            "The transaction was rolled back; find the cause, then run again.",
            reason="row_count_mismatch",
            table=table,
            changed=changed,
            meant=meant,
        )


def driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    """The psycopg connection below ``connection``, in the same transaction."""
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver


def copy_rows(
    connection: sa.Connection,
    table: sql.Composable,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[object]],
) -> None:
    """COPY rows in the binary format; ``columns`` are (name, type) in the rows' order.

    Raises DataRefused unless Postgres has stored all of them, psycopg errors, and TypeError,
    OverflowError or UnicodeEncodeError for a value that does not fit its type: check the rows
    before.
    """
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns)
    )
    with driver_connection(connection).cursor() as cursor:
        with cursor.copy(statement) as copy:
            copy.set_types([type_name for _, type_name in columns])
            write = copy.write_row
            sent = 0
            for row in rows:
                write(row)
                sent += 1
        require_row_count(table.as_string(), changed=cursor.rowcount, meant=sent)
