"""A migration adds tables and views: roles keep what ``grant`` gave them, and get no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from alembic import command
from psycopg import sql

from etl.warehouse.access.grants import grant
from etl.warehouse.access.limits import account_tables, lapsed_limits, limited_roles
from etl.warehouse.access.privileges import readers_left_behind
from etl.warehouse.schema.revision import open_connection
from tests.support import forked
from tests.support.calls import call_each
from tests.support.roles import NOT_PERMITTED, Roles
from tests.support.schema import configured

BEFORE = "0013"
"""After it, two tables with rows of accounts were added, views, and views that read these."""


def migrated(roles: Roles, *options: str) -> tuple[dict[str, Any], str]:
    """The result of ``migrate``, and its log."""
    settings = forked.environment(DATABASE_URL=roles.owner_url)
    (done,) = call_each(settings, [["migrate", "--json", *options]])
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found, done.err


@pytest.mark.postgres15
def test_roles_get_what_is_new_and_stay_limited(granted: Roles) -> None:
    limited = granted.create(prefix="limited")
    granted.names["limited"] = limited
    grant(granted.owner_url, "kaltura", {"analyst": limited}, accounts=[101], apply=True)
    command.downgrade(configured(granted.owner_url), BEFORE)

    result, _ = migrated(granted)

    assert result["granted_again"] == sorted(granted.names.values())
    assert result["to_grant"] == []
    for kind in ("loader", "analyst", "auditor"):
        assert (granted.lacking(kind), granted.excess(kind)) == ([], [])
    for kind in ("analyst", "limited"):
        for name in ("upload_bytes_daily", "upload_status_duration", "upload_bytes_arrival_log"):
            assert granted.refusal(kind, f"table {name}") is None
        assert granted.refusal(kind, "table upload_token_staging") == NOT_PERMITTED
    with open_connection(granted.owner_url) as connection:
        assert readers_left_behind(connection, "kaltura") == {}
        assert limited_roles(connection, "kaltura") == {limited: (101,)}
        assert lapsed_limits(connection, "kaltura") == {}
    policies = granted.owner(
        "select tablename from pg_policies where roles = array[%s]::name[] order by 1", limited
    )
    assert [row["tablename"] for row in policies] == account_tables()

    assert migrated(granted)[0]["granted_again"] == []


def test_rights_that_were_changed_by_hand_are_left_to_whoever_changed_them(granted: Roles) -> None:
    """More, less, or not of the program: the command is named, nothing is granted."""
    granted.names |= {name: granted.create(prefix=name) for name in ("more", "less", "few")}
    for name in ("more", "less"):
        grant(granted.owner_url, "kaltura", {"analyst": granted.names[name]}, apply=True)
    by_hand = {
        "more": "grant select on upload_token_staging to {}",
        "less": "revoke select on upload_mart from {}",
        "few": "grant select on upload_token, upload_token_superseded, sync_run to {}",
    }
    for name, statement in by_hand.items():
        granted.owner(sql.SQL(statement).format(sql.Identifier(granted.names[name])))
    granted.owner(
        sql.SQL("grant usage on schema kaltura to {}").format(sql.Identifier(granted.names["few"]))
    )
    command.downgrade(configured(granted.owner_url), BEFORE)

    result, log = migrated(granted)

    kinds = {"more": "auditor", "less": "analyst", "few": "analyst"}
    commands = {
        granted.names[name]: f"kaltura-etl grant --{kind} {granted.names[name]} --apply"
        for name, kind in kinds.items()
    }
    assert result["granted_again"] == sorted(
        granted.names[kind] for kind in ("loader", "analyst", "auditor")
    )
    assert result["to_grant"] == [commands[role] for role in sorted(commands)]
    assert all(each in log for each in commands.values())
    for name in by_hand:
        assert granted.refusal(name, "table upload_failure") == NOT_PERMITTED


@pytest.mark.parametrize(
    "by_hand",
    [
        "grant usage on schema kaltura to public",
        "grant select on sync_freshness to public",
        "grant select on upload_mart to {} with grant option",
        "grant usage on schema kaltura to {} with grant option",
        "grant select (run_id) on sync_run to {} with grant option",
    ],
)
def test_what_grant_would_take_away_stays(granted: Roles, by_hand: str) -> None:
    """The rights of PUBLIC, and the right to pass rights on."""
    rights = (
        "select of.name, entry.* from (select relname as name, relacl as acl from pg_class where "
        "relname in ('sync_freshness', 'upload_mart') union all select nspname, nspacl from "
        "pg_namespace where nspname = 'kaltura' union all select attname, attacl from pg_attribute "
        "where attrelid = 'sync_run'::regclass) as of cross join lateral aclexplode(of.acl) as "
        "entry order by of.name, entry.grantee, entry.privilege_type"
    )
    analyst = granted.names["analyst"]
    granted.owner(sql.SQL(by_hand).format(sql.Identifier(analyst)))
    before = granted.owner(rights)
    granted.owner("drop view stuck_upload")

    result, log = migrated(granted, "--repair")

    assert granted.owner(rights) == before
    assert analyst not in result["granted_again"]
    named = f"kaltura-etl grant --analyst {analyst} --apply"
    assert named in result["to_grant"]
    assert named in log


def test_a_view_that_is_put_back_is_readable_again(granted: Roles) -> None:
    granted.owner("drop view stuck_upload")

    result, _ = migrated(granted, "--repair")

    assert result["repaired"] == ["view stuck_upload"]
    assert result["granted_again"] == sorted(granted.names.values())
    assert granted.refusal("analyst", "table stuck_upload") is None


def test_a_member_does_not_get_for_itself_what_its_group_has(granted: Roles) -> None:
    """It would keep that when it leaves the group."""
    granted.names["member"] = granted.create(prefix="member")
    member, group = (sql.Identifier(granted.names[each]) for each in ("member", "analyst"))
    granted.owner(sql.SQL("grant {} to {}").format(group, member))
    granted.owner(
        sql.SQL("grant select on upload_token, upload_token_superseded, sync_run to {}").format(
            member
        )
    )
    command.downgrade(configured(granted.owner_url), BEFORE)

    result, _ = migrated(granted)

    assert granted.names["member"] not in result["granted_again"]
    assert result["to_grant"] == []
    assert granted.refusal("member", "table upload_failure") is None
    granted.owner(sql.SQL("revoke {} from {}").format(group, member))
    assert granted.refusal("member", "table kaltura.upload_failure") == NOT_PERMITTED
