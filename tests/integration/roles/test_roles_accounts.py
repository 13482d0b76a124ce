"""Analysts limited to accounts: what they see, what they must not see, and who sees everything.

The warehouse has three accounts.  The runs, and everything that reads, work while an analyst is
limited to the first one.
"""

# ruff: noqa: S608 - the statements are made of constants and of names from the catalog
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
import pytest

from etl.report.read import read_report
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.access.grants import Grants, grant
from etl.warehouse.access.privileges import RIGHTS
from etl.warehouse.privacy.prune import prune
from etl.warehouse.read.status import status_summary
from etl.warehouse.schema.database import open_database
from tests.support.forbidden import WAYS_TO_LIFT_A_LIMIT, WAYS_TO_OTHER_ACCOUNTS
from tests.support.job import Job
from tests.support.model import Row
from tests.support.roles import NOT_PERMITTED, Roles, own_database, roles_of

SCHEMA: Final = "kaltura"
OWN: Final = 101
ACCOUNTS: Final = (OWN, 102, 103)
OF_OTHERS: Final = ("of-102", "of-103")
"""In every row of the other accounts that the tests look for."""


def limit(roles: Roles, role: str, *accounts: int) -> Grants:
    """Limit a role, to none: lift its limit."""
    return grant(roles.owner_url, SCHEMA, {"analyst": role}, accounts=accounts, apply=True)


def fill(url: str, partner_id: int) -> None:
    """Two nights of an account in which everything happens; for the first one, all modes."""
    account = generate_account(30, seed=partner_id, partner_id=partner_id)
    with SimulatorServer(account) as server:
        job = Job.of(server, url, ETL_ABSENCE_GRACE="0s")
        ids = [token.id for token in account.line]
        for number, token_id in enumerate(ids):
            name = f"{number}-of-{partner_id}"
            account.change(token_id, {"fileName": name, "userId": f"user-of-{partner_id}"})
        account.insert_raw(
            f"bad-of-{partner_id}",
            1_700_000_000,
            b'{"id":"bad-of-%d","partnerId":%d,"createdAt":"never"}' % (partner_id, partner_id),
        )
        options = SyncOptions(label=f"label-of-{partner_id}")
        assert job.run(options=options).inserted == 30
        account.delete(ids[0])
        account.change(ids[1], {"fileName": f"again-of-{partner_id}"})
        account.change(ids[2], {"status": "often"})
        assert job.run(options=options).changed == 1
        if partner_id == OWN:
            job.run(options=SyncOptions(dry_run=True))
            job.run(options=SyncOptions(mode="incremental"))
            with open_database(url, SCHEMA) as database:
                prune(database, days={"pages": 0}, partner_id=partner_id, apply=False)


@pytest.fixture(scope="module", name="world")
def make_world(postgres_url: str, template_database: str) -> Iterator[Roles]:
    with own_database(postgres_url, template_database) as url, roles_of(url) as made:
        made.grant_all()
        made.names["limited"] = made.create(prefix="limited")
        limit(made, made.names["limited"], OWN)
        for partner_id in ACCOUNTS:
            fill(made.url("loader"), partner_id)
            made.owner(
                "insert into pruning (partner_id, kind, horizon, deleted, program_version) "
                "values (%s, 'pages', '2020-01-01', 0, '1')",
                partner_id,
            )
        made.owner("analyze")
        before = made.fingerprint()
        yield made
        assert made.fingerprint() == before


def of_own(roles: Roles, name: str) -> str:
    """The condition of the rows of the first account, or of no account; empty if all are."""
    columns = {
        row["attname"]
        for row in roles.owner(
            "select attname from pg_attribute where attrelid = ('kaltura.' || %s)::regclass "
            "and attnum > 0 and not attisdropped",
            name,
        )
    }
    if "partner_id" in columns:
        return f"partner_id = {OWN}"
    if "run_id" in columns:
        return f"run_id in (select run_id from sync_run where partner_id = {OWN})"
    return ""


def count(roles: Roles, kind: str, source: str, condition: str = "") -> int:
    where = f" where {condition}" if condition else ""
    (row,) = as_kind(roles, kind, f"select count(*) as n from {source}{where}")
    return int(row["n"])


def as_kind(roles: Roles, kind: str, statement: str) -> list[Row]:
    return roles.owner(statement) if kind == "owner" else roles.as_kind(kind, statement)


def readable(roles: Roles) -> list[str]:
    """Every table and view that the limited analyst reads something of."""
    return [
        row["relname"]
        for row in roles.owner(
            "select relname from pg_class where relnamespace = 'kaltura'::regnamespace "
            "and relkind in ('r', 'p', 'v', 'm', 'f') "
            "and has_any_column_privilege(%s, oid, 'SELECT') order by 1",
            roles.names["limited"],
        )
    ]


MAY_BE_EMPTY = ("stuck_upload", "upload_token_horizon", "upload_user_rename")


def test_a_limited_analyst_reads_its_account_whole_and_no_other(world: Roles) -> None:
    names = readable(world)
    assert {*RIGHTS["analyst"].tables, *RIGHTS["analyst"].columns} < set(names)
    without_account = []
    for name in names:
        own = of_own(world, name)
        everything = count(world, "owner", name)
        seen = count(world, "limited", name)
        assert seen == count(world, "owner", name, own), name
        assert seen > 0 or name in MAY_BE_EMPTY, name
        if own:
            assert seen < everything or name in MAY_BE_EMPTY, name
            assert count(world, "limited", name, f"not ({own})") == 0, name
        else:
            without_account.append(name)
    assert without_account == ["upload_token_status"]


