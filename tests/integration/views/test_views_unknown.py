"""What is not known is told as not known, not as 0: after pruning, and before a whole look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.rows import dict_row

from etl.report.index import entry_of, render_index
from etl.report.page import render_report
from etl.report.read import read_report
from etl.tokens.token import Token
from etl.warehouse.privacy.prune import prune
from tests.questions.questions import QUESTIONS
from tests.support.model import Row
from tests.support.nights import MakeNights, Nights, make_token, page_of

BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PENDING, PARTIAL, CLOSED, ERROR = 0, 1, 3, 6


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    return make_nights()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(database_url, autocommit=True, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        yield opened


def upload(name: str, created_at: datetime, status: int, moved_at: datetime, size: int) -> Token:
    return make_token(
        name,
        int(created_at.timestamp()),
        status=status,
        updated_at=moved_at,
        uploaded_size_bytes=size,
    )


@pytest.mark.postgres15
def test_an_account_of_which_only_a_range_was_read(
    nights: Nights, connection: psycopg.Connection[Row], database_url: str
) -> None:
    """Neither is nothing stuck, nor is a day final, nor has an upload just moved."""
    now = datetime.now(UTC).replace(microsecond=0)
    made = now - 5 * DAY
    run = nights.open(mode="backfill")
    nights.stage(
        run,
        page_of(
            [
                upload("before", made - DAY, CLOSED, made - DAY, 1_000),
                upload("open", made, PARTIAL, made + HOUR, 10),
                upload("closed", made + HOUR, CLOSED, made + 2 * HOUR, 1_000),
                upload("after", made + DAY, CLOSED, made + DAY, 1_000),
            ],
            observed_at=now,
        ),
    )
    nights.publish(run)

    def ask(file: str, **variables: str) -> list[dict[str, Any]]:
        since = f"{made - 2 * DAY:%Y-%m-%d}"
        return QUESTIONS[file].ask(
            connection, partner_id="102", since=since, now=str(now + 2 * DAY), **variables
        )

    days = connection.execute("select * from upload_token_daily_status").fetchall()
    moved = connection.execute("select token_id, seconds_not_moved from upload_mart").fetchall()
    in_time = ask("completed_in_time.sql", within="1 day")
    (account,) = ask("accounts_side_by_side.sql")
    rows = read_report(database_url, "kaltura", partner_id=102, days=30, time_zone="UTC")
    page = render_report(rows, UTC)
    index = render_index([entry_of(rows, UTC, None)], UTC, "UTC")

    assert days
    assert {(row["known_at"], row["stale_by_seconds"]) for row in days} == {(None, None)}
    assert {row["stale_by"] for row in ask("status_each_day.sql")} == {None}
    assert {row["seconds_not_moved"] for row in moved} == {None}
    assert sum(row["started"] for row in in_time) == 4
    assert all(row["undecided"] == row["started"] for row in in_time)
    assert (account["started"], account["stuck"]) == (4, None)
    assert "No upload is stuck" not in page
    assert "No upload was created" not in page
    assert page.count("no run has read all open uploads") == 1
    assert page.count("none has") == 1
    assert '<a href="#stuck">\u2013</a>' in page
    assert '<div class="below">\u2013</div>' in index


@pytest.mark.postgres15
def test_what_was_pruned_is_not_counted_as_none(
    nights: Nights, connection: psycopg.Connection[Row]
) -> None:
    """The same questions before and after, of a time before the horizon."""
    now = datetime.now(UTC).replace(microsecond=0)
    first = now - 20 * DAY
    made = first - 3 * DAY
    stays = [
        upload("stays", made, CLOSED, made + HOUR, 7),
        upload("stuck", made, PARTIAL, made + HOUR, 7),
    ]
    nights.night(
        [
            *stays,
            upload("went on", made, PARTIAL, made + HOUR, 10),
            upload("failed, went on", made, ERROR, made + HOUR, 10),
        ],
        at=first,
        stamp=first,
    )
    for ago in (15, 0):
        nights.night(
            [
                *stays,
                upload("went on", made, CLOSED, first + DAY, 1_000),
                upload("failed, went on", made, CLOSED, first + DAY, 1_000),
            ],
            at=now - ago * DAY,
            stamp=now - ago * DAY,
        )
    connection.execute(
        "update sync_run set started_at = published_at - interval '1 minute', "
        "finished_at = published_at, heartbeat_at = published_at"
    )
    (run,) = connection.execute("select min(run_id) as id from sync_run").fetchall()

    def ask(file: str, **variables: str) -> list[dict[str, Any]]:
        since = f"{made - DAY:%Y-%m-%d}"
        return QUESTIONS[file].ask(connection, partner_id="102", since=since, **variables)

    def ask_all() -> dict[str, Any]:
        first_seen = {row["first_status"]: row["tokens"] for row in ask("first_status.sql")}
        return {
            "first seen": first_seen,
            "failures": {row["failures"] for row in ask("hour_of_day.sql")} - {0},
            "arrived": {
                row["day"]: row["gb_arrived_that_day"] for row in ask("uploads_by_day.sql")
            }[made.astimezone(BERLIN).date()],
            "stuck on day": [row["is_whole"] for row in ask("stuck_on_day.sql", day=str(first))],
            "stuck at run": [
                (row["stuck"], row["is_whole"])
                for row in ask("stuck_at_run.sql", run_id=str(run["id"]))
            ],
        }

    before = ask_all()
    prune(nights.database, days={"versions": 10}, partner_id=102, apply=True)
    after = ask_all()

    assert before == {
        "first seen": {"PARTIAL_UPLOAD": 2, "CLOSED": 1, "ERROR": 1},
        "failures": {1},
        "arrived": 0,
        "stuck on day": [True, True],
        "stuck at run": [(2, True)],
    }
    assert after == {
        "first seen": {"PARTIAL_UPLOAD": 1, "CLOSED": 1, "(pruned)": 2},
        "failures": {None},
        "arrived": None,
        "stuck on day": [False],
        "stuck at run": [(1, False)],
    }
