"""Read a page's worth of answers from the warehouse: many queries, one instant.

The queries are files, one statement each, with named parameters as psycopg knows them,
``%(partner_id)s``; a percent sign of their own is doubled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import sql
from psycopg.rows import dict_row

from etl.warehouse.engine import connect, transaction
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
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(sql.SQL(text.rstrip().removesuffix(";")), parameters).fetchall()

    def knows_time_zone(self, name: str) -> bool:
        """Whether Postgres has this time zone.  Ask before ``set_time_zone``."""
        query = "select exists (select from pg_timezone_names where name = %s)"
        row = self._connection.execute(query, [name]).fetchone()
        return row is not None and bool(row[0])

    def set_time_zone(self, name: str) -> None:
        """The zone in which the views cut days, for this transaction."""
        self._connection.execute("select set_config('kaltura.time_zone', %s, true)", [name])


@contextmanager
def reading(url: str, schema: str, folder: Path) -> Iterator[Reader]:
    """One transaction that sees one instant of the warehouse and can write nothing.

    Raises ConfigurationError where the schema is not of this program's version; an analyst, who
    may not read which it is, gets that error from a query that does not fit.
    """
    engine = connect(url)
    try:
        with transaction(
            engine.execution_options(isolation_level="REPEATABLE READ"),
            statement_seconds=STATEMENT_SECONDS,
            transaction_read_only="on",
            search_path=engine.dialect.identifier_preparer.quote(schema),
            work_mem="64MB",
        ) as connection:
            if _may_ask_version(connection, schema):
                require_current(connection, schema)
            yield Reader(connection.connection.driver_connection, folder)  # type: ignore[arg-type]
    finally:
        engine.dispose()


def _may_ask_version(connection: sa.Connection, schema: str) -> bool:
    """True also where there is no such table: then that is what must be told."""
    table = sa.func.to_regclass(sa.func.format("%I.%I", schema, VERSION_TABLE))
    return connection.scalar(sa.select(sa.func.has_table_privilege(table, "select"))) is not False