def test_functions_show_a_limited_analyst_its_account_whole_and_no_other(world: Roles) -> None:
    functions = world.owner(
        "select proname, proretset, "
        "array(select format_type(each, null) from unnest(proargtypes) as each) as types "
        "from pg_proc where pronamespace = 'kaltura'::regnamespace"
    )
    values = {"timestamp with time zone": "clock_timestamp()"}
    assert sum(row["proretset"] for row in functions) == 2
    for row in functions:
        arguments = [values.get(each, f"cast(null as {each})") for each in row["types"]]
        source = f"{row['proname']}({', '.join(arguments)})"
        if row["proretset"]:
            own = count(world, "owner", source, f"partner_id = {OWN}")
            assert 0 < count(world, "limited", source) == own < count(world, "owner", source)
        else:
            query = f"select {source} is null as result"
            assert as_kind(world, "limited", query) == as_kind(world, "owner", query), source


def told(url: str, statement: str) -> str:
    """All that a session of the role gets to see: rows, notices, messages of errors."""
    seen: list[Any] = []
    with closing(
        psycopg.connect(url, autocommit=True, options="-c search_path=kaltura")
    ) as connection:
        connection.add_notice_handler(
            lambda notice: seen.extend([notice.message_primary, notice.message_detail])
        )
        for each in statement.split(";;"):
            try:
                with connection.cursor() as cursor:
                    if each.strip().startswith("copy"):
                        with cursor.copy(each.encode()) as copied:
                            seen.extend(bytes(part).decode() for part in copied)
                        continue
                    cursor.execute(each.encode())
                    while True:
                        if cursor.description:
                            seen.extend(cursor.fetchall())
                        if not cursor.nextset():
                            break
            except psycopg.Error as error:
                diag = error.diag
                seen.append((diag.message_primary, diag.message_detail, diag.context))
    return repr(seen)


@pytest.mark.parametrize("statement", WAYS_TO_OTHER_ACCOUNTS)
def test_nothing_shows_rows_of_other_accounts(world: Roles, statement: str) -> None:
    seen = told(world.url("limited"), statement)
    assert not [each for each in OF_OTHERS if each in seen], seen[:500]
    # The same shows them to an analyst without a limit, where more than one row is shown at all.
    if f"of-{OWN}" in seen and "invalid input syntax" not in seen:
        assert "of-102" in told(world.url("analyst"), statement)


@pytest.mark.parametrize("statement", WAYS_TO_LIFT_A_LIMIT)
def test_no_limited_analyst_lifts_its_limit(world: Roles, statement: str) -> None:
    assert world.refusal("limited", statement) == NOT_PERMITTED
    assert count(world, "limited", "upload_token", f"partner_id <> {OWN}") == 0


def test_the_others_see_everything(world: Roles) -> None:
    for kind in ("loader", "auditor", "analyst"):
        for name in readable(world):
            if RIGHTS[kind].tables.get(name) or name not in RIGHTS["loader"].tables:
                assert count(world, kind, name) == count(world, "owner", name), (kind, name)
    for kind in ("loader", "auditor"):
        url = world.url(kind)
        assert [each.name for each in verify(url) if not each.ok] == []
        assert len(status_summary(url, SCHEMA, None)["accounts"]) == len(ACCOUNTS)


def test_the_report_of_a_limited_analyst_is_that_of_its_account(world: Roles) -> None:
    def tokens(partner_id: int | None) -> tuple[int | None, int]:
        shown = read_report(
            world.url("limited"), SCHEMA, partner_id=partner_id, days=7, time_zone="UTC"
        )
        return shown.partner_id, len(shown.runs)

    partner_id, runs = tokens(None)
    assert (partner_id, runs > 0) == (OWN, True)
    assert tokens(102) == (102, 0)


QUERIES: Final = (
    f"select * from upload_token where partner_id = {OWN} and token_id = 'x'",
    "select * from upload_token where starts_with(user_id, 'x') and partner_id = 101",
    "select * from upload_token_history where created_at > '2026-01-01' and extra ? 'x'",
    "select * from upload_token_as_of('2026-09-29')",
    "select * from upload_token_status_history where partner_id = 101",
    "select * from upload_outcome_daily",
    "select * from sync_freshness",
    "select * from sync_page as page join sync_run using (run_id) where seq = 5",
    "select token_id from rejected_row where run_id = 5",
)
"""With conditions that may not be evaluated before those of a limit."""


def plans(roles: Roles, kind: str) -> list[str]:
    as_kind(roles, kind, "set enable_seqscan = off")
    return [
        "\n".join(row["QUERY PLAN"] for row in as_kind(roles, kind, f"explain (costs off) {query}"))
        for query in QUERIES
    ]


def test_the_plans_of_the_others_are_those_without_any_limit(world: Roles) -> None:
    under_limits = {kind: plans(world, kind) for kind in ("owner", "analyst", "loader")}
    assert under_limits["analyst"] == under_limits["loader"] == under_limits["owner"]


def test_the_plan_of_a_limited_analyst_begins_with_an_index_on_the_account(world: Roles) -> None:
    one_token, *_ = plans(world, "limited")
    assert "pk_upload_token" in one_token
    assert "partner_id = 101" in one_token
