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
from etl.report.read import (
    CHANGE_ROWS,
    RUN_ROWS,
    STUCK_ROWS,
    USER_ROWS,
    ReportRows,
    read_report,
)
from etl.resources import sql_directory
from etl.warehouse.access.grants import grant
from etl.warehouse.privacy.prune import prune
from etl.warehouse.read.queries import reading
from etl.warehouse.schema.database import open_database
from tests.questions.questions import QUESTIONS
from tests.report.conftest import TOKENS, VANISHED, Lived
from tests.support.moments import fill_moments
from tests.support.report_sample import HOSTILE

OPEN = (0, 1, 2)


def read(url: str, **options: Any) -> ReportRows:
    settings: dict[str, Any] = {"partner_id": None, "days": 30, "time_zone": "UTC"}
    return read_report(url, "kaltura", **(settings | options))


def insert_run(connection: psycopg.Connection[Any], run_id: int, published_at: datetime) -> None:
    """A complete run of account 7."""
    connection.execute(
        "insert into kaltura.sync_run (run_id, walk_id, partner_id, mode, status, started_at,"
        " heartbeat_at, finished_at, published_at, coverage, host, pid, program_version)"
        " overriding system value values (%(run_id)s, %(run_id)s, 7, 'full', 'succeeded', %(at)s,"
        " %(at)s, %(at)s, %(at)s, '{(,)}', 'h', 1, 'v')",
        {"run_id": run_id, "at": published_at},
    )


def insert_token(
    connection: psycopg.Connection[Any], token_id: str, *, valid_from: datetime, **columns: Any
) -> None:
    """A version of a token of account 7: an earlier one if it has a ``valid_to``."""
    known = {
        "partner_id": 7,
        "token_id": token_id,
        "updated_at": columns["created_at"],
        "is_listed": True,
        "version": 1,
        "change_kind": "first_seen",
        "changed_columns": None if columns.get("version", 1) == 1 else ["status", "updated_at"],
        "valid_from": valid_from,
        "observed_at": valid_from,
        "run_id": 1,
    } | columns
    table = "upload_token_superseded" if "valid_to" in columns else "upload_token"
    connection.execute(
        sql.SQL("insert into kaltura.{} ({}) values ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, known)),
            sql.SQL(", ").join(map(sql.Placeholder, known)),
        ),
        known,
    )


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


def test_the_last_to_become_stuck_come_first(lived: Lived) -> None:
    rows = read(lived.url)
    day = timedelta(days=1)
    stuck_at = {
        token["token_id"]: max(token["created_at"], token["updated_at"])
        for token in tokens_of(lived)
        if token["status"] in OPEN
        and token["is_listed"]
        and max(token["created_at"], token["updated_at"]) <= lived.nights[-1] - timedelta(days=1)
    }

    assert rows.stuck[0]["total"] == len(stuck_at) > len(HOSTILE)
    moved = sorted(stuck_at.values(), reverse=True)
    assert [row["last_moved_at"] for row in rows.stuck] == moved[:STUCK_ROWS]
    new = {id for id, moved in stuck_at.items() if moved > lived.nights[-2] - day}
    assert {row["token_id"] for row in rows.stuck if row["is_new"]} == new
    assert len(new) > len(HOSTILE)
    counted = [rows.stuck[0][name] for name in ("over_a_week", "over_a_month", "over_a_year")]
    assert counted == [
        sum(lived.nights[-1] - each > limit * day for each in moved) for limit in (7, 30, 365)
    ]
    assert rows.stuck[0]["oldest_moved_at"] == moved[-1]


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


