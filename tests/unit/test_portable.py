"""The rules that each statement of the program is held to; ``tests.support.portable`` has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from etl.resources import sql_directory
from tests.support.portable import (
    ROW_PLACE,
    SESSION,
    SIBLING,
    VOLATILE,
    WALK_ALONE,
    objection,
)

ROOT = Path(__file__).resolve().parents[2]
REFUSED = [
    (VOLATILE, "UPDATE sync_run SET heartbeat_at=clock_timestamp() WHERE run_id = 1"),
    (VOLATILE, "with one as (select 1) update sync_run set host = 'x' where random() < 0.5"),
    (VOLATILE, "delete from sync_page where requested_at < clock_timestamp() - interval '1 day'"),
    (VOLATILE, "insert into t values (1) on conflict (a) do update set b = nextval('s')"),
    (VOLATILE, "insert into t values (1) on conflict (a)\n  do update\n  set b = random()"),
    (VOLATILE, "with gone as (update t set a = clock_timestamp() returning a) select a from gone"),
    (VOLATILE, "update t set a = uuidv7()"),
    (VOLATILE, "update t set a = gen_random_uuid ( )"),
    (VOLATILE, "update t set a = public.uuid_generate_v4()"),
    (VOLATILE, "update t set a = one_of_ours(b)"),
    (VOLATILE, "update t set a = b.x from (select pg_catalog.random() as x) as b"),
    (VOLATILE, "-- Why.\nupdate t set a = clock_timestamp()"),
    (VOLATILE, "/* Why. */ delete from t where a < clock_timestamp()"),
    (VOLATILE, "select 1; update t set a = random()"),
    (VOLATILE, "merge into t using s on t.a = s.a when matched then update set b = random()"),
    (SIBLING, "with gone as (delete from t returning *) insert into u select * from gone"),
    (SIBLING, "with new as (insert into t values (1) returning a) select * from new, t"),
    (
        SIBLING,
        "with moved as (insert into old select * from t returning 1), "
        "written as (update t set a = 1 returning 2) select * from moved, written",
    ),
    (ROW_PLACE, "select ctid from upload_token"),
    (ROW_PLACE, 'select "ctid" from upload_token'),
    (ROW_PLACE, "delete from upload_token_staging where ctid = any($1)"),
    (ROW_PLACE, "delete from upload_token_staging where current of rows"),
    (WALK_ALONE, "select count(*) from upload_token_staging where walk_id = 7"),
    (WALK_ALONE, 'select count(*) from "kaltura"."s" where "s"."walk_id"=7'),
    (WALK_ALONE, "delete from s where s.walk_id in (1, 2) and s.kind = 'partner_id'"),
    (WALK_ALONE, "select 1 from s where walk_id is distinct from 7"),
    (WALK_ALONE, "select 1 from s where 7 is\nnot distinct from s.walk_id"),
    (WALK_ALONE, "select 1 from s where walk_id between 7 and 9"),
    (WALK_ALONE, "select 1 from s where walk_id > 7 or 7 > walk_id"),
    (WALK_ALONE, "select 1 from s where walk_id::text = '7'"),
    (WALK_ALONE, "select 1 from s where coalesce(walk_id, run_id) = 7"),
    (WALK_ALONE, "select 1 from s where 7 = coalesce(walk_id, run_id)"),
    (WALK_ALONE, "select 1 from s where (walk_id, kind) = (7, 'missing')"),
    (WALK_ALONE, "select 1 from s where 7 = any(select walk_id from sync_run)"),
    (WALK_ALONE, "select a, walk_id = 7 from s"),
    (WALK_ALONE, "select 1 from s join sync_run using (walk_id)"),
    (WALK_ALONE, "select partner_id from s left join sync_run using (kind, walk_id)"),
    (WALK_ALONE, "select partner_id from s natural left join sync_run"),
    (
        WALK_ALONE,
        "select 1 from sync_run as run join sync_run as first on first.run_id = run.walk_id",
    ),
    (
        WALK_ALONE,
        "select run.partner_id, (select f.started_at from sync_run f where f.run_id = run.walk_id) "
        "from sync_run as run",
    ),
    (
        WALK_ALONE,
        "select 1 from s join sync_run as run on run.run_id = s.walk_id where run.partner_id = 7",
    ),
    (WALK_ALONE, "select 1 from s join t on s.walk_id = t.walk_id where s.partner_id = 7"),
    (WALK_ALONE, "select 1 from k.s join k.t on k.t.walk_id <> k.s.walk_id and s.partner_id = 7"),
    (WALK_ALONE, "delete from s using t where s.walk_id = t.walk_id and t.partner_id = 7"),
    (WALK_ALONE, "copy (select a from s where walk_id = 7) to stdout"),
    (SESSION, "set timezone = 'UTC'"),
    (SESSION, "set session kaltura.time_zone to 'UTC'"),
    (SESSION, "set local a.b = 'c'; set search_path = kaltura"),
    (SESSION, "set role loader"),
    (SESSION, "reset all"),
    (SESSION, "select set_config('timezone', 'UTC', false)"),
    (SESSION, "select set_config('timezone', 'UTC', true), set_config('a.b', 'c', false)"),
    (SESSION, "select pg_advisory_lock(7)"),
    (SESSION, "select pg_try_advisory_lock_shared(7)"),
    (SESSION, "listen a"),
    (SESSION, "prepare a as select 1"),
    (SESSION, "declare c cursor with hold for select 1"),
    (SESSION, "create temporary table t (a int)"),
    (SESSION, "create local temp table t as select 1"),
    (SESSION, "create temp table t (a int) on commit preserve rows"),
    (SESSION, "select * into temp t from s"),
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
    "select 1 from k.s join k.t on k.s.walk_id = k.t.walk_id and k.s.partner_id = k.t.partner_id",
    "copy s (walk_id) from stdin",
    "create temporary table if not exists pg_temp.t (a int) on commit delete rows",
    "create temp table t on commit drop as select 1",
    "update sync_run set walk_id = 4, mode = 'full' where run_id = 4",
    "create index on s (partner_id, walk_id) where status = 'running' and walk_id is not null",
    "update s set walk_id = coalesce(walk_id, run_id), b = 3 where run_id = 4",
    "update s set a = coalesce(new.a, s.a) from unnest($1) as new (a) where s.b in (1, 2)",
    "select 1 from s join sync_run using (partner_id, walk_id)",
    "select 1 from s where partner_id = 1 and walk_id is distinct from 7",
    "select 1 from s where run_id in (select run_id from sync_run where walk_id is null)",
    "set local a.b = 'c'; set local d = 'e'",
    "set transaction read only",
    "select set_config('timezone', 'UTC', true)",
    "select pg_advisory_xact_lock(7)",
    "alter role anna set kaltura.time_zone = 'UTC'",
    "begin; update t set a = 1; commit",
    "update t set a = 1 where regexp_replace(b, '[0-9]+', '0', 'g') = c",
]


@pytest.mark.parametrize(("reason", "statement"), REFUSED)
def test_a_statement_that_needs_one_machine_is_refused(reason: str, statement: str) -> None:
    assert objection(statement) == reason


@pytest.mark.parametrize("statement", ACCEPTED)
def test_a_statement_that_any_engine_runs_is_accepted(statement: str) -> None:
    assert objection(statement) is None


def test_a_setting_lasts_for_the_transaction_only_if_its_values_say_so() -> None:
    """SQLAlchemy binds them."""
    bound = "SELECT set_config(%(name)s::VARCHAR, %(value)s::VARCHAR, %(local)s::BOOLEAN) AS s"
    values = {"name": "timezone", "value": "UTC", "local": True}
    assert objection(bound, values) is None
    assert objection(bound, values | {"local": False}) == SESSION
    assert objection(bound) == SESSION


def test_limits_of_waiting_may_be_set_where_there_is_no_transaction() -> None:
    """For an index that is built concurrently."""
    bound = "select set_config(%(name)s, '300s', %(local)s)"
    values = {"name": "lock_timeout", "local": False}
    for statement in ("set lock_timeout = '5s'", "reset statement_timeout"):
        assert objection(statement, autocommit=True) is None
        assert objection(statement) == SESSION
    assert objection(bound, values, autocommit=True) is None
    assert objection(bound, values) == SESSION
    assert objection(bound, values | {"name": "timezone"}, autocommit=True) == SESSION


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
