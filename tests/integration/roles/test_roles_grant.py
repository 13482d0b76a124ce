"""``grant``: what it makes of roles that have too little, too much, or cannot be held back."""

from __future__ import annotations

from typing import Final, LiteralString

import pytest
from psycopg import sql

from etl.errors import ConfigurationError
from etl.warehouse.access.grants import grant
from etl.warehouse.access.privileges import (
    RIGHTS,
    missing_privileges,
    readers_left_behind,
    too_much,
)
from etl.warehouse.engine import driver_connection
from etl.warehouse.schema.revision import open_connection
from tests.support.roles import NOT_PERMITTED, Roles

pytestmark = pytest.mark.postgres15

SCHEMA = "kaltura"


def test_what_a_loader_lacks_is_named(roles: Roles) -> None:
    role = roles.create()
    with open_connection(roles.owner_url) as connection:
        driver = driver_connection(connection)
        as_role = sql.SQL("set local role {}").format(sql.Identifier(role))
        driver.execute(as_role)
        assert missing_privileges(connection, SCHEMA) == ["USAGE on schema kaltura"]
        driver.execute("set local role none")
        on_schema = sql.SQL("grant usage on schema kaltura to {}").format(sql.Identifier(role))
        driver.execute(on_schema)
        for table, privileges in RIGHTS["loader"].tables.items():
            if table != "sync_page":
                driver.execute(
                    sql.SQL("grant {} on {} to {}").format(
                        sql.SQL(privileges), sql.Identifier(SCHEMA, table), sql.Identifier(role)
                    )
                )
        driver.execute(as_role)
        assert missing_privileges(connection, SCHEMA) == [
            "SELECT on kaltura.sync_page",
            "INSERT on kaltura.sync_page",
            "DELETE on kaltura.sync_page",
        ]


def test_each_grant_that_is_taken_away_is_named(granted: Roles) -> None:
    for kind in ("loader", "analyst", "auditor"):
        assert (granted.lacking(kind), granted.excess(kind)) == ([], [])
        grantee = sql.Identifier(granted.names[kind])
        for table, privileges in RIGHTS[kind].tables.items():
            for privilege in privileges.split(", "):
                change = [sql.SQL(privilege), sql.Identifier(SCHEMA, table), grantee]
                granted.owner(sql.SQL("revoke {} on {} from {}").format(*change))
                assert granted.lacking(kind) == [f"{privilege} on kaltura.{table}"]
                granted.owner(sql.SQL("grant {} on {} to {}").format(*change))
        for table, columns in RIGHTS[kind].columns.items():
            for column in columns:
                change = [sql.Identifier(column), sql.Identifier(SCHEMA, table), grantee]
                granted.owner(sql.SQL("revoke select ({}) on {} from {}").format(*change))
                assert granted.lacking(kind) == [f"SELECT ({column}) on kaltura.{table}"]
                granted.owner(sql.SQL("grant select ({}) on {} to {}").format(*change))
        assert granted.lacking(kind) == []
        granted.owner(sql.SQL("revoke usage on schema kaltura from {}").format(grantee))
        assert granted.lacking(kind) == ["USAGE on schema kaltura"]


def test_what_public_lost_is_granted_to_the_loader(granted: Roles) -> None:
    """A database in which only some roles may make temporary tables."""
    (row,) = granted.owner("select current_database() as name")
    granted.owner(
        sql.SQL("revoke connect, temporary on database {} from public").format(
            sql.Identifier(row["name"])
        )
    )
    on_database = f"on database {row['name']}"
    assert granted.lacking("loader") == [f"CONNECT {on_database}", f"TEMPORARY {on_database}"]
    assert granted.lacking("analyst") == [f"CONNECT {on_database}"]

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
        assert bool(roles.excess("loader")) == (not is_the_loaders), statement
        assert roles.excess("analyst"), statement

        grant(roles.owner_url, SCHEMA, roles.names, apply=True)

        for kind in roles.names:
            assert (roles.excess(kind), roles.lacking(kind)) == ([], []), statement


def test_what_everybody_has_too_much_is_taken_away(roles: Roles) -> None:
    roles.names["analyst"] = roles.create()
    grant(roles.owner_url, SCHEMA, roles.names, apply=True)
    for statement in TOO_MUCH:
        roles.owner(statement.replace("{}", "public").replace(" with grant option", ""))
        found = roles.excess("analyst")
        assert found, statement
        assert all(each.endswith("(through PUBLIC)") for each in found), statement

        grants = grant(roles.owner_url, SCHEMA, roles.names, apply=True)

        assert "PUBLIC has rights" in grants.warnings[0]
        assert (roles.excess("analyst"), roles.lacking("analyst")) == ([], []), statement
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
