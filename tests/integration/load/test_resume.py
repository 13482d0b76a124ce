"""A run that ended early is gone on with: what was covered is not read again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from etl.errors import CredentialsRefused
from etl.run.plan import SyncOptions
from etl.run.service import service_address
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed, requests_of, tell
from tests.support.model import Model, assert_same

WINDOW = 8
"""Requests under way at once: twice the concurrency."""
PLACES = 2 * 8
"""Rows that are asked for to find where at most 8 lanes stopped."""


def break_at(server: SimulatorServer, job: Job, request: int, options: SyncOptions) -> None:
    """A run that is refused at its so-many-th page."""
    fired = server.faults.fired["service-forbidden"]
    server.faults.schedule("service-forbidden", where="list", at=(request,))
    with pytest.raises(CredentialsRefused):
        job.run(options=options)
    assert server.faults.fired["service-forbidden"] == fired + 1


def assert_published(job: Job, server: SimulatorServer) -> None:
    model = Model()
    model.night(listed(server))
    assert_same(job.current(), model.current())


def broken_and_resumed(database_url: str, tokens: int, moments: int, seed: int) -> None:
    account = generate_account(tokens, seed=seed)
    rng = random.Random(seed)
    worst = 0
    with SimulatorServer(account, seed=seed) as server:
        job = Job.of(server, database_url)
        whole = 0
        for _ in range(moments + 1):
            mark = len(server.service.log)
            if not whole:
                job.run()
                whole = requests_of(server, mark)
                continue
            broken_at = rng.randrange(3, whole)
            break_at(server, job, broken_at, SyncOptions())
            report = job.run()
            again = requests_of(server, mark) - whole
            worst = max(worst, again)
            assert report.coverage == "{(,)}"
            assert (report.resumed_from is not None) == (job.runs()[-2]["pages"] > 0)
            assert again <= WINDOW + PLACES + 2, (broken_at, again)
        assert_published(job, server)
    tell({"tokens": tokens, "requests": whole, "moments": moments, "read again": worst})


def test_a_run_that_ended_at_any_moment_is_gone_on_with(database_url: str) -> None:
    broken_and_resumed(database_url, 12_000, 4, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_fifty_moments(database_url: str) -> None:
    broken_and_resumed(database_url, 60_000, 50, seed=2)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_half_of_a_large_account_is_not_read_again(database_url: str) -> None:
    account = generate_account(200_000, seed=3)
    with SimulatorServer(account, seed=3) as server:
        job = Job.of(server, database_url)
        job.run()
        whole = requests_of(server)
        break_at(server, job, 215, SyncOptions())
        first = requests_of(server) - whole
        job.run()
        rest = requests_of(server) - whole - first
        tell({"whole": whole, "first": first, "rest": rest})
    # What was under way, the places where the lanes stopped, and page 1 to learn the page size.
    assert first + rest <= whole + WINDOW + PLACES + 2
    assert rest < 0.6 * whole


def test_an_incremental_run_is_gone_on_with(database_url: str) -> None:
    account = generate_account(3_000, seed=4)
    for token in list(account.line)[::2]:
        account.change(token.id, {"status": 1})
    with SimulatorServer(account, seed=4) as server:
        job, options = Job.of(server, database_url), SyncOptions(mode="incremental")
        job.run()
        break_at(server, job, 4, options)
        assert job.last_run()["pages"] > 0
        report = job.run(options=options)
        assert report.mode == "incremental"
        assert report.resumed_from is not None
        assert report.open_coverage == "{(,)}"
        # A full run is another kind of run, and goes on from none of these.
        break_at(server, job, 3, options)
        assert job.run().resumed_from is None


def test_the_walk_of_another_service_is_not_gone_on_with(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pages say nothing about this service; the same service, written otherwise, is none."""
    with (
        SimulatorServer(generate_account(300, seed=4)) as old,
        SimulatorServer(generate_account(300, seed=6)) as new,
    ):
        job = Job.of(old, database_url, ETL_CONCURRENCY="1", ETL_PAGE_SIZE="40")
        break_at(old, job, 5, SyncOptions())
        moved = Job.of(new, database_url, **job.variables)
        break_at(new, moved, 5, SyncOptions())
        (broken, fresh) = job.runs()
        assert (broken["service"], fresh["service"]) == (job.url, moved.url)
        assert fresh["resumed_from"] is None
        assert "it read another service" in caplog.text

        report = replace(moved, url=f"{moved.url}/api_v3/").run()

        assert report.resumed_from == fresh["run_id"]
        assert_published(moved, new)
        # Earlier program versions did not record it.
        break_at(new, moved, 5, SyncOptions())
        job.query("update kaltura.sync_run set service = null")
        assert moved.run().resumed_from == report.run_id + 1


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://www.kaltura.com", "https://www.kaltura.com"),
        ("https://WWW.Kaltura.com:443", "https://www.kaltura.com"),
        ("https://video.example:8443/Kaltura", "https://video.example:8443/Kaltura"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_a_service_has_one_address(url: str, address: str) -> None:
    assert service_address(url) == address


def test_positions_of_pages_far_down_are_no_reason_to_fail(database_url: str) -> None:
    """A page number and a page size are 32-bit integers; the position of a row is not."""
    with SimulatorServer(generate_account(3_000, seed=5)) as server:
        job = Job.of(server, database_url, ETL_CONCURRENCY="1")
        break_at(server, job, 5, SyncOptions())
        changed = job.query(
            "update kaltura.sync_page set page_index = %s where seq = 0 and rows = page_size "
            "returning page_size",
            2**31 - 1,
        )
        assert [row["page_size"] for row in changed] == [500]
        report = job.run()
        assert report.resumed_from == job.runs()[0]["run_id"]
        assert report.coverage == "{(,)}"
        assert_published(job, server)