def test_what_changed_is_the_difference_between_two_complete_runs(lived: Lived) -> None:
    rows = read(lived.url)
    assert rows.freshness is not None
    since = rows.freshness["since_published_at"]
    assert lived.nights[-2] <= since < lived.nights[-1]
    with closing(psycopg.connect(lived.url, row_factory=dict_row)) as connection:
        known = connection.execute(
            "select token_id, user_id, status, is_listed, (%(at)s >= valid_from and"
            " (valid_to is null or %(at)s < valid_to)) as was, is_current"
            " from kaltura.upload_token_history",
            {"at": since},
        ).fetchall()
    before = {each["token_id"]: each for each in known if each["was"]}
    users = Counter[str | None]()
    expected = Counter[str]()
    for now in (each for each in known if each["is_current"]):
        was = before.get(now["token_id"])
        failed = now["status"] in (4, 6) and (was is None or was["status"] not in (4, 6))
        gone = not now["is_listed"] and (was is None or was["is_listed"])
        expected["first_seen"] += was is None
        expected["closed"] += now["status"] == 3 and (was is None or was["status"] != 3)
        expected["newly_failed"] += failed
        expected["gone"] += gone
        expected["gone_open"] += gone and now["status"] in OPEN
        users[now["user_id"]] += failed
    stuck = [row for row in rows.stuck if row["is_new"]]
    expected["newly_stuck"] = len(stuck)

    assert rows.changes is not None
    assert {name: rows.changes[name] for name in expected} == expected
    assert expected["first_seen"] > 0 < expected["closed"]
    assert rows.changes["newly_failed"] == sum(users.values())
    assert {row["user_id"]: row["newly_failed"] for row in rows.changed_users} == {
        row["user_id"]: users[row["user_id"]] for row in rows.changed_users
    }
    assert len(rows.changed_users) == CHANGE_ROWS - 1 < rows.changes["total"]


def test_users_and_runs(lived: Lived) -> None:
    rows = read(lived.url, days=366)

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
    assert [row["started_at"] for row in rows.runs] == lived.nights[: -RUN_ROWS - 1 : -1]
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
    # A row a run, an account, a day shown.
    few = {"accounts", "certificates", "freshness", "outcomes"}
    assert "limit " in text or path.stem in few


