"""What is asked of few versions does not read all of them: plans on 10,000 tokens, analyzed."""

# ruff: noqa: S608 - the statements are constants of this file
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.rows import TupleRow

from etl.demo import with_variables
from etl.resources import sql_directory
from etl.warehouse.access.grants import grant
from tests.support.databases import made_once
from tests.support.model import Row
from tests.support.moments import write_sixty_nights
from tests.support.plans import nodes_of, rows_read, scans
from tests.support.roles import own_database

TOKENS = 10_000
SIXTY_NIGHTS = "sixty_nights"
TOKEN = "'0_' || md5('7777')"
LARGE = ("upload_token", "upload_token_superseded")
WENT_BACK = "ix_upload_token_went_back"


def fill(url: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        write_sixty_nights(connection, TOKENS)
        connection.execute("vacuum analyze")


@pytest.fixture
def nights_url(postgres_url: str, template_database: str, postgres_major: str) -> Iterator[str]:
    """A copy of its own of the sixty nights, which are written once: two seconds."""
    made_once(postgres_url, SIXTY_NIGHTS, template_database, fill, major=postgres_major)
    with own_database(postgres_url, SIXTY_NIGHTS) as url:
        yield url


@pytest.fixture
def connection(nights_url: str) -> Iterator[psycopg.Connection[TupleRow]]:
    with closing(psycopg.connect(nights_url, autocommit=True)) as opened:
        opened.execute("set search_path = kaltura")
        opened.execute("set max_parallel_workers_per_gather = 0")
        yield opened


def nodes(connection: psycopg.Connection[TupleRow], query: str) -> list[Row]:
    """The nodes of the plan that was followed."""
    explained = connection.execute(f"explain (analyze, format json) {query}".encode()).fetchone()
    assert explained is not None
    return nodes_of(explained[0][0]["Plan"])


def test_a_recent_moment_does_not_read_all_history(
    connection: psycopg.Connection[TupleRow],
) -> None:
    plan = nodes(connection, "select * from upload_token_as_of('2026-09-29')")
    assert scans(plan, "upload_token_superseded") == ["ix_upload_token_superseded_valid"]
    stored = connection.execute("select count(*) from upload_token_superseded").fetchone()
    assert stored is not None
    assert rows_read(plan, "upload_token_superseded") < 0.05 * stored[0]


def test_one_token_is_found_by_its_keys(connection: psycopg.Connection[TupleRow]) -> None:
    for asked in (
        "upload_token_history",
        "upload_token_as_of('2026-09-29')",
        "upload_token_happened_by('2026-09-29')",
        "upload_token_happened_by('2026-09-02')",
        "upload_token_status_history",
        "upload_token_snapshot_dbt",
        "upload_status_duration",
        "upload_mart",
    ):
        query = f"select * from {asked} where partner_id = 101 and token_id = {TOKEN}"
        assert connection.execute(query.encode()).fetchone()
        plan = nodes(connection, query)
        for table in LARGE:
            assert set(scans(plan, table)) <= {f"pk_{table}"}, asked
            assert rows_read(plan, table) <= 30


def test_the_stuck_are_found_among_the_open(
    connection: psycopg.Connection[TupleRow],
) -> None:
    plan = nodes(connection, "select * from stuck_upload")
    assert scans(plan, "upload_token") == ["ix_upload_token_open_created"]
    assert scans(plan, "upload_token_superseded") == []


WEEK = "{0} >= '2026-09-20' and {0} < '2026-09-27'"
FILTERED = {
    # What is asked: the share of the stored rows of the tables that may be read for it.
    "upload_token_history where valid_from = '2026-09-29 02:09Z'": 0.04,
    "upload_token_history where run_id = 119": 0.04,
    f"upload_token_status_history where partner_id = 101 and token_id = {TOKEN}": 0.001,
    "upload_token_status_history where run_id = 119": 0.04,
    "upload_token_status_history where valid_from = '2026-09-29 02:09Z'": 0.04,
    "upload_token_status_history where " + WEEK.format("happened_at"): 0.2,
    "upload_token_status_history where to_status = 'TIMED_OUT' and "
    + WEEK.format("happened_at"): 0.2,
    f"upload_outcome where partner_id = 101 and token_id = {TOKEN}": 0.001,
    "upload_outcome where user_id = 'user7'": 0.001,
    "upload_outcome where " + WEEK.format("created_at"): 0.1,
    "upload_outcome_daily where day = '2026-09-20'": 0.02,
    "upload_outcome_daily where day between '2026-09-20' and '2026-09-26'": 0.1,
    f"upload_failure where partner_id = 101 and token_id = {TOKEN}": 0.001,
    "upload_failure where user_id = 'user7'": 0.001,
    "upload_failure where valid_from >= '2026-09-29'": 0.05,
    "upload_user_summary where user_id = 'user7'": 0.001,
    "upload_user_summary where partner_id = 101 and user_id = 'user7'": 0.001,
    "upload_token_daily_status where day = '2026-09-20'": 0,
    "upload_bytes_daily where day = '2026-09-20'": 0,
    "upload_status_duration where user_id = 'user7'": 0.01,
    # Users and all: by key, not from all of upload_token.
    "upload_status_duration where created_at >= '2026-09-20' and created_at < '2026-09-22'": 0.1,
    "upload_status_stay where created_at >= '2026-09-20' and created_at < '2026-09-22'": 0.05,
}


def test_a_condition_reaches_the_indexes_of_a_limited_analyst(
    connection: psycopg.Connection[TupleRow], nights_url: str
) -> None:
    """With row-level security, which lets no condition on an expression reach one."""
    role = f"analyst_{connection.info.dbname}"
    connection.execute(f"create role {role} nologin".encode())
    try:
        grant(nights_url, "kaltura", {"analyst": role}, accounts=[101], apply=True)
        connection.execute(f"set role {role}".encode())
        tables = (*LARGE, "upload_token_status_moment_log")
        stored = sum(
            connection.execute(f"select count(*) from {table}".encode()).fetchone()[0]  # type: ignore[index]
            for table in tables
        )
        for asked, share in FILTERED.items():
            plan = nodes(connection, f"select * from {asked}")
            assert sum(rows_read(plan, table) for table in tables) <= share * stored, asked
            assert "Seq Scan" not in {name for each in tables for name in scans(plan, each)}, asked
    finally:
        connection.execute("reset role")
        connection.execute(f"drop owned by {role}; drop role {role}".encode())


def test_the_bytes_of_a_day_are_found_by_index(connection: psycopg.Connection[TupleRow]) -> None:
    log = "upload_bytes_arrival_log"
    stored = connection.execute(f"select count(*) from {log}".encode()).fetchone()
    assert stored is not None
    for days, share in (("= '2026-09-20'", 0.06), ("between '2026-09-20' and '2026-09-26'", 0.3)):
        plan = nodes(connection, f"select * from upload_bytes_daily where day {days}")
        assert set(scans(plan, log)) == {f"pk_{log}"}
        assert rows_read(plan, log) <= share * stored[0]


def test_the_whole_status_history_reads_each_table_once(
    connection: psycopg.Connection[TupleRow],
) -> None:
    plan = nodes(connection, "select * from upload_token_status_history")
    for table in (*LARGE, "upload_token_status_moment_log"):
        assert len(scans(plan, table)) == 1


def test_durations_of_a_user_or_of_a_day_are_found_by_index(
    connection: psycopg.Connection[TupleRow],
) -> None:
    for asked, indexes in (
        ("user_id = 'user7'", {"ix_upload_token_user"}),
        (
            "partner_id = 101 and created_at >= '2026-09-20' and created_at < '2026-09-20 03:00'",
            {"ix_upload_token_listed", "ix_upload_token_gone_created", WENT_BACK},
        ),
    ):
        plan = nodes(connection, f"select * from upload_status_duration where {asked}")
        assert float(plan[0]["Actual Rows"]) > 3
        by_key = {f"pk_{table}" for table in LARGE}
        assert set(scans(plan, "upload_token")) <= indexes | by_key, asked
        assert set(scans(plan, "upload_token_superseded")) <= by_key, asked
        assert scans(plan, "upload_token_status_moment_log") == [], asked


def test_tokens_are_counted_in_the_order_of_the_table(
    connection: psycopg.Connection[TupleRow],
) -> None:
    """In the order of createdAt each token would be looked up in another part of the table."""
    plan = nodes(connection, "select tokens_listed, tokens_known from sync_freshness")
    assert sorted(scans(plan, "upload_token")) == [
        "ix_upload_token_gone_created",
        "ix_upload_token_valid_from",
    ]
    plan = nodes(connection, "select open_seen_at from sync_freshness")
    assert scans(plan, "upload_token") == []


def test_all_durations_read_each_token_once(connection: psycopg.Connection[TupleRow]) -> None:
    plan = nodes(connection, "select * from upload_status_duration")
    # Those that went back are found by an index of their own.
    assert [each for each in scans(plan, "upload_token") if each != WENT_BACK] == ["Seq Scan"]
    assert scans(plan, "upload_token_superseded") == []
    assert scans(plan, "upload_token_status_moment_log") == []


def test_what_changed_reads_the_versions_before_by_key(
    connection: psycopg.Connection[TupleRow],
) -> None:
    stored = connection.execute("select count(*) from upload_token_superseded").fetchone()
    assert stored is not None
    variables = {"partner_id": "101", "run_before": "117", "run_id": "119"}
    # From some 100,000 tokens on it may seem dearer than to read all versions.
    connection.execute("set enable_nestloop = off")
    for name in ("changed_between.sql", "what_changed_last_night.sql"):
        asked = (sql_directory() / "queries" / name).read_text(encoding="utf-8")
        plan = nodes(connection, with_variables(asked, variables))
        assert float(plan[0]["Actual Rows"]) > 3, name
        assert "Seq Scan" not in scans(plan, "upload_token_superseded"), name
        assert rows_read(plan, "upload_token_superseded") < 0.05 * stored[0], name


def test_how_fresh_an_account_is_reads_few_of_its_runs(database_url: str) -> None:
    """Views of open uploads ask for it once per day or per token."""
    with closing(psycopg.connect(database_url, autocommit=True)) as connection:
        connection.execute("set search_path = kaltura")
        connection.execute(
            "insert into sync_run (partner_id, walk_id, mode, status, started_at, heartbeat_at, "
            "finished_at, published_at, coverage, open_coverage, program_version) "
            "select 101, number, 'full', 'succeeded', at, at, at, at, "
            "case when number % 20 = 0 then int8multirange '{(,)}' else '{[5,)}' end, '{(,)}', '' "
            "from generate_series(1, 2000) as number, "
            "lateral (select timestamptz '2026-03-01' + number * interval '1 hour' as at) as began"
        )
        connection.execute("analyze sync_run")
        plan = nodes(connection, "select open_seen_at from sync_freshness where partner_id = 101")
        assert float(plan[0]["Actual Rows"]) == 1
        assert rows_read(plan, "sync_run") < 50
