"""What the views and ``status`` say of runs: which are at work, dead, and complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import product
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row

from etl.process.identity import process_identity
from etl.warehouse.engine import connect
from etl.warehouse.ledger.certificates import is_complete
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema.tables import build_tables
from tests.support.model import Row
from tests.support.world import insert

PARTNER = 101
OWN = str(process_identity())
DEAD = " ".join((*OWN.split(" ")[:3], "1"))
"""This process' number, given to another one earlier."""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Row]]:
    with closing(psycopg.connect(database_url, autocommit=True, row_factory=dict_row)) as opened:
        opened.execute("set search_path = kaltura")
        yield opened


def add_running(
    connection: psycopg.Connection[Row], *, silent: timedelta, process: str | None = None
) -> None:
    """A run that began an hour ago and was last heard of that long ago."""
    (now,) = connection.execute("select clock_timestamp() as now").fetchall()
    row = {
        "run_id": 1,
        "partner_id": PARTNER,
        "walk_id": 1,
        "mode": "full",
        "status": "running",
        "started_at": now["now"] - silent - timedelta(hours=1),
        "heartbeat_at": now["now"] - silent,
        "process": process,
    }
    insert(connection, "sync_run", [row])


@pytest.mark.parametrize(
    ("minutes", "process", "lease_minutes", "alive"),
    [
        (14, None, 15, True),
        (25, None, 15, False),
        (25, None, 60, True),
        (0, OWN, 15, True),
        (0, DEAD, 15, False),
        (2, None, 1, False),
    ],
    ids=["alive", "silent", "long-lease", "own", "dead-here", "short-lease"],
)
def test_status_shows_as_running_what_is_at_work(
    connection: psycopg.Connection[Row],
    database_url: str,
    minutes: int,
    process: str | None,
    lease_minutes: int,
    alive: bool,
) -> None:
    add_running(connection, silent=timedelta(minutes=minutes), process=process)
    found: dict[str, Any] = status_summary(
        database_url, "kaltura", None, lease_seconds=60 * lease_minutes
    )

    (account,), (run,) = found["accounts"], found["last_runs"]
    state = "running" if alive else "abandoned"
    assert (account["running"], account["last_run_status"]) == (alive, state)
    assert (run["status"], run["error_kind"]) == (state, None if alive else "abandoned")
    # It only looks: the next run does what it says.
    assert connection.execute("select status from sync_run").fetchall() == [{"status": "running"}]


@pytest.mark.parametrize("minutes", [14, 25])
def test_the_views_do_not_call_a_dead_run_running(
    connection: psycopg.Connection[Row], minutes: int
) -> None:
    add_running(connection, silent=timedelta(minutes=minutes))
    alive = minutes < 15
    (fresh,) = connection.execute("select * from sync_freshness").fetchall()
    nights = connection.execute("select * from sync_night").fetchall()

    assert fresh["running"] == alive
    assert fresh["last_run_status"] == ("running" if alive else "abandoned")
    # One that died in the night makes a failed night, even if no run has come after it.
    outcomes = {(night["outcome"], night["error_kind"]) for night in nights if night["runs"]}
    assert outcomes == {("no_run", None) if alive else ("failed", "abandoned")}


COVERAGES = ("{}", "{(,)}", "{(,7),[8,)}", "{[0,7),[8,9)}", "{(,7),[9,)}")
HOLES: tuple[list[dict[str, object]], ...] = (
    [],
    [{"span": "[7,8)", "reason": "unreadable"}],
    [{"span": "[7,8)", "reason": "tie_group"}, {"span": "[8,9)", "reason": "unreadable"}],
    [{"span": "[7,9)", "reason": "moved"}],
    [{"span": "[7,9)", "reason": "unreadable", "open_only": True}],
    [{"span": "[7,8)", "reason": "unreadable", "open_only": True}, {"span": "(,)", "reason": "x"}],
    [{"span": "(,)", "reason": "tie_group"}],
)


def test_complete_is_the_same_in_sql_and_in_the_program(
    connection: psycopg.Connection[Row], database_url: str
) -> None:
    cases = list(enumerate(product(COVERAGES, HOLES), 1))
    rows = [
        {
            "run_id": number,
            "partner_id": number,
            "walk_id": number,
            "mode": "full",
            "status": "succeeded",
            "started_at": "2026-01-01Z",
            "published_at": "2026-01-01Z",
            "finished_at": "2026-01-01Z",
            "coverage": coverage,
            "holes": json.dumps(holes),
        }
        for number, (coverage, holes) in cases
    ]
    insert(connection, "sync_run", rows)
    engine, run = connect(database_url), build_tables("kaltura").sync_run
    with engine.connect() as ours:
        in_program = set(ours.scalars(sa.select(run.c.run_id).where(is_complete(run))))
    engine.dispose()
    in_sql = {
        name: {row["id"] for row in connection.execute(statement).fetchall()}
        for name, statement in {
            "function": "select run_id as id from sync_run "
            "where sync_run_is_complete(coverage, holes)",
            "sync_freshness": "select partner_id as id from sync_freshness "
            "where last_complete_at is not null",
            "sync_night": "select partner_id as id from sync_night where outcome = 'complete'",
        }.items()
    }

    assert 0 < len(in_program) < len(cases)
    assert in_sql == dict.fromkeys(in_sql, in_program)
