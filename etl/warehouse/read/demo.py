"""What only ``demo`` asks of the warehouse: a schema of its own, and a token to show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import sql
from sqlalchemy import func, select

from etl.errors import ConfigurationError, LeaseHeld
from etl.warehouse.engine import driver_connection, transaction, translated_errors
from etl.warehouse.read.queries import Reader
from etl.warehouse.schema.database import Database

MADE_BY_DEMO: Final = "Made by kaltura-etl demo, which drops it when it runs again."


@contextmanager
def demo_lock(database: Database) -> Iterator[None]:
    """One demo at a time, else LeaseHeld.

    A session's lock is right here: no pooler stands in front of the embedded server.
    """
    key = func.hashtextextended("kaltura-etl demo", 0)
    with translated_errors(database.engine), database.engine.connect() as connection:
        locked = connection.scalar(select(func.pg_try_advisory_lock(key)))
        connection.commit()
        if not locked:
            raise LeaseHeld("Another demo is at work in this warehouse: wait until it has ended.")
        try:
            yield
        finally:
            # The connection goes back to a pool, which would keep the lock.
            connection.invalidate()


def recreate_demo_schema(database: Database) -> None:
    """Drop the schema of an earlier demo, and create it empty.

    Raises ConfigurationError if there is one that demo did not create.
    """
    schema = sql.Identifier(database.schema)
    with transaction(database.engine) as connection:
        driver = driver_connection(connection)
        found = driver.execute(
            "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s",
            [database.schema],
        ).fetchone()
        if found is not None and found[0] != MADE_BY_DEMO:
            raise ConfigurationError(
                f"Schema {database.schema} of the embedded Postgres was not made by demo, which "
                "would drop it. Rename it: ./dev psql -c 'alter schema "
                f"{database.schema} rename to another_name'",
                schema=database.schema,
            )
        driver.execute(sql.SQL("drop schema if exists {} cascade").format(schema))
        driver.execute(sql.SQL("create schema {}").format(schema))
        driver.execute(
            sql.SQL("comment on schema {} is {}").format(schema, sql.Literal(MADE_BY_DEMO))
        )


def busiest_token(reader: Reader) -> str:
    """The id of a token with the most versions."""
    (row,) = reader.query(
        "select token_id from upload_token order by version desc, token_id limit 1"
    )
    return str(row["token_id"])
