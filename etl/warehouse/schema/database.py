"""``Database``: where the functions of the warehouse work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from etl.warehouse.engine import SCHEMA_OPTION, connect, transaction
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.server import require_primary
from etl.warehouse.schema.tables import Tables, build_tables


@dataclass(frozen=True, slots=True)
class Database:
    """An engine and the tables of one schema.  Not for several threads at once.

    Functions that take one are one transaction unless they say otherwise, and raise
    WarehouseUnavailable, CredentialsRefused or ConfigurationError as ``engine.translate_error``
    says.
    """

    engine: sa.Engine
    tables: Tables
    schema: str


@contextmanager
def open_database(url: str, schema: str) -> Iterator[Database]:
    """The database at ``url``; connects when first needed, and closes its connections at the end.

    Raises ConfigurationError for a URL that cannot be read.
    """
    engine = connect(url).execution_options(**{SCHEMA_OPTION: schema})
    try:
        yield Database(engine, build_tables(schema), schema)
    finally:
        engine.dispose()


def require_current_schema(database: Database) -> None:
    """Raise ConfigurationError unless the schema is exactly of this program's revision."""
    with transaction(database.engine) as connection:
        require_current(connection, database.schema)


def require_current_primary(database: Database) -> None:
    """The same, and raise what ``require_primary`` does: before anything is written."""
    with transaction(database.engine) as connection:
        require_primary(connection)
        require_current(connection, database.schema)
