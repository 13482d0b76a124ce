"""A warehouse that moves to one worker of Citus, and all that the program does with it there.

``ETL_TEST_DATABASE_URL=… ./dev test distributed``: a database on the coordinator of a cluster of
Citus 12 or newer, as a role that may create schemas.  Each test has schemas of its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from etl.errors import EtlError, WarehouseUnavailable
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.replay.check import check_archives
from etl.run.plan import SyncOptions
from etl.settings.read import load_settings
from etl.simulator import Churn, SimulatorServer, generate_account
from etl.warehouse import engine
from etl.warehouse.access.privileges import RIGHTS
from etl.warehouse.schema import owner
from etl.warehouse.schema.distribution import distribute
from etl.warehouse.schema.layout import layout
from etl.warehouse.schema.revision import migrate, open_connection
from etl.warehouse.schema.views import view_files
from tests.cli.conftest import Run
from tests.questions.accounts import ACCOUNTS
from tests.questions.expected import EXPECTED
from tests.questions.known_account import load_account
from tests.questions.questions import QUESTIONS
from tests.support.environment import PYTHONPATH
from tests.support.job import Job, ended, held_after, killed_at_exit, wait_until

pytestmark = pytest.mark.citus

TOKENS = 1_200
NEVER_HERE = {"pruning", "upload_token_horizon"}
"""What is empty in the warehouse of the known accounts: nothing of them was pruned."""
GROWING = ("age", "complete_age", "age_seconds", "complete_age_seconds")
"""Columns of ``sync_freshness`` that are different each time."""
MOMENTS = ("2026-03-01 12:00+00", "2026-03-24 05:00+00", "2027-01-01 00:00+00")
CALLS = {
    "kaltura_time_zone": ["select kaltura_time_zone() from upload_token"],
    "sync_run_is_complete": ["select run_id, sync_run_is_complete(coverage, holes) from sync_run"],
    "sync_run_state": ["select run_id, sync_run_state(status, heartbeat_at) from sync_run"],
    "sync_tolerated_holes": ["select run_id, sync_tolerated_holes(holes, true) from sync_run"],
    "upload_size_bucket": ["select upload_size_bucket(status) from upload_token"],
    "upload_token_status_name": ["select upload_token_status_name(status) from upload_token"],
    **{
        name: [
            query.format(call=f"{name}('{moment}')")
            for moment in MOMENTS
            for query in (
                "select * from {call}",
                "select known.*, now.outcome from {call} as known "
                "join upload_outcome as now using (partner_id, token_id)",
            )
        ]
        for name in ("upload_token_as_of", "upload_token_happened_by")
    },
}
"""How each function is called; the last two also in a join."""


def queries() -> dict[str, str]:
    """What analysts can read, all of it: each of their tables, each view, each function."""
    views = {view.name: view for view in view_files()}
    assert CALLS.keys() == {name for name, view in views.items() if view.is_function}
    analyst = RIGHTS["analyst"]
    columns = dict.fromkeys(analyst.tables, ("*",)) | dict(analyst.columns)
    for name, view in views.items():
        if not view.is_function:
            columns[name] = tuple(each for each in view.columns if each not in GROWING)
    read = {name: f"select {', '.join(each)} from {name}" for name, each in columns.items()}  # noqa: S608
    return read | {query: query for calls in CALLS.values() for query in calls}


class Warehouse:
    """One schema of the cluster, and a job that fills it."""

    def __init__(self, url: str, server: SimulatorServer, archive: Path) -> None:
        self.url = url
        self.schema = f"etl_test_{secrets.token_hex(5)}"
        self.archive = archive
        self.job = Job.of(server, url, ETL_SCHEMA=self.schema, ETL_ARCHIVE=str(archive))

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            schema = sql.Identifier(self.schema)
            connection.execute(sql.SQL("set search_path = {}").format(schema))
            yield connection

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows, where the workers are told what the session has set."""
        with self.connected() as connection, connection.transaction():
            connection.execute("set local citus.propagate_set_commands = 'local'")
            connection.execute("set local kaltura.time_zone = 'Asia/Tokyo'")
            connection.execute("set local timezone = 'UTC'")
            return connection.execute(statement.encode()).fetchall()

    def seen(self) -> dict[str, list[str]]:
        """What analysts see: all rows, as texts."""
        return {
            name: sorted(
                row[0]
                for row in self.query(f"select cast(row as text) from ({query}) as row")  # noqa: S608
            )
            for name, query in queries().items()
        }

    def its_worker(self) -> str:
        """The URL of the database on the worker that has the schema."""
        ((host, port),) = self.query(
            "select distinct nodename, nodeport from citus_shards "
            "where table_name = 'sync_run'::regclass"
        )
        worker = make_url(self.url).set(host=host, port=port)
        return worker.render_as_string(hide_password=False)

    @contextmanager
    def connected_to_its_worker(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A session that no coordinator knows of, in a transaction."""
        with (
            closing(psycopg.connect(self.its_worker())) as connection,
            connection.transaction(),
        ):
            connection.execute("set local application_name = 'in the way'")
            yield connection

    def dump_and_restore(self, file: Path) -> None:
        """As docs/scale.md says."""
        for command in (
            ["pg_dump", f"--dbname={self.url}", f"--schema={self.schema}", f"--file={file}"],
            ["psql", "-qd", self.url, "-c", f"drop schema {self.schema} cascade"],
            ["psql", "-qd", self.url, "-v", "ON_ERROR_STOP=1", "-f", str(file)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    def drop(self) -> None:
        with self.connected() as connection:
            schema = sql.Identifier(self.schema)
            connection.execute(sql.SQL("drop schema if exists {} cascade").format(schema))


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    churn = Churn(delete=4, insert=4, change=12, seed=5)
    account = generate_account(TOKENS, seed=5, kind="odd")
    with SimulatorServer(account, churn=churn) as running:
        yield running


@pytest.fixture
def make_warehouse(server: SimulatorServer, tmp_path: Path) -> Iterator[Callable[[], Warehouse]]:
    made: list[Warehouse] = []

    def make() -> Warehouse:
        url = os.environ["ETL_TEST_DATABASE_URL"]
        made.append(Warehouse(url, server, tmp_path / f"archive{len(made)}"))
        migrate(url, made[-1].schema)
        return made[-1]

    yield make
    for each in made:
        each.drop()


def call(warehouse: Warehouse, run: Run, *arguments: str) -> str:
    ended = run(*arguments, **warehouse.job.environment())
    assert ended.returncode == 0, (arguments, ended.stderr)
    return ended.stdout


def test_what_is_told_of_known_accounts_is_the_same_after_the_move(
    make_warehouse: Callable[[], Warehouse],
) -> None:
    """All that analysts can read, and the example queries, whose answers are known."""
    warehouse = make_warehouse()
    for lived in ACCOUNTS.values():
        load_account(warehouse.url, lived, warehouse.schema)
    before = warehouse.seen()
    assert {name for name, rows in before.items() if not rows} == NEVER_HERE

    assert distribute(warehouse.url, warehouse.schema)
    assert warehouse.seen() == before
    for file, question in QUESTIONS.items():
        with warehouse.connected() as connection, connection.transaction():
            connection.execute("set local citus.propagate_set_commands = 'local'")
            zone = sql.Literal(question.time_zone or "UTC")
            connection.execute(sql.SQL("set local kaltura.time_zone = {}").format(zone))
            connection.execute("set local timezone = 'UTC'")
            assert question.ask(connection) == EXPECTED[file](), file


def test_a_warehouse_moves_with_its_content_and_lives_on(
    make_warehouse: Callable[[], Warehouse], run: Run, tmp_path: Path
) -> None:
    warehouse = make_warehouse()
    job = warehouse.job
    for _ in range(3):
        job.run()
    before = warehouse.seen()
    assert len(before["upload_token_history"]) > TOKENS + 40

    assert distribute(warehouse.url, warehouse.schema)
    assert warehouse.seen() == before
    assert not distribute(warehouse.url, warehouse.schema)
    (places,) = warehouse.query(
        "select count(distinct part.colocationid) from pg_dist_partition as part "
        "join pg_class as class on class.oid = part.logicalrelid "
        "where class.relnamespace = to_regnamespace(current_schema())"
    )
    assert places == (1,)
    assert "on one worker of Citus" in call(warehouse, run, "check")

    # Every kind of run; what the views said of the past stays.
    job.run()
    job.run(options=SyncOptions(compare="full"))
    call(warehouse, run, "sync", "--mode", "incremental")
    call(warehouse, run, "backfill", "--from", "2026-01-01")
    assert set(before["upload_token_status_history"]) <= set(
        warehouse.seen()["upload_token_status_history"]
    )
    call(warehouse, run, "verify")
    call(warehouse, run, "status")
    call(warehouse, run, "report", "--output", str(tmp_path / "report.html"))
    call(warehouse, run, "prune", "--apply", "--versions-days", "1", "--pages-days", "1")
    settings = load_settings(environment=job.environment()).checked()
    found = check_archives(settings, [str(warehouse.archive)], stop=Stop(), progress=NoProgress())
    assert found.equal, (found.notes, found.tables)
    assert found.runs == 7


def test_an_erased_name_is_left_nowhere_and_layouts_that_would_keep_it_are_refused(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    warehouse = make_warehouse()
    warehouse.job.run()
    (busiest,) = warehouse.query(
        "select user_id from upload_token where user_id <> '' "
        "group by user_id order by count(*) desc, user_id limit 1"
    )
    user = f"--user-id={busiest[0]}"

    with warehouse.connected() as connection:
        connection.execute("select citus_schema_distribute(%s::regnamespace)", [warehouse.schema])
    refused = run("erase", user, "--apply", **warehouse.job.environment())
    assert refused.returncode == 78
    assert "still has the old copies" in refused.stderr
    checked = run("check", **warehouse.job.environment())
    assert checked.returncode == 78
    assert "still has the old copies" in checked.stdout

    call(warehouse, run, "migrate", "--distributed")
    (on_disk,) = warehouse.query(
        "select sum(pg_relation_size(oid)) from pg_class where relkind = 'r' "
        "and relnamespace = to_regnamespace(current_schema())"
    )
    assert on_disk == (0,)
    call(warehouse, run, "erase", user, "--apply")
    for name in ("upload_token", "upload_token_superseded", "rejected_row"):
        with warehouse.connected() as connection:
            left = connection.execute(
                sql.SQL("select count(*) from {} as row where strpos(row::text, %s) > 0").format(
                    sql.Identifier(name)
                ),
                busiest,
            ).fetchone()
        assert left == (0,), name
    call(warehouse, run, "erase", "--account", "--apply")
    assert warehouse.query("select count(*) from upload_token_history") == [(0,)]


def test_tables_distributed_one_by_one_are_refused_and_the_way_out_that_is_told_works(
    make_warehouse: Callable[[], Warehouse], run: Run, tmp_path: Path
) -> None:
    """Also the way back to plain tables, which docs/scale.md has."""
    warehouse = make_warehouse()
    warehouse.job.run()
    before = warehouse.seen()
    with warehouse.connected() as connection:
        connection.execute("select create_distributed_table('upload_token', 'partner_id')")
        # It has an identity column, so undistribute_table() refuses it.
        connection.execute("select create_reference_table('sync_run')")
    for arguments in (
        ("erase", "--token-id", "0_x"),
        ("migrate", "--distributed"),
        ("check",),
    ):
        refused = run(*arguments, **warehouse.job.environment())
        assert refused.returncode == 78, refused.stderr
        said = refused.stdout + refused.stderr
        assert "upload_token is distributed by a column" in said
        assert "pg_dump" in said
        assert "migrate --repair --distributed" in said

    warehouse.dump_and_restore(tmp_path / "dump.sql")
    call(warehouse, run, "migrate", "--repair", "--distributed")
    assert "on one worker of Citus" in call(warehouse, run, "check")
    assert warehouse.seen() == before

    warehouse.dump_and_restore(tmp_path / "dump.sql")
    call(warehouse, run, "migrate", "--repair")
    assert "on one worker" not in call(warehouse, run, "check")
    assert warehouse.seen() == before


def test_of_two_starts_the_second_ends_at_once(
    make_warehouse: Callable[[], Warehouse], server: SimulatorServer
) -> None:
    warehouse = make_warehouse()
    distribute(warehouse.url, warehouse.schema)
    job = warehouse.job
    is_held = "select count(*) from sync_run where status = 'running' and walk_id is not null"
    with killed_at_exit(job.start()) as first:
        with held_after(server, 1):
            wait_until(lambda: warehouse.query(is_held) == [(1,)])
            first.send_signal(signal.SIGSTOP)  # it waits for a page, in no transaction
        second = job.call()
        first.send_signal(signal.SIGCONT)
        assert second.code == 75, second.err
        assert "has been running on" in second.err
        assert ended(first).code == 0
    assert warehouse.query("select status from sync_run order by run_id") == [
        ("succeeded",),
        ("skipped",),
    ]


def test_nothing_is_written_through_a_worker(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    """It counts from 2^48 on, so all later runs of the coordinator would come before its own."""
    warehouse = make_warehouse()
    distribute(warehouse.url, warehouse.schema)
    warehouse.job.run()
    before = warehouse.seen()
    environment = warehouse.job.environment(DATABASE_URL=warehouse.its_worker())
    for arguments in (
        ("sync",),
        ("sync", "--mode", "incremental"),
        ("backfill", "--from", "2026-01-01"),
        ("replay", str(warehouse.archive)),
        ("prune", "--apply"),
        ("erase", "--token-id", "0_x", "--apply"),
        ("erase", "--account", "--apply"),
        ("check",),
    ):
        refused = run(*arguments, **environment)
        assert refused.returncode == 78, (arguments, refused.stdout, refused.stderr)
        assert "This server is a worker of Citus" in refused.stdout + refused.stderr, arguments
    for arguments in (("verify",), ("status",), ("prune",)):
        read = run(*arguments, **environment)
        assert read.returncode == 0, (arguments, read.stderr)
    assert warehouse.seen() == before


def test_who_is_in_the_way_is_named_and_what_citus_cannot_do_is_said(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    warehouse = make_warehouse()
    distribute(warehouse.url, warehouse.schema)
    environment = warehouse.job.environment()
    role = sql.Identifier(warehouse.schema)
    with warehouse.connected() as connection:
        connection.execute(sql.SQL("create role {}").format(role))
        limited = run(
            "grant", "--analyst", warehouse.schema, "--accounts", "102", "--apply", **environment
        )
        connection.execute(sql.SQL("drop role {}").format(role))
    assert limited.returncode == 78, limited.stderr
    assert "as many schemas" in limited.stderr

    with warehouse.connected() as connection, connection.transaction():
        connection.execute("set local application_name = 'in the way'")
        connection.execute("select 1 from sync_run for share")
        waited = run("migrate", "--distributed", **environment)
    assert waited.returncode == 74, waited.stderr
    assert "in the way of role" in waited.stderr


def test_who_is_in_the_way_on_a_worker_is_named(
    make_warehouse: Callable[[], Warehouse], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was opened there, so that the coordinator does not know it."""
    warehouse = make_warehouse()
    distribute(warehouse.url, warehouse.schema)
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(owner, "LOCK_TIMEOUT", "100ms")
    refused: list[EtlError] = []
    with warehouse.connected_to_its_worker() as connection:
        pid = connection.info.backend_pid
        connection.execute(f"select from {warehouse.schema}.upload_token_history".encode())
        with pytest.raises(WarehouseUnavailable) as of_migration:
            distribute(warehouse.url, warehouse.schema)
        refused.append(of_migration.value)
        connection.execute("set local citus.enable_manual_changes_to_shards = on")
        ((shard,),) = warehouse.query(
            "select shard_name from citus_shards where table_name = 'sync_run'::regclass"
        )
        connection.execute(f"lock table {shard} in share mode".encode())
        with pytest.raises(WarehouseUnavailable) as of_run:
            warehouse.job.run()
        refused.append(of_run.value)
    for error in refused:
        assert error.fields["holder_pid"] == pid
        assert error.fields["holder_application"] == "in the way"
        assert f"process {pid} of worker {error.fields['holder_worker']}" in error.message
    assert f"holds {warehouse.schema}.sync_run (ShareLock)" in of_run.value.message


def test_an_analyst_reads_the_accounts_whose_schemas_he_was_granted(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    """What ``grant --accounts`` is for on one server, here by one schema per account."""
    own, other = make_warehouse(), make_warehouse()
    role = own.schema
    for warehouse in (own, other):
        distribute(warehouse.url, warehouse.schema)
        warehouse.job.run()
    tables = ("upload_token", "sync_run", "upload_token_history", "sync_freshness")
    with own.connected() as connection:
        connection.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        call(own, run, "grant", "--analyst", role, "--apply")
        for connected in (
            own.connected,
            own.connected_to_its_worker,
            other.connected_to_its_worker,
        ):
            with connected() as connection:
                connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
                for name in tables:
                    rows = f"select count(*) from {own.schema}.{name}"  # noqa: S608
                    if connected == own.connected:
                        assert connection.execute(rows.encode()).fetchone() != (0,), name
                    with (
                        pytest.raises(psycopg.errors.InsufficientPrivilege),
                        connection.transaction(),
                    ):
                        connection.execute(rows.replace(own.schema, other.schema).encode())
    finally:
        with own.connected() as connection:
            connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def test_a_moved_schema_of_an_older_revision_is_left_as_it_is(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    warehouse = make_warehouse()
    call(warehouse, run, "migrate", "--distributed")
    with warehouse.connected() as connection:
        connection.execute("update alembic_version set version_num = '0012'")
        for arguments in (("migrate",), ("migrate", "--distributed")):
            refused = run(*arguments, **warehouse.job.environment())
            assert refused.returncode == 78, refused.stderr
            assert "at revision 0012. Citus cannot run the updates" in refused.stderr
        left = connection.execute("select version_num from alembic_version").fetchall()
    assert len(left) == 1
    assert "0012" in str(left)


def test_a_schema_with_limits_to_accounts_is_moved_when_they_are_lifted(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    warehouse = make_warehouse()
    environment = warehouse.job.environment()
    role = sql.Identifier(warehouse.schema)
    analyst = ("grant", "--analyst", warehouse.schema, "--apply")
    with warehouse.connected() as connection:
        connection.execute(sql.SQL("create role {}").format(role))
        try:
            call(warehouse, run, *analyst, "--accounts", "102")
            refused = run("migrate", "--distributed", **environment)
            call(warehouse, run, *analyst, "--accounts", "all")
            call(warehouse, run, "migrate", "--distributed")
        finally:
            connection.execute(sql.SQL("drop owned by {}").format(role))
            connection.execute(sql.SQL("drop role {}").format(role))
    warehouse.job.run()
    assert refused.returncode == 78, refused.stderr
    assert f"limited to accounts in schema {warehouse.schema}" in refused.stderr
    assert warehouse.schema in refused.stderr.partition("cannot do: ")[2]


KILLED = """
import os, signal
import sqlalchemy as sa
from etl.warehouse.schema import distribution
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
def die_at_commit(*arguments):
    sa.Connection.commit = die
distribution.{name} = {what}
from etl.cli import main
main()
"""
STEPS = {
    "before it is moved": ("require_coordinator", "die"),
    "moved, not committed": ("require_owner", "die_at_commit"),
    "moved": ("_remove_local_copies", "die"),
    "without local copies": ("_install", "die"),
    "views, not committed": ("_install", "die_at_commit"),
}
"""Where ``migrate --distributed`` is killed: the function that is replaced, and by what."""


def test_migrate_distributed_is_killed_in_each_step_and_finished(
    make_warehouse: Callable[[], Warehouse], run: Run
) -> None:
    warehouse = make_warehouse()
    warehouse.job.run()
    before = warehouse.seen()
    told = {}
    for step, (name, what) in STEPS.items():
        killed = subprocess.run(
            [sys.executable, "-c", KILLED.format(name=name, what=what), "migrate", "--distributed"],
            env={"PYTHONPATH": PYTHONPATH, **warehouse.job.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, (step, killed.stderr)
        with open_connection(warehouse.url) as connection:
            found = layout(connection, warehouse.schema)
        told[step] = found.is_sharded, found.problem is None
    assert told == {
        "before it is moved": (False, True),
        "moved, not committed": (False, True),
        "moved": (True, False),
        "without local copies": (True, True),
        "views, not committed": (True, True),
    }
    call(warehouse, run, "migrate", "--distributed")
    assert warehouse.seen() == before
    call(warehouse, run, "sync")
    call(warehouse, run, "verify")


def test_a_killed_run_is_taken_over_and_resumed(
    make_warehouse: Callable[[], Warehouse], server: SimulatorServer
) -> None:
    warehouse = make_warehouse()
    distribute(warehouse.url, warehouse.schema)
    server.service.tokens.page_cap = 25
    has_pages = "select count(*) from sync_run where pages > 0"
    with killed_at_exit(warehouse.job.start()) as killed, held_after(server, 30):
        wait_until(lambda: warehouse.query(has_pages) == [(1,)], 60)
        killed.kill()
        killed.wait(60)
    ended_after = warehouse.job.call()
    assert ended_after.code == 0, ended_after.err
    assert ended_after.report["resumed_from"] == 1
