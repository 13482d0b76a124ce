"""What the views say of versions: names of statuses, periods, users that were renamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.model import Row
from tests.support.world import PARTNER, insert

NIGHT = datetime(2026, 3, 20, 2, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(database_url, autocommit=True, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        runs = [
            {
                **{"run_id": number, "walk_id": number, "partner_id": PARTNER, "mode": "full"},
                **{"status": "succeeded", "coverage": "{(,)}", "started_at": NIGHT + DAY * number},
                **dict.fromkeys(("published_at", "finished_at"), NIGHT + DAY * (number + 0.01)),
            }
            for number in (1, 2, 3)
        ]
        insert(opened, "sync_run", runs)
        yield opened


def add_token(connection: psycopg.Connection[Row], token_id: str, *versions: Row) -> None:
    """A token with a version of each of the last nights."""
    rows: list[Row] = []
    for number, values in enumerate(versions, 1):
        run_id = 3 - len(versions) + number
        rows.append(
            {
                **{"partner_id": PARTNER, "token_id": token_id, "version": number},
                **{"status": 0, "user_id": None, "created_at": NIGHT - DAY, "is_listed": True},
                "change_kind": "first_seen" if number == 1 else "changed",
                "changed_columns": None if number == 1 else sorted(values),
                "valid_from": NIGHT + DAY * (run_id + 0.01),
                "observed_at": NIGHT + DAY * run_id,
                "run_id": run_id,
            }
            | values
        )
    for earlier, later in pairwise(rows):
        ended = {"valid_to": later["valid_from"], "superseded_by_run_id": later["run_id"]}
        insert(connection, "upload_token_superseded", [earlier | ended])
    insert(connection, "upload_token", rows[-1:])


def ask(connection: psycopg.Connection[Row], statement: str, *values: Any) -> list[Row]:
    return connection.execute(statement.encode(), values).fetchall()


def test_statuses_have_names_and_versions_a_period(connection: psycopg.Connection[Row]) -> None:
    codes = [*range(7), 77, None]
    for code in codes:
        add_token(connection, f"in {code}", {"status": 0}, {"status": code})
    names = {
        row["code"]: row["name"] for row in ask(connection, "select * from upload_token_status")
    }
    names |= {77: "UNKNOWN_77", None: "UNKNOWN"}
    assert names.keys() == {*codes}
    for asked in (
        "upload_token_history where is_current",
        "upload_token_as_of(now())",
        "upload_token_happened_by(now())",
        "upload_token_snapshot_dbt where is_current",
    ):
        rows = ask(connection, f"select status, status_name from {asked}")  # noqa: S608
        assert {row["status"]: row["status_name"] for row in rows} == names
    # Every moment since the first publication is in one period of each token.
    for moment in (NIGHT + DAY * 2.01, NIGHT + DAY * 2.5, NIGHT + DAY * 3.01, NIGHT + DAY * 99):
        query = "select token_id, version from upload_token_{} order by 1"
        found = ask(connection, query.format("history where valid_period @> %s"), moment)
        assert found == ask(connection, query.format("as_of(%s)"), moment)
        assert len(found) == len(codes)
    assert not ask(
        connection, "select 1 from upload_token_history where valid_period @> %s", NIGHT + DAY * 2
    )
