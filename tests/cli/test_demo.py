"""``kaltura-etl demo``: what it shows is what the simulated account really lived through."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.demo import OPEN_SHARE, SYNC_HOUR, Night, first_load_at, night_to_ask_for, with_variables
from etl.embedded.server import embedded_server
from etl.simulator import Life, generate_account
from tests.support.json_reference import contradictions, documented, fields_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NIGHTS = 3
TOKENS = 1_500
SEED = 4
MEANT = {"ETL_EMBEDDED": "yes"}
"""What the other commands need without a terminal."""
VOLATILE = ("autoFinalize", "uploadUrl")


@pytest.fixture
def clean_environment(clean_environment: dict[str, str]) -> dict[str, str]:
    """As root the server runs as another user, who cannot pass through pytest's own folders."""
    folder = tempfile.mkdtemp(prefix="demo-", dir=os.environ["ETL_TEST_RUN_DIR"])
    return clean_environment | {"ETL_DATA_DIR": folder}


def _lists_of_nights(begin: int) -> list[dict[str, dict[str, Any]]]:
    """What the account listed in each night, from the simulator alone: id to the JSON object."""
    account = generate_account(TOKENS, seed=SEED, now=begin, open_share=OPEN_SHARE)
    life = Life(account, seed=SEED)
    lists = []
    for night in range(NIGHTS + 1):
        if night:
            life.advance(hours=24)
        listed = {}
        for token in account.line:
            fields = account.fields(token)
            listed[token.id] = {key: fields[key] for key in fields if key not in VOLATILE}
        lists.append(listed)
    return lists


def test_the_figures_of_the_nights_are_the_truth_of_the_account(run: Run) -> None:
    done = run("demo", "--json", f"--nights={NIGHTS}", f"--tokens={TOKENS}", f"--seed={SEED}")

    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["schema"] == "kaltura_demo"
    seen: set[str] = set()
    assert contradictions(shown, fields_of("demo", failed=False), seen) == []
    assert documented()["demo"].keys() <= seen
    begin = int(datetime.fromisoformat(shown["nights"][0]["at"]).timestamp())
    lists = _lists_of_nights(begin)
    assert len(shown["nights"]) == len(lists)
    last_known: dict[str, dict[str, Any]] = {}
    before: dict[str, dict[str, Any]] = {}
    for number, (night, listed) in enumerate(zip(shown["nights"], lists, strict=True)):
        stayed = listed.keys() & before.keys()
        back = listed.keys() & (last_known.keys() - before.keys())
        assert {key: night[key] for key in ("night", "run_id", "coverage")} == {
            "night": number,
            "run_id": number + 1,
            "coverage": "{(,)}",
        }
        assert night["tokens"] == len(listed)
        assert night["new"] == len(listed.keys() - last_known.keys())
        assert night["absent"] == len(before.keys() - listed.keys())
        assert night["relisted"] == len(back)
        assert night["changed"] == sum(listed[each] != before[each] for each in stayed)
        last_known |= listed
        before = listed

    _check_answers(shown["answers"], lists, midnight=begin - begin % 86_400)


def _check_answers(
    answers: list[dict[str, Any]], lists: list[dict[str, dict[str, Any]]], midnight: int
) -> None:
    by_file = {answer["file"]: answer for answer in answers}
    assert len(by_file) == 5
    seen = set().union(*lists)
    gone = seen - lists[-1].keys()
    asked = int(by_file["stuck_at_run.sql"]["variables"]["run_id"]) - 1
    stuck = [
        each
        for each, fields in lists[asked].items()
        if fields["status"] in (0, 1, 2) and lists[asked - 1].get(each) == fields
    ]
    rows = by_file["stuck_at_run.sql"]["rows"]

    changed = by_file["what_changed_last_run.sql"]["rows"]
    assert sum(row["tokens"] for row in changed if row["change_kind"] == "first_seen") == len(
        lists[-1].keys() - set().union(*lists[:-1])
    )
    assert len(stuck) > 0
    assert sum(row["stuck"] for row in rows) == len(stuck)
    assert sum(row["gone"] for row in rows) == len(set(stuck) & gone)
    assert sum(row["still_open"] for row in rows) == sum(
        lists[-1][each]["status"] in (0, 1, 2) for each in set(stuck) - gone
    )
    disappeared = by_file["disappeared.sql"]["rows"]
    assert {row["token_id"] for row in disappeared if not row["is_back"]} == gone
    assert {row["token_id"] for row in disappeared if row["is_back"]} <= seen - gone
    assert all(row["went_after"] < row["went_before"] for row in disappeared)
    sizes = by_file["failure_rate_by_size.sql"]["rows"]
    of_these_nights = {
        each: fields
        for listed in lists
        for each, fields in listed.items()
        if fields["createdAt"] >= midnight
    }
    assert sum(row["started"] for row in sizes) == len(of_these_nights)
    assert sum(row["failed"] for row in sizes) == sum(
        fields["status"] in (4, 6) for fields in of_these_nights.values()
    )
    versions = by_file["history_of_token.sql"]["rows"]
    assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))


