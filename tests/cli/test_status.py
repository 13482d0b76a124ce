"""``kaltura-etl status``, and freshness as an exit code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support.calls import call_each
from tests.support.corruptions import Builder, build_healthy, night
from tests.support.job import Ended

COMPLETE_AT = night(2, hours=2, minutes=9)
"""Of account 101; 102 has one run, which is still running."""


def _hours(more: float) -> str:
    age = datetime.now(UTC) - COMPLETE_AT
    return f"{(age + timedelta(hours=more)).total_seconds():.0f}s"


@pytest.fixture
def environment(clean_environment: dict[str, str], database_url: str) -> dict[str, str]:
    with psycopg.connect(database_url) as connection:
        connection.execute("set search_path = kaltura")
        build_healthy(connection)
    return clean_environment | {"DATABASE_URL": database_url}


def _status(environment: dict[str, str], *calls: Sequence[str]) -> list[Ended]:
    return call_each(environment, [["status", "--json", *call] for call in calls])


def test_an_old_complete_run_has_an_exit_code_of_its_own(environment: dict[str, str]) -> None:
    mine = ("--partner-id", "101", "--max-age")
    fresh, stale = _status(environment, (*mine, _hours(+1)), (*mine, _hours(-1)))

    assert (fresh.code, fresh.report["status"], fresh.err) == (0, "succeeded", "")
    assert (stale.code, stale.report["status"], stale.report["exit_code"]) == (79, "failed", 79)
    assert (stale.report["error_kind"], stale.report["reason"]) == ("stale", "too_old")
    assert stale.report["retryable"] is False
    assert stale.report["accounts"][0]["partner_id"] == 101
    assert "the last complete run of account 101" in stale.report["error_message"].lower()
    assert re.search(r" was published [\d,]+ d( \d+ h)? ago;", stale.report["error_message"])


def test_an_account_without_a_complete_run_is_stale_however_long_one_waits(
    environment: dict[str, str],
) -> None:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        # A dry run reads everything, but nothing of it is in the warehouse.
        connection.execute(
            "update kaltura.sync_run set status = 'dry_run', error_kind = 'dry_run', "
            "published_at = null where run_id = 7"
        )
    incomplete, unknown, every = _status(
        environment,
        ("--partner-id", "102", "--max-age", "366d"),
        ("--partner-id", "103", "--max-age", "366d"),
        ("--max-age", "366d"),
    )

    assert {each.code for each in (incomplete, unknown, every)} == {79}
    assert "Account 102 has never had" in incomplete.report["error_message"]
    assert "Account 103 has never had" in unknown.report["error_message"]
    assert "ccount 101" not in every.report["error_message"]
    assert every.report["reason"] == "never_complete"


def test_a_warehouse_without_an_account_is_stale(
    clean_environment: dict[str, str], database_url: str
) -> None:
    own = clean_environment | {"DATABASE_URL": database_url}
    without, with_it = _status(own, (), ("--max-age", "30h"))

    assert (without.code, without.report["accounts"]) == (0, [])
    assert (with_it.code, with_it.report["reason"]) == (79, "no_account")


def test_the_state_is_that_of_the_newest_run_that_was_to_publish(
    environment: dict[str, str],
) -> None:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        connection.execute(
            "update kaltura.sync_run set heartbeat_at = now() where status = 'running'"
        )
    (ended,) = _status(environment, ())

    states = {row["partner_id"]: row["last_run_status"] for row in ended.report["accounts"]}
    assert states == {101: "succeeded", 102: "running"}


def test_a_night_without_a_run_and_a_failed_one_show_up(environment: dict[str, str]) -> None:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        connection.execute("set search_path = kaltura")
        days = connection.execute(
            "select cast(cast(now() at time zone kaltura_time_zone() as date) - each as text) "
            "from generate_series(0, 6) as each order by each"
        ).fetchall()
        runs = Builder(connection)
        # Each ends in the moment of its start: its day is today's also just before midnight.
        now, earlier = datetime.now(UTC), datetime.now(UTC) - timedelta(days=2)
        runs.run(90, 101, earlier, finished_at=earlier, status="failed", error_kind="credentials")
        runs.run(91, 103, now, finished_at=now, published_at=now)
    every, one = _status(environment, (), ("--partner-id", "101"))
    text = call_each(environment, [["status"], ["status", "--partner-id", "101"]])

    nights = {
        (night["partner_id"], night["day"]): (
            night["outcome"],
            night["runs"],
            night["error_kind"],
        )
        for night in every.report["last_nights"]
    }
    nothing = ("no_run", 0, None)
    assert [nights[101, day] for (day,) in days] == [
        *(nothing, nothing, ("failed", 1, "credentials"), *[nothing] * 4)
    ]
    assert [key for key in nights if key[0] == 103] == [(103, days[0][0])]
    assert nights[103, days[0][0]] == ("complete", 1, None)
    assert {night["partner_id"] for night in one.report["last_nights"]} == {101}
    assert one.report["last_nights"][0]["outcome"] == "no_run"  # today, too
    of_all, of_one = (each.out.splitlines() for each in text)
    wrong = [line.split() for line in of_all if "credentials" in line and days[2][0] in line]
    assert "Nights without a complete run" in of_all
    assert [line[:4] for line in wrong][:1] == [["failed", days[2][0], "101", "1"]]
    assert not any(line.startswith(("complete ", "no run yet ")) for line in of_all)
    assert next(line for line in of_one if days[0][0] in line).startswith("no run yet")
    assert next(line for line in of_one if days[1][0] in line).startswith("no_run")
