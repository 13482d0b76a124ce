"""What is read for the page is what is in the warehouse."""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from etl.errors import UsageError, WarehouseUnavailable
from etl.report.facts import facts_of
from etl.report.read import USER_ROWS, ReportRows, read_report
from etl.resources import sql_directory
from etl.warehouse.access.grants import grant
from etl.warehouse.read.queries import reading
from tests.report.conftest import TOKENS, VANISHED, Lived
from tests.support.report_sample import HOSTILE

OPEN = (0, 1, 2)


def read(url: str, **options: Any) -> ReportRows:
    settings: dict[str, Any] = {"partner_id": None, "days": 30, "time_zone": "UTC"}
    return read_report(url, "kaltura", **(settings | options))


def tokens_of(lived: Lived) -> list[dict[str, Any]]:
    with closing(psycopg.connect(lived.url, row_factory=dict_row)) as connection:
        return connection.execute("select * from kaltura.upload_token").fetchall()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("days", [1, 3, 366])
def test_each_day_counts_the_uploads_created_on_it(lived: Lived, zone: str, days: int) -> None:
    rows = read(lived.url, time_zone=zone, days=days)
    facts = facts_of(rows, ZoneInfo(zone))

    tokens = tokens_of(lived)
    created = Counter(token["created_at"].astimezone(ZoneInfo(zone)).date() for token in tokens)
    closed = Counter(
        token["created_at"].astimezone(ZoneInfo(zone)).date()
        for token in tokens
        if token["status"] == 3
    )
    assert len(facts.days) == days
    assert rows.last_day == lived.nights[-1].astimezone(ZoneInfo(zone)).date()
    assert {day["day"]: day["started"] for day in facts.days} == {
        day["day"]: created[day["day"]] for day in facts.days
    }
    assert all(day["succeeded"] >= closed[day["day"]] for day in facts.days)
    parts = ("succeeded", "still_open", "failed", "abandoned", "deleted")
    assert all(day["started"] == sum(day[name] for name in parts) for day in facts.days)
    assert sum(row["started"] for row in facts.by_size) == facts.total["started"]
    if days == 366:
        assert facts.total["started"] == len(tokens) > TOKENS


def test_the_longest_stuck_come_first(lived: Lived) -> None:
    rows = read(lived.url)
    stuck_at = {
        token["token_id"]: max(token["created_at"], token["updated_at"])
        for token in tokens_of(lived)
        if token["status"] in OPEN
        and token["is_listed"]
        and max(token["created_at"], token["updated_at"]) <= lived.nights[-1] - timedelta(days=1)
    }

    assert rows.stuck[0]["total"] == len(stuck_at) > len(HOSTILE)
    longest = [row["stuck_for"] for row in rows.stuck]
    assert longest == sorted(longest, reverse=True)
    expected = [lived.nights[-1] - moved for moved in sorted(stuck_at.values())][:50]
    assert longest == expected


def test_what_vanished_while_open_is_found(lived: Lived) -> None:
    rows = read(lived.url)

    vanished = {row["token_id"]: row for row in rows.vanished}
    expected = {
        token["token_id"]
        for token in tokens_of(lived)
        if not token["is_listed"] and token["status"] in OPEN
    }
    assert vanished.keys() == expected
    assert expected.issuperset(VANISHED)
    for token_id in VANISHED:
        seen, gone = (
            vanished[token_id][name] for name in ("last_listed_at", "absence_confirmed_at")
        )
        assert lived.nights[2] <= seen < lived.nights[3] <= gone < lived.nights[4]


def test_nights_without_a_run_are_among_the_last_nights(lived: Lived) -> None:
    nights = read(lived.url).nights
    days = [each.date() for each in lived.nights[::-1]]

    complete = [night for night in nights if night["outcome"] == "complete"]
    assert [night["day"] for night in complete] == days
    assert {night["outcome"] for night in nights} <= {"complete", "no_run"}
    assert [night["day"] for night in nights[-len(days) :]] == days
    assert (
        read(lived.url, time_zone="Asia/Tokyo").nights[-1]["day"]
        == (lived.nights[0] + timedelta(hours=9)).date()
    )


def test_users_and_runs(lived: Lived) -> None:
    rows = read(lived.url)

    with closing(psycopg.connect(lived.url, row_factory=dict_row)) as connection:
        summary = connection.execute(
            "select * from kaltura.upload_user_summary order by uploads desc, user_id"
        ).fetchall()
    # The query reckons the view anew for those that it shows: it must say the same.
    assert rows.users == [
        {name: row[name] for name in rows.users[0] if name != "total"} | {"total": len(summary)}
        for row in summary[: len(rows.users)]
    ]
    assert len(rows.users) == USER_ROWS < len(summary)
    assert [row["started_at"] for row in rows.runs] == lived.nights[::-1]
    assert [row["is_complete"] for row in rows.certificates] == [True]


