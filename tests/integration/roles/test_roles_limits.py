"""Setting, changing and lifting limits to accounts, and who may not be limited, or not so."""

# ruff: noqa: S608 - the statements are made of constants
from __future__ import annotations

from typing import Any, Final

import pytest
from psycopg import sql

from etl.errors import ConfigurationError, EtlError, UsageError, WarehouseUnavailable
from etl.preflight import check_parts
from etl.process.stop import Stop
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.access import limits
from etl.warehouse.access.grants import Grants, grant
from etl.warehouse.access.limits import account_tables, lapsed_limits, limited_roles
from etl.warehouse.access.privileges import RIGHTS
from etl.warehouse.privacy.account import count_account
from etl.warehouse.row_security import hidden_tables
from etl.warehouse.schema.database import open_database
from etl.warehouse.schema.revision import migrate, open_connection
from tests.support.job import Job
from tests.support.model import Row
from tests.support.roles import NOT_PERMITTED, Roles, as_role

pytestmark = pytest.mark.postgres15

SCHEMA: Final = "kaltura"
OWN: Final = 101
ACCOUNTS: Final = (OWN, 102, 103)


def limit(roles: Roles, role: str, *accounts: int) -> Grants:
    """Limit a role, to none: lift its limit."""
    return grant(roles.owner_url, SCHEMA, {"analyst": role}, accounts=accounts, apply=True)


def accounts_seen(roles: Roles, role: str) -> list[int]:
    rows = roles.as_kind(role, "select distinct partner_id from upload_token order by 1")
    return [row["partner_id"] for row in rows]


def row_security(roles: Roles) -> list[Row]:
    return roles.owner(
        "select relname, relrowsecurity, polname, polroles, pg_get_expr(polqual, polrelid) "
        "from pg_class left join pg_policy on polrelid = pg_class.oid "
        "where relrowsecurity or polname is not null order by 1, 3"
    )


@pytest.fixture
def filled(granted: Roles) -> Roles:
    """Three accounts with a run and a token each."""
    for partner_id in ACCOUNTS:
        granted.owner(
            "insert into sync_run (partner_id, mode, status) values (%s, 'full', 'failed')",
            partner_id,
        )
        granted.owner(
            "insert into upload_token (partner_id, token_id, created_at, is_listed, version, "
            "change_kind, valid_from, observed_at, run_id) select partner_id, 't', '2026-01-01', "
            "true, 1, 'first_seen', '2026-01-02', '2026-01-02', run_id from sync_run "
            "where partner_id = %s",
            partner_id,
        )
    return granted


def test_a_limit_is_set_changed_kept_and_lifted(filled: Roles) -> None:
    url, role, other = filled.owner_url, filled.names["analyst"], filled.create()
    assert accounts_seen(filled, role) == [*ACCOUNTS]
    assert limit(filled, role, 102, OWN, OWN).accounts == (OWN, 102)
    assert accounts_seen(filled, role) == [OWN, 102]
    limit(filled, role, OWN)
    assert accounts_seen(filled, role) == [OWN]
    limited = row_security(filled)

    again = grant(url, SCHEMA, {"analyst": role}, apply=True)

    assert row_security(filled) == limited
    assert again.warnings == [
        f"analyst {role} stays limited to accounts {OWN}: --accounts all lifts that"
    ]
    assert not again.changes_limits
    unknown = limit(filled, other, 104)
    assert unknown.warnings == ["no run of account 104 is in the warehouse yet"]
    assert accounts_seen(filled, other) == []
    limit(filled, role)
    assert (accounts_seen(filled, role), accounts_seen(filled, other)) == ([*ACCOUNTS], [])
    limit(filled, other)
    assert row_security(filled) == []


def test_the_statements_that_are_printed_do_the_same(filled: Roles) -> None:
    roles = {"analyst": filled.names["analyst"]}
    printed = grant(filled.owner_url, SCHEMA, roles, accounts=[OWN], apply=False)
    assert accounts_seen(filled, roles["analyst"]) == [*ACCOUNTS]
    filled.owner(printed.script())
    assert accounts_seen(filled, roles["analyst"]) == [OWN]
    with open_connection(filled.owner_url) as connection:
        assert limited_roles(connection, SCHEMA) == {roles["analyst"]: (OWN,)}
    lifted = grant(filled.owner_url, SCHEMA, roles, accounts=[], apply=False)
    filled.owner(lifted.script())
    assert accounts_seen(filled, roles["analyst"]) == [*ACCOUNTS]


def test_every_table_with_rows_of_accounts_is_limited(filled: Roles) -> None:
    readable = {*RIGHTS["analyst"].tables, *RIGHTS["analyst"].columns}
    assert readable - set(account_tables()) == {"upload_token_status"}
    limit(filled, filled.names["analyst"], OWN)
    found = filled.owner(
        "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
        "and relrowsecurity order by 1"
    )
    assert [row["relname"] for row in found] == account_tables()


