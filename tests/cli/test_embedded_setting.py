"""``ETL_EMBEDDED``: the embedded Postgres is not used unasked where nobody would notice."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.cli.database import require_embedded
from etl.errors import ConfigurationError
from etl.process.log import is_at_terminal
from etl.settings.table import Settings
from tests.support.calls import call_each

COMMANDS = (
    ["migrate"],
    ["sync"],
    ["sync", "--mode", "incremental", "--dry-run"],
    ["backfill", "--from", "2026-01-01"],
    ["replay", "."],
    ["status"],
    ["psql"],
    ["verify"],
    ["report"],
    ["grant", "--loader", "somebody"],
    ["erase", "--user-id", "anna"],
    ["prune"],
    ["check"],
)
"""All that need a warehouse, and make none here."""
ACCOUNT = {"KALTURA_PARTNER_ID": "102", "KALTURA_KS": "x", "KALTURA_SERVICE_URL": "http://[::1]:1"}


@pytest.fixture
def terminal() -> Iterator[io.TextIOWrapper]:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


@pytest.fixture
def nothing() -> Iterator[io.TextIOWrapper]:
    with open(os.devnull, "w") as stream:
        yield stream


@pytest.mark.parametrize(
    ("stdin", "stdout", "stderr", "expected"),
    [
        ("terminal", "terminal", "terminal", True),
        ("nothing", "nothing", "terminal", True),
        ("terminal", "nothing", "nothing", True),
        ("nothing", "terminal", "nothing", False),
        ("nothing", "nothing", "nothing", False),
    ],
)
def test_what_at_a_terminal_means(
    stdin: str,
    stdout: str,
    stderr: str,
    expected: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, kind in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        monkeypatch.setattr(sys, name, request.getfixturevalue(kind))

    assert is_at_terminal() is expected


@pytest.mark.parametrize("at_terminal", [True, False])
@pytest.mark.parametrize("embedded", ["auto", "yes", "no"])
def test_when_it_may_be_used(
    embedded: str,
    at_terminal: bool,
    terminal: io.TextIOWrapper,
    nothing: io.TextIOWrapper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, terminal if at_terminal else nothing)
    settings = Settings(embedded=embedded)

    if embedded == "yes" or (embedded == "auto" and at_terminal):
        require_embedded(settings)
        return
    with pytest.raises(ConfigurationError, match="Set DATABASE_URL"):
        require_embedded(settings)


@pytest.mark.parametrize("variables", [{}, {"DATABASE_URL": ""}, {"ETL_EMBEDDED": "no"}])
def test_no_command_uses_it_unasked(
    variables: dict[str, str], clean_environment: dict[str, str]
) -> None:
    ended = call_each(clean_environment | ACCOUNT | variables, COMMANDS)

    for arguments, each in zip(COMMANDS, ended, strict=True):
        if arguments == ["check"]:  # its exit code is that of its first part
            assert "DATABASE_URL is not set" in each.out or "DATABASE_URL (from" in each.out
            continue
        assert each.code == 78, (arguments, each)
        assert "DATABASE_URL" in each.err.splitlines()[-1], (arguments, each)
    assert not Path(clean_environment["ETL_DATA_DIR"]).exists()
