"""Access to Postgres: the engine, transactions, and the translation of errors.

No session state: PgBouncer in transaction mode may run each transaction on another server
connection.  Each transaction sets what it needs locally (``set_config(…, is_local => true)``).

Errors raised here never contain a row, a parameter or a part of the URL.  The texts of libpq and
of Postgres may, so only the SQLSTATE and a sentence of ours are passed on, and the cause is
dropped (``from None``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    WarehouseUnavailable,
)
from etl.warehouse.locks import ROW_LOCKS, LockHolder, lock_holder

LOCK_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 300
IDLE_SECONDS: Final = 300
CONNECT_SECONDS: Final = 10

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
PROTOCOL_VIOLATION: Final = "08P01"
READ_ONLY_TRANSACTION: Final = "25006"
INVALID_AUTHORIZATION: Final = "28000"
INVALID_PASSWORD: Final = "28P01"  # noqa: S105 - a code
DEPENDENT_PRIVILEGES: Final = "2BP01"
INVALID_CATALOG_NAME: Final = "3D000"
INVALID_SCHEMA_NAME: Final = "3F000"
INSUFFICIENT_PRIVILEGE: Final = "42501"
UNDEFINED_COLUMN: Final = "42703"
UNDEFINED_OBJECT: Final = "42704"
UNDEFINED_FUNCTION: Final = "42883"
UNDEFINED_TABLE: Final = "42P01"
INVALID_COLUMN_REFERENCE: Final = "42P10"
DISK_FULL: Final = "53100"
TOO_MANY_CONNECTIONS: Final = "53300"
OBJECT_NOT_IN_PREREQUISITE_STATE: Final = "55000"
LOCK_NOT_AVAILABLE: Final = "55P03"
QUERY_CANCELED: Final = "57014"
CANNOT_CONNECT_NOW: Final = "57P03"

APPLICATION: Final = "kaltura-etl"
"""Name of our sessions, unless the URL gives another."""
_DEFAULTS: Final[dict[str, object]] = {
    "application_name": APPLICATION,
    "connect_timeout": CONNECT_SECONDS,
    # A host that vanished without a FIN is noticed after a minute, not after two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")


def normalise_url(url: str) -> str:
    """``url`` as libpq reads it: ``postgres://`` and ``postgresql+psycopg://`` are accepted too.

    Raises ConfigurationError, which does not repeat the URL.
    """
    if _SCHEME.match(url) is None:
        raise ConfigurationError(
            "DATABASE_URL is not a PostgreSQL URL: it must begin with postgresql://"
        )
    normal = _SCHEME.sub("postgresql://", url, count=1)
    try:
        ports = str(conninfo_to_dict(normal).get("port", "")).split(",")
    except (psycopg.Error, UnicodeError):
        ports = ["?"]
    # libpq would find a wrong port only when it connects.
    if not all(port == "" or (port.isascii() and port.isdigit()) for port in ports):
        raise ConfigurationError(
            "DATABASE_URL cannot be read: check it, and percent-encode special characters in "
            "the user, the password and the folder of a socket"
        )
    return normal


def connect(url: str) -> sa.Engine:
    """An engine for ``url`` that pools one connection, opened when first needed.

    libpq parses the URL itself, so every form that it knows works (several hosts, sockets,
    certificate files), and the engine's own URL holds no password.
    """
    normal = normalise_url(url)
    given = conninfo_to_dict(normal)
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in given}

    def open_connection() -> psycopg.Connection[Any]:
        # Prepared statements belong to a server connection, which PgBouncer may exchange.
        return psycopg.connect(normal, prepare_threshold=None, client_encoding="utf8", **defaults)  # type: ignore[arg-type]

    return sa.create_engine(
        "postgresql+psycopg://",
        creator=open_connection,
        # Sent with every BEGIN, whatever the role's default is.
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        use_native_hstore=False,
        pool_size=1,
        max_overflow=2,
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
    with translated_errors(), holders_named(engine), engine.begin() as connection:
        connection.execute(
            sa.select(*[sa.func.set_config(name, value, True) for name, value in local.items()])
        )
        yield connection


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
        statement = (error.statement or "") if isinstance(error, DBAPIError) else ""
        holder = _holder(engine, advisory="pg_advisory" in statement, weakest=weakest)
        if holder is None:
            raise
        raise WarehouseUnavailable(
            f"A lock was not granted in time (SQLSTATE {LOCK_NOT_AVAILABLE}): {holder}. Try again "
            "when it has ended, or have it ended.",
            reason="lock_timeout",
            sqlstate=LOCK_NOT_AVAILABLE,
            **holder.fields,
        ) from None


def _holder(engine: sa.Engine, *, advisory: bool, weakest: int) -> LockHolder | None:
    """None also if it cannot be looked up."""
    try:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.set_config("statement_timeout", "5000", True)))
            return lock_holder(connection, advisory=advisory, weakest=weakest)
    except (SQLAlchemyError, psycopg.Error):
        return None


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn errors of SQLAlchemy and psycopg into ours."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        raise translate_error(error) from None


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE that Postgres sent, or None."""
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def translate_error(error: BaseException) -> EtlError:
    """The error of ours for ``error``; ``fields['sqlstate']`` has its code.

    WarehouseUnavailable unless a retry certainly cannot help: CredentialsRefused (the login, a
    privilege), ConfigurationError (the schema, the URL, row-level security) or DataRefused (a
    value that Postgres rejects).
    """
    state = sqlstate_of(error) or _connect_state(error)
    if state in (None, PROTOCOL_VIOLATION):
        original = error.orig if isinstance(error, DBAPIError) else error
        for words, reason, text in _POOLER_TEXTS:
            if words in str(original):
                return ConfigurationError(text, reason=reason, sqlstate=state)
    if state is None:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        text = (
            "The connection to Postgres was lost: try again later"
            if lost
            else "Postgres cannot be reached, or the connection broke: check that it runs and try "
            "again later"
        )
        return WarehouseUnavailable(text, reason="connection_lost", sqlstate=None)
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
        "The schema is not of this program's version: run 'kaltura-etl migrate'",
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


# PgBouncer says these with the SQLSTATE of a protocol violation, always in English.
_POOLER_TEXTS: Final = (
    (
        "statement pooling",
        "statement_pooling",
        "The connection pooler is in statement mode, which allows no transactions: name a database "
        "in DATABASE_URL that it pools by transactions or sessions (pool_mode), or the server "
        "itself",
    ),
    (
        "unsupported startup parameter",
        "pooler_parameter",
        "The connection pooler does not accept a parameter of DATABASE_URL, such as options: leave "
        "it out, or name it in the pooler's ignore_startup_parameters",
    ),
)


def _connect_state(error: BaseException) -> str | None:
    """The SQLSTATE of a refused connection, for which libpq gives only a text.

    A localised text falls through to "cannot be reached", which is not wrong.
    """
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.OperationalError):
        return None
    text = str(original)
    for pattern, state in _CONNECT_TEXTS:
        if re.search(pattern, text):
            return state
    return None


_CONNECT_TEXTS: Final = (
    (r"authentication failed", INVALID_PASSWORD),
    (r"no password supplied", INVALID_PASSWORD),
    (
        r"no pg_hba\.conf entry|role .* does not exist|is not permitted to log in",
        INVALID_AUTHORIZATION,
    ),
    (r"database .* does not exist", INVALID_CATALOG_NAME),
    (r"too many (clients|connections)|remaining connection slots", TOO_MANY_CONNECTIONS),
    (r"the database system is (starting|shutting|in recovery)", CANNOT_CONNECT_NOW),
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
