"""``grant``: what it makes of roles that have too little, too much, or cannot be held back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, LiteralString

import pytest
from psycopg import sql

from etl.errors import ConfigurationError, CredentialsRefused, UsageError
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.access.grants import grant
from etl.warehouse.access.privileges import (
    RIGHTS,
    excess_privileges,
    missing_privileges,
    power_beyond_grants,
    readers_left_behind,
    too_much,
)
from etl.warehouse.engine import connect
from etl.warehouse.schema.migration import migration_lock
from etl.warehouse.schema.revision import open_connection
from tests.support.job import Job, wait_until
from tests.support.roles import NOT_PERMITTED, Roles, as_role, roles_of

pytestmark = pytest.mark.postgres15

SCHEMA = "kaltura"


@pytest.fixture
def roles(database_url: str) -> Iterator[Roles]:
    with roles_of(database_url) as made:
        yield made


@pytest.fixture
def granted(roles: Roles) -> Roles:
    roles.grant_all()
    return roles


def lacking(roles: Roles, kind: str) -> list[str]:
    with open_connection(roles.owner_url) as connection:
        return missing_privileges(connection, SCHEMA, roles.names[kind], kind)


def excess(roles: Roles, kind: str) -> list[str]:
    with open_connection(roles.owner_url) as connection:
        return excess_privileges(connection, SCHEMA, roles.names[kind], kind)


def test_each_grant_that_is_taken_away_is_named(granted: Roles) -> None:
    for kind in ("loader", "analyst", "auditor"):
        assert (lacking(granted, kind), excess(granted, kind)) == ([], [])
        grantee = sql.Identifier(granted.names[kind])
        for table, privileges in RIGHTS[kind].tables.items():
            for privilege in privileges.split(", "):
                change = [sql.SQL(privilege), sql.Identifier(SCHEMA, table), grantee]
                granted.owner(sql.SQL("revoke {} on {} from {}").format(*change))
                assert lacking(granted, kind) == [f"{privilege} on kaltura.{table}"]
                granted.owner(sql.SQL("grant {} on {} to {}").format(*change))
        for table, columns in RIGHTS[kind].columns.items():
            for column in columns:
                change = [sql.Identifier(column), sql.Identifier(SCHEMA, table), grantee]
                granted.owner(sql.SQL("revoke select ({}) on {} from {}").format(*change))
                assert lacking(granted, kind) == [f"SELECT ({column}) on kaltura.{table}"]
                granted.owner(sql.SQL("grant select ({}) on {} to {}").format(*change))
        assert lacking(granted, kind) == []
        granted.owner(sql.SQL("revoke usage on schema kaltura from {}").format(grantee))
        assert lacking(granted, kind) == ["USAGE on schema kaltura"]


def test_what_public_lost_is_granted_to_the_loader(granted: Roles) -> None:
    """A database in which only some roles may make temporary tables."""
    (row,) = granted.owner("select current_database() as name")
    granted.owner(
        sql.SQL("revoke connect, temporary on database {} from public").format(
            sql.Identifier(row["name"])
        )
    )
    on_database = f"on database {row['name']}"
    assert lacking(granted, "loader") == [f"CONNECT {on_database}", f"TEMPORARY {on_database}"]
    assert lacking(granted, "analyst") == [f"CONNECT {on_database}"]

    granted.close()
    grant(granted.owner_url, SCHEMA, granted.names, apply=True)

    assert granted.refusal("loader", "create temporary table mine (a int)") is None
    assert granted.refusal("analyst", "create temporary table mine (a int)") == NOT_PERMITTED


TOO_MUCH: Final[list[LiteralString]] = [
    "grant delete on upload_token_superseded to {}",
    "grant update on upload_token_superseded to {}",
    "grant update (user_id) on upload_token_superseded to {}",
    "grant truncate on sync_run to {}",
    "grant all on upload_token_status to {}",
    "grant all on all tables in schema kaltura to {} with grant option",
    "grant trigger, references on upload_token to {}",
    "grant create on schema kaltura to {}",
    "grant usage on sequence sync_run_run_id_seq to {}",
    "grant select (payload) on rejected_row to {}",
    "grant insert on upload_token_history to {}",
    "grant select on upload_token_staging to {}",
]


def test_what_a_role_has_too_much_is_named_and_taken_away(roles: Roles) -> None:
    for kind in ("loader", "analyst"):
        roles.names[kind] = roles.create(prefix=kind)
    grant(roles.owner_url, SCHEMA, roles.names, apply=True)
    for statement in TOO_MUCH:
        for name in roles.names.values():
            roles.owner(sql.SQL(statement).format(sql.Identifier(name)))
        # The loader writes what it rejects, and reads staging.
        is_the_loaders = "upload_token_staging" in statement or "payload" in statement
        assert bool(excess(roles, "loader")) == (not is_the_loaders), statement
        assert excess(roles, "analyst"), statement

        grant(roles.owner_url, SCHEMA, roles.names, apply=True)

        for kind in roles.names:
            assert (excess(roles, kind), lacking(roles, kind)) == ([], []), statement


def test_what_everybody_has_too_much_is_taken_away(roles: Roles) -> None:
    roles.names["analyst"] = roles.create()
    grant(roles.owner_url, SCHEMA, roles.names, apply=True)
    for statement in TOO_MUCH:
        roles.owner(statement.replace("{}", "public").replace(" with grant option", ""))
        found = excess(roles, "analyst")
        assert found, statement
        assert all(each.endswith("(through PUBLIC)") for each in found), statement

        grants = grant(roles.owner_url, SCHEMA, roles.names, apply=True)

        assert "PUBLIC has rights" in grants.warnings[0]
        assert (excess(roles, "analyst"), lacking(roles, "analyst")) == ([], []), statement
        assert grant(roles.owner_url, SCHEMA, roles.names, apply=False).warnings == []


def test_rights_that_come_by_a_membership_are_named_and_nothing_is_changed(roles: Roles) -> None:
    group, loader = roles.create("nologin", prefix="group"), roles.create("login noinherit")
    roles.owner(sql.SQL("grant delete on sync_run to {}").format(sql.Identifier(group)))
    roles.owner(sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(loader)))
    before = roles.fingerprint()

    with pytest.raises(ConfigurationError) as refused:
        grant(roles.owner_url, SCHEMA, {"loader": loader}, apply=True)

    assert f"DELETE on kaltura.sync_run (through {group})" in refused.value.message
    assert "Nothing was changed" in refused.value.message
    assert roles.fingerprint() == before
    # Only looked at: the statements are those that one may execute.
    assert grant(roles.owner_url, SCHEMA, {"loader": loader}, apply=False).statements


def test_an_analyst_that_is_a_member_of_the_loader_is_refused(granted: Roles) -> None:
    analyst, loader = granted.names["analyst"], granted.names["loader"]
    granted.owner(sql.SQL("grant {} to {}").format(sql.Identifier(loader), sql.Identifier(analyst)))

    with pytest.raises(ConfigurationError, match=rf"INSERT on kaltura\.\w+ \(through {loader}\)"):
        grant(granted.owner_url, SCHEMA, granted.names, apply=True)


def test_rights_that_a_role_has_passed_on_are_not_taken_from_others(roles: Roles) -> None:
    first, second = roles.create(), roles.create()
    roles.owner(
        sql.SQL("grant select on upload_token to {} with grant option").format(
            sql.Identifier(first)
        )
    )
    roles.owner(sql.SQL("grant usage on schema kaltura to {}").format(sql.Identifier(first)))
    roles.as_kind(
        first, sql.SQL("grant select on upload_token to {}").format(sql.Identifier(second))
    )
    before = roles.fingerprint()

    with pytest.raises(ConfigurationError, match="passed its rights on to others"):
        grant(roles.owner_url, SCHEMA, {"analyst": first}, apply=True)

    assert roles.fingerprint() == before


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
            sql.SQL(statement).format(  # type: ignore[arg-type]
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
    assert (lacking(roles, "analyst"), excess(roles, "analyst")) == ([], [])


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
        assert (excess(roles, kind), lacking(roles, kind)) == ([], [])
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
    migrating = connect(roles.owner_url)
    try:
        with ThreadPoolExecutor(1) as pool:
            with migration_lock(migrating, SCHEMA):
                waiting = pool.submit(grant, roles.owner_url, SCHEMA, roles.names, apply=True)
                wait_until(
                    lambda: roles.owner(
                        "select 1 from pg_locks where locktype = 'advisory' and not granted "
                        "and database = (select oid from pg_database "
                        "where datname = current_database())"
                    )
                )
                assert lacking(roles, "analyst")
            waiting.result()
    finally:
        migrating.dispose()
    assert lacking(roles, "analyst") == []


def test_two_at_once_both_come_to_the_end(roles: Roles) -> None:
    roles.names = {kind: roles.create(prefix=kind) for kind in ("loader", "analyst")}

    def apply(_: int) -> None:
        grant(roles.owner_url, SCHEMA, roles.names, apply=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(apply, range(8)))
    assert (lacking(roles, "loader"), excess(roles, "analyst")) == ([], [])


# --- after a migration --------------------------------------------------------------------------


def test_a_view_that_came_later_is_named_until_grant_is_run_again(granted: Roles) -> None:
    def behind() -> dict[str, list[str]]:
        with open_connection(granted.url("loader")) as connection:
            return readers_left_behind(connection, SCHEMA)

    assert behind() == {}
    granted.owner("create view kaltura.later with (security_invoker) as table kaltura.sync_run")
    stranger = granted.create()
    granted.owner(sql.SQL("grant select on upload_token to {}").format(sql.Identifier(stranger)))

    assert behind() == {role: ["later"] for role in sorted(granted.names.values())}
    assert granted.refusal("analyst", "table later") == NOT_PERMITTED

    grant(granted.owner_url, SCHEMA, granted.names, apply=True)
    assert behind() == {}
    assert granted.refusal("analyst", "table later") is None


def test_the_loader_has_nothing_that_a_check_would_warn_of(granted: Roles) -> None:
    with open_connection(granted.url("loader")) as connection:
        assert (missing_privileges(connection, SCHEMA), too_much(connection, SCHEMA)) == ([], None)
    granted.owner(
        sql.SQL("grant delete on upload_token_superseded to {}").format(
            sql.Identifier(granted.names["loader"])
        )
    )
    with open_connection(granted.url("loader")) as connection:
        assert too_much(connection, SCHEMA) == "has DELETE on kaltura.upload_token_superseded"
    with open_connection(granted.owner_url) as connection:
        assert too_much(connection, SCHEMA) == "is a superuser"
