"""The views of uploads, users, freshness and dbt on accounts that are known by construction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from etl.warehouse.schema.revision import migrate
from tests.support.model import Row
from tests.support.moments import fill_moments
from tests.support.world import insert

LOOKED = datetime(2026, 3, 20, 2, tzinfo=UTC)
"""Beginning of the last walk that read everything."""
DAY = timedelta(days=1)
OUTCOMES = ("succeeded", "failed", "abandoned", "deleted", "still_open")
PARTNER = 101


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(database_url, autocommit=True, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        yield opened


def add_run(connection: psycopg.Connection[Row], run_id: int, at: datetime, **values: Any) -> None:
    row = {
        "run_id": run_id,
        "walk_id": run_id,
        "partner_id": PARTNER,
        "mode": "full",
        "status": "succeeded",
        "started_at": at,
        "published_at": at + timedelta(minutes=9),
        "finished_at": at + timedelta(minutes=9),
        "coverage": "{(,)}",
    }
    insert(connection, "sync_run", [row | values])


def add_token(
    connection: psycopg.Connection[Row], token: str, *versions: Row, **values: Any
) -> None:
    """A token with these versions, a day apart, the last one published by run 2 at LOOKED."""
    rows = []
    for number, version in enumerate(versions, 1):
        stamp = LOOKED + timedelta(minutes=9) - DAY * (len(versions) - number)
        row = {
            "partner_id": PARTNER,
            "token_id": token,
            "user_id": "anna",
            "file_name": f"{token}.mp4",
            "status": 0,
            "file_size_bytes": 1_000,
            "uploaded_size_bytes": 0,
            "created_at": LOOKED - 10 * DAY,
            "updated_at": None,
            "is_listed": True,
            "version": number,
            "change_kind": "first_seen" if number == 1 else "changed",
            "changed_columns": None if number == 1 else ["status"],
            "valid_from": stamp,
            "observed_at": stamp - timedelta(minutes=5),
            "last_listed_at": None,
            "absence_confirmed_at": None,
            "run_id": 2,
        }
        row |= values | version
        if not row["is_listed"]:
            row |= {"change_kind": "absent", "changed_columns": ["is_listed"]}
            row |= {"last_listed_at": stamp - DAY, "absence_confirmed_at": row["observed_at"]}
        rows.append(row)
    for earlier, later in pairwise(rows):
        superseded = earlier | {"valid_to": later["valid_from"], "superseded_by_run_id": 2}
        insert(connection, "upload_token_superseded", [superseded])
    insert(connection, "upload_token", rows[-1:])


def ask(connection: psycopg.Connection[Row], statement: str) -> list[Row]:
    fill_moments(connection)
    return connection.execute(statement.encode()).fetchall()


CASES: dict[str, tuple[str, float | None, list[Row], Row]] = {
    # token: outcome, seconds to complete, versions, what they have in common
    "closed": ("succeeded", 90, [{"status": 3}], {"updated_at": LOOKED - 10 * DAY}),
    "closed, changed later": (
        "succeeded",
        60,
        [
            {"status": 0},
            {"status": 3, "updated_at": LOOKED - 10 * DAY + timedelta(seconds=60)},
            {"status": 3, "updated_at": LOOKED - DAY},
        ],
        {},
    ),
    "closed, purged": ("succeeded", 90, [{"status": 3}, {"status": 3, "is_listed": False}], {}),
    "closed, deleted": ("succeeded", 90, [{"status": 3}, {"status": 5}], {}),
    "closed, when unknown": ("succeeded", None, [{"status": 3, "updated_at": None}], {}),
    "closed before made": (
        "succeeded",
        None,
        [{"status": 3, "updated_at": LOOKED - 11 * DAY}],
        {},
    ),
    "timed out": ("failed", None, [{"status": 0}, {"status": 4}], {}),
    "error, purged": ("failed", None, [{"status": 6}, {"status": 6, "is_listed": False}], {}),
    "deleted": ("deleted", None, [{"status": 5}], {}),
    "vanished": ("deleted", None, [{"status": 1}, {"status": 1, "is_listed": False}], {}),
    "vanished unknown": ("deleted", None, [{"status": 9}, {"status": 9, "is_listed": False}], {}),
    "old": ("abandoned", None, [{"status": 0}], {}),
    "old, by a second": (
        "abandoned",
        None,
        [{"status": 2, "updated_at": LOOKED - 7 * DAY - timedelta(seconds=1)}],
        {},
    ),
    "old, moved": ("still_open", None, [{"status": 1, "updated_at": LOOKED - 7 * DAY}], {}),
    "young": ("still_open", None, [{"status": 0}], {"created_at": LOOKED - DAY}),
    "unknown": ("still_open", None, [{"status": 77}], {}),
    "without status": ("still_open", None, [{"status": None}], {}),
}


def add_cases(connection: psycopg.Connection[Row]) -> None:
    add_run(connection, 1, LOOKED - DAY)
    add_run(connection, 2, LOOKED)
    for token, (_, _, versions, common) in CASES.items():
        filled = [
            {"updated_at": LOOKED - 10 * DAY + timedelta(seconds=90)} | version
            if version["status"] == 3
            else version
            for version in versions
        ]
        values = {} if token == "closed" else common
        add_token(connection, token, *filled, **values)


@pytest.mark.postgres15
def test_each_upload_has_one_outcome(connection: psycopg.Connection[Row]) -> None:
    add_cases(connection)
    found = ask(connection, "select * from upload_outcome")
    assert {row["token_id"]: (row["outcome"], row["seconds_to_complete"]) for row in found} == {
        token: (outcome, seconds) for token, (outcome, seconds, *_) in CASES.items()
    }
    # The status tells the outcome of what has ended, unless it had been closed before.
    groups = ask(
        connection,
        "select distinct outcome_group, outcome from upload_outcome as upload "
        "join upload_token as token using (partner_id, token_id) "
        "join upload_token_status as status on status.code = token.status "
        "where outcome_group <> 'open' and (outcome <> 'succeeded' or token.status = 3)",
    )
    assert len(groups) == 3
    assert all(row["outcome_group"] == row["outcome"] for row in groups)


@pytest.mark.postgres15
def test_outcomes_a_day_add_up(connection: psycopg.Connection[Row]) -> None:
    add_cases(connection)
    old, young = ask(connection, "select * from upload_outcome_daily order by day")
    assert [str(row["day"]) for row in (old, young)] == ["2026-03-10", "2026-03-19"]
    expected = [case[0] for case in CASES.values()]
    for outcome in OUTCOMES:
        assert old[outcome] + young[outcome] == expected.count(outcome)
    assert young["still_open"] == 1
    assert old["started"] == sum(old[outcome] for outcome in OUTCOMES) == len(CASES) - 1
    assert old["bytes_announced"] == 1_000 * old["started"]
    seconds = [case[1] for case in CASES.values() if case[1] is not None]
    assert old["p50_seconds_to_complete"] == median(seconds) == 90
    assert old["p95_seconds_to_complete"] == 90
    assert young["p50_seconds_to_complete"] is None


CHANGES_OF_CLOCKS = {
    # The night before, and what is odd about midnight then.
    ("America/Havana", "2026-03-07"): "there is none, 01:00 follows 23:59",
    ("America/Havana", "2026-10-31"): "00:00 to 01:00 comes twice",
    ("Asia/Beirut", "2026-10-24"): "23:00 to 24:00 comes twice",
    ("Atlantic/Azores", "2026-03-28"): "there is none",
    ("America/St_Johns", "2006-10-28"): "the new day is a minute old when the old one comes back",
    ("Pacific/Apia", "2011-12-29"): "the day after does not exist",
    ("Europe/Berlin", "2026-03-28"): "nothing, the clocks change after it",
}


def test_a_day_has_the_tokens_created_on_it_whatever_the_clocks_do(
    connection: psycopg.Connection[Row],
) -> None:
    for partner, (zone, night) in enumerate(CHANGES_OF_CLOCKS, PARTNER):
        add_run(connection, partner, LOOKED, partner_id=partner)
        at = datetime.fromisoformat(night).replace(tzinfo=UTC)
        add_token(connection, "token", {}, partner_id=partner, created_at=at)
        connection.execute(
            "insert into upload_token (partner_id, token_id, created_at, is_listed, version, "
            "change_kind, valid_from, observed_at, run_id) select partner_id, number::text, "
            "created_at + number * interval '10 minutes', is_listed, version, change_kind, "
            "valid_from, observed_at, run_id "
            "from upload_token, generate_series(-180, 360) as number where partner_id = %s",
            [partner],
        )
        connection.execute("select set_config('kaltura.time_zone', %s, false)", [zone])
        found = connection.execute(
            "select day, cast(sum(started) as bigint) as started from upload_outcome_daily "
            "where partner_id = %s group by day order by day",
            [partner],
        ).fetchall()
        expected = connection.execute(
            "select cast(created_at at time zone %s as date) as day, count(*) as started "
            "from upload_token where partner_id = %s group by 1 order by 1",
            [zone, partner],
        ).fetchall()
        assert found == expected, zone
        assert len(found) > 3


def test_percentiles_are_interpolated(connection: psycopg.Connection[Row]) -> None:
    add_run(connection, 2, LOOKED)
    for number in range(11):
        updated_at = LOOKED - 10 * DAY + timedelta(seconds=10 * number)
        add_token(connection, f"token {number}", {"status": 3, "updated_at": updated_at})
    (row,) = ask(connection, "select * from upload_outcome_daily")
    assert (row["p50_seconds_to_complete"], row["p95_seconds_to_complete"]) == (50, 95)
    (user,) = ask(connection, "select * from upload_user_summary")
    assert user["median_seconds_to_complete"] == 50


@pytest.mark.parametrize(
    ("announced", "received", "status", "bucket", "order"),
    [
        (0, 0, 0, "< 1 MB", 1),
        (999_999, 0, 0, "< 1 MB", 1),
        (1_000_000, 0, 0, "1-10 MB", 2),
        (10_000_000, 0, 0, "10-100 MB", 3),
        (100_000_000, 0, 0, "100 MB-1 GB", 4),
        (1_000_000_000, 0, 0, "1-10 GB", 5),
        (10_000_000_000, 0, 0, "> 10 GB", 6),
        (2**63 - 1, 0, 0, "> 10 GB", 6),
        (-1, 5, 0, "unknown", 7),
        (None, 5_000_000, 3, "1-10 MB", 2),
        (None, 5_000_000, 1, "unknown", 7),
        (None, None, 3, "unknown", 7),
    ],
)
def test_sizes_fall_into_buckets(
    connection: psycopg.Connection[Row],
    announced: int | None,
    received: int | None,
    status: int,
    bucket: str,
    order: int,
) -> None:
    add_run(connection, 2, LOOKED)
    sizes = {"file_size_bytes": announced, "uploaded_size_bytes": received, "status": status}
    add_token(connection, "token", sizes)
    for view in ("upload_outcome", "upload_outcome_daily"):
        (row,) = ask(connection, f"select * from {view}")  # noqa: S608
        assert (row["size_bucket"], row["size_bucket_order"]) == (bucket, order)
    assert row["bytes_announced"] == max(announced or 0, 0)
    assert row["bytes_received"] == (received or 0)


def test_users_are_summed_up(connection: psycopg.Connection[Row]) -> None:
    add_cases(connection)
    for user in ("berta", "berta", None):
        number = len(ask(connection, "select 1 from upload_token"))
        values = {"user_id": user, "uploaded_size_bytes": 70, "created_at": LOOKED - DAY}
        add_token(connection, f"more {number}", {"status": 4}, **values)
    rows = {row["user_id"]: row for row in ask(connection, "select * from upload_user_summary")}
    assert rows.keys() == {"anna", "berta", None}
    expected = [case[0] for case in CASES.values()]
    anna = rows["anna"]
    assert {outcome: anna[outcome] for outcome in OUTCOMES} == {
        outcome: expected.count(outcome) for outcome in OUTCOMES
    }
    assert anna["uploads"] == len(CASES)
    assert (anna["first_upload_at"], anna["last_upload_at"]) == (LOOKED - 10 * DAY, LOOKED - DAY)
    assert anna["median_seconds_to_complete"] == 90
    berta = rows["berta"]
    assert (berta["uploads"], berta["failed"], berta["bytes_received"]) == (2, 2, 140)
    assert berta["median_seconds_to_complete"] is None


@pytest.mark.postgres15
def test_stuck_are_the_open_ones_that_did_not_move_for_a_day(
    connection: psycopg.Connection[Row],
) -> None:
    add_run(connection, 2, LOOKED)
    moved: Row = {"created_at": LOOKED - 2 * DAY, "updated_at": LOOKED - DAY}
    half: Row = {"file_size_bytes": 300, "uploaded_size_bytes": 100}
    add_token(connection, "a day", {"status": 1}, **moved, **half)
    add_token(connection, "just less", {}, **moved | {"updated_at": LOOKED - DAY + DAY / 86_400})
    add_token(connection, "never moved", {"status": 0}, file_size_bytes=None)
    add_token(connection, "whole", {"status": 2, "uploaded_size_bytes": 2_000})
    add_token(connection, "nothing announced", {"status": 0, "file_size_bytes": 0})
    add_token(connection, "closed", {"status": 3})
    add_token(connection, "gone", {"status": 0}, {"status": 0, "is_listed": False})
    rows = {row["token_id"]: row for row in ask(connection, "select * from stuck_upload")}
    assert rows.keys() == {"a day", "never moved", "whole", "nothing announced"}
    a_day = rows["a day"]
    assert (a_day["stuck_for"], a_day["last_moved_at"]) == (DAY, LOOKED - DAY)
    assert (a_day["status"], float(a_day["percent_received"])) == ("PARTIAL_UPLOAD", 33.3)
    assert rows["never moved"]["stuck_for"] == 10 * DAY
    assert rows["never moved"]["percent_received"] is None
    assert rows["nothing announced"]["percent_received"] is None
    assert rows["whole"]["percent_received"] == 100


def test_time_does_not_run_on_while_nobody_looks(connection: psycopg.Connection[Row]) -> None:
    add_run(connection, 1, LOOKED)
    add_token(connection, "open", {"created_at": LOOKED - timedelta(hours=23)})
    # A week later a run of a range: it says nothing of the open tokens.
    add_run(connection, 2, LOOKED + 7 * DAY, coverage="{[5,9)}", mode="backfill")
    assert ask(connection, "select * from stuck_upload") == []
    # An incremental run reads all that are open, and its walk began in a run that died.
    add_run(connection, 3, LOOKED + 8 * DAY, status="failed", published_at=None, coverage="{}")
    began = LOOKED + 9 * DAY
    values = {"coverage": "{[5,)}", "open_coverage": "{(,)}", "mode": "incremental"}
    add_run(connection, 4, began, walk_id=3, resumed_from=3, **values)
    (stuck,) = ask(connection, "select * from stuck_upload")
    assert stuck["stuck_for"] == 8 * DAY + timedelta(hours=23)
    (fresh,) = ask(connection, "select * from sync_freshness")
    assert fresh["open_seen_at"] == LOOKED + 8 * DAY
    assert fresh["last_complete_at"] == LOOKED + timedelta(minutes=9)


@pytest.mark.postgres15
def test_freshness(connection: psycopg.Connection[Row]) -> None:
    assert ask(connection, "select * from sync_freshness") == []
    add_run(connection, 1, LOOKED - 2 * DAY)
    holes = {
        "coverage": "{(,7),[8,)}",
        "holes": '[{"span": "[7,8)", "reason": "unreadable", "tokens": 1}]',
    }
    add_run(connection, 2, LOOKED - DAY, **holes, unreadable=1, rejected=3)
    other = {"coverage": "{(,7),[8,)}", "holes": '[{"span": "[7,8)", "reason": "tie"}]'}
    add_run(connection, 3, LOOKED, **other)
    failed = {"status": "failed", "published_at": None}
    add_run(connection, 4, LOOKED + DAY, **failed)
    for run_id, status in ((5, "dry_run"), (8, "skipped")):
        not_meant = {"status": status, "published_at": None, "partner_id": PARTNER}
        add_run(connection, run_id, LOOKED + DAY, **not_meant)
    add_run(connection, 6, LOOKED, partner_id=7, status="running", published_at=None)
    add_token(connection, "here", {})
    add_token(connection, "gone", {}, {"is_listed": False})
    new, known = ask(connection, "select * from sync_freshness order by partner_id")
    assert known["last_published_at"] == LOOKED + timedelta(minutes=9)
    assert known["last_complete_at"] == LOOKED - DAY + timedelta(minutes=9)
    assert known["complete_age"] - known["age"] == DAY
    assert (known["last_run_status"], known["running"]) == ("failed", False)
    assert (known["tokens_listed"], known["tokens_known"]) == (1, 2)
    assert (known["unreadable"], known["rejected"]) == (1, 3)
    assert known["certificate"] == "{(,7),[8,)}"
    assert (new["partner_id"], new["last_run_status"], new["running"]) == (7, "running", True)
    assert new["last_published_at"] is new["age"] is new["certificate"] is None
    assert (new["tokens_known"], new["unreadable"]) == (0, None)


@pytest.mark.postgres15
def test_the_names_of_dbt(connection: psycopg.Connection[Row]) -> None:
    add_run(connection, 2, LOOKED)
    add_token(connection, "token", {"status": 0}, {"status": 3}, {"status": 3, "is_listed": False})
    history = ask(connection, "select * from upload_token_history order by version")
    rows = []
    for zone in ("UTC", "Asia/Tokyo"):
        connection.execute(sql.SQL("set time zone {}").format(zone))
        rows = ask(connection, "select * from upload_token_snapshot_dbt order by version")
        keys = [hashlib.md5(f"101|token|{version}".encode()).hexdigest() for version in (1, 2, 3)]
        assert [row["dbt_scd_id"] for row in rows] == keys
    for row, version in zip(rows, history, strict=True):
        # All but the range, which says what valid_from and valid_to say.
        shared = version.keys() - {"valid_period"}
        assert {name: row[name] for name in shared} == {name: version[name] for name in shared}
        assert row["dbt_valid_from"] == row["dbt_updated_at"] == version["valid_from"]
        assert row["dbt_valid_to"] == version["valid_to"]
    assert [row["dbt_is_deleted"] for row in rows] == ["False", "False", "True"]


def test_a_change_whose_version_before_was_pruned(connection: psycopg.Connection[Row]) -> None:
    add_run(connection, 1, LOOKED - DAY)
    add_run(connection, 2, LOOKED)
    add_token(connection, "token", {"status": 0}, {"status": 1}, {"status": 3})
    connection.execute("delete from upload_token_superseded where version = 1")
    second, third = ask(connection, "select * from upload_token_status_history order by version")
    assert (second["from_status"], second["to_status"]) == (None, "PARTIAL_UPLOAD")
    assert second["happened_after"] == LOOKED - 10 * DAY
    assert second["time_in_from_status"] is None
    assert (third["from_status"], third["to_status"]) == ("PARTIAL_UPLOAD", "CLOSED")


def test_the_views_work_in_any_schema_and_look_nowhere_else(
    connection: psycopg.Connection[Row], database_url: str
) -> None:
    strange = 'Strange "Name'
    migrate(database_url, strange)
    add_cases(connection)
    fill_moments(connection)
    connection.execute("set search_path = pg_catalog")
    views = [
        *("upload_token_status_history", "upload_token_daily_status", "upload_outcome_daily"),
        *("upload_user_summary", "stuck_upload", "sync_freshness", "upload_token_snapshot_dbt"),
        *("upload_status_duration", "upload_mart"),
    ]
    functions = [f"upload_token_{name}" for name in ("as_of", "happened_by")]
    for schema, filled in (("kaltura", True), (strange, False)):
        for name in views + functions:
            relation: sql.Composable = sql.Identifier(schema, name)
            if name in functions:
                relation = sql.SQL("{}(now())").format(relation)
            query = sql.SQL("select count(*) as rows from {}").format(relation)
            (row,) = connection.execute(query).fetchall()
            assert (row["rows"] > 0) == filled, (schema, name)


def test_a_view_shows_nothing_that_its_reader_may_not_read(
    connection: psycopg.Connection[Row],
) -> None:
    (row,) = ask(
        connection,
        "select array_agg(relname::text order by relname) as views from pg_class "
        "where relkind = 'v' and relnamespace = 'kaltura'::regnamespace "
        "and 'security_invoker=true' <> all (coalesce(reloptions, '{}'))",
    )
    assert row["views"] is None
