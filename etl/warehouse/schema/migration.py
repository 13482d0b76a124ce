"""What every migration and ``migrations/env.py`` share.  Only Alembic loads this module."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from typing import Final

from alembic import context, op
from sqlalchemy import Connection, Engine, func, literal, select, text
from sqlalchemy.schema import CreateSchema

from etl.errors import ConfigurationError, LeaseHeld
from etl.resources import sql_directory

WAIT_SECONDS_MAX: Final = 60.0
"""How long a second migration waits for the first."""
POLL_SECONDS: Final = 0.2
_OF_A_COLUMN: Final = re.compile(r" (?P<name>[a-z][a-z0-9_]*): (?P<words>.*)")
_LIKE: Final = "Columns not named here are those of upload_token_superseded."


@contextmanager
def migration_lock(
    engine: Engine,
    schema: str,
    *,
    wait_seconds: float = WAIT_SECONDS_MAX,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Let one migration of a schema run at a time.

    The lock is held by a transaction on a separate connection: so it spans the transactions of all
    revisions, is released when the process dies, and is not left behind in a pooler, as a session's
    lock would be.  It is polled: a waiting statement holds a snapshot, for which a CREATE INDEX
    CONCURRENTLY of the first migration would wait forever.

    Raises:
        LeaseHeld: another migration did not end within ``wait_seconds``.
    """
    deadline = time.monotonic() + wait_seconds
    key = func.hashtextextended(literal(f"kaltura-etl migrate {schema}"), 0)
    with engine.connect() as connection:
        while True:
            if connection.scalar(select(func.pg_try_advisory_xact_lock(key))):
                # Also releases the snapshot: that of a SELECT is held until the next statement,
                # and a CREATE INDEX CONCURRENTLY would wait for it.
                connection.execute(text("set local idle_in_transaction_session_timeout = 0"))
                break
            connection.rollback()
            if time.monotonic() >= deadline:
                raise LeaseHeld(
                    f"Another migration of schema {schema} has been running for more than "
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

    A statement that waits for a lock makes every later reader of the table wait behind it, so the
    migration fails after five seconds and can be started again.  The work itself may take long,
    whatever the server's default is.
    """
    schema = op.get_context().opts["version_table_schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote(schema)
    op.execute(f"set local search_path = {quoted}")
    op.execute("set local lock_timeout = '5s'")
    op.execute("set local statement_timeout = 0")


def require_force(loss: str) -> None:
    """Refuse a downgrade that loses something, unless ``-x force=yes`` was given."""
    if context.get_x_argument(as_dictionary=True).get("force") != "yes":
        raise ConfigurationError(f"{loss}: repeat it with -x force=yes if that is what you want.")


def install_view(
    name: str,
    *,
    like: Mapping[str, str] | None = None,
    as_it_was: Mapping[str, str] | None = None,
) -> None:
    """Create or replace the view or function in ``sql/views/<name>.sql``, with its comments.

    The file is the view as it is now.  So a view is installed by the last revision that changed
    it: take the line out of the earlier one, which may not have its columns yet.  A function that
    returns the rows of a view is installed again after that view.

    Args:
        name: of the file, and of the view or function in it.
        like: comments of columns that the file does not name.
        as_it_was: for a downgrade, parts of the file and what they were before.
    """
    statement = (sql_directory() / "views" / f"{name}.sql").read_text(encoding="utf-8")
    for now, before in (as_it_was or {}).items():
        if now not in statement:
            raise ValueError(f"{name}.sql does not hold {now!r} any more")
        statement = statement.replace(now, before)
    op.execute(text(statement.replace(":", r"\:")))
    comment, columns = read_comments(statement)
    is_function = f"create or replace function {name}(" in statement
    quote = op.get_context().dialect.identifier_preparer.quote
    said = {f"{'function' if is_function else 'view'} {quote(name)}": comment}
    said |= {
        f"column {quote(name)}.{quote(column)}": words
        for column, words in {**(like or {}), **columns}.items()
    }
    for what, words in said.items():
        literal_text = words.replace("'", "''").replace(":", r"\:")
        op.execute(text(f"comment on {what} is '{literal_text}'"))


def read_comments(statement: str) -> tuple[str, dict[str, str]]:
    """The comments that a file of ``sql/views`` begins with: on the view, and on its columns.

    The lines before the statement are paragraphs; one that begins with ``name: `` is about that
    column, and indented lines go on with it.
    """
    head = [line.removeprefix("--") for line in takewhile(_is_comment, statement.splitlines())]
    words: list[str] = []
    columns: dict[str, str] = {}
    last = ""
    for line in head:
        found = _OF_A_COLUMN.fullmatch(line)
        if found is not None:
            last = found["name"]
            columns[last] = found["words"]
        elif last and line.startswith("   "):
            columns[last] += f" {line.strip()}"
        elif line.strip() != _LIKE:
            last = ""
            words.append(line.strip())
    paragraphs = "\n".join(words).strip().split("\n\n")
    return "\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs), columns


def _is_comment(line: str) -> bool:
    return line.startswith("--")
