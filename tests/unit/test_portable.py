"""The rules that each statement of the program is held to; ``tests.support.portable`` has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from etl.resources import sql_directory
from tests.support.portable import ROW_PLACE, SIBLING, VOLATILE, WALK_ALONE, objection

ROOT = Path(__file__).resolve().parents[2]
REFUSED = [
    (VOLATILE, "UPDATE sync_run SET heartbeat_at=clock_timestamp() WHERE run_id = 1"),
    (VOLATILE, "with one as (select 1) update sync_run set host = 'x' where random() < 0.5"),
    (VOLATILE, "delete from sync_page where requested_at < clock_timestamp() - interval '1 day'"),
    (VOLATILE, "insert into t values (1) on conflict (a) do update set b = nextval('s')"),
    (VOLATILE, "with gone as (update t set a = clock_timestamp() returning a) select a from gone"),
    (SIBLING, "with gone as (delete from t returning *) insert into u select * from gone"),
    (SIBLING, "with new as (insert into t values (1) returning a) select * from new, t"),
    (
        SIBLING,
        "with moved as (insert into old select * from t returning 1), "
        "written as (update t set a = 1 returning 2) select * from moved, written",
    ),
    (ROW_PLACE, "select ctid from upload_token"),
    (ROW_PLACE, "delete from upload_token_staging where ctid = any($1)"),
    (WALK_ALONE, "select count(*) from upload_token_staging where walk_id = 7"),
    (WALK_ALONE, "delete from s where s.walk_id in (1, 2) and s.kind = 'partner_id'"),
    (
        WALK_ALONE,
        "select 1 from sync_run as run join sync_run as first on first.run_id = run.walk_id",
    ),
    (
        WALK_ALONE,
        "select run.partner_id, (select f.started_at from sync_run f where f.run_id = run.walk_id) "
        "from sync_run as run",
    ),
]
ACCEPTED = [
    "select clock_timestamp()",
    "update sync_run set heartbeat_at = statement_timestamp() where run_id = 1",
    "update sync_run set error_message = 'clock_timestamp() of ctid' where run_id = 1",
    "insert into pruning (pruned_at) values (clock_timestamp())",
    "insert into t values (1) on conflict (a) do update set b = excluded.b",
    "with new as (insert into t values (1) returning a) select a, count(*) from new group by a",
    "select a from t where b = 1 for update skip locked",
    "with known as (select ctid_of from t) select * from known",
    "delete from s where partner_id = 1 and walk_id <> 2",
    "select 1 from sync_run as run join sync_run as f "
    "on f.partner_id = run.partner_id and f.run_id = run.walk_id",
    "update sync_run set walk_id = 4, mode = 'full' where run_id = 4",
    "create index on s (partner_id, walk_id) where status = 'running' and walk_id is not null",
]


@pytest.mark.parametrize(("reason", "statement"), REFUSED)
def test_a_statement_that_needs_one_machine_is_refused(reason: str, statement: str) -> None:
    assert objection(statement) == reason


@pytest.mark.parametrize("statement", ACCEPTED)
def test_a_statement_that_any_engine_runs_is_accepted(statement: str) -> None:
    assert objection(statement) is None


@pytest.mark.parametrize("folder", ["checks", "queries", "report", "views", "ops"])
def test_the_files_of_statements_keep_the_rules(folder: str) -> None:
    files = sorted((sql_directory() / folder).glob("*.sql"))
    assert files
    found = {
        path.name: reason
        for path in files
        if (reason := objection(re.sub(r"(?m)^create .* as$", "", path.read_text()))) is not None
    }
    assert found == {}
