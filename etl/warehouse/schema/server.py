"""What a server must be for this program to write to it, and how it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final

from sqlalchemy import Connection, text

from etl.errors import ConfigurationError, EtlError, WarehouseUnavailable
from etl.warehouse.engine import driver_connection

_FACTS: Final = text(
    """
    select
        current_database() as database,
        pg_encoding_to_char(encoding) as encoding,
        pg_is_in_recovery() as is_standby,
        to_regclass('pg_catalog.pg_dist_local_group') is not null as has_citus,
        cast(current_setting('default_transaction_read_only') as boolean) as is_read_only,
        (
            select source from pg_settings where name = 'default_transaction_read_only'
        ) as read_only_by
    from pg_database where datname = current_database()
    """
)
_IS_WORKER: Final = text("select exists (select from pg_dist_local_group where groupid <> 0)")
_SET_BY: Final = {
    "client": "DATABASE_URL",
    "database": "a setting of the database",
    "database user": "a setting of the role in this database",
    "user": "a setting of the role",
}
"""Sources of a setting (``pg_settings.source``) that somebody has to change.  A server may become
read-only by itself, and cease to be: many services do that while a disk is full."""


def require_writable(connection: Connection) -> None:
    """Raise unless the database can hold every token and accepts writes.

    Raises:
        ConfigurationError: its encoding is not UTF8, it is a worker of Citus, or a setting of the
            role, the database or the URL makes every transaction read-only.
        WarehouseUnavailable: it is a standby, or the whole server is read-only.
    """
    for problem in server_problems(connection):
        raise problem


def require_primary(connection: Connection) -> None:
    """Raise on a standby, which lacks the rows of unlogged tables, and on a worker of Citus.

    Raises WarehouseUnavailable and ConfigurationError.
    """
    for problem in server_problems(connection):
        if problem.fields["reason"] in ("standby", "citus"):
            raise problem


def server_problems(connection: Connection) -> list[EtlError]:
    """Why the program cannot write to this database; ``fields['reason']`` names each."""
    facts = connection.execute(_FACTS).one()
    problems: list[EtlError] = []
    if facts.encoding != "UTF8":
        problems.append(
            ConfigurationError(
                f"The database {facts.database} has the encoding {facts.encoding}, which cannot "
                "hold every file name and user: the first emoji would end a run. Create one with  "
                "create database NAME encoding 'UTF8' template template0;  (if Postgres says that "
                "the encoding does not match the locale, add  locale 'C.UTF-8') and name it in "
                "DATABASE_URL; pg_dump and psql move what this one holds.",
                reason="encoding",
                encoding=facts.encoding,
            )
        )
    if facts.has_citus and connection.scalar(_IS_WORKER):
        # Each node counts identity columns in a range of its own, those of workers from 2^48 on:
        # what the coordinator does next would be numbered as if it were older.
        problems.append(
            ConfigurationError(
                "This server is a worker of Citus, which would number runs after all later ones "
                "of the coordinator: name the coordinator in DATABASE_URL. What only reads works "
                "here as well.",
                reason="citus",
            )
        )
    if facts.is_standby:
        problems.append(
            WarehouseUnavailable(
                "This server is a standby: it can be read, not written to. Name the primary in "
                "DATABASE_URL, or all servers and target_session_attrs=read-write, or wait until "
                "a failover is over.",
                reason="standby",
            )
        )
    elif facts.is_read_only:
        by = _SET_BY.get(facts.read_only_by)
        kind = WarehouseUnavailable if by is None else ConfigurationError
        problems.append(
            kind(
                "Every transaction is read-only (default_transaction_read_only is on, by "
                f"{by or 'the configuration of the server'}): somebody has locked the database, or "
                "a disk is full. Ask who set it; status, verify and report work meanwhile.",
                reason="read_only",
                set_by=facts.read_only_by,
            )
        )
    return problems


VERIFY: Final = "add ?sslmode=verify-full&sslrootcert=system to DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Encryption:
    """How a connection is protected, as a sentence for ``check``."""

    text: str
    warns: bool = False


def encryption(connection: Connection) -> Encryption:
    """Whether the connection is encrypted and the server's certificate was verified.

    As libpq knows it: behind a pooler, the connection to the pooler.
    """
    driver = driver_connection(connection)
    return encryption_of(
        driver.info.host,
        driver.info.hostaddr,
        encrypted=driver.pgconn.ssl_in_use,
        mode=driver.info.get_parameters().get("sslmode", "prefer"),
    )


def encryption_of(host: str, address: str, *, encrypted: bool, mode: str) -> Encryption:
    """``host`` as the URL names it, ``address`` as it was resolved, ``mode``: libpq's sslmode."""
    here = _is_here(host, address)
    if encrypted and mode == "verify-full":
        return Encryption("TLS, and the server is verified (sslmode=verify-full)")
    if encrypted:
        text = f"TLS, but the server is not verified (sslmode={mode}): {VERIFY}"
        return Encryption(text, warns=not here)
    if here:
        return Encryption("not encrypted, and does not leave this machine")
    text = f"not encrypted: what is stored crosses the network to {host} in the clear; {VERIFY}"
    return Encryption(text, warns=True)


def _is_here(host: str, address: str) -> bool:
    """Whether a connection stays on this machine: a socket, or the loopback interface."""
    try:
        return host.startswith("/") or ip_address(address or host).is_loopback
    except ValueError:
        return False


def clock_ahead_seconds(connection: Connection) -> float:
    """How far the clock of the server is ahead of ours, give or take half of the round trip."""
    before = now()
    theirs: datetime = connection.execute(text("select clock_timestamp()")).scalar_one()
    return (theirs - (before + (now() - before) / 2)).total_seconds()


def now() -> datetime:
    """The clock of this machine, which tests set."""
    return datetime.now(UTC)
