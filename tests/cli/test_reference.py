"""What the documents say about the program, compared with the program."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import etl
from etl import errors
from etl.cli import main
from etl.cli.exit_codes import EXIT_CODES, exit_code_of
from etl.cli.group import COMMANDS
from etl.cli.reference import PARTS, error_kinds, settings_table, with_parts
from etl.settings.table import SETTINGS
from etl.settings.values import OneOf
from etl.warehouse.ledger.attempts import FOLDED
from etl.warehouse.ledger.lease import ABANDONED
from etl.warehouse.privacy.hold import ACCOUNT_ERASED

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


@pytest.mark.parametrize("name", PARTS)
def test_the_reference_says_what_the_program_says(name: str) -> None:
    text = (REFERENCE / name).read_text(encoding="utf-8")

    assert with_parts(name, text) == text, "run: python -m etl.cli.reference docs/reference"


def test_the_help_that_is_documented_is_the_help_that_is_printed() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "etl", "sync", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert shown in (REFERENCE / "cli.md").read_text(encoding="utf-8")


def test_every_setting_is_documented() -> None:
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")

    assert [name for name in SETTINGS if f"| `{SETTINGS[name].name}` |" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_groups_help_is_the_commands_own(name: str) -> None:
    command = main.get_command(click.Context(main), name)

    assert command is not None
    assert command.name == name
    assert COMMANDS[name] == command.get_short_help_str(limit=200)


def test_a_list_of_values_is_closed_where_the_program_closes_it() -> None:
    """An option with a list shows all of it, in its help or in the table, and no other has one."""
    table = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            shown = option.make_metavar(click.Context(command)) or ""
            if isinstance(option.type, click.Choice):
                values = ", ".join(f"`{value}`" for value in option.type.choices)
                assert re.search(
                    rf"^\| `{option.opts[0]}` \|.*`{name}`.*\| {values} \|$", table, re.M
                )
            else:
                assert shown in ("[N]", "[ARGS]...") or not shown.startswith("["), option.name
    for setting in SETTINGS.values():
        choices = setting.parse.choices if isinstance(setting.parse, OneOf) else ()
        assert all(f"`{choice}`" in settings_table() for choice in choices)


def test_the_error_kinds_are_all_that_there_are() -> None:
    """Those of modules that no command line imports, and those that only the ledger has, too."""
    for module in pkgutil.walk_packages(etl.__path__, "etl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")

    assert error_kinds() in text
    assert [kind for kind in (ABANDONED, FOLDED, ACCOUNT_ERASED) if f"`{kind}` (" not in text] == []


def _all_errors(parent: type[errors.EtlError]) -> list[type[errors.EtlError]]:
    return [parent, *(each for child in parent.__subclasses__() for each in _all_errors(child))]


def test_every_error_has_a_documented_exit_code() -> None:
    for each in _all_errors(errors.EtlError):
        if each is not errors.Interrupted:
            assert each.exit_code in EXIT_CODES, each


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EtlError("x"), 1),
        (errors.UsageError("x"), 2),
        (errors.DataRefused("x"), 65),
        (errors.ServiceUnavailable("x"), 69),
        (errors.ServiceFailure("x"), 69),
        (errors.WarehouseUnavailable("x"), 74),
        (errors.LeaseHeld("x"), 75),
        (errors.CredentialsRefused("x"), 77),
        (errors.ConfigurationError("x"), 78),
        (errors.Interrupted("x", signal_number=1), 129),
        (errors.Interrupted("x", signal_number=2), 130),
        (errors.Interrupted("x", signal_number=15), 143),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
        (MemoryError(), 1),
        (RecursionError(), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code
    assert code in EXIT_CODES
