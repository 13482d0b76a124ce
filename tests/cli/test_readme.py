"""What README and the how-tos say, compared with the program."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from etl.cli import main
from etl.cli.exit_codes import EXIT_CODES
from etl.cli.group import COMMANDS
from etl.cli.reference import exit_codes_table, settings_table
from etl.settings.table import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs" / "quickstart.md",
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
NAME = re.compile(r"`((?:ETL|KALTURA)_[A-Z_]+|DATABASE_URL)`")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _part(name: str) -> str:
    found = re.search(rf"<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->", README, re.DOTALL)
    assert found is not None, name
    return found[1]


def _calls(text: str) -> Iterator[list[str]]:
    """The program's arguments in every command of a page's blocks and in code between backticks."""
    text = text.replace("\\\n", " ")
    for found in re.finditer(r"(?:\./dev run|kaltura-etl) ([a-z]+)([^`\n|]*)", text):
        yield [found[1], *shlex.split(found[2], comments=True)]


def test_the_commands_are_those_of_the_program() -> None:
    rows = [f"| `{name}` | {help_text} |" for name, help_text in COMMANDS.items()]

    assert _part("commands") == "\n".join(["| Command | What it does |", "|---|---|", *rows])


def test_the_exit_codes_are_those_of_the_program() -> None:
    assert _part("exit codes") == exit_codes_table()


def test_the_settings_are_those_of_the_program() -> None:
    assert set(_part("settings").splitlines()) <= set(settings_table().splitlines())


def test_the_operator_is_told_about_every_exit_code() -> None:
    text = (ROOT / "docs" / "howto" / "operate.md").read_text(encoding="utf-8")
    told = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.M) for code in row.split(",")
    }

    assert told == set(EXIT_CODES)


@pages
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {setting.name for setting in SETTINGS.values()}
    # Of the tests, in CONTRIBUTING.md.
    known |= {"ETL_TEST_SERVERS", "ETL_TEST_POSTGRES", "ETL_TEST_WRITE"}

    assert set(NAME.findall(page.read_text(encoding="utf-8"))) <= known


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pages
def test_commands_that_are_shown_exist(page: Path) -> None:
    for name, *arguments in _calls(page.read_text(encoding="utf-8")):
        if name not in COMMANDS:
            continue  # a sentence about the program, not a call of it
        command = main.get_command(click.Context(main), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        given = {each.partition("=")[0] for each in arguments if each.startswith("--")}
        assert given <= options | {"--help"}, (name, arguments)


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\bsql/queries/\w+\.sql", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


def test_the_retry_script_stops_at_a_code_that_is_final(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "operate.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(#!/bin/sh\n.*?)```", page, re.DOTALL)
    assert found is not None
    program = tmp_path / "dev"
    program.write_text('#!/bin/sh\necho >>calls\n[ "$(wc -l <calls)" -ge 2 ] && exit 65\nexit 75\n')
    program.chmod(0o755)
    script = found[1].replace("300 1800 0", "0 0 0")

    done = subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, check=False)

    assert done.returncode == 65
    assert (tmp_path / "calls").read_text() == "\n\n"
