"""Whole runs: how pages are compared, what is checked, and the first run after an update."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.load.fingerprint import CHECKED_ONE_IN, FULL
from tests.support.job import Job
from tests.support.nights import publish_runs

TOKENS = 300


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(TOKENS, seed=5)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    """A first night."""
    job = Job.of(server, database_url)
    job.run()
    return job


def ways(job: Job) -> set[str | None]:
    rows = job.query(
        "select compared_by from kaltura.sync_page where run_id = %s", job.last_run()["run_id"]
    )
    return {row["compared_by"] for row in rows}


def next_run(job: Job, *, checks: int | None) -> None:
    """Let the next run check this page alone, or none."""
    publish_runs(job.query, job.partner_id, 1 if checks is None else CHECKED_ONE_IN - checks)


def written(job: Job) -> tuple[int, int]:
    run = job.last_run()
    return run["changed"] + run["absent"] + run["inserted"], run["digests_filled"]


def test_the_certificate_says_how_pages_were_compared(server: SimulatorServer, job: Job) -> None:
    assert ways(job) == {None}
    next_run(job, checks=None)
    job.run()
    assert ways(job) == {"fingerprint"}
    job.run(options=SyncOptions(compare=FULL))
    assert ways(job) == {"columns"}
    server.account.change(server.account.line[7].id, {"status": 6})
    server.account.delete(server.account.line[9].id)
    next_run(job, checks=None)
    report = job.run(ETL_ABSENCE_GRACE="0s")
    assert (report.changed, report.absent, report.unchanged) == (1, 1, TOKENS - 2)
    # The lookup is compared with nothing.
    assert ways(job) == {"fingerprint", None}


def test_a_row_that_its_digest_does_not_describe_refuses_the_run_that_checks_it(
    server: SimulatorServer, job: Job
) -> None:
    token_id = server.account.line[TOKENS // 2].id
    job.query("update kaltura.upload_token set file_name = 'another' where token_id = %s", token_id)
    before = job.everything()
    next_run(job, checks=None)
    assert job.run().changed == 0
    # It was on a page that was not checked; now on one that is.
    (page,) = job.query(
        "select min(seq) as seq from kaltura.sync_page where run_id = %s and exists ("
        "select 1 from kaltura.upload_token where token_id = %s "
        "and created_at between first_created_at and last_created_at)",
        job.last_run()["run_id"],
        token_id,
    )
    next_run(job, checks=page["seq"])
    ended = job.call()
    assert ended.code == 65
    assert "digest_mismatch" in ended.err
    assert token_id in ended.err
    assert job.everything() == before
    run = job.last_run()
    assert (run["status"], run["published_at"]) == ("refused", None)
    assert [check.name for check in verify(job.database_url) if not check.ok] == ["digests"]

    ended = job.call("--compare", "full")

    assert ended.code == 0
    assert ended.report["changed"] == 1
    assert job.current()[token_id]["status"] == server.account.line[TOKENS // 2].status
    # The value that nothing had published is superseded now; its checks are not of this test.
    assert [check.name for check in verify(job.database_url) if not check.ok] != ["digests"]


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_the_first_run_after_an_update_fills_digests_in(
    server: SimulatorServer, job: Job, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.account.delete(server.account.line[3].id)
    job.run(ETL_ABSENCE_GRACE="0s")
    tables = "select token_id, digest, user_digest from kaltura.upload_token order by token_id"
    before = job.query(tables)
    job.query("update kaltura.upload_token set digest = null, user_digest = null")

    job.run(options=SyncOptions(mode=mode))

    # Of all tokens that are known, also of those that the run did not come to.
    assert written(job) == (0, TOKENS)
    assert job.query(tables) == before
    assert "digests filled in" in caplog.text
    job.run()
    assert written(job) == (0, 0)
    assert [check for check in verify(job.database_url) if not check.ok] == []


def test_a_run_that_does_not_publish_fills_nothing_in(job: Job) -> None:
    job.query("update kaltura.upload_token set digest = null")
    job.run(options=SyncOptions(dry_run=True))
    assert written(job) == (0, 0)
    assert job.query("select 1 from kaltura.upload_token where digest is not null") == []
