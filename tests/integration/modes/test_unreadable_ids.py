"""Lookups of ids whose rows the service fails on: found, counted and named, never absent."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from etl.errors import DataRefused, ServiceUnavailable
from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import backfill_ids
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.settings.read import load_settings
from etl.simulator import SimulatorServer, generate_account
from etl.simulator.faults import RequestInfo
from etl.verify.checks import verify
from tests.support.job import Job, listed, requests_of

pytestmark = pytest.mark.usefixtures("no_retry_waits")

TOKENS = 1_200
REQUESTS_PER_ROW = 2 * math.ceil(math.log2(500)) + 20


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(TOKENS, seed=11)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    """The nightly job, with a night behind it."""
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s")
    job.run()
    return job


@pytest.fixture
def ids(server: SimulatorServer) -> list[str]:
    return [fields["id"] for fields in listed(server)]


def backfill(job: Job, ids: list[str], **variables: str) -> RunReport:
    settings = load_settings(environment=job.environment(**variables)).checked()
    options = SyncOptions(mode="backfill")
    return backfill_ids(settings, options, ids, stop=Stop(), progress=NoProgress())


def assert_sound(job: Job) -> None:
    assert [check.name for check in verify(job.database_url) if not check.ok] == []


@pytest.mark.parametrize("count", [1, 10])
def test_a_backfill_names_the_ids_that_cannot_be_read(
    server: SimulatorServer, job: Job, ids: list[str], count: int
) -> None:
    unreadable = ids[7 : 7 + count * 100 : 100]
    server.configure(poison=unreadable)
    server.account.change(ids[8], {"fileName": "renamed"})
    server.account.delete(ids[9])
    before, sent = job.current(), requests_of(server)

    report = backfill(job, [*ids, "0_nobody"])

    assert (report.unreadable, report.unreadable_ids) == (count, sorted(unreadable))
    assert (report.changed, report.absent, report.not_found) == (1, 1, ["0_nobody"])
    touched = {token_id for token_id, row in job.current().items() if row != before[token_id]}
    assert touched == {ids[8], ids[9]}
    assert job.last_run()["unreadable"] == count
    assert requests_of(server) - sent <= 3 + count * REQUESTS_PER_ROW
    assert_sound(job)


def test_ids_of_which_none_can_be_read_are_no_outage(
    server: SimulatorServer, job: Job, ids: list[str]
) -> None:
    server.configure(poison=ids[100:110])

    report = backfill(job, ids[100:110])

    assert (report.unreadable, report.unchanged, report.absent) == (10, 0, 0)


def test_more_of_them_than_allowed_are_refused(
    server: SimulatorServer, job: Job, ids: list[str]
) -> None:
    unreadable = ids[7:1_107:100]
    server.configure(poison=unreadable)
    before = job.everything()

    with pytest.raises(DataRefused) as caught:
        backfill(job, ids)

    assert (caught.value.exit_code, caught.value.fields["reason"]) == (65, "unreadable")
    assert "--max-unreadable 11" in caught.value.message
    assert caught.value.fields["token_ids"] == sorted(unreadable)
    assert job.everything() == before
    assert backfill(job, ids, ETL_MAX_UNREADABLE="11").unreadable == 11


def test_a_service_whose_cache_is_down_is_asked_without_it(
    server: SimulatorServer, job: Job, ids: list[str]
) -> None:
    server.faults.schedule("memcache-down", where="idIn")
    sent = requests_of(server)

    report = backfill(job, ids)

    assert (report.unreadable, report.unchanged) == (0, TOKENS)
    assert requests_of(server) - sent == 3 + 3


@pytest.mark.parametrize("asked", [6, TOKENS])
def test_a_service_that_fails_on_everything_is_an_outage(
    server: SimulatorServer, job: Job, ids: list[str], asked: int
) -> None:
    before, sent = job.everything(), requests_of(server)
    server.faults.schedule("internal-server-error", where="idIn")
    server.faults.schedule("internal-server-error", where="list")

    with pytest.raises(ServiceUnavailable) as caught:
        backfill(job, ids[:asked])

    assert caught.value.exit_code == 69
    assert job.everything() == before
    assert requests_of(server) - sent <= 60


def test_a_missing_token_that_cannot_be_read_keeps_what_was_known(
    server: SimulatorServer, job: Job, ids: list[str]
) -> None:
    """It is not on its page, and comes back as an unreadable row before it is looked up."""
    hidden, gone = ids[500], ids[501]
    server.account.delete(hidden)
    server.account.delete(gone)

    def come_back(info: RequestInfo) -> None:
        if info.position == "idIn" and server.account.undelete(hidden):
            server.account.poison.add(hidden)

    server.faults.decide_by = come_back
    report = job.run()

    assert (report.absent, report.unreadable_ids) == (1, [hidden])
    assert (report.unreadable, report.holes, report.coverage) == (1, [], "{(,)}")
    assert job.current()[hidden]["is_listed"]
    # The run is no witness of it.
    seen = job.query("select token_id, run_id, reason from kaltura.unobserved_token")
    assert seen == [{"token_id": hidden, "run_id": report.run_id, "reason": "pending"}]
    assert_sound(job)
