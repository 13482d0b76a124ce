"""What the loader, the analyst and the auditor must not do: each attempt, refused by Postgres.

The attempts are made on a warehouse that a loader filled; afterwards it must be as it was.
"""

# ruff: noqa: S608 - the statements are made of constants and of names from the catalog
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import psycopg
import pytest
from psycopg import sql

from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.access.privileges import READABLE_COLUMNS, RIGHTS, TABLES
from tests.support.forbidden import (
    ANALYST_ONLY,
    DEFINITIONS,
    LOADER_ONLY,
    READER_ONLY,
    SERVER,
    WRITES,
)
from tests.support.job import Job, listed
from tests.support.roles import (
    NOT_PERMITTED,
    NOT_UPDATABLE,
    Roles,
    connected,
    own_database,
    roles_of,
)

pytestmark = pytest.mark.postgres15

KINDS: Final = ("loader", "analyst", "auditor")
READERS: Final = ("analyst", "auditor")


def _writes(kinds: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Every write on every table that a kind is not granted."""
    return [
        (kind, table, privilege)
        for kind in kinds
        for table in TABLES
        for privilege in WRITES
        if privilege not in RIGHTS[kind].tables.get(table, "")
    ]


@pytest.fixture(scope="module")
def roles(postgres_url: str, template_database: str) -> Iterator[Roles]:
    with (
        own_database(postgres_url, template_database) as url,
        roles_of(url) as made,
        SimulatorServer(generate_account(60, seed=5)) as server,
    ):
        made.grant_all()
        job = Job.of(server, made.url("loader"), ETL_ABSENCE_GRACE="0s")
        job.run()
        for number, fields in enumerate(listed(server)[:6]):
            if number % 2:
                server.account.delete(fields["id"])
            else:
                server.account.change(fields["id"], {"fileName": "another.mp4"})
        server.account.insert_raw(
            "bad", 1_700_000_000, b'{"id":"bad","partnerId":102,"createdAt":"never"}'
        )
        assert job.run().changed == 3
        made.owner("create schema private")
        made.owner("create table private.secret as select 'canary' as secret")
        before = made.fingerprint()
        assert before["upload_token_superseded"]["count"] == 6
        assert before["rejected_row"]["count"] == 1
        yield made
        assert made.fingerprint() == before


@pytest.fixture(scope="module")
def owner_session(roles: Roles) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with connected(roles.owner_url) as connection:
        yield connection


def test_the_loader_is_granted_no_other_writes_than_these() -> None:
    """Written out once more, because the attempts below are derived from what is granted."""
    writes = {
        table: privileges.removeprefix("SELECT").removeprefix(", ")
        for table, privileges in RIGHTS["loader"].tables.items()
    }
    assert {table: what for table, what in writes.items() if what} == {
        "upload_token": "INSERT, UPDATE",
        "upload_token_superseded": "INSERT",
        "upload_token_status_moment_log": "INSERT",
        "upload_token_status_count_log": "INSERT",
        "upload_bytes_arrival_log": "INSERT",
        "upload_token_staging": "INSERT, DELETE",
        "sync_run": "INSERT, UPDATE",
        "sync_page": "INSERT, DELETE",
        "rejected_row": "INSERT, DELETE",
        "unobserved_token": "INSERT",
    }
    for kind in READERS:
        assert set(RIGHTS[kind].tables.values()) == {"SELECT"}


def test_each_role_can_read_what_it_must(roles: Roles) -> None:
    """Else the refusals below would prove nothing."""
    for kind in KINDS:
        assert roles.refusal(kind, "select 1") is None
        for table in RIGHTS["analyst"].tables:
            assert roles.refusal(kind, f"select * from {table}") is None, (kind, table)
    (found,) = roles.as_kind("analyst", "select run_id, token_id, reason from rejected_row")
    assert found["token_id"] == "bad"


@pytest.mark.parametrize(("kind", "table", "privilege"), _writes(KINDS))
def test_no_write_beyond_what_was_granted(
    roles: Roles, kind: str, table: str, privilege: str
) -> None:
    (column,) = [
        row["attname"]
        for row in roles.owner(
            "select attname from pg_attribute where attrelid = ('kaltura.' || %s)::regclass "
            "and attnum > 0 and not attisdropped and attidentity = '' order by attnum desc limit 1",
            table,
        )
    ]
    statement = WRITES[privilege].format(table=table, column=column)

    assert roles.refusal(kind, statement) == NOT_PERMITTED, statement


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("statement", DEFINITIONS)
def test_nothing_can_be_defined_changed_or_dropped(roles: Roles, kind: str, statement: str) -> None:
    assert roles.refusal(kind, statement) == NOT_PERMITTED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("statement", SERVER)
def test_no_way_out_into_the_server_or_up_to_the_owner(
    roles: Roles,
    owner_session: psycopg.Connection[tuple[object, ...]],
    kind: str,
    statement: str,
) -> None:
    (owner,) = roles.owner("select current_user as name, current_database() as database")
    query = sql.SQL(statement).format(
        owner=sql.Identifier(owner["name"]),
        database=sql.Identifier(owner["database"]),
        pid=sql.Literal(owner_session.info.backend_pid),
    )
    assert roles.refusal(kind, query.as_string()) == NOT_PERMITTED


@pytest.mark.parametrize("statement", LOADER_ONLY)
def test_the_loader_cannot_change_the_past(roles: Roles, statement: str) -> None:
    assert roles.refusal("loader", statement) == NOT_PERMITTED


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("statement", READER_ONLY)
def test_readers_change_nothing_and_see_no_payload(roles: Roles, kind: str, statement: str) -> None:
    assert roles.refusal(kind, statement) == NOT_PERMITTED


@pytest.mark.parametrize("statement", ANALYST_ONLY)
def test_the_analyst_sees_only_what_was_published(roles: Roles, statement: str) -> None:
    assert roles.refusal("analyst", statement) == NOT_PERMITTED


@pytest.mark.parametrize("table", [t for t in TABLES if t not in RIGHTS["analyst"].tables])
def test_tables_that_the_analyst_does_not_read(roles: Roles, table: str) -> None:
    assert roles.refusal("analyst", f"select * from {table}") == NOT_PERMITTED
    if table not in READABLE_COLUMNS:
        assert roles.refusal("analyst", f"select count(*) from {table}") == NOT_PERMITTED


@pytest.mark.parametrize("kind", KINDS)
def test_no_write_through_a_view(roles: Roles, kind: str) -> None:
    views = [
        row["relname"]
        for row in roles.owner(
            "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
            "and relkind = 'v'"
        )
    ]
    assert views
    for view in views:
        for statement in (
            f"insert into {view} (partner_id) values (102)",
            f"update {view} set partner_id = partner_id",
            f"delete from {view}",
        ):
            assert roles.refusal(kind, statement) in (NOT_PERMITTED, NOT_UPDATABLE), statement


def test_statistics_and_sessions_tell_the_analyst_nothing(
    roles: Roles, owner_session: psycopg.Connection[tuple[object, ...]]
) -> None:
    roles.owner("analyze upload_token_staging, rejected_row, upload_token, private.secret")
    hidden = roles.as_kind(
        "analyst",
        "select * from pg_stats where tablename = 'secret' or tablename = 'upload_token_staging' "
        "or (tablename = 'rejected_row' and attname = 'payload')",
    )
    assert hidden == []
    assert roles.as_kind("analyst", "select 1 from pg_stats where tablename = 'upload_token'")
    owner_session.execute("select 'canary'")
    seen = roles.as_kind(
        "analyst",
        f"select query from pg_stat_activity where pid = {owner_session.info.backend_pid}",
    )
    assert seen == [{"query": "<insufficient privilege>"}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_role_can_pass_nothing_on(roles: Roles, kind: str) -> None:
    """Without the right to grant, a GRANT of what one has is a warning, and does nothing."""
    other = roles.create("nologin")
    warned: list[str | None] = []
    with closing(psycopg.connect(roles.url(kind), autocommit=True)) as connection:
        connection.add_notice_handler(lambda notice: warned.append(notice.sqlstate))
        for statement in (
            "grant usage on schema kaltura to {}",
            "grant select on kaltura.upload_token to {}",
            "grant select on kaltura.upload_token_history to {}",
            "revoke all on kaltura.upload_token from {}",
        ):
            connection.execute(sql.SQL(statement).format(sql.Identifier(other)))
    assert set(warned) == {"01007", "01006"}  # not granted, not revoked
    assert roles.refusal(
        kind, sql.SQL("grant truncate on sync_run to {}").format(sql.Identifier(other))
    ) in (None, NOT_PERMITTED)
    (found,) = roles.owner(
        "select has_schema_privilege(%s, 'kaltura', 'USAGE') as schema, "
        "has_table_privilege(%s, 'kaltura.upload_token', 'SELECT') as token, "
        "has_table_privilege(%s, 'kaltura.sync_run', 'TRUNCATE') as run",
        other,
        other,
        other,
    )
    assert found == {"schema": False, "token": False, "run": False}


def test_temporary_tables_are_the_loaders_tool(roles: Roles) -> None:
    assert roles.refusal("loader", "create temporary table mine (a int)") is None
