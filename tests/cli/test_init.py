"""``init`` asks for the settings, and writes a file that the other commands take."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from etl.settings.variable_file import read_variable_file
from etl.simulator import SimulatorServer, generate_account
from etl.simulator.client import SimulatorClient
from tests.support.calls import call_each

AT_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # getpass opens /dev/tty
from etl.cli import main
main(sys.argv[1:])
"""
DEADLINE_SECONDS = 60


def started(
    environment: dict[str, str], arguments: list[str], terminal: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, *arguments],
        env=environment | {"TERM": "dumb"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )


def answered(
    environment: dict[str, str], arguments: list[str], answers: list[tuple[str, str]]
) -> tuple[int, str]:
    """The exit code of a call at a terminal, and all that the terminal showed.

    ``answers``: what is typed once the terminal shows a text, one after the other.
    """
    ours, theirs = pty.openpty()
    process = started(environment, arguments, theirs)
    os.close(theirs)
    shown, seen, waiting = "", 0, list(answers)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if waiting and (at := shown.find(waiting[0][0], seen)) >= 0:
            question, answer = waiting.pop(0)
            seen = at + len(question)
            while "not shown" in question and termios.tcgetattr(ours)[3] & termios.ECHO:
                time.sleep(0.005)
            os.write(ours, f"{answer}\n".encode(errors="surrogateescape"))
        elif select.select([ours], [], [], 0.05)[0]:
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # the other side is closed
                break
    os.close(ours)
    code = process.wait(DEADLINE_SECONDS)
    assert not waiting, shown
    return code, " ".join(shown.split())


def echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_a_hidden_question_leaves_a_terminal_that_echoes(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    ours, theirs = pty.openpty()
    arguments = ["init", "--output", str(tmp_path / "account.env"), "--partner-id", "102"]
    arguments += ["--app-token-id", "0_abcdefgh"]
    process = started(environment, arguments, theirs)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while echoes(theirs) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not echoes(theirs)
    process.send_signal(number)
    code = process.wait(DEADLINE_SECONDS)
    shown = os.read(ours, 4096).decode()
    assert echoes(theirs)
    assert (code, list(tmp_path.iterdir())) == (128 + number, [])
    assert f"Stopped by {number.name}: nothing was written." in shown
    os.close(ours)
    os.close(theirs)


PARTNER, TOKEN_ID, TOKEN, WAREHOUSE = (
    *("Partner id, the number of the Kaltura account:", "Id of the app token:"),
    *("App token (not shown):", "(not shown); empty for an embedded Postgres on this machine:"),
)


@pytest.fixture
def environment(clean_environment: dict[str, str]) -> dict[str, str]:
    return clean_environment | {"ETL_LOG_FORMAT": "text"}


def test_answers_become_a_private_file_that_check_takes(
    environment: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "own account.env"
    path.write_text("an earlier one")
    path.chmod(0o644)
    with SimulatorServer(generate_account(30, seed=5)) as server:
        with SimulatorClient(server.url) as client:
            made = client.call(
                "appToken",
                "add",
                ks=client.start_session(server.settings()["admin_secret"]),
                appToken={"hashType": "SHA256", "sessionType": 2, "sessionUserId": "kaltura-etl"},
            )
        own = environment | {"KALTURA_SERVICE_URL": server.url, "VARIABLE_FILE": str(path)}
        code, shown = answered(
            own,
            ["init"],
            [
                ("Replace it? [y/N]:", "y"),
                (PARTNER, "abc"),
                ("KALTURA_PARTNER_ID must be a whole number", ""),
                ("KALTURA_PARTNER_ID must not be empty.", "102"),
                (TOKEN_ID, made["id"]),
                (TOKEN, "\udcff"),  # a byte that is no text
                (TOKEN, "mistyped secret"),
                (TOKEN, made["token"]),
                (WAREHOUSE, "mysql://etl:hidden-password@host/db"),
                (WAREHOUSE, database_url),
            ],
        )
        assert code == 0, shown
        (checked,) = call_each(environment | {"VARIABLE_FILE": str(path)}, [["check"]])
        assert checked.code == 0, checked.out

    assert read_variable_file(path) == {
        "KALTURA_SERVICE_URL": server.url,
        "KALTURA_PARTNER_ID": "102",
        "KALTURA_APP_TOKEN_ID": made["id"],
        "KALTURA_APP_TOKEN": made["token"],
        "DATABASE_URL": database_url,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "KALTURA_APP_TOKEN is not text in the terminal's encoding." in shown
    assert "contains whitespace" in shown
    assert "DATABASE_URL must be an address such as postgresql://" in shown
    for secret in ("mistyped", "hidden-password", made["token"], database_url):
        assert secret not in shown
    assert f"export VARIABLE_FILE='{path}' ./dev run migrate ./dev run check ./dev run" in shown


def test_an_empty_answer_is_the_embedded_postgres_and_options_are_not_asked_for(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "account.env"
    code, shown = answered(
        environment,
        ["init", "--partner-id", "102", "--app-token-id", "0_x", "--output", str(path)],
        [(TOKEN, "a-token"), (WAREHOUSE, "")],
    )

    assert code == 0, shown
    assert path.read_text() == (
        "KALTURA_PARTNER_ID=102\nKALTURA_APP_TOKEN_ID=0_x\nKALTURA_APP_TOKEN=a-token\n"
        "ETL_EMBEDDED=yes\n"
    )


def test_without_a_terminal_it_says_what_is_missing_and_overwrites_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path, open_folder = tmp_path / "account.env", tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    known = ["init", "--partner-id", "102", "--app-token-id", "0_x"]
    whole = [*known, "--embedded", "yes"]
    calls: list[tuple[list[str], int, str]] = [
        (["init", "--partner-id", "x"], 2, "--partner-id must be a whole number"),
        (["init"], 78, "KALTURA_PARTNER_ID is not set, .* with --partner-id"),
        (known[:3], 78, "KALTURA_APP_TOKEN_ID is not set, .* with --app-token-id"),
        (known, 78, "DATABASE_URL is not set, .* in the environment, or --embedded yes"),
        ([*known, "--embedded", "no"], 78, "DATABASE_URL is not set, .* in the environment\\."),
        ([*whole, "--output", str(tmp_path / "none" / "x")], 78, "there is no folder"),
        ([*whole, "--output", str(tmp_path)], 78, "it is a folder"),
        ([*whole, "--output", str(open_folder / "x")], 78, "other users can replace files"),
        (whole, 0, ""),
        ([*known, "--embedded", "yes", "--schema", "other"], 2, "--force replaces it"),
        ([*whole, "--schema", "other", "--force"], 0, ""),
    ]
    ended = call_each(
        environment | {"KALTURA_APP_TOKEN": "a-token", "HOME": str(tmp_path)},
        [call for call, _, _ in calls],
    )
    for (call, code, said), each in zip(calls, ended, strict=True):
        assert (each.code, "Traceback" in each.err) == (code, False), (call, each.err)
        assert re.search(said, each.err), (call, each.err)
        assert "a-token" not in each.out + each.err
    assert list(open_folder.iterdir()) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["account.env", "open"]
    assert read_variable_file(path) == {
        "KALTURA_PARTNER_ID": "102",
        "KALTURA_APP_TOKEN_ID": "0_x",
        "KALTURA_APP_TOKEN": "a-token",
        "ETL_EMBEDDED": "yes",
        "ETL_SCHEMA": "other",
    }


def test_what_contradicts_itself_is_not_written(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "account.env"
    two = {
        "KALTURA_KS": "a-session",
        "KALTURA_ADMIN_SECRET": "a-secret",
        "DATABASE_URL": "postgresql://h/d",
    }
    call = ["init", "--partner-id", "102", "--output", str(path)]
    embedded, credentials = call_each(environment | two, [[*call, "--embedded", "yes"], call])

    assert (embedded.code, credentials.code) == (2, 78)
    assert "contradicts DATABASE_URL" in embedded.err
    assert "More than one credential is set" in credentials.err
    assert not path.exists()
