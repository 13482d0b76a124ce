"""``kaltura-etl simulate`` as a program of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.simulator import DEFAULT_ADMIN_SECRET, SimulatorClient
from tests.support import forked

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from etl.cli.simulate import simulate; simulate()"


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with forked.start(*options, env=forked.environment(), code=PROGRAM, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
            assert found, (line, process.stderr and process.stderr.read())
            yield process, found.group(1)
        finally:
            process.kill()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return forked.call(*options, env=forked.environment(), code=PROGRAM, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_and_ends_cleanly(number: signal.Signals) -> None:
    with running("--tokens", "1200", "--seed", "7", "--partner-id", "7") as (process, url):
        with SimulatorClient(url) as client:
            ks = client.start_session(DEFAULT_ADMIN_SECRET, 7)
            page = client.list_tokens(ks, 3, 500)
            assert page["totalCount"] == 1_200
            assert len(page["objects"]) == 200
            assert page["objects"][0]["partnerId"] == 7
        process.send_signal(number)
        rest, log = process.communicate(timeout=10)
        assert process.returncode == 0
        assert rest == ""
        assert log == ""


def test_a_generated_account_ends_today_unless_told_otherwise() -> None:
    """What is shown of it (stuck, stale, the days of a report) is about these days, too."""
    ends = []
    for options in ((), ("--until", "2026-01-05")):
        with running("--tokens", "2000", *options) as (_, url), SimulatorClient(url) as client:
            ks = client.start_session(DEFAULT_ADMIN_SECRET)
            last = client.list_tokens(ks, 2_000, 1)["objects"][0]["createdAt"]
            ends.append(datetime.fromtimestamp(last, UTC))

    assert timedelta(0) <= datetime.now(UTC) - ends[0] < timedelta(days=1)
    assert datetime(2026, 1, 4, tzinfo=UTC) < ends[1] < datetime(2026, 1, 5, tzinfo=UTC)


def test_serves_a_file(tmp_path: Path) -> None:
    rows = [
        {"id": f"0_{number}", "partnerId": 55, "status": 3, "createdAt": 10 - number}
        for number in range(5)
    ]
    path = tmp_path / "account.json"
    path.write_text(json.dumps({"totalCount": 5, "objects": rows}))
    options = ("--account", str(path), "--admin-secret", "s3cret", "--poison", "0_4")
    with running(*options) as (_, url), SimulatorClient(url) as client:
        ks = client.start_session("s3cret", 55)
        assert client.list_tokens(ks, 1, 1)["code"] == "INTERNAL_SERVERL_ERROR"
        ids = [row["id"] for row in client.list_tokens(ks, 2, 2)["objects"]]
        assert ids == ["0_2", "0_1"]


def test_faults_and_churn_by_option() -> None:
    options = ("--tokens", "100", "--fault", "500-empty", "--fault-count", "2",
               "--fault-where", "list", "--churn-delete", "2", "--page-cap", "10")  # fmt: skip
    with running(*options) as (_, url), SimulatorClient(url) as client:
        ks = client.start_session(DEFAULT_ADMIN_SECRET)
        target = "/api_v3/service/uploadtoken/action/list?format=1"
        body = json.dumps({"ks": ks, "filter": {"orderBy": "+createdAt"}}).encode()
        replies = [client.post(target, body) for _ in range(4)]
        assert [reply[0] for reply in replies] == [500, 500, 200, 200]
        assert len(json.loads(replies[3][2])["objects"]) == 10
        assert client.read("status")["tokens"] == 92


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "Give either --account FILE or --tokens N."),
        (("--tokens", "1", "--account", "x"), "Give either --account FILE or --tokens N."),
        (("--account", "/no/such/file"), "/no/such/file cannot be read: No such file"),
        (("--account", "pyproject.toml"), "pyproject.toml is not JSON"),
        (("--tokens", "1", "--fault", "flood"), "there is no fault 'flood'"),
        (("--tokens", "1", "--fault-rate", "2"), "--fault-rate"),
        (("--tokens", "1", "--poison", "0_x"), "the account has no token with this id."),
        (("--tokens", "-1"), "--tokens"),
        (("--tokens", "1", "--until", "soon"), "--until"),
        (("--tokens", "1", "--port", "99999"), "--port"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(options: tuple[str, ...], reason: str) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_taken_port_is_said() -> None:
    with running("--tokens", "1") as (_, url):
        done = run("--tokens", "1", "--port", url.rpartition(":")[2])
    assert done.returncode == 2
    assert "cannot be used" in done.stderr
