"""What every migration and ``migrations/env.py`` share.  Only Alembic loads this module."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from alembic import context, op
from sqlalchemy import Column, Connection, Index, MetaData, Table, func, literal, select, text
from sqlalchemy.schema import CreateIndex, CreateSchema, DropIndex

from etl.errors import ConfigurationError, LeaseHeld
from etl.warehouse.locks import lock_holder
from etl.warehouse.schema.indexes import (
    build_concurrently,
    concurrently,
    drop_concurrently,
    has_rows,
    table_of,
)
from etl.warehouse.schema.views import ViewFile, read_view

WAIT_SECONDS_MAX: Final = 60.0
"""How long a second migration waits for the first."""
POLL_SECONDS: Final = 0.2
HEADS: Final = "heads"
"""Attribute of Alembic's configuration: the revisions that the schema is believed to be at."""


class Overtaken(Exception):
    """Another migration of the schema is at work, or was since this one looked."""


def take_migration_lock(
    connection: Connection,
    schema: str,
    *,
    wait_seconds: float = WAIT_SECONDS_MAX,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Let one migration of a schema run at a time: wait for the others, then begin a transaction.

    The lock is the transaction's, on the one connection that a migration has: a second one may not
    be had (a pool of one, a role's connection limit), and a session's lock would be left behind in
    a pooler.  So it ends with the transaction, and each revision takes it again
    (``enter_schema``).  It is polled: a waiting statement holds a snapshot, for which an index that
    the first migration builds concurrently would wait forever.

    Raises:
        LeaseHeld: another migration did not end within ``wait_seconds``; names its session.
    """
    deadline = time.monotonic() + wait_seconds
    while not _try_lock(connection, schema):
        if time.monotonic() >= deadline:
            holder = lock_holder(connection, schema=schema, advisory=_lock_name(schema))
            raise LeaseHeld(
                f"Another migration of schema {schema} has been running for more than "
                f"{wait_seconds:g} s{'' if holder is None else f': {holder}'}. Try again when it "
                "has ended.",
                schema=schema,
                **({} if holder is None else holder.fields),
            )
        connection.rollback()
        sleep(POLL_SECONDS)


def _try_lock(connection: Connection, schema: str) -> bool:
    key = func.hashtextextended(literal(_lock_name(schema)), 0)
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(key))))


def _lock_name(schema: str) -> str:
    return f"kaltura-etl migrate {schema}"


def create_schema(connection: Connection, schema: str) -> None:
    """Make the schema if it is missing.

    Asked for first: CREATE SCHEMA IF NOT EXISTS wants the right to create one even if it exists.
    """
    found = connection.scalar(select(func.to_regnamespace(func.quote_ident(literal(schema)))))
    if found is None:
        connection.execute(CreateSchema(schema))


def enter_schema() -> None:
    """The first line of every revision: its own schema, alone, and no long waits for a lock.

    A statement that waits for a lock makes every later reader of the table wait behind it, so the
    migration fails after five seconds and can be started again.  The work itself may take long,
    whatever the server's default is.

    Raises Overtaken if another migration is at work, or has changed the revision.
    """
    schema = op.get_context().opts["version_table_schema"]
    if not context.is_offline_mode() and (
        not _try_lock(op.get_bind(), schema)
        or set(op.get_context().get_current_heads()) != context.config.attributes[HEADS]
    ):
        raise Overtaken
    quoted = op.get_context().dialect.identifier_preparer.quote(schema)
    # On Citus, the limits hold for the workers as well; elsewhere this says nothing.
    op.execute(
        f"set local search_path = {quoted}; set local citus.propagate_set_commands = 'local'; "
        "set local lock_timeout = '5s'; set local statement_timeout = 0"
    )


def hold_publications() -> None:
    """Let no run publish until the revision is committed: its filling must miss no version.

    After ``enter_schema`` and all indexes.  Readers and reading runs do not feel it.  A publication
    that waits for it does not pass either: it sees the new revision (``publish``).
    """
    op.execute("lock table upload_token in share row exclusive mode")


def create_index(
    name: str, table: str, columns: Sequence[str], *, where: str | None = None, **options: Any
) -> None:
    """Create an index of a table that exists, without a lock that readers or a run feel.

    Before ``enter_schema``: with rows in the table the index is built concurrently, which is not
    undone with the revision, so a migration that failed can be started again.  Without rows it is
    created in the transaction of the revision, which waits for nobody's snapshot.  ``options`` are
    those of SQLAlchemy's ``Index``, such as ``postgresql_using``.
    """
    index = _index(name, table, columns, where, **options)
    if not _apart(index, build_concurrently):
        op.drop_index(name, if_exists=True)
        op.create_index(
            name,
            table,
            list(columns),
            postgresql_where=None if where is None else text(where),
            **options,
        )


def drop_index(name: str, table: str) -> None:
    """Drop an index of a table, as ``create_index`` creates it."""
    # Postgres finds it by its name, whatever its columns are.
    if not _apart(_index(name, table, ["partner_id"]), drop_concurrently):
        op.drop_index(name, if_exists=True)


def _index(
    name: str, table: str, columns: Sequence[str], where: str | None = None, **options: Any
) -> Index:
    schema = op.get_context().opts["version_table_schema"]
    of_table = Table(table, MetaData(), *[Column(each) for each in columns], schema=schema)
    predicate = None if where is None else text(where)
    return Index(name, *of_table.columns, postgresql_where=predicate, **options)


def _apart(index: Index, change: Callable[[Connection, Index], None]) -> bool:
    """Change an index outside of the revision's transaction, or say that this is not needed."""
    if context.is_offline_mode():
        with op.get_context().autocommit_block():
            op.execute("set lock_timeout = '5s'")
            op.execute("set statement_timeout = 0")
            # One that was interrupted is there, and not valid.
            op.execute(DropIndex(concurrently(index), if_exists=True))
            if change is build_concurrently:
                op.execute(CreateIndex(concurrently(index)))
        return True
    if not has_rows(op.get_bind(), table_of(index)):
        enter_schema()
        return False
    with op.get_context().autocommit_block():
        change(op.get_bind(), index)
    return True


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
    statement = read_view(name)
    for now, before in (as_it_was or {}).items():
        if now not in statement:
            raise ValueError(f"{name}.sql does not hold {now!r} any more")
        statement = statement.replace(now, before)
    quote = op.get_context().dialect.identifier_preparer.quote
    for each in ViewFile.of(name, statement, like or {}).statements(quote):
        op.execute(text(each.replace(":", r"\:")))
