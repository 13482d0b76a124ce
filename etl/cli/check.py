"""``kaltura-etl check``."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import click

from etl.cli.exit_codes import error_of
from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.process.log import is_at_terminal
from etl.settings.read import LoadedSettings
from etl.settings.table import SETTINGS

AT_A_TERMINAL_ONLY = (
    "Neither DATABASE_URL nor ETL_EMBEDDED=yes is set: a job without a terminal, as from cron or "
    "in a container, has no warehouse."
)


@click.command()
@setting_options("partner_id", "service_url", "schema")
@json_option
@log_options
@pass_runtime
def check(runtime: Runtime) -> None:
    """Check settings, service, session and warehouse; write nothing.

    Each setting is shown with its source, secrets as ***.  The exit code is that of the first
    part that failed.
    """
    from etl.cli.database import embedded_server_exists, open_warehouse, require_embedded
    from etl.cli.tables import rows_table
    from etl.embedded.binaries import find_binaries
    from etl.preflight import check_parts, first_exit_code

    loaded = runtime.load()
    unsaid = loaded.settings.database_url is None and loaded.settings.embedded == "auto"
    if unsaid and is_at_terminal():
        loaded = dataclasses.replace(loaded, warnings=(*loaded.warnings, AT_A_TERMINAL_ONLY))
    runtime.stop.install()
    with ExitStack() as held:

        def open_database() -> str | None:
            settings = loaded.settings
            if settings.database_url is None:
                require_embedded(settings)
            if settings.database_url is None and not embedded_server_exists(settings):
                find_binaries()
                return None
            return held.enter_context(open_warehouse(settings, create=False)).database_url

        findings = list(check_parts(loaded, open_database, runtime.stop))
    settings = _settings_rows(loaded)
    code = first_exit_code(findings)
    parts: list[dict[str, object]] = [dataclasses.asdict(finding) for finding in findings]
    shown = [{key: part[key] for key in ("part", "state", "detail")} for part in parts]
    failed = next((each for each in findings if each.exit_code), None)
    failure = error_of(code, f"{failed.part}: {failed.detail}") if failed else None
    runtime.print_result(
        {"settings": settings, "parts": parts},
        rows_table("Settings", settings, shown=len(settings)),
        rows_table("Parts", shown, shown=len(shown)),
        failure=failure,
    )
    if failure:
        raise failure


def _settings_rows(loaded: LoadedSettings) -> list[dict[str, object]]:
    """Every setting as it may be shown, and its source."""
    wrong = {problem.fields.get("setting") for problem in loaded.problems}
    return [
        {
            "name": setting.name,
            "value": "(wrong, see below)"
            if setting.name in wrong
            else setting.text(getattr(loaded.settings, name)),
            "source": loaded.settings.sources.get(name, "default"),
        }
        for name, setting in SETTINGS.items()
    ]
