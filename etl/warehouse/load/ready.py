"""Whether a run may start: the schema is current, and the role has all privileges of a run."""

from __future__ import annotations

from etl.errors import ConfigurationError
from etl.warehouse.access.privileges import current_role, missing_privileges, shortened
from etl.warehouse.engine import transaction
from etl.warehouse.schema.database import Database
from etl.warehouse.schema.revision import require_current


def require_ready(database: Database) -> None:
    """Raise ConfigurationError unless the schema has this program's revision and may be loaded.

    Otherwise the server would refuse a missing privilege only at the statement, after hours of
    reading.
    """
    schema = database.schema
    with transaction(database.engine) as connection:
        require_current(connection, schema)
        missing = missing_privileges(connection, schema)
        if missing:
            role = current_role(connection)
            raise ConfigurationError(
                f"The database role {role} may not load into schema {schema}: it lacks "
                f"{shortened(missing)}. The owner of the tables grants it: kaltura-etl grant "
                f"--loader {role} --apply.",
                schema=schema,
                missing=missing,
            )
