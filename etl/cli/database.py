"""The warehouse of a command: DATABASE_URL, else the embedded Postgres."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from etl.cli.runtime import Runtime
from etl.errors import ConfigurationError
from etl.process.log import is_at_terminal
from etl.settings.table import Settings

log = logging.getLogger("etl.cli")


@contextmanager
def open_warehouse(settings: Settings, *, create: bool) -> Iterator[Settings]:
    """Yield the settings with ``database_url`` filled in; the embedded server runs meanwhile.

    ``create``: create the embedded server if there is none yet; else that is a
    ConfigurationError, because a command that only reads must not leave a database behind.  So is
    an embedded server that is not meant, see ``require_embedded``.
    """
    if settings.database_url is not None:
        _tell(settings)
        yield settings
        return
    require_embedded(settings)
    from etl.embedded.server import default_data_dir, embedded_server

    if not create and not embedded_server_exists(settings):
        raise ConfigurationError(
            "There is no warehouse yet: run kaltura-etl sync, or set DATABASE_URL.",
            setting="DATABASE_URL",
        )
    with embedded_server(settings.data_dir) as url:
        opened = dataclasses.replace(settings, database_url=url)
        _tell(opened, embedded_in=(settings.data_dir or default_data_dir()).absolute())
        yield opened


def require_embedded(settings: Settings) -> None:
    """Raise ConfigurationError unless the embedded server may stand in for DATABASE_URL.

    Without a terminal nobody sees that the history goes there, and in a container it would be lost
    with it: so there it must be asked for.
    """
    if settings.embedded == "yes" or (settings.embedded == "auto" and is_at_terminal()):
        return
    because = (
        "ETL_EMBEDDED=no rules out the embedded Postgres"
        if settings.embedded == "no"
        else "without a terminal the embedded Postgres is not used unless ETL_EMBEDDED=yes says so"
    )
    raise ConfigurationError(
        f"DATABASE_URL is not set, and {because}. Set DATABASE_URL to the URL of the warehouse, or "
        "ETL_EMBEDDED=yes to keep the history on this machine.",
        setting="DATABASE_URL",
        reason="no_warehouse",
    )


def _tell(settings: Settings, embedded_in: Path | None = None) -> None:
    """Tell this call of the program which warehouse it is about."""
    context = click.get_current_context(silent=True)
    runtime = None if context is None else context.find_object(Runtime)
    if runtime is not None:
        runtime.opens(str(settings.database_url), settings.schema, embedded_in)


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
