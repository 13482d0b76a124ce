"""What the views say of a token that was hidden, moved meanwhile, and was listed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.views.test_views_uploads import add_run, ask
from tests.support.model import Row
from tests.support.world import insert

FIRST = datetime(2026, 3, 2, 2, 30, tzinfo=UTC)
"""When the walk of the first night began; the tokens were created two hours before it."""
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PARTNER = 101


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(database_url, autocommit=True, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        yield opened


def add_nights(connection: psycopg.Connection[Row], *days: int) -> None:
    for run_id, day in enumerate(days, 1):
        add_run(connection, run_id, FIRST + day * DAY)


def add_versions(connection: psycopg.Connection[Row], token: str, *versions: Row) -> None:
    """The first one seen by run 1, the next by run 2, and so on."""
    runs = {
        row["run_id"]: row
        for row in ask(connection, "select run_id, started_at, published_at from sync_run")
    }
    rows: list[dict[str, Any]] = []
    for number, version in enumerate(versions, 1):
        run = runs[version.get("run_id", number)]
        row = {
            "partner_id": PARTNER,
            "token_id": token,
            "file_name": f"{token}.mp4",
            "file_size_bytes": 1_000,
            "is_listed": True,
            "version": number,
            "change_kind": "first_seen" if number == 1 else "changed",
            "valid_from": run["published_at"],
            "observed_at": run["started_at"] + 4 * MINUTE,
            "run_id": run["run_id"],
            "created_at": FIRST - 2 * HOUR,
        } | version
        rows.append(row)
        if number > 1:
            was = rows[-2]
            row["changed_columns"] = sorted(
                name
                for name in ("is_listed", "status", "uploaded_size_bytes", "updated_at")
                if row[name] != was[name]
            )
            if not row["is_listed"]:
                row |= {
                    "change_kind": "absent",
                    "last_listed_at": runs[was["run_id"]]["started_at"],
                    "absence_confirmed_at": row["observed_at"],
                }
            elif not was["is_listed"]:
                row["change_kind"] = "relisted"
            insert(
                connection,
                "upload_token_superseded",
                [was | {"valid_to": row["valid_from"], "superseded_by_run_id": row["run_id"]}],
            )
    insert(connection, "upload_token", rows[-1:])


@pytest.mark.postgres15
def test_bytes_that_arrived_while_a_token_was_hidden_lie_within_their_bounds(
    connection: psycopg.Connection[Row],
) -> None:
    add_nights(connection, 0, 2, 3, 5)
    began = FIRST - HOUR
    arrived = FIRST + 10 * HOUR  # a day on which nobody looked
    half: Row = {"status": 1, "uploaded_size_bytes": 400, "updated_at": began}
    whole: Row = {"status": 1, "uploaded_size_bytes": 1_000, "updated_at": arrived}
    add_versions(connection, "hidden", half, half | {"is_listed": False}, whole | {"run_id": 4})
    rows = {row["day"]: row for row in ask(connection, "select * from upload_bytes_daily")}
    day = rows[arrived.date()]
    assert day["at_least_bytes"] <= 1_000 <= day["at_most_bytes"]
    assert sum(row["bytes"] for row in rows.values()) == 1_000
    assert day["bytes"] == 1_000


@pytest.mark.postgres15
def test_statuses_that_were_passed_after_a_token_was_listed_again_are_within_their_bounds(
    connection: psycopg.Connection[Row],
) -> None:
    add_nights(connection, 0, 1, 6)
    half: Row = {"status": 1, "uploaded_size_bytes": 400, "updated_at": FIRST - HOUR}
    closed: Row = {"status": 3, "uploaded_size_bytes": 1_000}
    # Listed again an hour after the second night: PARTIAL_UPLOAD for three days, then FULL_UPLOAD.
    ended = FIRST + 5 * DAY
    add_versions(
        connection,
        "hidden",
        half,
        half | {"is_listed": False},
        closed | {"updated_at": ended},
    )
    rows = {row["status"]: row for row in ask(connection, "select * from upload_status_duration")}
    for status, true in (("PARTIAL_UPLOAD", 3 * DAY + 2 * HOUR), ("FULL_UPLOAD", DAY)):
        assert rows[status]["at_least_seconds"] <= true.total_seconds()
        assert true.total_seconds() <= rows[status]["at_most_seconds"] < (7 * DAY).total_seconds()
    # It was beyond PENDING when it was hidden, and is CLOSED now.
    assert rows["PENDING"]["at_most_seconds"] == (2 * HOUR + 4 * MINUTE).total_seconds()
    assert [row["status"] for row in rows.values() if row["is_current"]] == ["CLOSED"]


@pytest.mark.postgres15
def test_a_closed_token_that_was_hidden_was_in_no_open_status_meanwhile(
    connection: psycopg.Connection[Row],
) -> None:
    add_nights(connection, 0, 1, 2)
    closed: Row = {"status": 3, "uploaded_size_bytes": 1_000, "updated_at": FIRST - HOUR}
    add_versions(connection, "hidden", closed, closed | {"is_listed": False}, closed)
    rows = {row["status"]: row for row in ask(connection, "select * from upload_status_duration")}
    for status in ("PENDING", "PARTIAL_UPLOAD", "FULL_UPLOAD"):
        assert rows[status]["at_most_seconds"] == (2 * HOUR + 4 * MINUTE).total_seconds()


def test_days_begin_at_the_first_midnight_of_their_zone(
    connection: psycopg.Connection[Row],
) -> None:
    """Where clocks are set back to midnight there are two; where they are set on at it, none."""
    add_nights(connection, 0)
    for zone, midnight, day in (
        ("Atlantic/Azores", "2025-10-26 00:00Z", "2025-10-26"),
        ("America/Havana", "2025-11-02 04:00Z", "2025-11-02"),
        ("Asia/Beirut", "2025-03-29 22:00Z", "2025-03-30"),
        ("Asia/Kathmandu", "2025-05-04 18:15Z", "2025-05-05"),
        ("Pacific/Apia", "2011-12-30 10:00Z", "2011-12-31"),
    ):
        first = datetime.fromisoformat(midnight)
        before = first - timedelta(seconds=1)
        for name, at, received in ((f"{zone} first", first, 3), (f"{zone} before", before, 50)):
            version: Row = {"uploaded_size_bytes": received, "status": 3}
            add_versions(connection, name, version | {"created_at": at, "updated_at": at})
        connection.execute("select set_config('kaltura.time_zone', %s, false)", [zone])
        rows = {row["day"]: row for row in ask(connection, "select * from upload_bytes_daily")}
        last = datetime.fromisoformat(day).date()
        # Samoa had no 30 December in 2011.
        day_before = last - DAY if last - DAY in rows else last - 2 * DAY
        for each, received in ((day_before, 50), (last, 3)):
            for name in ("bytes", "at_least_bytes", "at_most_bytes"):
                assert rows[each][name] == received, zone
