"""Roles of a test's own, granted by the program, and what they are let do.

Roles belong to the whole server, which the tests share: their names are random, and they go with
what they own when the test ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import LiteralString, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy import Connection

from etl.warehouse.access.grants import grant
from etl.warehouse.access.privileges import excess_privileges, missing_privileges
from etl.warehouse.engine import INSUFFICIENT_PRIVILEGE
from etl.warehouse.schema.revision import open_connection
from tests.support.databases import copy_database
from tests.support.model import Row

NOT_PERMITTED = INSUFFICIENT_PRIVILEGE
NOT_UPDATABLE = "55000"


Statement: TypeAlias = sql.SQL | sql.Composed | str
Look: TypeAlias = Callable[[Connection, str, str, str], list[str]]
"""Of a schema, a role and its kind."""


def as_role(url: str, role: str) -> str:
    """The same database for another user; the servers of the tests ask for no password."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}@{address}"))


def connected(url: str) -> closing[psycopg.Connection[tuple[object, ...]]]:
    return closing(psycopg.connect(url, autocommit=True))


@dataclass
class Roles:
    """A warehouse, and what its owner makes of the server's roles."""

    owner_url: str
    names: dict[str, str] = field(default_factory=dict)
    """Name of the role, by kind: ``loader``, ``analyst``, ``auditor``."""
    made: list[str] = field(default_factory=list)
    sessions: dict[str, psycopg.Connection[Row]] = field(default_factory=dict)
    opened: ExitStack = field(default_factory=ExitStack)
    looking: Connection | None = None

    def create(self, attributes: LiteralString = "login", prefix: str = "role") -> str:
        name = f"{prefix}_{secrets.token_hex(6)}"
        self.owner(sql.SQL("create role {} {}").format(sql.Identifier(name), sql.SQL(attributes)))
        self.made.append(name)
        return name

    def grant_all(self, *kinds: str) -> None:
        """Make a role of each kind, and let the program grant it its rights."""
        for kind in kinds or ("loader", "analyst", "auditor"):
            self.names[kind] = self.create(prefix=kind)
        grant(self.owner_url, "kaltura", self.names, apply=True)

    def url(self, kind: str) -> str:
        return as_role(self.owner_url, self.names.get(kind, kind))

    def owner(self, statement: Statement, *values: object) -> list[Row]:
        """Rows, as the owner of everything."""
        return self._execute(self.owner_url, statement, values)

    def as_kind(self, kind: str, statement: Statement) -> list[Row]:
        """Rows, as the role of a kind."""
        return self._execute(self.url(kind), statement, ())

    def refusal(self, kind: str, statement: Statement) -> str | None:
        """The SQLSTATE with which Postgres refuses a statement to the role; None if it does not.

        On its own, because some statements are not let into a transaction at all.
        """
        try:
            self._session(self.url(kind)).execute(_as_query(statement))
        except psycopg.Error as error:
            return error.sqlstate
        return None

    def lacking(self, kind: str) -> list[str]:
        """What the role of a kind lacks."""
        return self._found(missing_privileges, kind)

    def excess(self, kind: str) -> list[str]:
        """What the role of a kind has beyond its rights."""
        return self._found(excess_privileges, kind)

    def _found(self, look: Look, kind: str) -> list[str]:
        """What is found of a kind's role now, on one connection for all looks."""
        if self.looking is None:
            self.looking = self.opened.enter_context(open_connection(self.owner_url))
        try:
            return look(self.looking, "kaltura", self.names[kind], kind)
        finally:
            self.looking.rollback()

    def fingerprint(self) -> Row:
        """All that the tables hold, and all that is defined in the schema."""
        tables = self.owner(
            "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
            "and relkind = 'r'"
        )
        found: Row = {}
        for row in tables:
            (found[row["relname"]],) = self.owner(
                sql.SQL(
                    "select count(*), md5(string_agg(each::text, '' order by each::text)) from {} "
                    "as each"
                ).format(sql.Identifier("kaltura", row["relname"]))
            )
        found["objects"] = self.owner(
            """
            select relname, relkind, relowner, relacl::text, reloptions, relrowsecurity,
                relhasrules, relhastriggers, relpersistence,
                array(
                    select attname || format_type(atttypid, atttypmod) || attnotnull
                    from pg_attribute where attrelid = pg_class.oid and attnum > 0 order by attnum
                ) as columns
            from pg_class where relnamespace = 'kaltura'::regnamespace order by relname
            """
        )
        found["functions"] = self.owner(
            "select proname, prosrc, proacl::text from pg_proc "
            "where pronamespace = 'kaltura'::regnamespace order by 1"
        )
        return found

    def _execute(self, url: str, statement: Statement, values: tuple[object, ...]) -> list[Row]:
        cursor = self._session(url).execute(_as_query(statement), values or None)
        return cursor.fetchall() if cursor.description else []

    def _session(self, url: str) -> psycopg.Connection[Row]:
        """One for each role: a thousand attempts need no thousand connections."""
        if url not in self.sessions:
            self.sessions[url] = psycopg.connect(
                url, autocommit=True, options="-c search_path=kaltura", row_factory=dict_row
            )
        return self.sessions[url]

    def close(self) -> None:
        """Close the sessions."""
        self.looking = None
        self.opened.close()
        while self.sessions:
            self.sessions.popitem()[1].close()


def _as_query(statement: Statement) -> sql.Composed | sql.SQL | bytes:
    return statement.encode() if isinstance(statement, str) else statement


@contextmanager
def roles_of(database_url: str) -> Iterator[Roles]:
    """Roles for a migrated database; dropped afterwards, with all that they own and may."""
    roles = Roles(database_url)
    try:
        yield roles
    finally:
        for kind in [url for url in roles.sessions if url != database_url]:
            roles.sessions.pop(kind).close()
        for statement in (sql.SQL("drop owned by {} cascade"), sql.SQL("drop role {}")):
            for name in reversed(roles.made):
                roles.owner(statement.format(sql.Identifier(name)))
        roles.close()


@contextmanager
def own_database(postgres_url: str, template: str) -> Iterator[str]:
    """A migrated database for a whole module of tests that change nothing."""
    name = f"test_{secrets.token_hex(6)}"
    url = urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))
    with connected(postgres_url) as connection:
        copy_database(connection, name, template)
    try:
        yield url
    finally:
        # Another connection: the server may have been restarted.
        with connected(postgres_url) as connection:
            connection.execute(
                sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
            )
