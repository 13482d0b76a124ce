"""What every migration and ``migrations/env.py`` share.  Only Alembic loads this module."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from alembic import op
from sqlalchemy import Connection, Engine, func, literal, select, text
from sqlalchemy.schema import CreateSchema

from etl.errors import LeaseHeld
from etl.resources import sql_directory

WAIT_SECONDS_MAX: Final = 60.0
"""How long a second migration waits for the first."""
POLL_SECONDS: Final = 0.2


@contextmanager
def migration_lock(
    engine: Engine,
    schema: str,
    *,
    wait_seconds: float = WAIT_SECONDS_MAX,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Let one migration of a schema run at a time.

    The lock is held by a transaction of a connection of its own: so it spans the transactions of
    all revisions, goes when the process dies, and does not strand behind a pooler, as a session's
    lock would.  It is tried, not waited for: a waiting statement holds a snapshot, for which a
    CREATE INDEX CONCURRENTLY of the first migration would wait forever.

    Raises:
        LeaseHeld: another migration did not end within ``wait_seconds``.
    """
    deadline = time.monotonic() + wait_seconds
    key = func.hashtextextended(literal(f"kaltura-etl migrate {schema}"), 0)
    with engine.connect() as connection:
        while True:
            connection.execute(text("set local idle_in_transaction_session_timeout = 0"))
            if connection.scalar(select(func.pg_try_advisory_xact_lock(key))):
                break
            connection.rollback()
            if time.monotonic() >= deadline:
                raise LeaseHeld(
                    f"Another migration of schema {schema} is at work for more than "
                    f"{wait_seconds:g} s: try again when it has ended.",
                    schema=schema,
                )
            sleep(POLL_SECONDS)
        yield
        connection.rollback()


def create_schema(connection: Connection, schema: str) -> None:
    """Make the schema if it is missing.

    Asked for first: CREATE SCHEMA IF NOT EXISTS wants the right to create one even if it exists.
    """
    found = connection.scalar(select(func.to_regnamespace(func.quote_ident(literal(schema)))))
    if found is None:
        connection.execute(CreateSchema(schema))
    connection.commit()


def enter_schema() -> None:
    """The first line of every revision: its own schema, and no long waits for a lock.

    A statement that waits for a lock makes every later reader of the table wait behind it: better
    that the migration fails after five seconds and is started again.  The work itself may take
    long, whatever the server's default says.
    """
    schema = op.get_context().opts["version_table_schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote(schema)
    op.execute(f"set local search_path = {quoted}")
    op.execute("set local lock_timeout = '5s'")
    op.execute("set local statement_timeout = 0")


def install_view(name: str) -> None:
    """Create or replace the view in ``sql/views/<name>.sql``.

    The file is the view as it is now.  So a view is installed by the last revision that changed
    it: take the line out of the earlier one, which may not have its columns yet.
    """
    statement = (sql_directory() / "views" / f"{name}.sql").read_text(encoding="utf-8")
    op.execute(text(statement.replace(":", r"\:")))


def comment_view(name: str, comment: str, columns: dict[str, str]) -> None:
    """Say what a view and each of its columns are for."""
    quote = op.get_context().dialect.identifier_preparer.quote
    said = {f"view {quote(name)}": comment}
    said |= {f"column {quote(name)}.{quote(column)}": text for column, text in columns.items()}
    for what, words in said.items():
        literal_text = words.replace("'", "''").replace(":", r"\:")
        op.execute(text(f"comment on {what} is '{literal_text}'"))
