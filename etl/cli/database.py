"""The warehouse of a command: DATABASE_URL, else the embedded Postgres."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from etl.cli.runtime import Runtime
from etl.errors import ConfigurationError
from etl.settings.table import Settings

log = logging.getLogger("etl.cli")


@contextmanager
def open_warehouse(settings: Settings, *, create: bool) -> Iterator[Settings]:
    """Yield the settings with ``database_url`` filled in; the embedded server runs meanwhile.

    ``create``: create the embedded server if there is none yet; else that is a
    ConfigurationError, because a command that only reads must not leave a database behind.
    """
    if settings.database_url is not None:
        _tell(settings)
        yield settings
        return
    from etl.embedded.server import embedded_server

    if not create and not embedded_server_exists(settings):
        raise ConfigurationError(
            "There is no warehouse yet: run kaltura-etl sync, or set DATABASE_URL.",
            setting="DATABASE_URL",
        )
    with embedded_server(settings.data_dir) as url:
        opened = dataclasses.replace(settings, database_url=url)
        _tell(opened)
        yield opened


def _tell(settings: Settings) -> None:
    """Tell this call of the program which warehouse it is about."""
    context = click.get_current_context(silent=True)
    runtime = None if context is None else context.find_object(Runtime)
    if runtime is not None:
        runtime.opens(str(settings.database_url), settings.schema)


def embedded_server_exists(settings: Settings) -> bool:
    """Whether the embedded server was ever created; starts nothing."""
    from etl.embedded.server import default_data_dir

    folder = settings.data_dir or default_data_dir()
    try:
        return (folder / "server" / "data" / "PG_VERSION").is_file()
    except OSError:
        return False


def migrate_embedded(settings: Settings) -> None:
    """Migrate the embedded warehouse, so that sync works at once.

    Only the embedded one: the schema of a shared database is migrated when its owner says so.
    """
    from etl.warehouse.schema.revision import migrate, schema_state

    url = str(settings.database_url)
    state = schema_state(url, settings.schema)
    if state.current != state.head:
        migrate(url, settings.schema)
        log.info(
            "embedded warehouse migrated",
            extra={"from_revision": state.current, "to_revision": state.head},
        )