def test_it_tells_what_it_does_and_starts_afresh_each_time(run: Run) -> None:
    for _ in range(2):
        done = run("demo", "--nights=2", "--tokens=300", DATABASE_URL="")

        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines if line.endswith(" {(,)}")] == list("123")
        assert "What changed last night" in done.stdout
        assert "select" in done.stdout
        assert "./dev run status --schema kaltura_demo" in done.stdout

    status = json.loads(run("status", "--schema=kaltura_demo", "--json", **MEANT).stdout)
    assert [each["run_id"] for each in status["last_runs"]] == [3, 2, 1]
    assert run("verify", "--schema=kaltura_demo", **MEANT).returncode == 0


def test_a_real_warehouse_and_a_real_account_are_not_touched(run: Run) -> None:
    done = run(
        "demo",
        "--nights=2",
        "--tokens=100",
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        KALTURA_SERVICE_URL="https://kaltura.invalid",
        KALTURA_PARTNER_ID="7",
        KALTURA_KS="not-used",
        ETL_SCHEMA="kaltura",
    )

    assert done.returncode == 0, done.stderr
    status = run("status", "--schema=kaltura", **MEANT)
    assert status.returncode == 78, status.stderr  # there is no such schema


def test_a_schema_that_it_did_not_make_is_left_alone(run: Run) -> None:
    assert run("migrate", "--schema=kaltura_demo", **MEANT).returncode == 0

    done = run("demo", "--nights=2", "--tokens=100")

    assert done.returncode == 78
    assert "was not made by demo" in done.stderr
    assert run("status", "--schema=kaltura_demo", **MEANT).returncode == 0


def test_one_demo_at_a_time(run: Run, clean_environment: dict[str, str]) -> None:
    with (
        embedded_server(Path(clean_environment["ETL_DATA_DIR"])) as url,
        psycopg.connect(url) as other,
    ):
        other.execute("select pg_advisory_lock(hashtextextended('kaltura-etl demo', 0))")

        done = run("demo", "--nights=2", "--tokens=100")

    assert done.returncode == 75
    assert "Another demo is at work" in done.stderr


def test_the_last_night_is_yesterdays() -> None:
    now = datetime(2026, 3, 4, 0, 10, tzinfo=UTC)

    last = first_load_at(7, now) + timedelta(days=7)

    assert last == datetime(2026, 3, 3, SYNC_HOUR, tzinfo=UTC)


@pytest.mark.parametrize("day", range(7))
def test_every_week_has_a_tuesday(day: int) -> None:
    first = first_load_at(7, datetime(2026, 11, 20 + day, 12, tzinfo=UTC))
    nights = [
        Night(
            night=number,
            at=first + timedelta(days=number),
            run_id=number + 1,
            tokens=0,
            new=0,
            changed=0,
            absent=0,
            relisted=0,
            requests=0,
            seconds=0.0,
            coverage="{(,)}",
        )
        for number in range(8)
    ]

    asked = night_to_ask_for(nights)

    assert asked.at.strftime("%A") == "Tuesday"
    assert asked.night > 0  # the night before it was read too


def test_variables_are_filled_in_as_psql_does() -> None:
    sql = "select :n, :'text', x::text, '12:30' where a = :'text'"

    filled = with_variables(sql, {"n": "3", "text": "it's"})

    assert filled == "select 3, 'it''s', x::text, '12:30' where a = 'it''s'"