def member(roles: Roles, *groups: str, attributes: Any = "login") -> str:
    name = roles.create(attributes, prefix="member")
    for group in groups:
        roles.owner(sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(name)))
    return name


def test_members_of_a_limited_group_are_limited(filled: Roles) -> None:
    groups = [filled.create("nologin", prefix="group") for _ in range(2)]
    limit(filled, groups[0], OWN, 102)
    limit(filled, groups[1], 102, 103)
    assert accounts_seen(filled, member(filled, groups[0])) == [OWN, 102]
    assert accounts_seen(filled, member(filled, *groups)) == [102]
    # What else a member may read directly, it reads within its limit.
    assert accounts_seen(filled, member(filled, groups[0], filled.names["analyst"])) == [OWN, 102]
    # One that does not inherit reads nothing before it has become the group.
    other = member(filled, groups[0], attributes="login noinherit")
    assert filled.refusal(other, "table kaltura.upload_token") == NOT_PERMITTED
    filled.as_kind(other, sql.SQL("set role {}").format(sql.Identifier(groups[0])))
    assert accounts_seen(filled, other) == [OWN, 102]


def test_a_renamed_role_stays_limited(filled: Roles) -> None:
    role = filled.create("nologin", prefix="group")
    limit(filled, role, OWN)
    who = member(filled, role)
    filled.owner(
        sql.SQL("alter role {} rename to {}").format(
            sql.Identifier(role), sql.Identifier(f"{role}_new")
        )
    )
    filled.made[filled.made.index(role)] = f"{role}_new"
    assert accounts_seen(filled, who) == [OWN]
    namesake = filled.create(prefix="x")
    limit(filled, namesake, 103)
    assert (accounts_seen(filled, who), accounts_seen(filled, namesake)) == ([OWN], [103])


def test_a_role_that_would_get_round_its_limit_is_not_limited(filled: Roles) -> None:
    filled.names["wide"] = filled.create(prefix="wide")
    limit(filled, filled.names["wide"], OWN, 102)
    cases = {
        member(filled, filled.names["analyst"]): "can become analyst_",
        # It would have to SET ROLE for that.
        member(filled, filled.names["wide"], attributes="login noinherit"): "can become wide_",
        filled.create("login bypassrls"): "is exempt from row-level security",
    }
    before = filled.fingerprint()
    for role, said in cases.items():
        with pytest.raises(ConfigurationError, match=f"cannot be limited.*{said}"):
            limit(filled, role, OWN)
    assert filled.fingerprint() == before


def test_a_role_that_needs_every_account_is_not_left_without_some(filled: Roles) -> None:
    group = filled.create("nologin", prefix="group")
    limit(filled, group, OWN)
    for kind in ("loader", "auditor", "analyst"):
        with pytest.raises(ConfigurationError, match=f"would not see every account.*{group}"):
            grant(filled.owner_url, SCHEMA, {kind: member(filled, group)}, apply=True)
    # Limited before, it is not as a loader.
    role = filled.names["analyst"]
    limit(filled, role, OWN)
    grant(filled.owner_url, SCHEMA, {"loader": role}, apply=True)
    assert accounts_seen(filled, role) == [*ACCOUNTS]


def test_a_limit_hides_nothing_from_a_run_or_verify(filled: Roles) -> None:
    """A loader that somebody made a member of a limited group is refused, not served less."""
    group = filled.create("nologin", prefix="group")
    limit(filled, group, OWN)
    for kind in ("loader", "auditor"):
        filled.owner(
            sql.SQL("grant {} to {}").format(
                sql.Identifier(group), sql.Identifier(filled.names[kind])
            )
        )
    with SimulatorServer(generate_account(5, seed=1)) as server:
        for work in (
            Job.of(server, filled.url("loader")).run,
            lambda: verify(filled.url("auditor")),
        ):
            with pytest.raises(EtlError, match="ow-level security") as refused:
                work()
            assert (refused.value.exit_code, refused.value.fields["reason"]) == (
                78,
                "row_security",
            )
        assert list(server.service.log) == []


@pytest.mark.parametrize(
    "statement",
    [
        "create policy mine on kaltura.sync_run using (partner_id = 101)",
        "alter table kaltura.sync_run enable row level security",
    ],
)
def test_row_level_security_of_others_is_left_alone(filled: Roles, statement: str) -> None:
    filled.owner(statement)
    before = row_security(filled)
    with pytest.raises(ConfigurationError, match="sync_run has been set up by somebody else"):
        limit(filled, filled.names["analyst"], OWN)
    grant(filled.owner_url, SCHEMA, {"loader": filled.names["loader"]}, apply=True)
    assert row_security(filled) == before != []


