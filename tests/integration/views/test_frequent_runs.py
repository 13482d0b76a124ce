"""With runs every five minutes, what is asked of a day or of a run joins few of them."""

# ruff: noqa: S608 - the statements are constants of this file

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import TupleRow

from etl.demo import with_variables
from etl.resources import sql_directory
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.access.grants import grant
from etl.warehouse.privacy.prune import prune_old_pages
from etl.warehouse.read.metrics import warehouse_state
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema.database import open_database
from tests.support.job import Job
from tests.support.plans import nodes_of, rows_read, work_of

DAYS = 20
RUNS = DAYS * 288
LAST_DAY = datetime.now(UTC).date() - timedelta(days=1)
TOLD = """
insert into upload_token_status_count_log (
    partner_id, run_id, quarter_hour, status, status_code, tokens, unseen_tokens
)
select 101, 1, cast(%(day)s as date) - 15, 'CLOSED', 3, 7, 0
"""
LEDGER = """
insert into sync_run (
    run_id, partner_id, walk_id, mode, status, started_at, heartbeat_at, finished_at, published_at,
    coverage, open_coverage, unreadable, holes, error_kind
)
overriding system value
select
    number, 101, number, case when full_one then 'full' else 'incremental' end,
    case when failed then 'failed' else 'succeeded' end,
    at, at, at, case when not failed then at end,
    case
        when failed then '{}' when full_one then '{(,)}'
        else int8multirange(int8range(extract(epoch from at)::bigint, null))
    end,
    case when failed or full_one then '{}' when partial then '{(,5),[6,)}' else '{(,)}' end
        ::int8multirange,
    partial::int,
    case when partial then '[{"span": "[5,6)", "reason": "unreadable", "open_only": true}]'
    else '[]' end::jsonb,
    case when failed then 'service_unavailable' end
from
    generate_series(1, %(runs)s) as number,
    lateral (
        select
            number %% 288 = 20 as full_one,
            number %% 97 = 0 as failed,
            number %% 97 = 1 as partial,
            (cast(%(day)s as date) + 1) at time zone 'UTC'
                - (%(runs)s + 1 - number) * interval '5 minutes' as at
    ) as run
"""
VARIABLES = {
    "partner_id": "101",
    "day": f"{LAST_DAY - timedelta(days=3)}",
    "run_id": f"{RUNS - 500}",
    "since": f"{LAST_DAY - timedelta(days=7)}",
}


def query(name: str) -> str:
    text = (sql_directory() / "queries" / name).read_text(encoding="utf-8")
    return with_variables(text, VARIABLES)


NIGHTS = (sql_directory() / "report" / "nights.sql").read_text(encoding="utf-8")
DAILY_STATUS = f"select * from upload_token_daily_status where day = '{VARIABLES['day']}'"
NIGHT = f"select * from sync_night where day = '{VARIABLES['day']}'"
ASKED = {
    # What is asked: the work that its plan may do, in rows of the ledger.  All are read once to
    # find the accounts, in an index, and once more for what no index finds: failures.
    DAILY_STATUS: 1.5,
    NIGHT: 2.5,
    query("stuck_on_day.sql"): 0.02,
    query("stuck_at_run.sql"): 0.02,
    query("troubled_runs.sql"): 3,
    # The failures again, and what the runs of half of the days have published, twice.
    NIGHTS % {"partner_id": 101, "time_zone": "'UTC'", "rows": 10}: 5,
}


def write_ledger(url: str, runs: int) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as opened:
        opened.execute("set search_path = kaltura")
        opened.execute(LEDGER.encode(), {"runs": runs, "day": LAST_DAY})
        opened.execute("select setval('sync_run_run_id_seq', %s)", [runs])
        opened.execute("vacuum analyze sync_run")


@pytest.fixture
def ledger_url(database_url: str) -> str:
    write_ledger(database_url, RUNS)
    return database_url


@pytest.fixture
def connection(ledger_url: str) -> Iterator[psycopg.Connection[TupleRow]]:
    """Of an analyst who is limited to the account: row-level security holds conditions back."""
    with closing(psycopg.connect(ledger_url, autocommit=True)) as opened:
        opened.execute("set search_path = kaltura")
        opened.execute(TOLD.encode(), {"day": LAST_DAY})
        role = f"analyst_{opened.info.dbname}"
        opened.execute(f"create role {role} nologin".encode())
        grant(ledger_url, "kaltura", {"analyst": role}, accounts=[101], apply=True)
        opened.execute(f"set role {role}".encode())
        yield opened
        opened.execute(f"reset role; drop owned by {role}; drop role {role}".encode())


