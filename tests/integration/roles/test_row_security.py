"""Policies that hide nothing from a role are no obstacle; those that do are an error, as before."""

from __future__ import annotations

import pytest
from psycopg import sql

from etl.errors import EtlError
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.row_security import EVERY_ACCOUNT, hidden_tables
from etl.warehouse.schema.revision import open_connection
from tests.support.job import Job
from tests.support.roles import Roles

pytestmark = pytest.mark.postgres15


def hidden(roles: Roles, kind: str) -> list[str]:
    with open_connection(roles.url(kind)) as connection:
        return hidden_tables(connection, "kaltura")


def test_a_run_and_verify_work_with_policies_that_hide_nothing_from_them(granted: Roles) -> None:
    for table in ("upload_token", "upload_token_superseded", "sync_run", "sync_page"):
        named = [sql.Identifier(EVERY_ACCOUNT), sql.Identifier("kaltura", table)]
        granted.owner(sql.SQL("create policy {} on {} using (true)").format(*named))
        granted.owner(sql.SQL("alter table {} enable row level security").format(named[1]))
    analyst = sql.Identifier(granted.names["analyst"])
    granted.owner(
        sql.SQL(
            "create policy one on kaltura.sync_run as restrictive to {} using (partner_id = 1)"
        ).format(analyst)
    )
    with SimulatorServer(generate_account(20, seed=2)) as server:
        job = Job.of(server, granted.url("loader"))
        assert job.run().inserted == 20
        server.account.change(server.account.line[0].id, {"fileName": "x"})
        assert job.run().changed == 1
    assert [each.name for each in verify(granted.url("auditor")) if not each.ok] == []
    assert granted.as_kind("analyst", "table sync_run") == []


@pytest.mark.parametrize(
    ("policy", "hides"),
    [
        ("using (true)", False),
        ("to {role} using (true)", False),
        ("to pg_monitor using (true)", True),
        ("for select using (true)", True),
        ("using (partner_id > 0)", True),
        ("using (true) with check (partner_id > 0)", True),
        ("as restrictive using (true)", True),
        ("as restrictive to pg_monitor using (false)", True),
    ],
)
def test_what_hides_rows_from_a_role(granted: Roles, policy: str, hides: bool) -> None:
    """What is not the constant true may hide some, whatever it says."""
    role = granted.names["auditor"]
    granted.owner(f"create policy mine on kaltura.sync_run {policy.format(role=role)}")
    assert hidden(granted, "auditor") == []  # not enabled
    granted.owner("alter table kaltura.sync_run enable row level security")
    assert hidden(granted, "auditor") == (["sync_run"] if hides else [])
    with open_connection(granted.owner_url) as connection:
        assert hidden_tables(connection, "kaltura") == []  # a superuser


def test_a_limit_hides_nothing_from_those_that_it_is_not_for(granted: Roles) -> None:
    granted.owner("create policy every on kaltura.sync_run using (true)")
    granted.owner("alter table kaltura.sync_run enable row level security")
    granted.owner(
        sql.SQL("create policy one on kaltura.sync_run as restrictive to {} using (false)").format(
            sql.Identifier(granted.names["analyst"])
        )
    )
    assert (hidden(granted, "auditor"), hidden(granted, "analyst")) == ([], ["sync_run"])


def test_what_hides_rows_is_an_error_beside_policies_that_do_not(granted: Roles) -> None:
    granted.owner(
        sql.SQL("create policy {} on kaltura.sync_run using (true)").format(
            sql.Identifier(EVERY_ACCOUNT)
        )
    )
    granted.owner("alter table kaltura.sync_run enable row level security")
    granted.owner("alter table kaltura.upload_token enable row level security")
    with pytest.raises(EtlError) as refused:
        verify(granted.url("auditor"))
    assert (refused.value.exit_code, refused.value.fields["reason"]) == (78, "row_security")
