"""The program as an orchestrator sees it: exit codes, standard output, standard error."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from etl.cli.group import COMMANDS
from etl.simulator import SimulatorServer, generate_account
from tests.support import forked
from tests.support.calls import all_that_is_shown

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HEAVY = {
    "alembic",
    "cryptography",
    "http.client",
    "importlib.metadata",
    "msgspec",
    "prometheus_client",
    "psycopg",
    "rich",
    "sqlalchemy",
    "ssl",
    "tenacity",
}

NOT_FOR_A_SYNC = (
    "alembic",
    "cryptography",  # only an admin secret needs it
    "encodings.idna",
    "etl.archive",
    "etl.demo",
    "etl.embedded",
    "etl.export",
    "etl.preflight",
    "etl.replay",
    "etl.report",
    "etl.simulator",
    "etl.verify",
    "jinja2",
    "prometheus_client",
    "pydoc",
    "rich",
    "sqlalchemy.ext",
    "sqlalchemy.orm",
    "truststore",
    "unittest",
    "urllib.request",
)
"""What an incremental run does without: each costs time to import, 288 times a day."""


def last_event(log: str) -> dict[str, object]:
    event = json.loads(log.splitlines()[-1])
    assert isinstance(event, dict)
    return event


def test_help_imports_nothing_that_is_slow(clean_environment: dict[str, str]) -> None:
    """One process for all: what a command imports stays, so the last of them tells of all."""
    calls = [["--help"], *([command, "--help"] for command in COMMANDS)]
    program = (
        "import sys\nfrom etl.cli import main\n"
        f"for arguments in {calls!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        f"    print(arguments[0], *(set(sys.modules) & {HEAVY!r}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.splitlines() == [arguments[0] for arguments in calls]
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.count("\nUsage: ") == len(COMMANDS)


def test_an_incremental_run_imports_only_what_it_needs(
    database_url: str, clean_environment: dict[str, str]
) -> None:
    with SimulatorServer(generate_account(600, seed=3)) as server:
        server.partner.app_tokens["0_app"] = {
            "id": "0_app",
            "token": "0123456789abcdef0123456789abcdef",
            "hashType": "SHA1",
            "sessionType": 2,
            "sessionDuration": 3600,
        }
        account = {
            "DATABASE_URL": database_url,
            "KALTURA_SERVICE_URL": server.url,
            "KALTURA_PARTNER_ID": str(server.account.partner_id),
            "KALTURA_APP_TOKEN_ID": "0_app",
            "KALTURA_APP_TOKEN": "0123456789abcdef0123456789abcdef",
        }
        for mode in ("full", "incremental"):
            program = (
                "import sys\nfrom etl.cli import main\n"
                f"try: main(['sync', '--json', '--quiet', '--mode', {mode!r}])\n"
                "except SystemExit as end: assert end.code == 0, end.code\n"
                "print(*sys.modules, sep='\\n', file=sys.stderr)\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", program],
                env=clean_environment | account,
                capture_output=True,
                text=True,
                check=True,
            )

    assert json.loads(done.stdout)["mode"] == "incremental"
    imported = done.stderr.splitlines()
    assert "etl.run.engine" in imported
    assert [
        name for name in imported if f"{name}.".startswith(tuple(f"{n}." for n in NOT_FOR_A_SYNC))
    ] == []


def test_version(run: Run) -> None:
    done = run("--version")

    assert done.returncode == 0
    assert done.stdout.startswith("kaltura-etl ")


def test_without_a_command_it_shows_its_help_and_is_wrong_usage(run: Run) -> None:
    done = run()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: kaltura-etl")


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "names"),
    [
        (["nonsense"], {}, 2, "nonsense"),
        (["sync", "--nonsense"], {}, 2, "--nonsense"),
        (["sync", "surplus"], {}, 2, "surplus"),
        (["sync", "--page-size", "0"], {}, 2, "--page-size"),
        (["sync", "--page-size", ""], {}, 2, "--page-size"),
        (["sync", "--mode", "some"], {}, 2, "--mode"),
        (["sync", "--accept-absences", "-1"], {}, 2, "--accept-absences"),
        (["sync", "--accept-rejected", "-1"], {}, 2, "--accept-rejected"),
        (["backfill", "--accept-vanished-field", "filename"], {}, 2, "--accept-vanished-field"),
        (["sync", "--admin-secret", "x"], {}, 2, "--admin-secret"),
        (["sync", "--database-url", "x"], {}, 2, "--database-url"),
        (["sync", "--mode", "incremental", "--full-every", "7"], {}, 2, "7s, 7m, 7h or 7d"),
        (["sync", "--wait", "10"], {}, 2, "10s, 10m, 10h or 10d"),
        (["status", "--max-age", "30"], {}, 2, "30s, 30m, 30h or 30d"),
        (["sync", "-v", "-q"], {}, 2, "--verbose and --quiet"),
        (["sync"], {}, 78, "No credential is set"),
        (["sync"], {"KALTURA_KS": "x"}, 78, "KALTURA_PARTNER_ID is not set"),
        (["sync"], {"ETL_PAGE_SIZE": "0"}, 78, "ETL_PAGE_SIZE"),
        (["sync"], {"VARIABLE_FILE": "/nowhere"}, 78, "VARIABLE_FILE"),
        (["sync"], {"DATABASE_URL": "nonsense"}, 78, "DATABASE_URL"),
        (["migrate"], {"ETL_SCHEMA": "No"}, 78, "ETL_SCHEMA"),
    ],
)
def test_a_wrong_call_gets_one_line_and_its_exit_code(
    run: Run, arguments: list[str], variables: dict[str, str], code: int, names: str
) -> None:
    done = run(*arguments, **variables)

    assert done.returncode == code
    assert done.stdout == ""
    event = last_event(done.stderr)
    assert names in str(event.get("message", event["event"]))
    assert (event["level"], event["exit_code"]) == ("error", code)
    assert "Traceback" not in done.stderr

    text = run(*arguments, **(variables | {"ETL_LOG_FORMAT": "text"})).stderr.splitlines()
    assert len(text) == 1
    assert names in text[0]


def test_a_failure_with_json_is_one_object_on_standard_output(run: Run) -> None:
    done = run("sync", "--json", KALTURA_PARTNER_ID="102")

    assert done.returncode == 78
    assert json.loads(done.stdout) == {
        "status": "failed",
        "exit_code": 78,
        "partner_id": 102,
        "run_id": None,
        "warehouse": None,
        "error_kind": "configuration",
        "error_message": last_event(done.stderr)["message"],
        "reason": None,
        "retryable": False,
    }


def test_a_failure_with_json_names_the_warehouse_and_no_secret(run: Run) -> None:
    url = "postgresql://etl:canary@127.0.0.1:1/warehouse"
    done = run("status", "--json", "--schema", "own_one", DATABASE_URL=url)

    failure = json.loads(done.stdout)
    address = {"host": "127.0.0.1", "port": 1, "database": "warehouse", "schema": "own_one"}
    assert (failure["exit_code"], failure["retryable"]) == (74, True)
    assert failure["warehouse"] == address
    assert "canary" not in done.stdout


BUG = """
import sys, types, click
from etl.cli import group
@click.command()
@click.option("--verbose", is_flag=True)
def check(verbose):
    from etl.process.log import setup_logging
    setup_logging(level="DEBUG" if verbose else "INFO", secrets=["canary-1234567"])
    row = "a-row's-value"
    raise {error}
