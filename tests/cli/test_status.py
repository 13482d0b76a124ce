"""``kaltura-etl status``, and freshness as an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.support.calls import call_each
from tests.support.corruptions import build_healthy, night
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
