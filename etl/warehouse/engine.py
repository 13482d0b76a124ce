"""The door to Postgres: one engine, one kind of transaction, one translation of errors.

No session state: PgBouncer in transaction mode may give every transaction another connection of
the server.  Each transaction sets what it needs for itself (``set_config(…, is_local => true)``).

What leaves this module as an error never holds a row, a parameter or a piece of the URL: libpq's
and Postgres' own texts may hold all of them, so only the SQLSTATE and our sentence are passed on,
and the cause is cut off (``from None``).
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

LOCK_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 300
IDLE_SECONDS: Final = 300
CONNECT_SECONDS: Final = 10

_DEFAULTS: Final[dict[str, object]] = {
    "application_name": "kaltura-etl",
    "connect_timeout": CONNECT_SECONDS,
    # A host that vanished without a FIN is noticed after a minute, not after two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
_SCHEME = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://")


def normalise_url(url: str) -> str:
    """``url`` as libpq reads it: ``postgres://`` and ``postgresql+psycopg://`` are taken too.

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
    """An engine for ``url`` that holds one connection, made when it is first needed.

    libpq reads the URL itself, so every form that it knows works (several hosts, sockets, files
    with certificates), and no password ends up in the engine's own URL.
    """
    normal = normalise_url(url)
    given = conninfo_to_dict(normal)
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in given}

    def open_connection() -> psycopg.Connection[Any]:
        # Prepared statements belong to a connection of the server, which PgBouncer may exchange.
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
    lock_seconds: float = LOCK_SECONDS,
    statement_seconds: float = STATEMENT_SECONDS,
    **settings: str,
) -> Iterator[sa.Connection]:
    """One transaction, committed at the end.  ``durable`` pins ``synchronous_commit`` to on.

    ``settings`` are more server settings for it, such as ``work_mem``.  Raises the errors that
    ``translate_error`` names.
    """
    local = {
        "timezone": "UTC",
        "datestyle": "ISO, MDY",
        "standard_conforming_strings": "on",
        "lock_timeout": str(round(lock_seconds * 1000)),
        "statement_timeout": str(round(statement_seconds * 1000)),
        "idle_in_transaction_session_timeout": str(IDLE_SECONDS * 1000),
        # Each statement runs once: compiling it would cost more than it saves.
        "jit": "off",
        **settings,
    }
    if durable:
        local["synchronous_commit"] = "on"
    with translated_errors(), engine.begin() as connection:
        connection.execute(
            sa.select(*[sa.func.set_config(name, value, True) for name, value in local.items()])
        )
        yield connection


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn errors of SQLAlchemy and psycopg into ours."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        raise translate_error(error) from None


def sqlstate_of(error: BaseException) -> str | None:
    """The five characters of Postgres' error code, or None if it sent none."""
    original = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(original, "sqlstate", None)
    return state if isinstance(state, str) else None


def translate_error(error: BaseException) -> EtlError:
    """The error of ours that says what to do about ``error``; ``fields['sqlstate']`` has its code.

    WarehouseUnavailable unless it is plain that another try cannot help: CredentialsRefused,
    ConfigurationError (privileges, the schema, the URL) or DataRefused (a value that Postgres does
    not take).
    """
    state = sqlstate_of(error) or _connect_state(error)
    if state is None:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        text = (
            "The connection to Postgres was lost: try again later"
            if lost
            else "Postgres cannot be reached, or the connection broke: check that it runs and try "
            "again later"
        )
        return WarehouseUnavailable(text, sqlstate=None)
    for prefixes, kind, text in _MEANINGS:
        if state.startswith(prefixes):
            return kind(f"{text} (SQLSTATE {state})", sqlstate=state)
    return WarehouseUnavailable(
        f"Postgres refused a statement (SQLSTATE {state}): see the server's log", sqlstate=state
    )


_MEANINGS: Final[tuple[tuple[tuple[str, ...], type[EtlError], str], ...]] = (
    (
        ("28",),
        CredentialsRefused,
        "Postgres refused the user or the password: check DATABASE_URL",
    ),
    (
        ("42501",),
        ConfigurationError,
        "The database role lacks a privilege: see 'kaltura-etl grant'",
    ),
    (
        ("3D000",),
        ConfigurationError,
        "The database does not exist: create it, or correct DATABASE_URL",
    ),
    (
        ("42P01", "42703", "42704", "42883", "42P10", "3F000"),
        ConfigurationError,
        "The schema is not of this program's version: run 'kaltura-etl migrate'",
    ),
    (
        ("25006",),
        WarehouseUnavailable,
        "Postgres is read-only (a standby, or default_transaction_read_only): connect to the "
        "primary, or wait until a failover is over",
    ),
    (("55P03",), WarehouseUnavailable, "A lock was not given in time: somebody holds the table"),
    (("57014",), WarehouseUnavailable, "Postgres cancelled a statement, or it took too long"),
    (("53100",), WarehouseUnavailable, "The disk of Postgres is full: free some space"),
    (("53", "57", "08"), WarehouseUnavailable, "Postgres does not serve us now: try again later"),
    (("40",), WarehouseUnavailable, "Postgres broke off a transaction: try again"),
    (("22", "23"), DataRefused, "Postgres does not take a value, or a constraint forbids it"),
)


def _connect_state(error: BaseException) -> str | None:
    """The SQLSTATE of a refused connection, for which libpq gives only a text.

    The text of another language falls through to "cannot be reached", which is not wrong.
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
    (r"authentication failed", "28P01"),
    (r"no password supplied", "28P01"),
    (r"no pg_hba\.conf entry|role .* does not exist|is not permitted to log in", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"too many (clients|connections)|remaining connection slots", "53300"),
    (r"the database system is (starting|shutting|in recovery)", "57P03"),
)


def lock_until_commit(connection: sa.Connection, name: str) -> None:
    """Let one transaction at a time go on that takes the lock ``name``.

    The lock belongs to the transaction, on the connection that writes, so it cannot be lost
    without the transaction.
    """
    key = sa.func.hashtextextended(name, sa.literal(0, sa.BigInteger))
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def require_row_count(table: str, *, changed: int, meant: int) -> None:
    """Raise DataRefused, so that the transaction is undone, unless as many rows were changed as
    were named by their keys."""
    if changed != meant:
        raise DataRefused(
            f"Postgres changed {changed} rows of {table} and not the {meant} that were named: "
            "a trigger, a rule, row-level security or another program at work on the same rows. "
            "The transaction was undone; look for the cause, then run again.",
            reason="row_count_mismatch",
            table=table,
            changed=changed,
            meant=meant,
        )


def copy_rows(
    connection: sa.Connection,
    table: sql.Composable,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[object]],
) -> None:
    """COPY rows in the binary format; ``columns`` are (name, type) in the rows' order.

    Raises psycopg errors, and TypeError, OverflowError or UnicodeEncodeError for a value that
    does not fit its type: the rows must have been checked before.
    """
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        table, sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns)
    )
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([type_name for _, type_name in columns])
        write = copy.write_row
        for row in rows:
            write(row)
