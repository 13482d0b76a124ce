"""Every option that takes a duration refuses a number without a unit: 7 may mean days."""

from __future__ import annotations

from collections.abc import Iterator

import click

from etl.cli import main
from etl.cli.group import COMMANDS
from tests.support.calls import call_each

NEEDED = {"backfill": ["--from", "2026-01-01"], "sync": ["--mode", "incremental"]}


def options_of_durations() -> Iterator[tuple[str, str]]:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            if option.metavar == "DURATION":
                yield name, option.opts[0]


def test_a_number_without_a_unit_is_refused_with_an_example(
    clean_environment: dict[str, str],
) -> None:
    options = list(options_of_durations())
    assert {("sync", "--full-every"), ("status", "--max-age"), ("sync", "--wait")} <= set(options)
    calls = [[name, *NEEDED.get(name, []), option, "7", "--json"] for name, option in options]

    for call, each in zip(calls, call_each(clean_environment, calls), strict=True):
        assert each.code == 2, call
        assert call[-3] in each.report["error_message"]
        assert "must have a unit: 7s, 7m, 7h or 7d, not '7'" in each.report["error_message"]