def test_views_that_show_what_their_owner_sees_are_named(filled: Roles) -> None:
    """Finding them is all that can be done: one that selects the right account is a good one."""
    role = filled.names["analyst"]
    for statement in (
        "create schema views",
        "create view views.plain as select * from kaltura.upload_token",
        "create view views.upon with (security_invoker) as select * from views.plain",
        "create materialized view views.kept as select * from kaltura.upload_token_history",
        "create view views.called with (security_invoker) as select * from kaltura.sync_run",
        "create view views.other as select 1 as x",
        "create view views.unread as select * from kaltura.sync_run",
        "create view kaltura.plain as select * from kaltura.sync_page",
        f"grant usage on schema views to {role}",
        f"grant select on views.plain, views.upon, views.kept, views.called, views.other to {role}",
        f"grant select on kaltura.plain to {role}",
    ):
        filled.owner(statement)

    warnings = limit(filled, role, OWN).warnings

    past = [each.split(" shows analyst")[0] for each in warnings if "shows analyst" in each]
    assert past == ["view views.kept", "view views.plain"]
    assert filled.refusal(role, "table kaltura.plain") == NOT_PERMITTED


def counted(roles: Roles, role: str, table: str) -> int:
    (row,) = roles.as_kind(role, f"select count(*) as n from {table}")
    return int(row["n"])


def test_an_owner_that_is_no_superuser_limits_and_sees_everything(
    roles: Roles,
) -> None:
    owner = roles.create(prefix="owner")
    (row,) = roles.owner("select current_database() as name")
    roles.owner(
        sql.SQL("grant create on database {} to {}").format(
            sql.Identifier(row["name"]), sql.Identifier(owner)
        )
    )
    url = as_role(roles.owner_url, owner)
    migrate(url, "own")
    analyst = roles.create(prefix="analyst")
    grant(url, "own", {"analyst": analyst}, accounts=[OWN], apply=True)
    for partner_id in (OWN, 102):
        with SimulatorServer(generate_account(5, seed=1, partner_id=partner_id)) as server:
            assert Job.of(server, url, ETL_SCHEMA="own").run().inserted == 5
    assert [each.name for each in verify(url, "own") if not each.ok] == []
    assert counted(roles, owner, "own.upload_token") == 10
    assert counted(roles, analyst, "own.upload_token_history") == 5
    with open_database(url, "own") as database:
        assert count_account(database, 102)["upload_token"] == 5


def told_by_check(roles: Roles) -> str:
    """What ``check`` says of the privileges."""
    with SimulatorServer(generate_account(1, seed=1)) as server:
        loaded = load_settings(environment=Job.of(server, roles.url("loader")).environment())
        parts = {
            each.part: each
            for each in check_parts(loaded, lambda: loaded.settings.database_url, Stop())
        }
    assert parts["tables"].state == "ok"
    return parts["privileges"].detail


def test_a_limit_that_no_longer_holds_is_found(filled: Roles) -> None:
    def lapsed() -> dict[str, str]:
        with open_connection(filled.url("loader")) as connection:
            return lapsed_limits(connection, SCHEMA)

    role = filled.names["analyst"]
    limit(filled, role, OWN)
    assert lapsed() == {}
    damage: list[tuple[str, str]] = [
        ("alter table sync_page disable row level security", "sync_page"),
        ("drop policy kaltura_etl_limit_1 on pruning", "pruning"),
    ]
    for statement, table in damage:
        filled.owner(statement)
        assert lapsed() == {role: f"reads other accounts in {table}"}
        assert f"limit of role {role} does not hold" in told_by_check(filled)
        grant(filled.owner_url, SCHEMA, {"analyst": role}, apply=True)
        assert lapsed() == {}
    # Nobody but the owner would see anything of that table.
    filled.owner("drop policy kaltura_etl_every_account on sync_run")
    with open_connection(filled.url("loader")) as connection:
        assert hidden_tables(connection, SCHEMA) == ["sync_run"]
    grant(filled.owner_url, SCHEMA, {"analyst": role}, apply=True)
    with open_connection(filled.url("loader")) as connection:
        assert hidden_tables(connection, SCHEMA) == []
    filled.owner("alter policy kaltura_etl_limit_1 on sync_run using (true)")
    with pytest.raises(ConfigurationError, match="is not as kaltura-etl grant made it"):
        grant(filled.owner_url, SCHEMA, {"analyst": role}, apply=True)


def test_tables_in_use_are_named_and_nobody_waits(
    filled: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_SECONDS", 0)
    analyst = filled.names["analyst"]
    filled.as_kind("auditor", "begin; select 1 from upload_token")
    before = row_security(filled)

    with pytest.raises(WarehouseUnavailable, match=r"kaltura\.upload_token") as refused:
        limit(filled, analyst, OWN)

    assert refused.value.fields["holder_role"] == filled.names["auditor"]
    assert row_security(filled) == before
    filled.as_kind("auditor", "rollback")
    limit(filled, analyst, OWN)
    assert accounts_seen(filled, analyst) == [OWN]


def test_accounts_are_those_of_an_analyst(filled: Roles) -> None:
    with pytest.raises(UsageError, match="--accounts limits an analyst"):
        grant(filled.owner_url, SCHEMA, {"loader": "x"}, accounts=[OWN], apply=False)
