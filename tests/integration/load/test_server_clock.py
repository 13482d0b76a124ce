"""The clock of the database server was wrong and has been set back: nothing gets stuck."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etl.simulator import SimulatorServer
from etl.verify.checks import verify
from tests.support.job import Job
from tests.support.refusals import account_of_singles, break_half_way

TOKENS = 140
A_DAY_AHEAD = "set started_at = started_at + interval '1 day'"


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(account_of_singles(TOKENS)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    """The nightly job, with a night behind it."""
    job = Job.of(server, database_url, ETL_PAGE_SIZE="12")
    job.run()
    return job


def test_a_publication_in_the_future_does_not_keep_the_next_from_publishing(
    job: Job,
) -> None:
    job.query(
        f"update kaltura.sync_run {A_DAY_AHEAD}, heartbeat_at = heartbeat_at + interval '1 day', "
        "published_at = published_at + interval '1 day', "
        "finished_at = finished_at + interval '1 day'"
    )

    assert job.run().unchanged == job.run().unchanged > 0


def test_a_run_ends_not_before_it_began(server: SimulatorServer, job: Job) -> None:
    broken = break_half_way(server, job)
    job.query(
        f"update kaltura.sync_run {A_DAY_AHEAD}, heartbeat_at = heartbeat_at + interval '1 day', "
        "status = 'running', finished_at = null, error_kind = null, error_message = null, "
        "host = 'elsewhere' where run_id = %s",
        broken,
    )

    job.run()  # finds a heartbeat that is yet to come, and takes the lease over

    (run,) = (run for run in job.runs() if run["run_id"] == broken)
    assert run["status"] == "abandoned"
    assert run["finished_at"] >= run["started_at"]
    assert [each for each in verify(job.database_url) if not each.ok] == []


def test_pages_of_a_future_are_read_again(server: SimulatorServer, job: Job) -> None:
    broken = break_half_way(server, job)
    job.query(
        "update kaltura.sync_page set requested_at = requested_at + interval '1 day' "
        "where run_id = %s",
        broken,
    )
    job.query(
        "update kaltura.sync_run set oldest_page_at = oldest_page_at + interval '1 day' "
        "where run_id = %s",
        broken,
    )

    assert job.run().resumed_from is None
