"""``kaltura-etl psql``: a shell on the warehouse that the other commands use."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from types import FrameType

import click

from etl.cli.options import pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import ConfigurationError
from etl.settings.table import Settings
from etl.settings.values import without_passwords

log = logging.getLogger("etl.cli")

PROGRAM = "psql"


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@setting_options("schema")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@pass_runtime
def psql(runtime: Runtime, arguments: tuple[str, ...]) -> None:
    """Open a psql shell on the warehouse, with search_path set to its schema.

    ARGS are passed on to psql, such as -c 'select * from sync_freshness'; -- --help shows its own
    options.  The exit code is psql's.
    """
    settings = runtime.start()
    from etl.cli.database import open_warehouse

    program = _program()
    with open_warehouse(settings, create=False) as opened:
        command, environment = _call(program, opened, os.environ)
        if settings.database_url is not None and _refuses_options(command, environment):
            log.warning(
                "a pooler is in between, which takes no search_path: write %s.upload_token",
                opened.schema,
            )
            del environment["PGOPTIONS"]
        code = _run([*command, *arguments], environment)
    raise click.exceptions.Exit(code)


def _program() -> str:
    """The psql on PATH, which has the user's line editing, else that of the embedded Postgres."""
    if found := shutil.which(PROGRAM):
        return found
    from etl.embedded.binaries import INSTALL, find_binaries

    problem = (
        "There is no psql program on this machine: install PostgreSQL's client programs (Debian: "
        f"postgresql-client), or the embedded Postgres, which has one ({INSTALL})."
    )
    try:
        own = find_binaries() / PROGRAM
    except ConfigurationError as exc:
        raise ConfigurationError(problem) from exc
    if not os.access(own, os.X_OK):
        raise ConfigurationError(problem)
    return str(own)


def _call(
    program: str, settings: Settings, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command, and its environment: other users see a command line, but no environment."""
    options = f"-c search_path={settings.schema},public"
    address, password, url_options = without_passwords(str(settings.database_url))
    given = environment.get("PGOPTIONS", "") if url_options is None else url_options
    own = dict(environment) | {"PGOPTIONS": f"{given} {options}".strip()}
    if password is not None:
        own["PGPASSWORD"] = password
    return [program, "--dbname", address], own


def _refuses_options(command: list[str], environment: dict[str, str]) -> bool:
    """Whether a connection without ``PGOPTIONS`` is the only one to be had: PgBouncer takes none.

    A SET instead would stay with the pooler's connection, and be there for its next user.
    """
    limited = {"PGCONNECT_TIMEOUT": "5"} | environment
    try:
        tried = subprocess.run(  # noqa: S603 - no words of the user but the address
            [*command, "-X", "--no-password", "-c", ""],
            env=limited,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False  # the shell itself says what is wrong
    return "unsupported startup parameter" in tried.stderr


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run it on our terminal; signals are the shell's own business, as if we were not there."""
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        # Ctrl-C reaches the whole group by itself: it cancels a query and does not end the shell.
        if child is not None and number != signal.SIGINT:
            child.send_signal(number)

    # A handler, not SIG_IGN: that one would be inherited by psql.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        child = subprocess.Popen(command, env=environment)  # noqa: S603 - the user's own words
    except OSError as exc:
        raise ConfigurationError(
            f"{command[0]} could not be started: {exc.strerror or exc}."
        ) from exc
    code = child.wait()
    return code if code >= 0 else 128 - code
