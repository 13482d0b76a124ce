"""``kaltura-etl init``."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from etl.cli.options import json_option, log_options, pass_runtime, setting_options
from etl.cli.runtime import Runtime
from etl.errors import ConfigurationError, UsageError
from etl.process.log import is_terminal
from etl.process.secrets import scrub
from etl.process.stop import ended_by_signals
from etl.settings.read import VARIABLE_FILE, parse_setting
from etl.settings.table import SETTINGS, Settings
from etl.settings.values import file_path
from etl.settings.variable_file import read_variable_file, variable_lines

DEFAULT_FILE: Final = "~/account.env"
WRITTEN: Final = (
    "service_url",
    "partner_id",
    "app_token_id",
    "app_token",
    "app_token_hash",
    "admin_secret",
    "ks",
    "database_url",
    "embedded",
    "schema",
)
"""What is written of the settings that are given by option or environment."""

Values = dict[str, object]
"""Parsed, by name of the field of ``Settings``."""


@click.command()
@click.option(
    "--output",
    metavar="FILE",
    help="File to write. [default: what VARIABLE_FILE names, else ~/account.env]",
)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
@setting_options("partner_id", "app_token_id", "embedded", "service_url", "schema")
@json_option
@log_options
@pass_runtime
def init(runtime: Runtime, output: str | None, force: bool) -> None:
    """Ask for the settings of an account, and write them to a private file.

    Four questions: partner id, id of an app token, the app token, and where the history is stored.
    What an option or the environment tells is not asked; without a terminal nothing is asked, and
    KALTURA_APP_TOKEN and DATABASE_URL come from the environment.  Secrets are not shown, and only
    you can read the file.
    """
    # The file that is to be written may be the one it names: not there yet, or wrong.
    named = os.environ.pop(VARIABLE_FILE, "").strip()
    path = file_path(output or named or DEFAULT_FILE).absolute()
    settings = runtime.start()
    values: Values = {name: getattr(settings, name) for name in WRITTEN if name in settings.sources}
    if "embedded" in runtime.flags and values["embedded"] == "yes" and "database_url" in values:
        raise UsageError("--embedded yes contradicts DATABASE_URL in the environment; keep one.")
    replace = _may_replace(path, force=force)
    # By default a signal would end the program without giving the terminal its echo back.
    with ended_by_signals("nothing was written."):
        _complete(values)
    complete = dataclasses.replace(settings, **values)  # type: ignore[arg-type]
    scrub.add(*complete.secrets())
    complete.credential()
    names = {SETTINGS[name].name: str(values[name]) for name in SETTINGS if name in values}
    write_variable_file(path, names, replace=replace)
    _show(runtime, complete, path, list(names))


def _may_replace(path: Path, *, force: bool) -> bool:
    """Whether a file that is there may be replaced; raises if none can be written."""
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ConfigurationError(
            f"{path} cannot be written: {reason}. Name another file with --output."
        )
    if force or not os.path.lexists(path):
        return force
    if not is_terminal(sys.stdin):
        raise UsageError(f"There is a file {path} already: --force replaces it.")
    if not click.confirm(f"There is a file {path} already. Replace it?", err=True):
        raise UsageError(f"{path} stays as it is; --output names another file.")
    return True


def write_variable_file(path: Path, values: Mapping[str, str], *, replace: bool) -> None:
    """Write a new file of mode 0600, whole or not at all.

    With ``replace`` it may take the place of another file.  Raises ConfigurationError if that is
    not allowed, and where the program would refuse to read the file.
    """
    from etl.process.whole_file import written_aside

    content = variable_lines(values).encode("utf-8")
    try:
        with written_aside(path, content, mode=0o600) as aside:
            read_variable_file(aside)  # its folder may be one in which others can replace it
            if replace:
                os.replace(aside, path)
            else:
                os.link(aside, path)  # unlike a renamed file, it takes no other's place
    except FileExistsError:
        raise ConfigurationError(f"There is a file {path} already; it stays as it is.") from None
    except OSError as exc:
        raise ConfigurationError(
            f"{path} cannot be written: {exc.strerror or exc}. Name another file with --output."
        ) from exc


def _complete(values: Values) -> None:
    """Ask for what is not given."""
    asked: dict[str, str] = {"partner_id": "Partner id, the number of the Kaltura account"}
    if not values.keys() & {"admin_secret", "ks"}:
        asked |= {"app_token_id": "Id of the app token", "app_token": "App token (not shown)"}
    for name, question in asked.items():
        if name not in values:
            values[name] = _ask(name, question)
    if "database_url" in values or values.get("embedded") == "yes":
        return
    question = "URL of the warehouse, postgresql://… (not shown)"
    may_be_embedded = values.get("embedded") != "no"
    if may_be_embedded:
        question += "; empty for an embedded Postgres on this machine"
    url = _ask("database_url", question, required=not may_be_embedded)
    values.update({"embedded": "yes"} if url is None else {"database_url": url})


def _ask(name: str, question: str, *, required: bool = True) -> object:
    """The answer, as the setting's own parser accepts it; None for an empty one."""
    setting = SETTINGS[name]
    if not is_terminal(sys.stdin):
        source = "in the environment" if setting.secret else f"with {setting.flag}"
        other = "" if required else ", or --embedded yes"
        raise ConfigurationError(
            f"{setting.name} is not set, and without a terminal init cannot ask for it: give it "
            f"{source}{other}.",
            setting=setting.name,
        )
    while True:
        try:
            text = click.prompt(
                question, default="", show_default=False, hide_input=setting.secret, err=True
            ).strip()
            if not text and not required:
                return None
            if not text:
                raise ValueError("must not be empty")
            return parse_setting(setting, text)
        except UnicodeError:
            click.echo(f"{setting.name} is not text in the terminal's encoding.", err=True)
        except ValueError as exc:
            click.echo(f"{setting.name} {exc}.", err=True)


def _show(runtime: Runtime, settings: Settings, path: Path, names: list[str]) -> None:
    from etl.cli.tables import paragraph
    from etl.resources import program_call

    runtime.partner_id = settings.partner_id
    if settings.database_url is not None:
        runtime.opens(settings.database_url, settings.schema)
    lines = [
        f"Written to {path}, which only you can read: {', '.join(names)}.",
        "",
        "Next:",
        "",
        f"    export {VARIABLE_FILE}={shlex.quote(str(path))}",
        *(f"    {program_call()} {command}" for command in ("migrate", "check", "sync")),
    ]
    runtime.print_result({"file": str(path), "settings": names}, paragraph("\n".join(lines)))
