"""Alembic's entry: by ``kaltura-etl migrate``, or by ``alembic`` with DATABASE_URL and ETL_SCHEMA.

``alembic upgrade head --sql`` prints the statements instead, for a person who applies them.
"""

from __future__ import annotations

import os
from functools import partial

from alembic import context
from sqlalchemy.schema import CreateSchema

from etl.errors import ConfigurationError
from etl.warehouse.engine import connect, holders_named
from etl.warehouse.locks import ANY_LOCK
from etl.warehouse.schema.migration import create_schema, migration_lock
from etl.warehouse.schema.server import require_writable
from etl.warehouse.schema.tables import build_tables

attributes = context.config.attributes
schema: str = attributes.get("schema") or os.environ.get("ETL_SCHEMA") or "kaltura"


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave everything outside our schema alone when revisions are compared with the tables."""
    return kind != "schema" or name == schema


configure = partial(
    context.configure,
    target_metadata=build_tables(schema).metadata,
    version_table_schema=schema,
    include_schemas=True,
    include_name=include_name,
    transaction_per_migration=True,
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
    engine = connect(url)
    try:
        with (
            holders_named(engine, weakest=ANY_LOCK),
            migration_lock(engine, schema),
            engine.connect() as connection,
        ):
            require_writable(connection)
            create_schema(connection, schema)
            configure(connection=connection)
            attributes["from_revision"] = context.get_context().get_current_revision()
            connection.rollback()  # that began a transaction, but each revision has its own
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
