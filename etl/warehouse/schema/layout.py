"""How the tables of a schema are stored: as plain tables, by Citus on one worker, or otherwise.

Otherwise (by a column, as reference tables, partly) statements would not run, or would not reach
every row.  ``etl.warehouse.schema.distribution`` makes the layout that is supported.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import sqlalchemy as sa

from etl.errors import ConfigurationError
from etl.resources import sql_directory
from etl.warehouse.schema.objects import DIALECT
from etl.warehouse.schema.revision import VERSION_TABLE
from etl.warehouse.schema.tables import build_tables

CITUS_MAJOR_MIN: Final = 12
"""Since then it can keep a schema on one worker."""
_extension: Final = sa.table("pg_extension", sa.column("extname"), sa.column("extversion"))


class Layout(NamedTuple):
    """How the tables of a schema are stored."""

    is_sharded: bool
    """Whether Citus keeps all of them on one worker; otherwise they are plain tables."""
    problem: str | None
    """Why the program does not work with it, as a sentence; None: it does."""


def layout(connection: sa.Connection, schema: str) -> Layout:
    """How the tables of the schema are stored.  Every role may ask."""
    version = citus_version(connection)
    if version is None:
        return Layout(False, None)
    if version < CITUS_MAJOR_MIN:
        any_there = connection.exec_driver_sql(
            "select exists (select from pg_dist_partition as part join pg_class as class "
            "on class.oid = part.logicalrelid where class.relnamespace = to_regnamespace(%s))",
            (DIALECT.identifier_preparer.quote(schema),),
        ).scalar_one()
        older = f"Schema {schema} is distributed by Citus {version}: {CITUS_MAJOR_MIN} is needed."
        return Layout(False, older if any_there else None)
    text = (sql_directory() / "ops" / "distribution.sql").read_text(encoding="utf-8")
    tables = tables_of(schema)
    rows = connection.exec_driver_sql(text, {"schema": schema, "tables": tables}).all()
    kinds = {row.name: row.kind for row in rows}
    of_kind = set(kinds.values())
    if of_kind <= {"plain"}:
        return Layout(False, None)
    if of_kind != {"sharded"}:
        told = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        return Layout(
            False,
            f"The tables of schema {schema} are distributed in a way that is not supported "
            f"({told}). Save the schema with pg_dump, drop it, restore it, and run kaltura-etl "
            "migrate --repair --distributed, which keeps all of it on one worker; docs/scale.md "
            "has the commands.",
        )
    copies = [row.name for row in rows if row.has_local_copy]
    problem = None
    if copies:
        problem = (
            f"Schema {schema} was distributed, and the coordinator still has the old copies of "
            f"{', '.join(copies)} on disk, where nothing is erased: run kaltura-etl migrate "
            "--distributed, which removes them."
        )
    return Layout(True, problem)


def require_supported_layout(connection: sa.Connection, schema: str) -> None:
    """Raise ConfigurationError for a layout in which statements do not reach every row."""
    problem = layout(connection, schema).problem
    if problem is not None:
        raise ConfigurationError(problem, reason="layout", schema=schema)


def citus_version(connection: sa.Connection) -> int | None:
    """The major version of the extension in this database."""
    version = connection.scalar(
        sa.select(_extension.c.extversion).where(_extension.c.extname == "citus")
    )
    return None if version is None else int(str(version).partition(".")[0])


def tables_of(schema: str) -> list[str]:
    """The names of all tables of the program."""
    names = [str(table.name) for table in build_tables(schema).metadata.sorted_tables]
    return [*names, VERSION_TABLE]
