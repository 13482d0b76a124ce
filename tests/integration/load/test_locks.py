"""Other people's locks: told as what they are, by whom they are held and on what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from etl.errors import EtlError, LeaseHeld, WarehouseUnavailable
from etl.warehouse import engine
from etl.warehouse.schema.revision import migrate
from tests.support.nights import MakeNights, make_token, page_of
from tests.support.schema import run

TOKENS = [make_token("a")]


@contextmanager
def held(url: str, statement: str, application: str = "nightly vacuum") -> Iterator[int]:
    """Another session in the middle of a transaction; its server process."""
    with psycopg.connect(url, application_name=application) as connection:
        connection.execute(statement.encode())
        yield connection.info.backend_pid


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are waited for as short as the tests allow."""
    monkeypatch.setattr(engine, "LOCK_SECONDS", 0.05)


def assert_named(error: EtlError, pid: int, locked: str, **fields: Any) -> None:
    told = {"holder_pid": pid, "holder_application": "nightly vacuum", "locked": locked}
    assert {name: error.fields[name] for name in [*told, *fields]} == told | fields
    assert error.fields["holder_doing"] == "idle in transaction"
    for word in (str(pid), "nightly vacuum", "idle in transaction", locked):
        assert word in error.message
    assert (error.exit_code, error.fields["reason"]) == (74, "lock_timeout")


@pytest.mark.parametrize("mode", ["access exclusive", "exclusive", "share"])
@pytest.mark.parametrize("table", ["sync_run", "upload_token_staging"])
def test_a_locked_table_is_no_other_run(
    make_nights: MakeNights, database_url: str, table: str, mode: str
) -> None:
    nights = make_nights()
    with (
        held(database_url, f"lock table kaltura.{table} in {mode} mode") as pid,
        pytest.raises(WarehouseUnavailable) as refused,
    ):
        nights.open()
    mode_name = "".join(word.capitalize() for word in [*mode.split(), "lock"])
    assert_named(refused.value, pid, f"kaltura.{table}", mode=mode_name, whole_table=True)
    nights.open()


def test_a_table_locked_in_the_middle_of_a_run(make_nights: MakeNights, database_url: str) -> None:
    nights = make_nights()
    nights.night(TOKENS)
    started = nights.open()
    statement = "lock table kaltura.upload_token in access exclusive mode"
    with held(database_url, statement) as pid, pytest.raises(WarehouseUnavailable) as refused:
        nights.stage(started, page_of(TOKENS, from_start=True, to_end=True))
    assert_named(refused.value, pid, "kaltura.upload_token")


def test_locked_rows_name_a_session_that_has_changed_some(
    make_nights: MakeNights, database_url: str
) -> None:
    nights = make_nights()
    first = nights.open()
    statement = "update kaltura.sync_run set host = 'x'"
    with held(database_url, statement) as pid, pytest.raises(WarehouseUnavailable) as refused:
        nights.stage(first, page_of(TOKENS, from_start=True, to_end=True))
    assert_named(refused.value, pid, "kaltura.sync_run", whole_table=False)


@pytest.mark.parametrize("application", ["kaltura-etl", "nightly vacuum"])
def test_a_lease_that_is_being_taken_is_another_run(
    make_nights: MakeNights, database_url: str, application: str
) -> None:
    nights = make_nights()
    statement = (
        "insert into kaltura.sync_run (partner_id, walk_id, mode, status) "
        "values (102, 1, 'full', 'running')"
    )
    ours = application == "kaltura-etl"
    with (
        held(database_url, statement, application) as pid,
        pytest.raises(LeaseHeld if ours else WarehouseUnavailable) as refused,
    ):
        nights.open()
    if not ours:
        assert_named(refused.value, pid, "kaltura.sync_run", whole_table=False)


def test_an_advisory_lock_of_another_is_named(make_nights: MakeNights, database_url: str) -> None:
    nights = make_nights()
    started = nights.open()
    nights.stage(started, page_of(TOKENS, from_start=True, to_end=True))
    statement = "select pg_advisory_xact_lock(hashtextextended('kaltura-etl kaltura 102', 0))"
    with (
        held(database_url, "select pg_advisory_xact_lock(7)", "another program"),
        held(database_url, statement) as pid,
        pytest.raises(WarehouseUnavailable) as refused,
    ):
        nights.publish(started)
    assert_named(refused.value, pid, "an advisory lock")


def test_what_others_hold_elsewhere_is_not_blamed(
    make_nights: MakeNights, database_url: str
) -> None:
    """Another schema of the program and another advisory lock, both held more strongly."""
    nights = make_nights()
    run(database_url, "create schema other", "create table other.sync_run ()")
    elsewhere = (
        "lock table other.sync_run in access exclusive mode; select pg_advisory_xact_lock(7)"
    )
    statement = "lock table kaltura.sync_run in share mode"
    with (
        held(database_url, elsewhere, "another warehouse"),
        held(database_url, statement) as pid,
        pytest.raises(WarehouseUnavailable) as refused,
    ):
        nights.open()
    assert_named(refused.value, pid, "kaltura.sync_run")


def test_a_migration_names_the_reader_in_its_way(empty_database_url: str) -> None:
    url = empty_database_url
    migrate(url)
    run(
        url,
        "update kaltura.alembic_version set version_num = '0005'",
        "alter table kaltura.sync_run drop column pages_pruned, drop column rejected_pruned, "
        "drop column unobserved, drop column process",
        "create function public.soon() returns event_trigger language plpgsql as "
        "$$ begin set local lock_timeout = '50ms'; end $$",
        "create event trigger soon on ddl_command_start execute function public.soon()",
    )
    statement = "select 1 from kaltura.sync_run"
    with held(url, statement) as pid, pytest.raises(WarehouseUnavailable) as refused:
        migrate(url)
    assert_named(refused.value, pid, "kaltura.sync_run")
