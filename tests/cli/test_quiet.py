"""``--quiet``, for cron: nothing on success, one line on failure, in every command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import click

from etl.cli import main
from etl.cli.group import COMMANDS
from etl.simulator import SimulatorServer, generate_account
from tests.support.calls import call_each
from tests.support.job import Job

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WITHOUT = {"psql", "simulate"}
"""A shell, and a server that runs until it is stopped."""
FAILING = {
    "backfill": ["backfill", "--from", "2026-01-01"],
    "erase": ["erase", "--user-id", "x"],
    "export": ["export", "--format", "csv", "--to", "/nowhere"],
    "replay": ["replay", "/nowhere"],
}


def test_a_success_is_silent_in_every_command(
    database_url: str,
    clean_environment: dict[str, str],
    postgres_major: str,
    role: str,
    tmp_path: Path,
) -> None:
    archive = str(tmp_path / "archive")
    calls = [
        ["init", "--output", str(tmp_path / "account.env")],
        ["migrate"],
        ["check"],
        ["sync", "--archive", archive],
        ["sync", "--mode", "incremental", "--archive", archive],
        ["sync", "--dry-run"],
        ["backfill", "--from", "2026-01-01", "--archive", archive],
        ["replay", archive, "--into-schema", "recovered"],
        ["status"],
        ["verify", "--source", "10"],
        ["report", "--output", str(tmp_path / "report.html")],
        ["export", "--format", "csv", "--to", str(tmp_path / "export")],
        ["prune"],
        ["erase", "--user-id", "nobody"],
        ["grant", "--loader", role, "--apply"],
        ["demo", "--nights", "2", "--tokens", "100"],
    ]
    assert {call[0] for call in calls} == COMMANDS.keys() - WITHOUT
    # The demo is on the embedded server of the tests themselves, which runs already.
    folder = Path(os.environ["ETL_TEST_RUN_DIR"]) / postgres_major
    own = {"ETL_DATA_DIR": str(folder)}
    if postgres_major == "15":
        own["PG_BIN"] = "/usr/lib/postgresql/15/bin"
    with SimulatorServer(generate_account(300, seed=5)) as server:
        account = Job.of(server, database_url).environment()
        ended = call_each(clean_environment | own | account, [[*call, "--quiet"] for call in calls])

    for call, each in zip(calls, ended, strict=True):
        assert (each.code, each.out, each.err) == (0, "", ""), call


def test_what_was_asked_for_on_standard_output_is_there(database_url: str) -> None:
    with SimulatorServer(generate_account(50, seed=5)) as server:
        job = Job.of(server, database_url)
        assert job.call("--quiet").report["status"] == "succeeded"
        page = job.call_command("report", "--quiet", "--output", "-")
        assert page.out.startswith("<!doctype html>")


def test_every_command_has_the_option() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--quiet" in options) == (name not in WITHOUT), name


def test_a_failure_is_one_line(clean_environment: dict[str, str]) -> None:
    names = [name for name in COMMANDS if name not in WITHOUT]
    calls = [[*FAILING.get(name, [name]), "--quiet"] for name in names]
    wrong = {"ETL_SCHEMA": "pg_wrong", "ETL_LOG_FORMAT": "text"}

    for each in call_each(clean_environment | wrong, calls):
        assert (each.code, each.out) == (78, "")
        assert [" error " in line for line in each.err.splitlines()] == [True], each.err


def test_a_failure_of_a_check_is_one_line_that_names_it(run: Run, empty_database_url: str) -> None:
    done = run("check", "--quiet", DATABASE_URL=empty_database_url, ETL_LOG_FORMAT="text")

    assert (done.returncode, done.stdout) == (78, "")
    assert "settings: No credential is set" in done.stderr
    assert len(done.stderr.splitlines()) == 1
