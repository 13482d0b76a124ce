"""Run query files: many queries, one snapshot.

The queries are files, one statement each, with named parameters as psycopg writes them,
``%(partner_id)s``; a literal percent sign is doubled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import dict_row

from etl.warehouse.engine import TIME_ZONE, driver_connection, local_settings, transaction
from etl.warehouse.schema.database import Database, open_database
from etl.warehouse.schema.revision import VERSION_TABLE, require_current

STATEMENT_SECONDS: Final = 120


class Reader:
    """Runs queries in the transaction that ``reading`` opened."""

    def __init__(self, connection: psycopg.Connection[Any], folder: Path) -> None:
        self._connection = connection
        self._folder = folder

    def rows(self, name: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of ``<folder>/<name>.sql``, which bounds them itself."""
        text = (self._folder / f"{name}.sql").read_text(encoding="utf-8")
        return self.query(text, parameters)

    def query(
        self, statement: str, parameters: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of one statement; a percent sign is doubled only if there are parameters."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(
                sql.SQL(statement.rstrip().removesuffix(";")), parameters
            ).fetchall()

    def copy(self, statement: sql.Composed) -> Iterator[bytes]:
        """What COPY TO STDOUT sends: each a whole row, as the server's protocol promises.

        https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
        """
        with self._connection.cursor() as cursor, cursor.copy(statement) as rows:
            for row in rows:
                yield bytes(row)

    def knows_time_zone(self, name: str) -> bool:
        """Whether Postgres has this time zone.  Ask before ``set_time_zone``."""
        query = "select exists (select from pg_timezone_names where name = %s)"
        row = self._connection.execute(query, [name]).fetchone()
        return row is not None and bool(row[0])

    def set_time_zone(self, name: str) -> None:
        """The zone in which the views cut days, for this transaction."""
        self._connection.execute(local_settings({TIME_ZONE: name}))


@contextmanager
def reading(
    url: str, schema: str, folder: Path, *, statement_seconds: float = STATEMENT_SECONDS
) -> Iterator[Reader]:
    """One transaction that reads one snapshot of the warehouse and can write nothing.

    Raises ConfigurationError where the schema is not of this program's version; an analyst, who
    may not read which it is, gets that error from a query that does not fit.
    """
    with open_database(url, schema) as database:
        engine = database.engine.execution_options(isolation_level="REPEATABLE READ")
        with read_only(
            # An analyst may be meant to see some of the rows only.
            replace(database, engine=engine),
            statement_seconds,
            row_security="on",
        ) as connection:
            if _may_ask_version(connection, schema):
                require_current(connection, schema)
            yield Reader(driver_connection(connection), folder)


def read_only(
    database: Database, statement_seconds: float, *, row_security: str = "off"
) -> AbstractContextManager[sa.Connection]:
    """One transaction that can write nothing; names without a schema are the database's own.

    Row-level security is an error unless ``row_security`` is on, which hides rows.
    """
    return transaction(
        database.engine,
        statement_seconds=statement_seconds,
        transaction_read_only="on",
        search_path=database.engine.dialect.identifier_preparer.quote(database.schema),
        work_mem="64MB",
        row_security=row_security,
    )


def _may_ask_version(connection: sa.Connection, schema: str) -> bool:
    """True also if there is no such table: ``require_current`` reports that."""
    table = sa.func.to_regclass(sa.func.format("%I.%I", schema, VERSION_TABLE))
    return connection.scalar(sa.select(sa.func.has_table_privilege(table, "select"))) is not False
