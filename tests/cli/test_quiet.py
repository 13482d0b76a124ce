"""``--quiet``, for cron: nothing on success, one line on failure, in every command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click

from etl.cli import main
from etl.cli.group import COMMANDS
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WITHOUT = {"psql", "simulate"}
"""A shell, and a server that runs until it is stopped."""
FAILING = {
    "backfill": ["backfill", "--from", "2026-01-01"],
    "erase": ["erase", "--user-id", "x"],
    "replay": ["replay", "/nowhere"],
}


CALLS = """
import contextlib, io, json, sys
from etl.cli import main
ended = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main(arguments)
            except SystemExit as end:
                ended.append([end.code, out.getvalue(), err.getvalue()])
print(json.dumps(ended))
"""


def _calls(environment: dict[str, str], calls: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each; one process, to be fast."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([[*call, "--quiet"] for call in calls])],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def test_a_success_is_silent(
    database_url: str, clean_environment: dict[str, str], tmp_path: Path
) -> None:
    calls = [
        ["migrate"],
        ["check"],
        ["sync"],
        ["sync", "--mode", "incremental"],
        ["sync", "--dry-run"],
        ["backfill", "--from", "2026-01-01"],
        ["status"],
        ["verify", "--source", "10"],
        ["report", "--output", str(tmp_path / "report.html")],
        ["prune"],
        ["erase", "--user-id", "nobody"],
    ]
    with SimulatorServer(generate_account(300, seed=5)) as server:
        account = Job.of(server, database_url).environment()
        ended = _calls(clean_environment | account, calls)

    for call, outcome in zip(calls, ended, strict=True):
        assert outcome == (0, "", ""), call


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
    calls = [FAILING.get(name, [name]) for name in names]
    wrong = {"ETL_SCHEMA": "pg_wrong", "ETL_LOG_FORMAT": "text"}

    for code, out, err in _calls(clean_environment | wrong, calls):
        assert (code in (2, 78), out) == (True, ""), err
        assert [" error " in line for line in err.splitlines()] == [True], err


def test_a_failure_of_a_check_is_one_line_that_names_it(run: Run, empty_database_url: str) -> None:
    done = run("check", "--quiet", DATABASE_URL=empty_database_url, ETL_LOG_FORMAT="text")

    assert (done.returncode, done.stdout) == (78, "")
    assert "settings: No credential is set" in done.stderr
    assert len(done.stderr.splitlines()) == 1
