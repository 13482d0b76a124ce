"""``grant``: roles that no grant can restrict, and the statements that it prints and executes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import sql

from etl.errors import ConfigurationError, CredentialsRefused, UsageError
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.access.grants import grant
from etl.warehouse.access.privileges import (
    power_beyond_grants,
    too_much,
)
from etl.warehouse.schema.migration import take_migration_lock
from etl.warehouse.schema.revision import open_connection
from tests.support.job import Job, wait_until
from tests.support.roles import NOT_PERMITTED, Roles, as_role, roles_of

pytestmark = pytest.mark.postgres15

SCHEMA = "kaltura"


# --- roles that cannot be held back -------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (["alter role {role} superuser"], "is a superuser"),
        (["alter table kaltura.sync_run owner to {role}"], "owns table kaltura.sync_run"),
        (["alter schema kaltura owner to {role}"], "owns schema kaltura"),
        (["alter database {database} owner to {role}"], "owns database test_"),
        (
            ["alter schema kaltura owner to {group}", "grant {group} to {role}"],
            "is a member of group_.*, which owns schema kaltura",
        ),
        (
            ["alter role {group} superuser", "grant {group} to {role}"],
            "is a member of group_.*, which is a superuser",
        ),
        (
            ["grant pg_execute_server_program to {role}"],
            "is a member of pg_execute_server_program, which may .* run programs",
        ),
    ],
)
def test_a_role_that_no_grant_can_hold_back(roles: Roles, make: list[str], said: str) -> None:
    (found,) = roles.owner("select current_database() as database, current_user as me")
    role, group = roles.create(), roles.create("nologin", prefix="group")
    names = {"role": role, "group": group, "database": found["database"]}
    before = roles.fingerprint()
    for statement in make:
        roles.owner(
            sql.SQL(statement).format(
                **{name: sql.Identifier(value) for name, value in names.items()}
            )
        )
    try:
        for kind in ("loader", "analyst", "auditor"):
            for apply in (False, True):
                with pytest.raises(ConfigurationError, match=f"Role {role} {said}"):
                    grant(roles.owner_url, SCHEMA, {kind: role}, apply=apply)
        with open_connection(roles.url(role)) as connection:
            assert too_much(connection, SCHEMA)
    finally:
        for name in (role, group):
            roles.owner(
                sql.SQL("reassign owned by {} to {}").format(
                    sql.Identifier(name), sql.Identifier(found["me"])
                )
            )
    assert roles.fingerprint() == before


def test_create_role_before_postgres_16(roles: Roles) -> None:
    (row,) = roles.owner("select current_setting('server_version_num')::int as number")
    role = roles.create("login createrole")
    with open_connection(roles.owner_url) as connection:
        power = power_beyond_grants(connection, SCHEMA, role)

    assert (power is None) == (row["number"] >= 160000)


def test_names_that_stand_for_no_role(roles: Roles) -> None:
    role = roles.create()
    for wrong, kind, said in [
        ({"loader": role + "x"}, ConfigurationError, f'create role "{role}x" login'),
        ({"loader": role.upper()}, ConfigurationError, f"but one named {role}"),
        ({"analyst": "public"}, UsageError, "Postgres' own"),
        ({"analyst": "PUBLIC"}, UsageError, "Postgres' own"),
        ({"analyst": "pg_monitor"}, UsageError, "Postgres' own"),
        ({"analyst": "a\nb"}, UsageError, "cannot be printed"),
        ({"loader": role, "analyst": role}, UsageError, "cannot be both"),
        ({}, UsageError, "Name a role"),
    ]:
        for apply in (False, True):
            with pytest.raises(kind, match=said):
                grant(roles.owner_url, SCHEMA, wrong, apply=apply)


def test_a_schema_that_was_not_migrated(empty_database_url: str) -> None:
    with roles_of(empty_database_url) as roles:
        role = roles.create()
        with pytest.raises(ConfigurationError, match="run kaltura-etl migrate"):
            grant(empty_database_url, SCHEMA, {"loader": role}, apply=True)


# --- the statements ------------------------------------------------------------------------------


def test_they_can_be_executed_again_and_by_psql_and_come_to_the_same(granted: Roles) -> None:
    names = granted.names
    applied = granted.fingerprint()
    grants = grant(granted.owner_url, SCHEMA, names, apply=True)
    assert granted.fingerprint() == applied
    for name in names.values():
        granted.owner(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
    assert granted.fingerprint() != applied

    # As psql sends it, once more while it is there.
    for _ in range(2):
        granted.owner(grants.script())

    assert granted.fingerprint() == applied
    assert grants.statements == grant(granted.owner_url, SCHEMA, names, apply=False).statements


def test_names_of_every_kind_are_quoted(roles: Roles) -> None:
    name = f'An "odd" name; -- 100%s {roles.create()} ünder'
    roles.owner(sql.SQL("create role {}").format(sql.Identifier(name)))
    roles.made.append(name)

    grants = grant(roles.owner_url, SCHEMA, {"analyst": name}, apply=True)
    roles.owner(grants.script())

    roles.names["analyst"] = name
    assert (roles.lacking("analyst"), roles.excess("analyst")) == ([], [])


def test_printing_changes_nothing(roles: Roles) -> None:
    role, before = roles.create(), roles.fingerprint()

    assert grant(roles.owner_url, SCHEMA, {"loader": role}, apply=False).statements

    assert roles.fingerprint() == before


def test_only_the_owner_may_apply_and_anybody_may_print(granted: Roles) -> None:
    loader = granted.url("loader")
    before = granted.fingerprint()
    with pytest.raises(CredentialsRefused, match=r"does not own the tables .*: postgres does"):
        grant(loader, SCHEMA, {"analyst": granted.names["analyst"]}, apply=True)
    assert granted.fingerprint() == before

    found = grant(loader, SCHEMA, {"analyst": granted.names["analyst"]}, apply=False)

    assert found == grant(
        granted.owner_url, SCHEMA, {"analyst": granted.names["analyst"]}, apply=False
    )


def test_an_owner_that_is_no_superuser_can_apply(roles: Roles) -> None:
    owner = roles.create(prefix="owner")
    (row,) = roles.owner("select current_database() as database, current_user as me")
    roles.owner(
        sql.SQL("grant create on database {} to {}").format(
            sql.Identifier(row["database"]), sql.Identifier(owner)
        )
    )
    for relation in roles.owner(
        "select relname, relkind::text as kind from pg_class "
        "where relnamespace = 'kaltura'::regnamespace and relkind in ('r', 'v')"
    ):
        roles.owner(
            sql.SQL("alter {} {} owner to {}").format(
                sql.SQL("view" if relation["kind"] == "v" else "table"),
                sql.Identifier(relation["relname"]),
                sql.Identifier(owner),
            )
        )
    roles.owner(sql.SQL("alter schema kaltura owner to {}").format(sql.Identifier(owner)))
    for function in roles.owner(
        "select oid::regprocedure::text as signature from pg_proc "
        "where pronamespace = 'kaltura'::regnamespace"
    ):
        roles.owner(
            sql.SQL("alter function {} owner to {}").format(
                sql.SQL(function["signature"]), sql.Identifier(owner)
            )
        )
    roles.names = {kind: roles.create(prefix=kind) for kind in ("loader", "analyst", "auditor")}

    grant(as_role(roles.owner_url, owner), SCHEMA, roles.names, apply=True)

    for kind in roles.names:
        assert (roles.excess(kind), roles.lacking(kind)) == ([], [])
    with SimulatorServer(generate_account(20, seed=1)) as server:
        assert Job.of(server, roles.url("loader")).run().inserted == 20
    assert len(roles.as_kind("analyst", "table upload_token_history")) == 20


def test_what_is_not_ours_is_left_alone(roles: Roles) -> None:
    """Somebody's own objects in our schema: no rights on them are given, none are taken."""
    other, analyst = roles.create(), roles.create()
    roles.names["analyst"] = analyst
    roles.owner(
        sql.SQL("grant usage, create on schema kaltura to {}").format(sql.Identifier(other))
    )
    roles.as_kind(other, "create table kaltura.note (text text)")
    roles.as_kind(other, "create view kaltura.note_view as select * from kaltura.note")
    roles.as_kind(other, sql.SQL("grant select on note to {}").format(sql.Identifier(analyst)))
    # The owner's own view that would show the payload to whoever may read the view.
    roles.owner("create view kaltura.leak as select payload from kaltura.rejected_row")
    roles.owner(
        "create function kaltura.leak() returns bytea language sql security definer "
        "as 'select payload from kaltura.rejected_row'"
    )
    roles.owner("create view kaltura.safe with (security_invoker) as table kaltura.sync_run")

    grants = grant(roles.owner_url, SCHEMA, roles.names, apply=True)

    assert [warning.partition(" works")[0] for warning in grants.warnings] == [
        "view leak",
        "function leak",
    ]
    assert roles.refusal("analyst", "table note") is None
    assert roles.refusal("analyst", "table note_view") == NOT_PERMITTED
    assert roles.refusal("analyst", "table leak") == NOT_PERMITTED
    assert roles.refusal("analyst", "table safe") is None


def test_it_waits_for_a_migration_that_is_at_work(roles: Roles) -> None:
    roles.names["analyst"] = roles.create()
    with ThreadPoolExecutor(1) as pool:
        with open_connection(roles.owner_url) as migrating:
            take_migration_lock(migrating, SCHEMA)
            waiting = pool.submit(grant, roles.owner_url, SCHEMA, roles.names, apply=True)
            wait_until(
                lambda: roles.owner(
                    "select 1 from pg_locks where locktype = 'advisory' and not granted "
                    "and database = (select oid from pg_database "
                    "where datname = current_database())"
                )
            )
            assert roles.lacking("analyst")
        waiting.result()
    assert roles.lacking("analyst") == []


def test_two_at_once_both_come_to_the_end(roles: Roles) -> None:
    roles.names = {kind: roles.create(prefix=kind) for kind in ("loader", "analyst")}

    def apply(_: int) -> None:
        grant(roles.owner_url, SCHEMA, roles.names, apply=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(apply, range(8)))
    assert (roles.lacking("loader"), roles.excess("analyst")) == ([], [])
