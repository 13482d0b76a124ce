"""``kaltura-etl migrate --distributed``: one schema on one worker of Citus.

Every account that has its own schema (``ETL_SCHEMA``) lives on one worker, with all its tables, so
every statement of the program is one statement on that worker.  Citus 12 calls this schema-based
sharding.  See docs/scale.md.
"""

from __future__ import annotations

import re
from typing import Final

import sqlalchemy as sa

from etl.errors import ConfigurationError
from etl.warehouse.schema.layout import (
    CITUS_MAJOR_MIN,
    citus_version,
    layout,
    require_supported_layout,
    tables_of,
)
from etl.warehouse.schema.migration import take_migration_lock
from etl.warehouse.schema.objects import DIALECT
from etl.warehouse.schema.owner import owner_connection, require_owner, set_limits
from etl.warehouse.schema.revision import require_current, revisions
from etl.warehouse.schema.views import ViewFile, view_files

LAST_FILLING: Final = "0016"
"""The last revision that writes what it reads from views, which Citus refuses in a moved schema."""
_ATOMIC: Final = re.compile(
    r"(?P<head>create or replace function .*?\n)begin atomic\n(?P<query>.*);\nend\s*", re.DOTALL
)


def distribute(url: str, schema: str) -> bool:
    """Keep the schema, which is of this program's revision, on one worker; whether it was moved.

    Safe to repeat: what an interrupted call has left to do is done.

    Raises:
        ConfigurationError: not the coordinator of a Citus 12 or newer, or a layout that is not
            supported.
        CredentialsRefused: the role does not own the tables.
        WarehouseUnavailable: a lock was not granted in time.
    """
    with owner_connection(url, schema) as connection:
        _begin(connection, schema)
        require_coordinator(connection)
        require_current(connection, schema)
        require_owner(connection, schema)
        found = layout(connection, schema)
        if not found.is_sharded:
            require_supported_layout(connection, schema)
            connection.execute(sa.select(sa.func.citus_schema_distribute(_regnamespace(schema))))
        connection.commit()
        _remove_local_copies(connection, schema)
        _begin(connection, schema)
        _install(connection)
        connection.commit()
        return not found.is_sharded


def reinstall_if_distributed(url: str, schema: str) -> None:
    """After a migration, which installs views and functions in the form of plain Postgres."""
    with owner_connection(url, schema) as connection:
        if layout(connection, schema).is_sharded:
            connection.rollback()
            _begin(connection, schema)
            _install(connection)
            connection.commit()


def require_updatable(connection: sa.Connection, schema: str) -> None:
    """Raise ConfigurationError if a moved schema needs a revision that Citus does not run."""
    found = ", ".join(revisions(connection, schema))
    if not found or found >= LAST_FILLING or not layout(connection, schema).is_sharded:
        return
    raise ConfigurationError(
        f"Schema {schema} is on a worker of Citus and at revision {found}. Citus cannot run the "
        f"updates up to {LAST_FILLING} there, and nothing was changed. Make a new schema (another "
        "ETL_SCHEMA, migrate --distributed) and replay the account's archive into it.",
        reason="layout",
        schema=schema,
        found=found,
    )


def require_coordinator(connection: sa.Connection) -> None:
    """Raise ConfigurationError unless this is the coordinator of a Citus that is new enough."""
    version = citus_version(connection)
    if version is None:
        raise ConfigurationError(
            "migrate --distributed needs the extension Citus, which this database does not have: "
            "connect to the coordinator of a Citus cluster, or leave the option out.",
            reason="citus",
        )
    if version < CITUS_MAJOR_MIN:
        raise ConfigurationError(
            f"migrate --distributed needs Citus {CITUS_MAJOR_MIN} or newer, and this database has "
            f"Citus {version}.",
            reason="citus",
        )
    if not connection.exec_driver_sql("select citus_is_coordinator()").scalar_one():
        raise ConfigurationError(
            "This server is a worker of Citus: name the coordinator in DATABASE_URL.",
            reason="citus",
        )


def statements_for_workers(view: ViewFile) -> list[str]:
    """SQL that creates or replaces a view or a function on Citus, and its comments.

    A function with parameters that reads tables is PL/pgSQL there: Citus plans no SQL function
    with parameters.  It may be sent to the worker with the rest of a query, where it reads the
    tables of the same worker.
    """
    statement = view.statement
    found = _ATOMIC.search(statement)
    if found is not None:
        head = found["head"].replace("language sql", "language plpgsql")
        # Of comments within it, which a quoted body may have as well.
        body = f"#variable_conflict use_column\nbegin\nreturn query\n{found['query']};\nend"
        statement = (
            f"{head.replace('parallel safe', 'parallel unsafe')}"
            "set search_path from current\n"
            "set citus.allow_nested_distributed_execution = on\n"
            f"as $body$\n{body}\n$body$"
        )
    first, comments = view.statements(DIALECT.identifier_preparer.quote)
    return [first if found is None else statement, comments]


def _install(connection: sa.Connection) -> None:
    for view in view_files():
        for statement in statements_for_workers(view):
            connection.exec_driver_sql(statement.replace("%", "%%"))


def _begin(connection: sa.Connection, schema: str) -> None:
    take_migration_lock(connection, schema)
    set_limits(connection, schema)


def _remove_local_copies(connection: sa.Connection, schema: str) -> None:
    """What was moved stays in the coordinator's files until then, and no erasure reaches it."""
    prepared = DIALECT.identifier_preparer
    with connection.begin():
        set_limits(connection, schema)
        for name in tables_of(schema):
            connection.exec_driver_sql(
                "select truncate_local_data_after_distributing_table(cast(%s as regclass))",
                (f"{prepared.quote(schema)}.{prepared.quote(name)}",),
            )


def _regnamespace(schema: str) -> sa.ColumnElement[object]:
    quoted = sa.func.quote_ident(sa.literal(schema))
    return sa.func.to_regnamespace(quoted)
