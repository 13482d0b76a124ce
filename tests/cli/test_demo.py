"""``kaltura-etl demo``: what it shows is what the simulated account really lived through."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.cells import cell_len

from etl.demo import (
    OPEN_SHARE,
    SYNC_HOUR,
    Answer,
    Night,
    first_load_at,
    night_to_ask_for,
    run_demo,
    with_variables,
)
from etl.embedded.server import embedded_server
from etl.process.stop import Stop
from etl.settings.table import Settings
from etl.simulator import Life, generate_account
from tests.questions.answers import OUTCOMES
from tests.questions.questions import QUESTIONS
from tests.support import forked
from tests.support.calls import call_each, on_terminal
from tests.support.environment import ROOT
from tests.support.json_reference import contradictions, documented, fields_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NIGHTS, TOKENS, SEED = 7, 5_000, 1
"""As without any option."""
MEANT = {"ETL_EMBEDDED": "yes"}
"""What the other commands need without a terminal."""
VOLATILE = ("autoFinalize", "uploadUrl")
WITHOUT_TROUBLE = {
    "troubled_nights.sql",
    "troubled_runs.sql",
    "rejected_rows.sql",
    "retries.sql",
    "renamed_users.sql",
}
"""Questions about what does not happen in it."""
Lists = list[dict[str, dict[str, Any]]]


def _folder() -> str:
    """As root the server runs as another user, who cannot pass through pytest's own folders."""
    return tempfile.mkdtemp(prefix="demo-", dir=os.environ["ETL_TEST_RUN_DIR"])


@pytest.fixture(scope="module")
def kept_server() -> Iterator[tuple[str, str]]:
    """A folder, and the URL of the server in it; ``week`` has the demo make and start one."""
    folder = _folder()
    with embedded_server(Path(folder), fast=True) as url:
        yield folder, url


@pytest.fixture
def clean_environment(
    clean_environment: dict[str, str], kept_server: tuple[str, str]
) -> Iterator[dict[str, str]]:
    """With a server that has neither schema."""
    folder, url = kept_server
    yield clean_environment | {"ETL_DATA_DIR": folder}
    with psycopg.connect(url, autocommit=True) as connection:
        for schema in ("kaltura", "kaltura_demo"):
            connection.execute(f"drop schema if exists {schema} cascade")


