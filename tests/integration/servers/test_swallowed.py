"""A trigger of somebody else's that swallows rows is never taken for success."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etl.errors import EtlError
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.support.job import Job

BAD = {"id": "bad", "status": "none", "createdAt": 1_767_000_000}


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    account = generate_account(60, seed=43, clock=lambda: 1_767_575_000)
    account.insert(BAD)
    with SimulatorServer(account) as running:
        yield running


@pytest.mark.parametrize(
    ("table", "event"),
    [
        ("sync_run", "insert"),
        ("sync_run", "update"),
        ("sync_page", "insert"),
        ("rejected_row", "insert"),
        ("unobserved_token", "insert"),
        ("upload_token_staging", "insert"),
        ("upload_token_staging", "delete"),
        ("upload_token", "insert"),
        ("upload_token", "update"),
        ("upload_token_superseded", "insert"),
        ("upload_token_status_moment_log", "insert"),
        ("upload_token_status_count_log", "insert"),
        ("upload_bytes_arrival_log", "insert"),
    ],
)
def test_swallowed_rows_are_never_published(
    server: SimulatorServer, database_url: str, table: str, event: str
) -> None:
    account = server.account
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
    job.run()
    tokens = [token.id for token in account.line]
    account.change(tokens[3], {"fileName": "changed.mp4", "uploadedFileSize": 10**12})
    # Known, and not readable from now on: it is not observed.
    account.change(tokens[4], {"status": "none"})
    account.delete(tokens[5])
    account.insert(dict(BAD, id="worse"))
    before = job.everything()
    job.query(
        "create function public.swallow() returns trigger language plpgsql as "
        "$$ begin return null; end $$"
    )
    job.query(
        f"create trigger swallow before {event} on kaltura.{table} for each row "
        "execute function public.swallow()"
    )

    with pytest.raises(EtlError) as refused:
        job.run()

    assert refused.value.fields.get("reason") == "row_count_mismatch", refused.value
    assert refused.value.exit_code == 65
    assert job.everything() == before
    job.query(f"drop trigger swallow on kaltura.{table}")
    job.query("update kaltura.sync_run set heartbeat_at = 'epoch' where status = 'running'")
    job.run()
    assert [each.name for each in verify(database_url) if not each.ok] == []
