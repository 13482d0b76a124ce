"""Whether a run may start: the server accepts it, the schema is current, the role may load."""

from __future__ import annotations

from etl.errors import CredentialsRefused
from etl.warehouse.access.hindrances import require_unhindered
from etl.warehouse.access.privileges import current_role, missing_privileges, shortened
from etl.warehouse.engine import transaction
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.server import require_writable


def require_ready(database: Database) -> None:
    """Raise unless the schema has this program's revision and may be loaded.

    Otherwise the server would refuse a missing privilege only at the statement, after hours of
    reading.

    Raises:
        ConfigurationError: another revision, a table that is gone, what ``require_writable`` or
            ``require_unhindered`` says.
        CredentialsRefused: a missing privilege.
        WarehouseUnavailable: a standby, or a server that is read-only.
    """
    schema = database.schema
    with transaction(database.engine) as connection:
        require_writable(connection)
        require_current(connection, schema)
        missing = missing_privileges(connection, schema)
        if missing:
            # Alembic is slow to import, and only a failure needs it.
            from etl.warehouse.schema.objects import missing_objects  # noqa: PLC0415
            from etl.warehouse.schema.repair import require_data  # noqa: PLC0415

            # All privileges on a table that is gone are missing, and no grant brings it back.
            require_data(missing_objects(connection, schema), schema)
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
