"""Writes the parts of docs/reference that follow from the program: help texts and tables.

``python -m etl.cli.reference docs/reference`` writes them between their markers; a test compares.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from etl.cli.exit_codes import EXIT_CODES, WORTH_RETRYING
from etl.cli.group import COMMANDS, main
from etl.errors import EtlError, Interrupted
from etl.settings.table import SETTINGS
from etl.settings.values import OneOf

HELP_WIDTH = 78
"""What click takes on a terminal of 80 columns or more."""


def help_texts() -> str:
    """The group's help and each command's, as ``--help`` prints them."""
    group = click.Context(
        main, info_name="kaltura-etl", terminal_width=HELP_WIDTH, **main.context_settings
    )
    parts = [f"```\n{main.get_help(group)}\n```"]
    for name in COMMANDS:
        command = main.get_command(group, name)
        if command is None:
            raise LookupError(f"etl.cli.{name} has no command {name}")
        context = click.Context(command, group, name, terminal_width=HELP_WIDTH)
        parts.append(f"## {name}\n\n```\n{command.get_help(context)}\n```")
    return "\n\n".join(parts)


def exit_codes_table() -> str:
    lines = ["| Exit code | Meaning | Worth retrying |", "|---|---|---|"]
    lines += [
        f"| {code} | {meaning} | {'yes' if code in WORTH_RETRYING else ''} |"
        for code, meaning in EXIT_CODES.items()
    ]
    return "\n".join(lines)


def error_kinds() -> str:
    """Every kind that ``error_kind`` can be, with its exit code."""
    kinds: dict[str, str] = {}

    def visit(error: type[EtlError]) -> None:
        code = "129, 130, 143" if error is Interrupted else str(error.exit_code)
        kinds.setdefault(error.kind, code)
        for child in error.__subclasses__():
            visit(child)

    visit(EtlError)
    lines = ["| `error_kind` | Exit code |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{kind}` | {code} |" for kind, code in kinds.items())])


def closed_lists() -> str:
    """The options that take one of a list of values, with all of them."""
    lists: dict[tuple[str, str], list[str]] = {}
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        for option in () if command is None else command.params:
            if isinstance(option.type, click.Choice):
                values = ", ".join(f"`{value}`" for value in option.type.choices)
                lists.setdefault((option.opts[0], values), []).append(f"`{name}`")
    lines = ["| Option | Of | Values |", "|---|---|---|"]
    lines += [
        f"| `{option}` | {', '.join(commands)} | {values} |"
        for (option, values), commands in lists.items()
    ]
    return "\n".join(lines)


def settings_table() -> str:
    lines = ["| Setting | Default | What it is |", "|---|---|---|"]
    for setting in SETTINGS.values():
        default = setting.text(setting.default)
        notes = " Secret." if setting.secret else ""
        if isinstance(setting.parse, OneOf):
            *others, last = (f"`{choice}`" for choice in setting.parse.choices)
            notes += f" One of {', '.join(others)} and {last}."
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{setting.name}` | {shown} | {setting.purpose}{notes} |")
    return "\n".join(lines)


PARTS = {
    "cli.md": {
        "exit codes": exit_codes_table,
        "error kinds": error_kinds,
        "closed lists": closed_lists,
        "help": help_texts,
    },
    "settings.md": {"settings": settings_table},
}


def with_parts(file_name: str, text: str) -> str:
    """``text`` with new parts between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``."""
    for name, render in PARTS[file_name].items():
        markers = re.compile(rf"(<!-- begin {name} -->\n).*?(\n<!-- end {name} -->)", re.DOTALL)
        body = render()
        text, found = markers.subn(lambda match, body=body: match[1] + body + match[2], text)  # type: ignore[misc]
        if found != 1:
            raise LookupError(f"{file_name} must contain the markers of {name} once")
    return text


if __name__ == "__main__":
    for each in PARTS:
        path = Path(sys.argv[1]) / each
        path.write_text(with_parts(each, path.read_text(encoding="utf-8")), encoding="utf-8")
