"""``migrate`` where other programs use the same database: what it waits for, needs, and says."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic import context

from etl.errors import CredentialsRefused, WarehouseUnavailable
from etl.resources import migrations_directory
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.schema import indexes, migration
from etl.warehouse.schema.revision import (
    HEAD_REVISION,
    migrate,
    open_connection,
    schema_state,
)
from tests.support.job import Job, ended, wait_until
from tests.support.pgbouncer import pgbouncer
from tests.support.roles import Roles, as_role, roles_of
from tests.support.schema import populated, rows, run, upgrade

INVALID = "select indexrelid::regclass::text from pg_index where not indisvalid"


@contextmanager
def snapshot(url: str) -> Iterator[int]:
    """An analyst who has read something and not ended the transaction; the server process."""
    with psycopg.connect(url, application_name="notebook") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select 1")
        yield connection.info.backend_pid


@pytest.fixture
def roles(empty_database_url: str) -> Iterator[Roles]:
    with roles_of(empty_database_url) as made:
        yield made


@pytest.mark.parametrize("before", [None, "0001"])
def test_nobody_is_waited_for_while_there_is_nothing_to_index(
    empty_database_url: str, before: str | None
) -> None:
    if before is not None:
        upgrade(empty_database_url, before)
    with snapshot(empty_database_url):
        assert migrate(empty_database_url) == (before, HEAD_REVISION)
    assert rows(empty_database_url, INVALID) == []


def test_an_index_of_a_table_with_rows_names_the_session_that_it_waits_for(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database_url
    populated(url, "0001")
    monkeypatch.setattr(indexes, "WAIT_SECONDS", 0.1)
    with snapshot(url) as pid, pytest.raises(WarehouseUnavailable) as refused:
        migrate(url)
    error = refused.value
    assert (error.fields["reason"], error.fields["holder_pid"]) == ("lock_timeout", pid)
    assert error.fields["locked"] == "a snapshot"
    for word in ("notebook", str(pid), "idle in transaction", "a snapshot", "migrate again"):
        assert word in error.message
    assert schema_state(url).current == "0001"
    assert rows(url, INVALID) != []
    monkeypatch.undo()
    assert migrate(url) == ("0001", HEAD_REVISION)
    assert rows(url, INVALID) == []


def test_one_connection_is_enough(roles: Roles, empty_database_url: str) -> None:
    owner = roles.create("login")
    run(empty_database_url, f"create schema kaltura authorization {owner}")
    url = as_role(empty_database_url, owner)
    populated(url, "0001")
    # The server ends a session a moment after its client has gone.
    sessions = "select 1 from pg_stat_activity where usename = %s"
    wait_until(lambda: rows(empty_database_url, sessions, owner) == [])
    run(empty_database_url, f"alter role {owner} connection limit 1")
    assert migrate(url) == ("0001", HEAD_REVISION)


@pytest.mark.pgbouncer
@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pool_of_one_is_enough(
    empty_database_url: str, pgbouncer_program: str, private_folder: Path, mode: str
) -> None:
    with pgbouncer(
        pgbouncer_program, private_folder, empty_database_url, mode=mode, connections=1
    ) as url:
        populated(url, "0001")
        assert migrate(url) == ("0001", HEAD_REVISION)


@pytest.mark.parametrize("overtaken", ["at work", "done"])
def test_a_migration_that_is_overtaken_begins_anew(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, overtaken: str
) -> None:
    """Another one has the lock when a revision begins, or has run the revision meanwhile."""
    url = empty_database_url
    populated(url, "0006")
    enter, entered = migration.enter_schema, []

    def enter_late() -> None:
        entered.append(1)
        if len(entered) == 1 and overtaken == "done":
            context.config.attributes[migration.HEADS] = {"0005"}
        with open_connection(url) as another:
            if len(entered) == 1 and overtaken == "at work":
                migration.take_migration_lock(another, "kaltura")
            enter()

    monkeypatch.setattr(migration, "enter_schema", enter_late)
    assert migrate(url) == ("0006", HEAD_REVISION)
    # Each once, the overtaken one once more.  0010 once more, and 0013 three times, for indexes of
    # columns that they add to tables without rows.  0016 twice: after it has built an index apart,
    # and for one of a log without rows.
    later = [
        each for each in (migrations_directory() / "versions").glob("0*.py") if each.name > "0007"
    ]
    assert len(entered) == len(later) + 1 + 1 + 3 + 2


@pytest.mark.campaign
def test_two_at_once_take_turns(empty_database_url: str) -> None:
    """Two processes: Alembic keeps its state in the module that env.py imports."""
    url = empty_database_url
    populated(url, "0001")
    with SimulatorServer(generate_account(1, seed=1)) as service, ThreadPoolExecutor(2) as pool:
        job = Job.of(service, url)
        done = list(pool.map(lambda _: job.call_command("migrate", "--json"), range(2)))
    assert [each.code for each in done] == [0, 0], done
    assert {each.report["to_revision"] for each in done} == {HEAD_REVISION}
    assert rows(url, INVALID) == []


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ((), "may not create schema kaltura in database .*create schema kaltura authorization"),
        (("create schema kaltura",), "grant create, usage on schema kaltura to"),
        (None, "does not own the tables of schema kaltura, which postgres does"),
    ],
)
def test_the_right_that_is_missing_is_named(
    roles: Roles, empty_database_url: str, prepare: tuple[str, ...] | None, said: str
) -> None:
    url = empty_database_url
    if prepare is None:
        upgrade(url, "0001")
        prepare = (
            "grant all on schema kaltura to public",
            "grant select on all tables in schema kaltura to public",
        )
    run(url, *prepare)
    with pytest.raises(CredentialsRefused, match=said) as refused:
        migrate(as_role(url, roles.create()))
    assert (refused.value.exit_code, refused.value.fields["reason"]) == (77, "privilege")


def test_told_to_end_it_ends_with_a_sentence(empty_database_url: str) -> None:
    url = empty_database_url
    populated(url, "0001")
    building = (
        "select 1 from pg_stat_activity where application_name = 'kaltura-etl' "
        "and query like 'CREATE INDEX CONCURRENTLY%%' and wait_event_type = 'Lock' "
        "and datname = current_database()"
    )
    with SimulatorServer(generate_account(1, seed=1)) as service, snapshot(url):
        job = Job.of(service, url)
        process = job.start_command("migrate", "--json")
        wait_until(lambda: rows(url, building) != [])
        process.send_signal(signal.SIGTERM)
        done = ended(process)
    assert (done.code, done.report["error_kind"]) == (143, "interrupted")
    assert "run kaltura-etl migrate again" in done.report["error_message"]
    assert migrate(url) == ("0001", HEAD_REVISION)
