"""The schema's revision, the check that this program can work with it, and the migration.

``HEAD_REVISION`` is written down here, so that a run can check the schema without importing
Alembic (0.6 s); a test checks that it equals the newest script in ``migrations/versions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Connection, MetaData, Table, Text, func, literal, select

from etl.errors import ConfigurationError
from etl.resources import migrations_directory
from etl.warehouse.engine import connect, translated_errors

HEAD_REVISION: Final = "0022"
VERSION_TABLE: Final = "alembic_version"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """``current`` is None where nothing was migrated yet; several revisions are joined by ', '."""

    current: str | None
    head: str = HEAD_REVISION


@contextmanager
def open_connection(url: str) -> Iterator[Connection]:
    """A new connection, closed afterwards; nothing is committed unless the caller does.

    Raises what ``etl.warehouse.engine.translate_error`` names.
    """
    engine = connect(url)
    try:
        with translated_errors(engine), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def schema_state(url: str, schema: str = "kaltura") -> SchemaState:
    """The revision that the schema is at; changes nothing."""
    with open_connection(url) as connection:
        return SchemaState(", ".join(revisions(connection, schema)) or None)


def require_current(connection: Connection, schema: str = "kaltura") -> None:
    """Raise ConfigurationError unless the schema is exactly of this program's revision."""
    found = revisions(connection, schema)
    if found == [HEAD_REVISION]:
        return
    command = "kaltura-etl migrate" + (f" --schema {schema}" if schema != "kaltura" else "")
    if not found:
        said = f"Schema {schema} has no tables of this program yet: run {command}."
    elif len(found) > 1:
        said = (
            f"Schema {schema} names several revisions ({', '.join(found)}): restore its table "
            f"{VERSION_TABLE} to the one that holds, then run {command}."
        )
    elif found[0] < HEAD_REVISION:
        said = (
            f"Schema {schema} is at revision {found[0]}, this program needs {HEAD_REVISION}: "
            f"run {command}."
        )
    else:
        said = (
            f"Schema {schema} is at revision {found[0]}, which this program does not know (it "
            f"knows up to {HEAD_REVISION}): install the program that ran kaltura-etl migrate."
        )
    raise ConfigurationError(said, schema=schema, found=found, head=HEAD_REVISION)


def migrate(url: str, schema: str = "kaltura") -> tuple[str | None, str]:
    """Bring the schema to ``HEAD_REVISION``; return the revisions before and after.

    Safe to repeat, and to start twice at once: the second waits for the first, then finds nothing
    to do.

    Raises:
        ConfigurationError: the schema is of a newer program.
        LeaseHeld: another migration did not end in time.
    """
    # 0.6 s that only this command should pay.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(url=url, schema=schema)
    try:
        with translated_errors():
            command.upgrade(config, "head")
    except CommandError as error:
        found = schema_state(url, schema).current
        raise ConfigurationError(
            f"Schema {schema} is at revision {found}, which this program does not know (it knows "
            f"up to {HEAD_REVISION}): install the program that made it.",
            schema=schema,
            found=found,
            head=HEAD_REVISION,
        ) from error
    before: str | None = config.attributes["from_revision"]
    return before, HEAD_REVISION


def revisions(connection: Connection, schema: str) -> list[str]:
    """What the schema's version table names: one revision, unless somebody has changed it."""
    table = Table(VERSION_TABLE, MetaData(schema=schema), Column("version_num", Text))
    name = func.format("%I.%I", literal(schema), literal(VERSION_TABLE))
    if connection.scalar(select(func.to_regclass(name))) is None:
        return []
    return sorted(connection.scalars(select(table.c.version_num)))