sys.modules["etl.cli.check"] = types.SimpleNamespace(check=check)
group.main()
"""


@pytest.mark.parametrize(
    "error",
    [
        'ValueError("canary-1234567 failed\\nDETAIL: " + row)',
        'KeyError("canary-1234567\\n" + row)',
        "RecursionError()",
        "MemoryError()",
        "BrokenPipeError()",  # a socket's: standard output is well
        'ExceptionGroup("canary-1234567", [ValueError(row)])',
    ],
)
@pytest.mark.parametrize("verbose", [True, False])
def test_a_bug_is_one_line_without_values(
    error: str, verbose: bool, clean_environment: dict[str, str]
) -> None:
    done = forked.call(
        *("check", *["--verbose"][: int(verbose)]),
        env=clean_environment,
        code=BUG.format(error=error),
    )

    assert done.returncode == 1
    assert "This is a bug: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr
    if not error.startswith("KeyError"):  # its text is a repr, on one line
        assert "a-row" not in done.stderr
    assert len(done.stderr.splitlines()) == (2 if verbose else 1)


def test_ctrl_c_before_the_run_listens_ends_with_130(clean_environment: dict[str, str]) -> None:
    done = forked.call("check", env=clean_environment, code=BUG.format(error="KeyboardInterrupt"))

    assert done.returncode == 130
    assert last_event(done.stderr)["error_kind"] == "interrupted"


@pytest.mark.parametrize(
    "shell",
    [
        "{program} check | true; exit ${{PIPESTATUS[0]}}",
        "{program} check >&-",
        "{program} check 2>&-",
        "{program} check <&- >&- 2>&-",
        "{program} check 2> >(true)",
        "{program} check > /dev/full",
        "{program} check > /dev/full 2>&1",
        "PYTHONIOENCODING=ascii {program} check",
        "LC_ALL=C TZ=Odd/Zone {program} check",
        "env -i PATH=/bin ETL_DATA_DIR=/nowhere PYTHONPATH=$PYTHONPATH {program} check",
        "ulimit -n 32; {program} check",
        "umask 777; PYTHONDONTWRITEBYTECODE=1 {program} check",
    ],
)
def test_standard_streams_and_surroundings_do_not_change_the_exit_code(
    shell: str, clean_environment: dict[str, str]
) -> None:
    program = f"{sys.executable} -m etl"
    done = subprocess.run(
        ["bash", "-c", shell.format(program=program)],
        env=clean_environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78, done  # no credential is set
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_terminal_without_a_character_gets_an_escape(run: Run) -> None:
    done = run("größe", PYTHONIOENCODING="ascii:strict", ETL_LOG_FORMAT="text")

    assert done.returncode == 2
    assert "No such command 'gr\\xf6\\xdfe'" in done.stderr


def test_help_into_a_closed_pipe_is_no_error(clean_environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m etl --help | true; exit ${{PIPESTATUS[0]}}"],
        env=clean_environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_readers_do_not_make_a_warehouse(run: Run, clean_environment: dict[str, str]) -> None:
    for command in ("status", "verify", "check"):
        assert run(command, ETL_EMBEDDED="yes").returncode == 78
    assert not Path(clean_environment["ETL_DATA_DIR"]).exists()


PROGRESS = """
import logging, time
from etl.process.log import setup_logging
from etl.process.progress import open_progress, wants_bar
handler = setup_logging()
with open_progress(handler, bar=wants_bar(json_log=False), quiet=False) as progress:
    progress.stage("reading")
    for step in range(1, 5):
        progress.update(step * 500, 2_000, step)
        if step == 3:
            logging.getLogger("etl.test").info("a line [red] above the bar")
        time.sleep(0.25)
    progress.stage("confirming")
    progress.update(1_000, None, 6)
    time.sleep(0.25)
    progress.stage("publishing", changes=3_000)
    time.sleep(1.25)
