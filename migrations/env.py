"""Alembic's entry: by ``kaltura-etl migrate``, or by ``alembic`` with DATABASE_URL and ETL_SCHEMA.

``alembic upgrade head --sql`` prints the statements instead, for a person who applies them.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from typing import Any

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.schema import CreateSchema

from etl.errors import ConfigurationError
from etl.warehouse.engine import SCHEMA_OPTION, connect, holders_named
from etl.warehouse.locks import ANY_LOCK
from etl.warehouse.schema.migration import HEADS, Overtaken, create_schema, take_migration_lock
from etl.warehouse.schema.owner import require_owner
from etl.warehouse.schema.server import require_writable
from etl.warehouse.schema.tables import build_tables

attributes = context.config.attributes
schema: str = attributes.get("schema") or os.environ.get("ETL_SCHEMA") or "kaltura"


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave everything outside our schema alone when revisions are compared with the tables."""
    return kind != "schema" or name == schema


def remember_heads(ctx: object, step: object, heads: Collection[Any], run_args: object) -> None:
    """With the names of parameters that Alembic gives them."""
    del ctx, step, run_args
    attributes[HEADS] = set(heads)


configure = partial(
    context.configure,
    target_metadata=build_tables(schema).metadata,
    version_table_schema=schema,
    include_schemas=True,
    include_name=include_name,
    transaction_per_migration=True,
    on_version_apply=remember_heads,
)


def run_offline() -> None:
    configure(dialect_name="postgresql", literal_binds=True, as_sql=True)
    context.execute(CreateSchema(schema, if_not_exists=True))
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    url = attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise ConfigurationError("Set DATABASE_URL.", setting="DATABASE_URL")
    engine = connect(url).execution_options(**{SCHEMA_OPTION: schema})
    try:
        with holders_named(engine, weakest=ANY_LOCK), engine.connect() as connection:
            while not run_alone(connection):
                connection.rollback()
    finally:
        engine.dispose()


def run_alone(connection: Connection) -> bool:
    """Run the revisions on this connection; False if another migration got ahead of one."""
    take_migration_lock(connection, schema)
    require_writable(connection)
    configure(connection=connection)
    current = context.get_context().get_current_revision()
    attributes["from_revision"] = current
    if current != context.get_head_revision():
        require_owner(connection, schema)
    create_schema(connection, schema)
    if current is None:
        # Nobody uses it yet: everything in this transaction, or nothing.
        attributes[HEADS] = set()
        context.run_migrations()
        connection.commit()
        return True
    # Each revision has a transaction of its own, so that no lock is kept for the next one.
    connection.commit()
    configure(connection=connection)
    attributes[HEADS] = set(context.get_context().get_current_heads())
    try:
        with context.begin_transaction():
            context.run_migrations()
    except Overtaken:
        return False
    return True


if context.is_offline_mode():
    run_offline()
else:
    run_online()
