"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from etl.cli.runtime import Runtime
from etl.settings.table import SETTINGS
from etl.settings.values import duration, seconds
from etl.tokens.keys import VALUE_KEYS

Command = Callable[..., Any]
T = TypeVar("T")

SECRETS_WITH_OPTION: Final = frozenset({"notify_url"})
"""Other users of the machine can read a command line: these are worth less than a credential."""
LABEL_CHARACTERS_MAX: Final = 200
_YEAR_SECONDS = 366 * 86_400

_METAVARS = {
    "service_url": "URL",
    "schema": "NAME",
    "resume_window": "DURATION",
    "absence_grace": "DURATION",
    "archive": "DIR|URL",
    "lake": "DIR|URL",
    "notify_url": "URL",
    "notify": "failures|always",
    "app_token_id": "ID",
    "embedded": "auto|yes|no",
}


def runtime_of(context: click.Context) -> Runtime:
    return context.ensure_object(Runtime)


def setting_options(*field_names: str) -> Callable[[Command], Command]:
    """Add an option for each of these settings.

    The text goes to ``Runtime.flags`` unparsed: environment, file and flag share one parser.
    """

    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        if not value.strip():
            # An empty variable counts as not set; an empty flag is a mistake in a script.
            raise click.BadParameter("must not be empty.", context, parameter)
        runtime_of(context).flags[str(parameter.name)] = value

    def decorate(command: Command) -> Command:
        for field_name in reversed(field_names):
            setting = SETTINGS[field_name]
            if setting.secret and field_name not in SECRETS_WITH_OPTION:
                raise ValueError(f"{setting.name} is a secret: it must have no option")
            default = setting.text(setting.default)
            shown = f"default {default}; {setting.name}" if default else setting.name
            command = click.option(
                setting.flag,
                field_name,
                metavar=_METAVARS.get(field_name, "N"),
                callback=remember,
                # An error in another option is about this account, and told where it is set to be.
                is_eager=True,
                expose_value=False,
                help=f"{setting.purpose} [{shown}]",
            )(command)
        return command

    return decorate


def _type_of(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The click type of a setting's parser."""

    def convert(text: str) -> T:
        try:
            return parse(text.strip())
        except ValueError as exc:
            raise click.BadParameter(f"{exc}.") from None

    return convert


duration_type = _type_of(duration(0, _YEAR_SECONDS))


class _Label(click.ParamType[str | None]):
    """A printable text of at most ``LABEL_CHARACTERS_MAX`` characters; empty is none."""

    name = "text"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | None:
        if len(value) > LABEL_CHARACTERS_MAX or not value.isprintable():
            self.fail(f"at most {LABEL_CHARACTERS_MAX} characters, all printable.", param, ctx)
        return value or None


def run_options(command: Command) -> Command:
    """The options that ``sync`` and ``backfill`` share."""
    for decorate in (
        setting_options(
            "resume_window",
            "max_unreadable",
            "absence_grace",
            "concurrency",
            "requests_per_second",
            "page_size",
            "partner_id",
            "service_url",
            "schema",
            "archive",
            "notify_url",
            "notify",
        ),
        click.option(
            "--wait",
            "wait_seconds",
            type=_type_of(seconds(0, _YEAR_SECONDS)),
            default="0",
            metavar="DURATION",
            help="Wait up to this long for a running sync before exiting with 75. [default 0]",
        ),
        click.option(
            "--accept-absences",
            type=click.IntRange(min=0),
            metavar="N",
            help="Override the absence limit for this run: publish up to N absences.",
        ),
        click.option(
            "--accept-rejected",
            type=click.IntRange(min=0),
            metavar="N",
            help="Override the limit of rejected rows for this run: publish without up to N rows.",
        ),
        click.option(
            "--accept-vanished-field",
            "accept_vanished_fields",
            type=click.Choice(list(VALUE_KEYS)),
            metavar="NAME",
            multiple=True,
            help="Publish although most tokens have lost this field, such as fileName; may be "
            "repeated.",
        ),
        click.option(
            "--compare",
            type=click.Choice(["fingerprint", "full"]),
            default="fingerprint",
            help="How rows are compared with the known ones; fingerprint: by a digest of each, and "
            "by columns where it differs; full: all by columns. [default fingerprint]",
        ),
        click.option(
            "--run-label",
            type=_Label(),
            metavar="TEXT",
            help="A name for this run in the ledger (sync_run.label), such as the orchestrator's "
            "id of it.",
        ),
        click.option(
            "--no-resume",
            is_flag=True,
            help="Start over instead of resuming a failed run.",
        ),
    ):
        command = decorate(command)
    return command


def _set(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        del parameter
        if value:
            setattr(runtime_of(context), name, True)

    return callback


# Eager: an error in a later option must still be reported as JSON.
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
        help="Print nothing on success, and one line on failure.",
    )(command)
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set("verbose"),
        help="Log at DEBUG level.",
    )(command)


def pass_runtime(command: Command) -> Command:
    """Pass the ``Runtime`` to the command as its first argument."""
    return click.make_pass_decorator(Runtime, ensure=True)(command)