logging.getLogger("etl.test").info("after")
"""


def test_a_terminal_gets_a_bar_and_text_above_it(clean_environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    environment = clean_environment | {"TERM": "xterm", "COLUMNS": "120"}
    with forked.start(env=environment, code=PROGRESS, stderr=theirs) as process:
        os.close(theirs)
        shown = all_that_is_shown(ours)

    assert process.returncode == 0
    text = shown.decode()
    assert "1,500 tokens in 3 pages" in text
    assert "confirming" in text
    publishing = text[text.index("publishing") :]
    assert "3,000 changes" in publishing
    assert "100%" not in publishing
    # It moves: the time of the stage is counted, and the bar goes to and fro.
    assert "0:00:00" in publishing
    assert "0:00:01" in publishing
    assert "info    a line [red] above the bar" in text
    assert text.rstrip().endswith("info    after")


BIG = """
import time
from etl.process.log import setup_logging
from etl.process.progress import open_progress
with open_progress(setup_logging(), bar=True, quiet=False) as progress:
    progress.stage("reading")
    progress.update(0, 987_654_321, 0)
    time.sleep(1.1)
    progress.update(987_654_000, 987_654_321, 1_975_308)
    time.sleep(0.2)
    progress.stage("publishing", changes=987_654_321)
    time.sleep(0.2)