def test_a_day_that_is_longer_is_cut_at_midnight(database_url: str) -> None:
    """In the night of 25 October 2026 the hour from two to three comes twice in Berlin."""
    berlin = ZoneInfo("Europe/Berlin")
    with psycopg.connect(database_url, autocommit=True) as connection:
        published = datetime(2026, 10, 26, 12, tzinfo=UTC)
        insert_run(connection, 1, published)
        hours = [datetime(2026, 10, 24, 12, tzinfo=UTC) + timedelta(hours=n) for n in range(48)]
        for number, created in enumerate(hours):
            insert_token(
                connection, f"t{number}", status=3, created_at=created, valid_from=published
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


def test_failed_uploads_are_those_that_somebody_must_act_on(database_url: str) -> None:
    """Also of an account whose newest upload is old: the days shown end with it."""
    hour, day = timedelta(hours=1), timedelta(days=1)
    before, last = (datetime(2026, 11, number, 2, 30, tzinfo=UTC) for number in (22, 23))
    old = datetime(2025, 3, 3, 12, tzinfo=UTC)
    with psycopg.connect(database_url, autocommit=True) as connection:
        insert_run(connection, 1, before)
        insert_run(connection, 2, last)

        def token(token_id: str, was: tuple[int, datetime] | None = None, **columns: Any) -> None:
            """``was``: status and updated_at of a version before."""
            own = {"created_at": old, "user_id": "anna", "file_name": token_id} | columns
            if was is None:
                insert_token(connection, token_id, valid_from=before, **own)
                return
            earlier = own | {"status": was[0], "updated_at": was[1]}
            ended = {"valid_to": last, "superseded_by_run_id": 2}
            insert_token(connection, token_id, valid_from=before, **earlier, **ended)
            now = {"run_id": 2, "version": 2, "change_kind": "changed"}
            insert_token(connection, token_id, valid_from=last, **own, **now)

        token("new", (1, old), status=4, updated_at=last - hour)
        token("changed later", (4, last - 3 * day), status=4, updated_at=last - hour)
        token("failed long ago", (4, old), status=4, updated_at=last - hour)
        token("closed once", (3, old), status=6, updated_at=last - hour)
        token("uploaded again", status=4, updated_at=before - hour, file_name="film.mp4")
        token("the upload again", status=3, created_at=old + hour, file_name="film.mp4")
        token("of another", status=4, updated_at=before - day, user_id="bob", file_name="film.mp4")
        token("without a name", status=6, updated_at=before - 2 * day, file_name=None, user_id=None)
        token("deleted", (1, old), status=5, updated_at=last - hour)  # no failure: as in the views
        connection.execute("set search_path = kaltura")
        fill_moments(connection)

    rows = read(database_url, days=5)

    assert [
        (row["token_id"], row["failed_at"], row["is_new"], row["uploaded_again_at"])
        for row in rows.failed
    ] == [
        ("new", last - hour, True, None),
        ("of another", before - day, False, None),
        ("changed later", last - 3 * day, False, None),
        ("without a name", before - 2 * day, False, None),
        ("uploaded again", before - hour, False, old + hour),
    ]
    assert {(row["total"], row["to_act_on"]) for row in rows.failed} == {(5, 4)}
    assert rows.changes is not None
    assert rows.changes["newly_failed"] == 1
    assert [row["user_id"] for row in rows.changed_users] == ["anna"]
    assert (rows.first_day, rows.last_day) == (old.date() - 4 * day, old.date())
    assert rows.seen_from == last.date() - 4 * day
    assert rows.newest_day == old.date()
    assert sum(row["started"] for row in rows.outcomes if row["size_bucket"] is None) == 9
    assert [row["uploads"] for row in rows.users] == [7, 1, 1]


def test_what_failed_is_listed_though_its_version_was_pruned(database_url: str) -> None:
    """The change after it, or the latest version, tells when it was."""
    hour = timedelta(hours=1)
    nights = [datetime(2025, 3, number, 2, 30, tzinfo=UTC) for number in (3, 4, 5)]
    lives: dict[str, list[int | None]] = {
        # The status that each night saw; None: not listed any more.
        "other file name since": [1, 4, 4],
        "first seen so": [4, 4, 4],
        "gone since": [1, 4, None],
        "failed otherwise since": [1, 4, 6],
        "failed in the last night": [1, 1, 4],
        "open again": [1, 4, 1],
        "closed once": [3, 4, 4],
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        for run_id, night in enumerate(nights, 1):
            insert_run(connection, run_id, night)
        for token_id, statuses in lives.items():
            for number, status in enumerate(statuses):
                gone, before = status is None, statuses[number - 1]
                changed = ["status"] if status != before else ["file_name"]
                columns: dict[str, Any] = {
                    "created_at": nights[0] - 2 * hour,
                    "updated_at": nights[number] - hour,
                    "status": before if gone else status,
                    "file_name": f"film {number}.mp4",
                    "is_listed": not gone,
                    "run_id": number + 1,
                    "version": number + 1,
                }
                if number:
                    columns |= {"change_kind": "changed", "changed_columns": changed}
                if gone:
                    columns |= {"change_kind": "absent", "changed_columns": ["is_listed"]}
                    columns |= {"last_listed_at": nights[1], "absence_confirmed_at": nights[2]}
                if number < 2:
                    columns |= {"valid_to": nights[number + 1], "superseded_by_run_id": number + 2}
                insert_token(connection, token_id, valid_from=nights[number], **columns)
        connection.execute("set search_path = kaltura")
        fill_moments(connection)

    def failed() -> list[tuple[object, ...]]:
        """What the page shows, and the bounds that the example query gives."""
        names = ("token_id", "status", "failed_at", "is_new")
        rows = read(database_url, days=5).failed
        with psycopg.connect(database_url, options="-c search_path=kaltura") as asked:
            told = QUESTIONS["failed_uploads.sql"].ask(asked, partner_id="7", since="2025-03-01")
        assert [[row[name] for name in names[:3]] for row in told] == [
            [row[name] for name in names[:3]] for row in rows
        ]
        bounds.append([(row["failed_after"], row["failed_before"]) for row in told])
        return [tuple(row[name] for name in names) for row in rows]

    bounds: list[list[tuple[datetime, datetime]]] = []

    found = failed()
    assert found == [
        ("failed in the last night", "TIMED_OUT", nights[2] - hour, True),
        ("failed otherwise since", "TIMED_OUT", nights[1] - hour, False),
        ("gone since", "TIMED_OUT", nights[1] - hour, False),
        ("other file name since", "TIMED_OUT", nights[1] - hour, False),
        ("first seen so", "TIMED_OUT", nights[0] - hour, False),
    ]
    with open_database(database_url, "kaltura") as database:
        (pruned,) = prune(database, days={"versions": 0}, partner_id=None, apply=True)
    assert pruned.rows == 2 * len(lives)
    assert failed() == found
    assert bounds[1] == bounds[0]
    # What else they were in the night before is not known any more: no state, and no change.
    rows = read(database_url, days=5).changes
    assert rows is not None
    told = {name: rows[name] for name in ("first_seen", "closed", "newly_failed", "gone")}
    assert told == {"first_seen": 0, "closed": 0, "newly_failed": 1, "gone": 0}
    with psycopg.connect(database_url, options="-c search_path=kaltura") as asked:
        last_night = QUESTIONS["what_changed_last_night.sql"].ask(asked, partner_id="7")
        between = QUESTIONS["changed_between.sql"].ask(
            asked, partner_id="7", run_before="2", run_id="3"
        )
        asked.execute("update upload_token set observed_at = observed_at - interval '1 hour'")
        then = QUESTIONS["then_and_now.sql"].ask(
            asked, partner_id="7", at=str(nights[2] - hour / 2)
        )
    assert {row["was"] for row in (*last_night, *between)} == {"(pruned)"}
    assert {row["known_then"] for row in then} == {"pruned"}
    # Unless the first version is there: then nothing was known.
    names = "partner_id, token_id, status, created_at, is_listed, observed_at"
    first_seen = f"(7, 'late', 0, '{nights[0]}', true, '{nights[1] + hour}', 1, 'first_seen'"
    with psycopg.connect(database_url, options="-c search_path=kaltura") as asked:
        asked.execute(f"update pruning set horizon = '{nights[2] - hour}'".encode())  # noqa: S608
        asked.execute(
            f"insert into upload_token_superseded ({names}, version, change_kind, valid_from, "  # noqa: S608
            f"valid_to, run_id, superseded_by_run_id) values {first_seen}, '{nights[1] + hour}', "
            f"'{nights[2]}', 3, 3)".encode()
        )
        asked.execute(
            f"insert into upload_token ({names}, version, change_kind, changed_columns, "  # noqa: S608
            f"valid_from, run_id, status_version, status_happened_at, status_happened_after, "
            f"status_happened_before) values (7, 'late', 3, '{nights[0]}', true, '{nights[2]}', 2, "
            f"'changed', array['status'], '{nights[2]}', 3, 2, '{nights[1]}', '{nights[1]}', "
            f"'{nights[2]}')".encode()
        )
        for name, values in (
            ("what_changed_last_night.sql", {}),
            ("changed_between.sql", {"run_before": "2", "run_id": "3"}),
        ):
            told_of = QUESTIONS[name].ask(asked, partner_id="7", **values)
            assert [row["for_example"] for row in told_of if row["was"] == "(none)"] == ["late"]
        then = QUESTIONS["then_and_now.sql"].ask(
            asked, partner_id="7", at=str(nights[1] + hour / 2)
        )
        assert [row["known_then"] for row in then if row["for_example"] == "late"] == [
            "not seen yet"
        ]
    rows = read(database_url, days=5).changes
    assert rows is not None
    assert (rows["first_seen"], rows["closed"]) == (1, 1)


def test_a_day_is_final_when_it_is_over_and_no_upload_of_it_is_open(database_url: str) -> None:
    hour, day = timedelta(hours=1), timedelta(days=1)
    last = datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
    midnight = last.replace(hour=0, minute=0)
    uploads: list[tuple[datetime, int, datetime]] = [
        (midnight, 3, midnight),  # today, which is not over
        (midnight - hour, 3, midnight),
        (midnight - day - hour, 1, midnight - day),
        (midnight - 2 * day - hour, 3, midnight),
        (midnight - 3 * day, 4, midnight - 2 * day),
        (midnight - 8 * day, 1, midnight - 8 * day),  # abandoned
        (midnight - 9 * day, 1, midnight),  # moved since
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        insert_run(connection, 1, last)
        for number, (created, status, updated) in enumerate(uploads):
            moved = {"created_at": created, "updated_at": updated, "status": status}
            insert_token(connection, f"t{number}", valid_from=last, **moved)

    found = {
        (midnight.date() - row["day"]).days: row
        for row in read(database_url).outcomes
        if row["size_bucket"] is None
    }

    assert {ago: row["is_mature"] for ago, row in found.items()} == {
        **{0: False, 1: True, 2: False, 3: True},
        **{8: True, 9: False},
    }
    assert {ago: (row["closed_in_time"], row["old_enough"]) for ago, row in found.items()} == {
        0: (0, 0),
        1: (0, 0),
        2: (0, 1),
        3: (0, 2),
        8: (0, 1),
        9: (0, 1),
    }
