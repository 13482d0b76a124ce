"""Whether a run may start: the server accepts it, the schema is whole, the role may load."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection

from etl.errors import ConfigurationError, CredentialsRefused
from etl.warehouse.access.hindrances import require_unhindered
from etl.warehouse.access.privileges import catalog, current_role, missing_privileges, shortened
from etl.warehouse.engine import transaction
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.objects import constraint_name, missing_objects
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.server import require_writable
from etl.warehouse.schema.tables import build_tables


def require_ready(database: Database) -> None:
    """Raise unless the schema has this program's revision and may be loaded.

    Otherwise the server would refuse a missing column or privilege only at the statement, after
    hours of reading; and without the index of the lease, two runs of an account would publish.

    Raises:
        ConfigurationError: another revision, a table, a column or a key that is gone, what
            ``require_writable`` or ``require_unhindered`` says.
        CredentialsRefused: a missing privilege.
        WarehouseUnavailable: a standby, or a server that is read-only.
    """
    schema = database.schema
    with transaction(database.engine) as connection:
        require_writable(connection)
        require_current(connection, schema)
        _require_whole(connection, schema)
        missing = missing_privileges(connection, schema)
        if missing:
            role = current_role(connection)
            raise CredentialsRefused(
                f"The database role {role} may not load into schema {schema}: it lacks "
                f"{shortened(missing)}. The owner of the tables grants it: kaltura-etl grant "
                f"--loader {role} --apply.",
                reason="privilege",
                schema=schema,
                missing=missing,
            )
        require_unhindered(connection, schema)


def _require_whole(connection: Connection, schema: str) -> None:
    """Raise unless all columns and keys of the tables are there.

    By their names: ``check`` looks at everything else that the revision consists of, which takes
    fifty times as long.
    """
    names = [table.name for table in build_tables(None).metadata.tables.values()]
    rows = catalog(connection, "needed_found", schema=schema, tables=names)
    lacking = sorted(_needed() - {row.name for row in rows})
    if lacking:
        # Alembic is slow to import, and only a failure needs it.
        from etl.warehouse.schema.repair import require_data  # noqa: PLC0415

        require_data(missing_objects(connection, schema), schema)
        raise ConfigurationError(
            f"Schema {schema} lacks {shortened(lacking)}, without which runs could get in each "
            "other's way: as the owner, run kaltura-etl migrate --repair.",
            reason="objects",
            schema=schema,
            missing=lacking,
        )


@cache
def _needed() -> frozenset[str]:
    """Columns, primary keys and unique indexes, as ``sql/ops/needed_found.sql`` names them."""
    found = set()
    for table in build_tables(None).metadata.tables.values():
        parts = [column.name for column in table.columns]
        parts += [str(index.name) for index in table.indexes if index.unique]
        if len(table.primary_key.columns):
            parts.append(constraint_name(table.primary_key))
        found |= {f"{table.name}.{part}" for part in parts}
    return frozenset(found)
