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

from etl.warehouse.privacy.erase import erase
from etl.warehouse.privacy.subject import Subject
from etl.warehouse.schema.database import open_database
from tests.support.erasure import KEY
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
        opened.execute("select setval(pg_get_serial_sequence('sync_run', 'run_id'), 3)")
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


def test_a_renamed_user_is_named_and_an_erased_one_is_not(
    connection: psycopg.Connection[Row], database_url: str
) -> None:
    for number in range(3):
        renamed = {"user_id": "anna", "status": 0}, {"user_id": "anna.neu"}
        add_token(connection, f"renamed {number}", *renamed)
    add_token(connection, "later", {"user_id": "berta"}, {"user_id": "berta"}, {"status": 3})
    add_token(connection, "got one", {"status": 0}, {"user_id": "berta"})
    add_token(connection, "chain", {"user_id": "c"}, {"user_id": "d"}, {"user_id": "e"})
    query = "select * from upload_user_rename order by user_id_before"
    anna, *chain = ask(connection, query)
    assert anna == {
        **{"partner_id": PARTNER, "user_id_before": "anna", "user_id_after": "anna.neu"},
        **dict.fromkeys(("first_seen_at", "last_seen_at"), NIGHT + DAY * 3),
        **{"tokens": 3, "run_id": 3},
    }
    assert [(row["user_id_before"], row["user_id_after"]) for row in chain] == [
        ("c", "d"),
        ("d", "e"),
    ]

    with open_database(database_url, "kaltura") as database:
        erase(
            database,
            partner_id=PARTNER,
            key=KEY,
            subjects=[Subject("user", "anna")],
            lease_seconds=900,
            apply=True,
        )

    erased, *_ = ask(connection, query.replace("order by", "where tokens = 3 order by"))
    assert erased["user_id_before"].startswith("erased:")
    assert "anna" not in {erased["user_id_before"], erased["user_id_after"]}
