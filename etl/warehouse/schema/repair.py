"""``kaltura-etl migrate --repair``: what was dropped is put back, as far as it held no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, DefaultClause, Table, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import (
    AddConstraint,
    CreateIndex,
    DropIndex,
    SetColumnComment,
    SetTableComment,
)

from etl.errors import ConfigurationError, DataRefused
from etl.warehouse.engine import (
    INVALID_FUNCTION_DEFINITION,
    INVALID_TABLE_DEFINITION,
    WRONG_OBJECT_TYPE,
    sqlstate_of,
)
from etl.warehouse.schema.columns import PERSISTENCE, REPLICA_IDENTITY, STORAGE
from etl.warehouse.schema.indexes import build_concurrently, has_rows
from etl.warehouse.schema.migration import take_migration_lock
from etl.warehouse.schema.objects import (
    DIALECT,
    SchemaObject,
    constraint_name,
    constraints_of,
    fill_factor,
    missing_objects,
)
from etl.warehouse.schema.owner import owner_connection, require_owner, set_limits
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.tables import build_tables
from etl.warehouse.schema.views import view_files

_NOT_OURS: Final = (
    INVALID_TABLE_DEFINITION,
    INVALID_FUNCTION_DEFINITION,
    WRONG_OBJECT_TYPE,
)


def repair(url: str, schema: str) -> list[SchemaObject]:
    """Put back what is missing of views, functions, indexes, constraints, defaults and comments.

    And how tables are kept: storage of columns, persistence, replica identity.  The schema is of
    this program's revision.  All in one transaction, except for indexes of tables with rows, which
    follow it and are built while others read and write.  Returns what was missing.

    Raises:
        ConfigurationError: a table or a column is missing, or somebody else's object has the name:
            nothing was changed.
        DataRefused: rows violate a constraint or a unique index.
        CredentialsRefused: the role does not own the tables.
        WarehouseUnavailable: a lock was not granted in time.
    """
    with owner_connection(url, schema) as connection:
        take_migration_lock(connection, schema)
        require_current(connection, schema)
        missing = missing_objects(connection, schema)
        require_data(missing, schema)
        if missing:
            require_owner(connection, schema)
            later = _put_back(connection, schema, missing)
            connection.commit()
            _build(connection, schema, later)
        return missing


def require_data(missing: list[SchemaObject], schema: str) -> None:
    """Raise ConfigurationError if something is missing that held data."""
    lost = [str(each) for each in missing if each.held_data]
    if lost:
        raise ConfigurationError(
            f"Schema {schema} lacks {', '.join(lost)}, or has it in another form. Its data went "
            "with it, so nothing was changed: restore it from a backup, or rebuild the warehouse "
            "from its archive (kaltura-etl replay).",
            reason="objects",
            missing=lost,
        )


def _put_back(
    connection: Connection, schema: str, missing: list[SchemaObject]
) -> list[SchemaObject]:
    """Everything but the indexes of tables with rows, which are returned."""
    set_limits(connection, schema)
    later = []
    tables = {table.name: table for table in build_tables(schema).metadata.tables.values()}
    # Foreign keys last: they need the keys that they refer to.
    for each in sorted(missing, key=lambda each: ".fk_" in each.name):
        if each.owner not in tables:
            continue
        table = tables[each.owner]
        if each.kind == "index" and has_rows(connection, table):
            later.append(each)
            continue
        with _explained(each):
            _put_back_part(connection, table, each)
    _install_views(connection, missing)
    return later


def _put_back_part(connection: Connection, table: Table, part: SchemaObject) -> None:
    name = part.name.partition(".")[2]
    quoted = DIALECT.identifier_preparer.format_table(table)
    if part.kind == "constraint":
        (constraint,) = [each for each in constraints_of(table) if constraint_name(each) == name]
        # One that was not validated is there.
        connection.exec_driver_sql(f"alter table {quoted} drop constraint if exists {name}")
        connection.execute(AddConstraint(constraint, isolate_from_table=False))
    elif part.kind == "index":
        (index,) = [each for each in table.indexes if each.name == name]
        connection.execute(DropIndex(index, if_exists=True))
        connection.execute(CreateIndex(index))
    elif part.kind == "comment":
        connection.execute(SetColumnComment(table.c[name]) if name else SetTableComment(table))
    elif part.kind == "storage":
        storage = table.c[name].info[STORAGE]
        connection.exec_driver_sql(
            f"alter table {quoted} alter column {name} set storage {storage}"
        )
    elif part.kind == "persistence":
        persistence = table.info.get(PERSISTENCE, "logged")
        connection.exec_driver_sql(f"alter table {quoted} set {persistence}")
    elif part.kind == "replica identity":
        identity = table.info[REPLICA_IDENTITY]
        connection.exec_driver_sql(f"alter table {quoted} replica identity {identity}")
    elif part.kind == "fillfactor":
        connection.exec_driver_sql(f"alter table {quoted} set (fillfactor = {fill_factor(table)})")
    elif part.kind == "not null":
        connection.exec_driver_sql(f"alter table {quoted} alter column {name} set not null")
    elif table.c[name].identity is not None:
        connection.exec_driver_sql(
            f"alter table {quoted} alter column {name} add generated by default as identity"
        )
        column = table.c[name]
        following = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
        sequence = func.pg_get_serial_sequence(quoted, name)
        connection.execute(select(func.setval(sequence, following, False)))
    else:
        default = table.c[name].server_default
        words = default.arg if isinstance(default, DefaultClause) else "null"
        connection.exec_driver_sql(f"alter table {quoted} alter column {name} set default {words}")


def _install_views(connection: Connection, missing: list[SchemaObject]) -> None:
    for view in view_files():
        if any(each.owner == view.name for each in missing):
            with _explained(SchemaObject("function" if view.is_function else "view", view.name)):
                for statement in view.statements(DIALECT.identifier_preparer.quote):
                    connection.exec_driver_sql(statement.replace("%", "%%"))


def _build(connection: Connection, schema: str, indexes: list[SchemaObject]) -> None:
    tables = {table.name: table for table in build_tables(schema).metadata.tables.values()}
    autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
    for each in indexes:
        name = each.name.partition(".")[2]
        (index,) = [found for found in tables[each.owner].indexes if found.name == name]
        with _explained(each):
            build_concurrently(autocommit, index)


@contextmanager
def _explained(part: SchemaObject) -> Iterator[None]:
    """Name the object whose statement Postgres refuses."""
    try:
        yield
    except DBAPIError as error:
        state = sqlstate_of(error) or ""
        if state.startswith("23"):
            raise DataRefused(
                f"The {part} cannot be put back, because rows of the table violate it (SQLSTATE "
                f"{state}): kaltura-etl verify names them. Correct them, then run kaltura-etl "
                "migrate --repair again.",
                reason="objects",
                object=str(part),
            ) from None
        if state in _NOT_OURS:
            raise ConfigurationError(
                f"The {part} cannot be put back, because something else has this name (SQLSTATE "
                f"{state}), so nothing was changed: drop or rename it, then run kaltura-etl "
                "migrate --repair again.",
                reason="objects",
                object=str(part),
            ) from None
        raise