"""


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_bar_shows_whole_figures(columns: int, clean_environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    environment = clean_environment | {"TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1"}
    with forked.start(env=environment, code=BIG, stderr=theirs) as process:
        os.close(theirs)
        shown = all_that_is_shown(ours)

    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "987,654,000 tokens" in text
    assert "987,654,321 changes" in text
    assert re.search(r"\d/s ", text)
    assert "…" not in text
    assert max(map(len, re.split(r"[\r\n]+", text))) <= columns


def test_a_pipe_gets_no_bar(clean_environment: dict[str, str]) -> None:
    done = forked.call(env=clean_environment, code=PROGRESS)

    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events == ["a line [red] above the bar", "after"]


STAGES = """
import sys
from etl.process.log import setup_logging
from etl.process.progress import open_progress, wants_bar
from etl.process import progress as module
assert module.LOG_INTERVAL_SECONDS == 30
handler = setup_logging()
bar = wants_bar(json_log=False)
with open_progress(handler, bar=bar, quiet=False, interval_seconds=0.05) as progress:
    for name in ("reading", "confirming", "publishing", "tidying up"):
        progress.stage(name, changes=7 if name == "publishing" else None)
        if name == "reading":
            progress.update(500, 2_000, 1)
        sys.stdin.readline()
"""


def _next_line(stream: IO[str], containing: str) -> str:
    while containing not in (line := stream.readline()):
        assert line, f"it ended before it said {containing}"
    return line


@pytest.mark.parametrize("terminal", ["no", "dumb"])
def test_every_stage_logs_its_name_again_and_again(
    terminal: str, clean_environment: dict[str, str]
) -> None:
    """Nothing moves the stages on but this test, so the lines come from the clock alone."""
    ours, theirs = pty.openpty()
    with forked.start(
        env=clean_environment | {"TERM": "dumb"},
        code=STAGES,
        stdin=subprocess.PIPE,
        stderr=theirs if terminal == "dumb" else subprocess.PIPE,
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        lines = os.fdopen(ours) if terminal == "dumb" else process.stderr
        assert lines is not None
        for name in ("reading", "confirming", "publishing", "tidying up"):
            first, second = _next_line(lines, name), _next_line(lines, name)
            assert ("tokens" in first, "tokens" in second) == (name == "reading",) * 2
            assert ("changes" in first) == (name == "publishing")
            process.stdin.write("\n")
            process.stdin.flush()

    assert process.returncode == 0
    if terminal == "dumb":
        lines.close()
    else:
        os.close(ours)


def test_rate_and_time_left_are_those_of_this_walk(caplog: pytest.LogCaptureFixture) -> None:
    """A resumed walk begins with the tokens of an earlier run."""
    from etl.process.progress import LogProgress

    caplog.set_level("INFO", logger="etl.process.progress")
    now = 0.0
    progress = LogProgress(monotonic=lambda: now)
    progress.line()
    progress.stage("reading")
    progress.update(50_000, 100_000, 100)
    now = 20.0
    progress.update(60_000, 100_000, 120)
    progress.line()

    (record,) = (vars(each) for each in caplog.records)
    assert (record["tokens_per_second"], record["seconds_left"]) == (500.0, 80)