@pytest.fixture(scope="module")
def week() -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """What the demo shows without any option, and the environment with its warehouse."""
    environment = forked.environment(ETL_DATA_DIR=_folder(), **MEANT)
    done = forked.call("demo", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    with embedded_server(Path(environment["ETL_DATA_DIR"])):  # one start for all that follows
        yield json.loads(done.stdout), environment


def _lists_of_nights(begin: int, *, nights: int = NIGHTS, tokens: int = TOKENS) -> Lists:
    """What the account listed in each night, from the simulator alone: id to the JSON object."""
    account = generate_account(tokens, seed=SEED, now=begin, open_share=OPEN_SHARE)
    life = Life(account, seed=SEED)
    lists = []
    for night in range(nights + 1):
        if night:
            life.advance(hours=24)
        listed = {}
        for token in account.line:
            fields = account.fields(token)
            listed[token.id] = {key: fields[key] for key in fields if key not in VOLATILE}
        lists.append(listed)
    return lists


def test_the_figures_of_the_nights_are_the_truth_of_the_account(
    week: tuple[dict[str, Any], dict[str, str]],
) -> None:
    shown, _ = week
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

    began = [int(datetime.fromisoformat(night["at"]).timestamp()) for night in shown["nights"]]
    _check_answers(shown["answers"], lists, began, midnight=begin - begin % 86_400)


def _check_answers(
    answers: list[dict[str, Any]],
    lists: list[dict[str, dict[str, Any]]],
    began: list[int],
    midnight: int,
) -> None:
    by_file = {answer["file"]: answer for answer in answers}
    assert len(by_file) == 5
    seen = set().union(*lists)
    gone = seen - lists[-1].keys()
    asked = int(by_file["stuck_at_run.sql"]["variables"]["run_id"]) - 1
    stuck = [
        each
        for each, fields in lists[asked].items()
        if fields["status"] in (0, 1, 2)
        and began[asked] - max(fields["createdAt"], fields["updatedAt"]) >= 86_400
    ]
    rows = by_file["stuck_at_run.sql"]["rows"]

    changed = by_file["what_changed_last_night.sql"]["rows"]
    assert sum(row["tokens"] for row in changed if row["was"] == "(none)") == len(
        lists[-1].keys() - set().union(*lists[:-1])
    )
    assert len(stuck) > 0
    assert sum(row["stuck"] for row in rows) == len(stuck)
    closed = {
        each for each in stuck if any(night.get(each, {}).get("status") == 3 for night in lists)
    }
    became = {name: sum(row[name] for row in rows) for name in OUTCOMES}
    assert sum(became.values()) == len(stuck)
    assert became["succeeded"] == len(closed) > 0
    assert became["deleted"] == len((set(stuck) & gone) - closed)
    assert became["failed"] == sum(
        lists[-1][each]["status"] in (4, 6) for each in set(stuck) - gone - closed
    )
    assert became["failed"] > 0
    last_day = by_file["status_each_day.sql"]["rows"][-1]
    assert len(by_file["status_each_day.sql"]["rows"]) == len(lists)
    assert last_day["not_listed"] == len(gone)
    assert last_day["closed"] == Counter(each["status"] for each in lists[-1].values())[3]
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
    assert len({row["status"] for row in versions}) >= 3
    assert [row["run_id"] for row in versions] == sorted({row["run_id"] for row in versions})


def test_every_example_query_has_rows_on_it(week: tuple[dict[str, Any], dict[str, str]]) -> None:
    """As docs/howto/ask.md asks them: variables.psql, then the file."""
    _, environment = week
    calls = ["-f", "sql/queries/variables.psql"]
    for file in QUESTIONS:
        calls += ["-c", rf"\echo FILE {file}", "-f", f"sql/queries/{file}"]
    done = forked.call(
        *("psql", "--schema", "kaltura_demo", "-XqAt", *calls), env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    rows = {
        file: lines.strip()
        for file, _, lines in (part.partition("\n") for part in done.stdout.split("FILE ")[1:])
    }

    assert done.stderr == ""
    assert rows.keys() == QUESTIONS.keys()
    assert {file for file, lines in rows.items() if not lines} == WITHOUT_TROUBLE


def test_its_warehouse_is_that_of_a_real_week(week: tuple[dict[str, Any], dict[str, str]]) -> None:
    """Each run at its night, for the status, the report and every invariant."""
    shown, environment = week
    commands = (["status"], ["verify"], ["report", "--output", os.devnull])
    done = call_each(
        environment, [[*command, "--schema=kaltura_demo", "--json"] for command in commands]
    )
    assert [each.code for each in done] == [0, 0, 0]
    status, verified, report = (each.report for each in done)

    assert [night["outcome"] for night in status["last_nights"]][1:] == ["complete"] * 6
    assert [run["started_at"][:19] for run in reversed(status["last_runs"])] == [
        night["at"][:19] for night in shown["nights"]
    ]
    assert all(check["ok"] for check in verified["checks"])
    assert report["last_day"] == shown["nights"][-1]["at"][:10]


def test_it_is_whole_at_80_columns_and_starts_afresh_each_time(
    run: Run, clean_environment: dict[str, str]
) -> None:
    for option, has_sql in (([], False), (["--sql"], True)):
        text = on_terminal(
            clean_environment | {"DATABASE_URL": "", **MEANT},
            ["demo", "--nights=2", "--tokens=300", *option],
            80,
        )

        lines = text.splitlines()
        assert [line for line in lines if cell_len(line) > 80] == []
        assert [line.split()[0] for line in lines if line.endswith(" {(,)}")] == list("123")
        assert "What was stuck last" in text
        assert ("select" in text) is has_sql
        assert "./dev run status --schema kaltura_demo" in text
        assert "ETL_EMBEDDED" not in text

    status = json.loads(run("status", "--schema=kaltura_demo", "--json", **MEANT).stdout)
    assert [each["run_id"] for each in status["last_runs"]] == [3, 2, 1]


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
    # Without a terminal, what it advises next works only with this.
    assert "    export ETL_EMBEDDED=yes" in done.stdout
    status = run("status", "--schema=kaltura", **MEANT)
    assert status.returncode == 78, status.stderr  # there is no such schema


def test_a_schema_that_it_did_not_make_is_left_alone(run: Run) -> None:
    assert run("migrate", "--schema=kaltura_demo", **MEANT).returncode == 0

    done = run("demo", "--nights=2", "--tokens=100")

    assert done.returncode == 78
    assert "was not made by demo" in done.stderr
    assert run("status", "--schema=kaltura_demo", **MEANT).returncode == 0


def test_one_demo_at_a_time(run: Run, kept_server: tuple[str, str]) -> None:
    _, url = kept_server
    with psycopg.connect(url) as other:
        other.execute("select pg_advisory_lock(hashtextextended('kaltura-etl demo', 0))")

        done = run("demo", "--nights=2", "--tokens=100")

    assert done.returncode == 75
    assert "Another demo is at work" in done.stderr


def test_the_last_night_is_yesterdays() -> None:
    now = datetime(2026, 3, 4, 0, 10, tzinfo=UTC)

    last = first_load_at(7, now) + timedelta(days=7)

    assert last == datetime(2026, 3, 3, SYNC_HOUR, tzinfo=UTC)


@pytest.mark.parametrize("day", range(7))
def test_on_every_weekday_the_same_night_is_asked_about_by_its_name(day: int) -> None:
    now = datetime(2026, 11, 20 + day, 12, tzinfo=UTC)
    nights = _nights(first_load_at(NIGHTS, now))

    asked = night_to_ask_for(nights)

    assert (asked.night, len(nights) - 1 - asked.night) == (4, 3)
    assert timedelta(days=1) < now - asked.at < timedelta(days=7)  # "last Tuesday" is that one


def test_an_account_lives_alike_on_every_weekday() -> None:
    """So what is asked about one night of the life has the same answer whenever it is asked."""
    lives = [
        [
            {key: fields["status"] for key, fields in listed.items()}
            for listed in _lists_of_nights(begin, nights=3, tokens=300)
        ]
        for begin in (
            1_795_000_000 - 1_795_000_000 % 86_400 + 82_800 + day * 86_400 for day in range(7)
        )
    ]

    assert all(life == lives[0] for life in lives)


@pytest.mark.campaign
@pytest.mark.parametrize("days_ago", range(7))
def test_on_every_weekday_what_was_stuck_has_moved(days_ago: int, database_url: str) -> None:
    now = datetime.now(UTC) - timedelta(days=days_ago)
    events = list(
        run_demo(
            Settings(database_url=database_url),
            nights=NIGHTS,
            tokens=TOKENS,
            seed=SEED,
            stop=Stop(),
            now=lambda: now,
        )
    )
    headline, *_, history = (event for event in events if isinstance(event, Answer))

    assert headline.question.startswith(f"What was stuck last {now - timedelta(days=4):%A}")
    became = ("succeeded", "failed", "deleted")
    assert all(sum(row[name] for row in headline.rows) for name in became)
    assert len({row["status"] for row in history.rows}) >= 3


def _nights(first: datetime) -> list[Night]:
    counts = dict.fromkeys(("tokens", "new", "changed", "absent", "relisted", "requests"), 0)
    return [
        Night(
            night=number,
            at=first + timedelta(days=number),
            run_id=number + 1,
            seconds=0.0,
            coverage="{(,)}",
            **counts,
        )
        for number in range(NIGHTS + 1)
    ]


def test_variables_are_filled_in_as_psql_does() -> None:
    sql = "select :n, :'text', x::text, '12:30' where a = :'text'"

    filled = with_variables(sql, {"n": "3", "text": "it's"})

    assert filled == "select 3, 'it''s', x::text, '12:30' where a = 'it''s'"
