"""What the roles are for: a loader's nights, an analyst's questions, an auditor's checks."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from psycopg import sql

from etl.errors import CredentialsRefused, DataRefused, EtlError
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.access.privileges import RIGHTS, TABLES
from etl.warehouse.ledger.ending import fail_run
from etl.warehouse.ledger.lease import open_run, restart_walk
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema.database import open_database
from tests.support.job import Job, listed
from tests.support.model import Model, assert_same
from tests.support.nights import MakeNights, make_token
from tests.support.roles import Roles

pytestmark = pytest.mark.postgres15

SCHEMA = "kaltura"


def test_a_life_of_nights_as_the_loader(granted: Roles) -> None:
    """All kinds of versions, rejected rows, a token not observed, dry runs; then verified."""
    account = generate_account(150, seed=8)
    rng = random.Random(8)
    seen: Counter[str] = Counter()
    with SimulatorServer(account, seed=8, shuffle_ties=True, page_cap=50) as server:
        job, model = Job.of(server, granted.url("loader"), ETL_ABSENCE_GRACE="0s"), Model()
        life = server.life()
        gone: list[str] = []
        for night in range(3):
            dry = job.run(options=SyncOptions(dry_run=True))
            report = job.run()
            seen += model.night(listed(server))
            assert_same(job.current(), model.current())
            assert_same(job.superseded(), model.superseded())
            for name in ("inserted", "changed", "absent", "relisted"):
                assert getattr(dry, name) == getattr(report, name)
            life.advance(24)
            for token_id in gone:
                account.undelete(token_id)
            gone = rng.sample([fields["id"] for fields in listed(server)], 5)
            for token_id in gone:
                account.delete(token_id)
            account.change(listed(server)[night]["id"], {"fileName": f"{night}.mp4"})
        assert all(seen[kind] for kind in ("first_seen", "changed", "absent", "relisted")), seen

        known = listed(server)[0]["id"]
        account.insert_raw("bad", 1_700_000_000, b'{"id":"bad","partnerId":102,"createdAt":"no"}')
        account.change(known, {"status": "often"})
        report = job.run()
        assert report.rejected == 2
        assert job.query("select token_id, reason from kaltura.unobserved_token") == [
            {"token_id": known, "reason": "rejected"}
        ]

    assert [each.name for each in verify(granted.url("loader")) if not each.ok] == []
    assert status_summary(granted.url("loader"), SCHEMA, None)["last_runs"]


@pytest.mark.parametrize("arguments", [["sync"], ["backfill", "--from", "2015-01-01"]])
def test_a_missing_privilege_is_named_before_the_walk(granted: Roles, arguments: list[str]) -> None:
    loader = granted.names["loader"]
    granted.owner(
        sql.SQL("revoke delete on kaltura.sync_page from {}").format(sql.Identifier(loader))
    )
    with SimulatorServer(generate_account(5, seed=8)) as server:
        job = Job.of(server, granted.url("loader"))

        ended = job.call_command(*arguments, "--json")

        assert ended.code == 77, ended.err
        assert ended.report["error_kind"] == "credentials"
        assert ended.report["reason"] == "privilege"
        message = ended.report["error_message"]
        assert "it lacks DELETE on kaltura.sync_page." in message
        assert f"kaltura-etl grant --loader {loader} --apply" in message
        assert list(server.service.log) == []
        assert job.runs() == []


def test_large_batches_as_the_loader(granted: Roles, make_nights: MakeNights) -> None:
    """Those of a large account are compared in a temporary table."""
    nights = make_nights(granted.url("loader"), small=False)
    tokens = [make_token(f"t{number}", 1_700_000_000 + number) for number in range(20)]
    nights.night(tokens)

    counts = nights.night([make_token("t0", file_name="another.mp4"), *tokens[2:]])

    assert (counts.changed, counts.absent, counts.unchanged) == (1, 1, 18)


def test_a_resumed_run_and_a_pruned_one_as_the_loader(granted: Roles) -> None:
    with SimulatorServer(generate_account(1_500, seed=10), page_cap=50) as server:
        job = Job.of(server, granted.url("loader"), ETL_RETRY_ATTEMPTS="1")
        server.faults.schedule("service-forbidden", where="list", at=(25,))
        with pytest.raises(EtlError):
            job.run()
        failed = job.last_run()
        assert failed["pages"] > 0

        assert job.run().resumed_from == failed["run_id"]

        granted.owner("update sync_run set started_at = started_at - interval '91 days'")
        job.run()
        (left,) = job.query(
            "select count(*) from kaltura.sync_page where run_id <= %s", failed["run_id"] + 1
        )
        assert left["count"] == 0


def test_a_walk_that_starts_over_and_a_lease_taken_over_as_the_loader(granted: Roles) -> None:
    options: dict[str, Any] = {"partner_id": 102, "mode": "full", "resume_window": None}
    with open_database(granted.url("loader"), SCHEMA) as database:
        run = open_run(database, **options, lease_seconds=60)
        restart_walk(database, run)
        granted.owner("update sync_run set heartbeat_at = heartbeat_at - interval '1 hour'")
        other = open_run(database, **options, lease_seconds=60)
        fail_run(database, other, DataRefused("x"))
    found = granted.owner("select status from sync_run order by run_id")
    assert [row["status"] for row in found] == ["abandoned", "refused"]


@pytest.fixture
def filled(granted: Roles) -> Roles:
    with SimulatorServer(generate_account(120, seed=11)) as server:
        job = Job.of(server, granted.url("loader"), ETL_ABSENCE_GRACE="0s")
        job.run()
        server.account.delete(listed(server)[3]["id"])
        job.run()
    return granted


def test_the_auditor_verifies_and_sees_the_status(filled: Roles) -> None:
    url = filled.url("auditor")

    assert [each.name for each in verify(url) if not each.ok] == []
    assert status_summary(url, SCHEMA, None)["accounts"]
    for table in TABLES:
        if table != "rejected_row":
            filled.as_kind("auditor", sql.SQL("table {}").format(sql.Identifier(table)))


def test_the_analyst_reads_every_view_and_calls_every_function(filled: Roles) -> None:
    objects = filled.owner(
        "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
        "and relkind in ('v', 'm')"
    )
    views = [row["relname"] for row in objects]
    assert "upload_token_history" in views
    for name in (*views, *RIGHTS["analyst"].tables):
        count = sql.SQL("select count(*) from {}").format(sql.Identifier(name))
        assert filled.as_kind("analyst", count) == filled.owner(count), name
    for function in filled.owner(
        "select proname as name, "
        "array(select format_type(each, null) from unnest(proargtypes) as each) as types "
        "from pg_proc where pronamespace = 'kaltura'::regnamespace and prokind = 'f'"
    ):
        values = {"timestamp with time zone": "clock_timestamp()"}
        call = sql.SQL("select * from {}({})").format(
            sql.Identifier(function["name"]),
            sql.SQL(", ").join(
                sql.SQL(values.get(each, "cast(null as " + each + ")"))
                for each in function["types"]
            ),
        )
        filled.as_kind("analyst", call)


def test_every_view_works_with_the_rights_of_its_caller(roles: Roles) -> None:
    """Else it would show the analyst what its owner may read, and ``grant`` would leave it out."""
    found = roles.owner(
        "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
        "and relkind in ('v', 'm') "
        "and not coalesce(reloptions @> array['security_invoker=true'], false)"
    )
    assert found == []
    found = roles.owner(
        "select proname from pg_proc where pronamespace = 'kaltura'::regnamespace and prosecdef"
    )
    assert found == []


def test_the_rights_on_every_table_are_stated(roles: Roles) -> None:
    """A new table must be added to the list of rights."""
    found = roles.owner(
        "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
        "and relkind not in ('v', 'i', 'S', 't', 'I', 'c')"
    )
    tables = sorted(row["relname"] for row in found)
    assert tables == TABLES


def test_the_program_tells_an_analyst_that_runs_it_what_is_missing(filled: Roles) -> None:
    with SimulatorServer(generate_account(5, seed=1)) as server:
        job = Job.of(server, filled.url("analyst"))
        with pytest.raises(CredentialsRefused, match="with 'kaltura-etl grant'"):
            job.run()
