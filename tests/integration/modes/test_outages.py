"""Every call of a run gets the documented retries, and the ledger counts what was really sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from etl.errors import CredentialsRefused, DataRefused, EtlError, ServiceUnavailable
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.simulator.faults import RequestInfo
from tests.support.job import Job

pytestmark = pytest.mark.usefixtures("no_retry_waits")

TOKENS = 1_200
OUTAGES = ("internal-database-error", "503-html", "500-empty", "close", "reset-body")


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(TOKENS, seed=11)) as running:
        yield running


def job_of(server: SimulatorServer, database_url: str, **variables: str) -> Job:
    return Job.of(server, database_url, ETL_CONCURRENCY="1", ETL_ABSENCE_GRACE="0s", **variables)


@pytest.mark.parametrize("where", ["list", "idIn"])
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_of_five_attempts_is_bridged(
    server: SimulatorServer, database_url: str, fault: str, where: str
) -> None:
    job = job_of(server, database_url)
    job.run()
    server.account.delete(server.account.line[5].id)
    sent = len(server.service.log)
    server.faults.schedule(fault, where=where, first=5)

    report = job.run()

    assert (report.absent, report.unreadable, report.retries) == (1, 0, 5)
    assert report.requests == len(server.service.log) - sent
    run = job.last_run()
    assert (run["requests"], run["retries"]) == (report.requests, 5)


def test_an_outage_hits_all_requests_in_flight_and_is_bridged_by_each(
    server: SimulatorServer, database_url: str
) -> None:
    failed: Counter[str] = Counter()

    def down(info: RequestInfo) -> str | None:
        page = str(info.params.get("pager"))
        if info.position != "list" or failed[page] == 5 or len(failed.keys() | {page}) > 4:
            return None
        failed[page] += 1
        return "503-html"

    server.faults.decide_by = down
    report = Job.of(server, database_url, ETL_PAGE_SIZE="100").run()

    assert (report.retries, report.inserted) == (20, TOKENS)


@pytest.mark.parametrize("attempts", [2, 6, 9])
@pytest.mark.parametrize("fault", OUTAGES)
def test_the_attempts_of_the_settings_are_made_and_told(
    server: SimulatorServer, database_url: str, fault: str, attempts: int
) -> None:
    job = job_of(server, database_url, ETL_RETRY_ATTEMPTS=str(attempts))
    server.faults.schedule(fault, where="list")

    with pytest.raises(ServiceUnavailable) as caught:
        job.run()

    assert f"after {attempts} attempt(s)" in caught.value.message
    run = job.last_run()
    assert (run["status"], run["requests"], run["retries"]) == (
        "failed",
        1 + attempts,
        attempts - 1,
    )
    assert run["requests"] == len(server.service.log)


def test_a_run_that_is_refused_or_dry_counts_its_requests_too(
    server: SimulatorServer, database_url: str
) -> None:
    job = job_of(server, database_url)
    job.run()
    for token in list(server.account.line)[: TOKENS // 2]:
        server.account.delete(token.id)
    sent = len(server.service.log)
    with pytest.raises(DataRefused):
        job.run()
    assert job.last_run()["requests"] == len(server.service.log) - sent

    sent = len(server.service.log)
    job.run(options=SyncOptions(dry_run=True, accept_absences=TOKENS))
    assert job.last_run()["requests"] == len(server.service.log) - sent


@pytest.mark.parametrize(
    ("fault", "kind", "requests"),
    [("503-html", ServiceUnavailable, 4), ("start-session-error", CredentialsRefused, 1)],
)
def test_an_attempt_whose_login_fails_counts_its_requests_too(
    server: SimulatorServer, database_url: str, fault: str, kind: type[EtlError], requests: int
) -> None:
    job = job_of(server, database_url, ETL_RETRY_ATTEMPTS="4")
    server.faults.schedule(fault, where="login")
    for times in (1, 2):  # the second is counted in the row of the first
        with pytest.raises(kind):
            job.run()
        run = job.last_run() if times == 1 else job.runs()[0]
        assert (run["requests"], run["retries"]) == (times * requests, times * (requests - 1))
    assert run["attempts"] == 2
    assert run["requests"] == len(server.service.log)


def test_an_error_that_a_row_may_cause_has_the_short_ladder(
    server: SimulatorServer, database_url: str
) -> None:
    """Three attempts at the page, one without autoFinalize, and one at each part of it."""
    server.configure(poison=[server.account.line[700].id])

    assert job_of(server, database_url).run().unreadable == 1

    failed = [each.page_size for each in server.service.log if each.error_code]
    whole = failed[0]
    assert failed[:4] == [whole] * 4
    parts = [size for size in failed[: failed.index(1) + 1] if size and size <= 256]
    assert len(parts) == len(set(parts))