def test_few_of_the_runs_are_joined_and_put_in_order(
    connection: psycopg.Connection[TupleRow],
) -> None:
    found = {}
    for asked in ASKED:
        row = connection.execute(f"explain (analyze, format json) {asked}".encode()).fetchone()
        assert row is not None
        found[asked] = work_of(row[0][0]["Plan"]) / RUNS

    assert {asked: rows for asked, rows in found.items() if rows > ASKED[asked]} == {}
    night = connection.execute(NIGHT.encode()).fetchall()
    assert [row[2:4] for row in night] == [("complete", 288)]
    (counted,) = connection.execute(DAILY_STATUS.encode()).fetchall()
    assert (counted[4], counted[8]) == (7, 0)


def test_a_run_does_not_look_for_pages_in_runs_without_any(ledger_url: str) -> None:
    """Each run prunes, and most earlier runs have been pruned."""
    explained = []

    def explain(_: object, cursor: Any, statement: str, parameters: Any, *__: object) -> None:
        if "sync_page" in statement and "LIMIT" in statement:
            with cursor.connection.cursor() as own:
                own.execute(f"explain (analyze, format json) {statement}", parameters)
                explained.append(own.fetchone()[0][0]["Plan"])

    with open_database(ledger_url, "kaltura") as database, database.engine.begin() as connection:
        connection.execute(
            sa.insert(database.tables.sync_page).values(
                **{"run_id": RUNS - 500, "seq": 1, "page_index": 1, "page_size": 1, "rows": 0},
                **dict.fromkeys(("requested_at", "received_at"), sa.func.now()),
                filter="{}",
                body_sha256=bytes(32),
            )
        )
    with open_database(ledger_url, "kaltura") as database:
        sa.event.listen(database.engine, "before_cursor_execute", explain)
        assert prune_old_pages(database, keep_pages_days=1) == 1

    (plan,) = explained
    assert work_of(plan) / RUNS < 0.2


READ_WHOLE = (
    # What may read all runs once: how many have published (in an index) decides which pages are
    # checked, and the metrics tell of modes in which hardly any run is complete.
    "SELECT count(*) AS count_1 FROM kaltura.sync_run",
    "SELECT coalesce(kaltura.sync_run.overrides ->>",
    # To find the accounts.
    "FROM kaltura.sync_night",
)


def test_a_run_and_status_look_at_few_runs(database_url: str) -> None:
    """However long the ledger is: what is at work, and what came last."""
    runs = 5 * RUNS
    write_ledger(database_url, runs)
    read: Counter[str] = Counter()

    def explain(_: object, cursor: Any, statement: str, parameters: Any, *__: object) -> None:
        text = " ".join(statement.split())
        if "sync_run" not in text and "sync_night" not in text:
            return
        with cursor.connection.cursor() as own:
            own.execute("savepoint explained")
            own.execute(f"explain (analyze, format json) {statement}", parameters)
            nodes = nodes_of(own.fetchone()[0][0]["Plan"])
            own.execute("rollback to savepoint explained")
        read[text] = max(read[text], round(rows_read(nodes, "sync_run")))

    with SimulatorServer(generate_account(30, seed=1, partner_id=101)) as server:
        job = Job.of(server, database_url)
        job.run()
        sa.event.listen(sa.Engine, "before_cursor_execute", explain)
        try:
            job.run(options=SyncOptions(mode="incremental"))
            (account,) = status_summary(database_url, "kaltura", 101)["accounts"]
            warehouse_state(database_url, "kaltura", 101)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", explain)

    assert (account["last_run_status"], account["running"]) == ("succeeded", False)
    many = {text: rows for text, rows in read.items() if rows > runs * 0.02}
    assert {text: rows for text, rows in many.items() if not _may_read_whole(text)} == {}
    assert all(rows < 1.2 * runs for rows in many.values())
    assert len(many) == len(READ_WHOLE)


def _may_read_whole(statement: str) -> bool:
    return any(words in statement for words in READ_WHOLE)
