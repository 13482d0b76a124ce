"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from etl.cli.runtime import Runtime
from etl.settings.table import SETTINGS

Command = Callable[..., Any]

_METAVARS = {
    "service_url": "URL",
    "schema": "NAME",
    "resume_window": "DURATION",
    "absence_grace": "DURATION",
    "archive": "DIR|URL",
}


def runtime_of(context: click.Context) -> Runtime:
    return context.ensure_object(Runtime)


def setting_options(*field_names: str) -> Callable[[Command], Command]:
    """An option for each of these settings.

    The text goes to ``Runtime.flags`` unparsed: environment, file and flag share one parser.
    """

    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        if not value.strip():
            # As a variable, empty means not set; as a flag, it is a script's unset variable.
            raise click.BadParameter("must not be empty.", context, parameter)
        runtime_of(context).flags[str(parameter.name)] = value

    def decorate(command: Command) -> Command:
        for field_name in reversed(field_names):
            setting = SETTINGS[field_name]
            if setting.secret:
                raise ValueError(f"{setting.name} is a secret: it must have no option")
            default = setting.text(setting.default)
            shown = f"default {default}; {setting.name}" if default else setting.name
            command = click.option(
                setting.flag,
                field_name,
                metavar=_METAVARS.get(field_name, "N"),
                callback=remember,
                expose_value=False,
                help=f"{setting.purpose} [{shown}]",
            )(command)
        return command

    return decorate


def _set(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        del parameter
        if value:
            setattr(runtime_of(context), name, True)

    return callback


# Eager: a later option that is wrong must still be answered in the form that was asked for.
json_option = click.option(
    "--json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set("json"),
    help="Print the result as one JSON object.",
)


def log_options(command: Command) -> Command:
    command = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set("quiet"),
        help="Log warnings and errors only, without progress.",
    )(command)
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set("verbose"),
        help="Log everything.",
    )(command)


def pass_runtime(command: Command) -> Command:
    """Hand the ``Runtime`` to the command as its first argument."""
    return click.make_pass_decorator(Runtime, ensure=True)(command)