def test_the_account_is_the_only_one_or_must_be_named(lived: Lived, database_url: str) -> None:
    assert read(lived.url).partner_id == lived.partner_id
    assert read(lived.url, partner_id=7).freshness is None
    assert read(database_url).partner_id is None

    with psycopg.connect(database_url, autocommit=True) as connection:
        for partner_id in (7, 8):
            connection.execute(
                "insert into kaltura.sync_run (partner_id, mode, status, started_at, heartbeat_at,"
                " host, pid, program_version, walk_id) overriding system value"
                " values (%s, 'full', 'running', now(), now(), 'h', 1, 'v', 1)",
                [partner_id],
            )
    with pytest.raises(UsageError, match=r"\(7, 8\): choose one with --partner-id"):
        read(database_url)
    assert read(database_url, partner_id=8).runs[0]["status"] == "running"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "update kaltura.sync_run set heartbeat_at = now() - interval '25 minutes'"
        )
    dead = read(database_url, partner_id=8).runs[0]
    assert (dead["status"], dead["error_kind"]) == ("abandoned", "abandoned")


def test_an_unknown_zone_is_refused(lived: Lived) -> None:
    with pytest.raises(UsageError, match="knows no time zone named Mars/Olympus"):
        read(lived.url, time_zone="Mars/Olympus")


def test_one_instant_is_read_and_nothing_can_be_written(lived: Lived) -> None:
    folder = sql_directory() / "report"
    with (
        reading(lived.url, "kaltura", folder) as reader,
        closing(psycopg.connect(lived.url, autocommit=True)) as other,
    ):
        assert len(reader.rows("accounts")) == 1
        other.execute(
            "insert into kaltura.sync_run (partner_id, mode, status, started_at, heartbeat_at,"
            " host, pid, program_version, walk_id) overriding system value"
            " values (9, 'full', 'running', now(), now(), 'h', 1, 'v', 1)"
        )
        try:
            assert len(reader.rows("accounts")) == 1
        finally:
            other.execute("delete from kaltura.sync_run where partner_id = 9")
    with (
        pytest.raises(WarehouseUnavailable, match="read-only"),
        reading(lived.url, "kaltura", folder) as reader,
    ):
        reader._connection.execute("delete from upload_token")


@pytest.mark.parametrize(
    "path", sorted((sql_directory() / "report").glob("*.sql")), ids=lambda path: path.stem
)
def test_every_query_is_bounded_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith("-- ")
    few = {"certificates", "freshness", "outcomes"}  # a row a run, an account, a day shown
    assert "limit " in text or path.stem in few


def test_a_day_that_is_longer_is_cut_at_midnight(database_url: str) -> None:
    """In the night of 25 October 2026 the hour from two to three comes twice in Berlin."""
    berlin = ZoneInfo("Europe/Berlin")
    with psycopg.connect(database_url, autocommit=True) as connection:
        published = datetime(2026, 10, 26, 12, tzinfo=UTC)
        connection.execute(
            "insert into kaltura.sync_run (run_id, walk_id, partner_id, mode, status, started_at,"
            " heartbeat_at, finished_at, published_at, coverage, host, pid, program_version)"
            " overriding system value values"
            " (1, 1, 7, 'full', 'succeeded', %(at)s, %(at)s, %(at)s, %(at)s, '{(,)}', 'h', 1, 'v')",
            {"at": published},
        )
        hours = [datetime(2026, 10, 24, 12, tzinfo=UTC) + timedelta(hours=n) for n in range(48)]
        for number, created in enumerate(hours):
            connection.execute(
                "insert into kaltura.upload_token (partner_id, token_id, status, created_at,"
                " updated_at, is_listed, version, change_kind, valid_from, observed_at, run_id)"
                " values (7, %(id)s, 3, %(created)s, %(created)s, true, 1, 'first_seen', %(at)s,"
                " %(at)s, 1)",
                {"id": f"t{number}", "created": created, "at": published},
            )

    rows = read(database_url, time_zone="Europe/Berlin", days=3)
    facts = facts_of(rows, berlin)

    assert [(f"{day['day']}", day["started"]) for day in facts.days] == [
        ("2026-10-24", 10),
        ("2026-10-25", 25),
        ("2026-10-26", 13),
    ]


def test_an_analyst_may_make_the_page(lived: Lived) -> None:
    role = f"analyst_{secrets.token_hex(4)}"
    name = sql.Identifier(role)
    address = urlsplit(lived.url)
    as_analyst = urlunsplit(address._replace(netloc=f"{role}@{address.netloc.partition('@')[2]}"))
    with closing(psycopg.connect(lived.url, autocommit=True)) as connection:
        connection.execute(sql.SQL("create role {} login").format(name))
        try:
            grant(lived.url, "kaltura", {"analyst": role}, apply=True)

            assert read(as_analyst).users == read(lived.url).users
        finally:
            connection.execute(sql.SQL("drop owned by {}").format(name))
            connection.execute(sql.SQL("drop role {}").format(name))
