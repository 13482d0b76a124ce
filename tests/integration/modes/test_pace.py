"""A run sends fewer requests at a time while the service is in trouble.

How many follows from the replies alone (``tests/unit/test_pace.py``); here it is seen on the wire.
"""

from __future__ import annotations

import logging

import pytest

from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job
from tests.support.retries import without_waits

CONCURRENCY = 4


def limits(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How many requests at a time were allowed, one number for each change."""
    return [
        record.in_flight_at_most
        for record in caplog.records
        if hasattr(record, "in_flight_at_most")
    ]


@pytest.fixture(autouse=True)
def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="etl")


def test_a_service_that_keeps_up_gets_all_that_is_wanted(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with SimulatorServer(generate_account(6_000, seed=1)) as server:
        Job.of(server, database_url, ETL_CONCURRENCY=str(CONCURRENCY)).run()
    assert limits(caplog) == []


@pytest.mark.parametrize("fault", ["429", "503-html", "reset", "action-blocked"])
def test_a_failure_halves_the_number_and_quiet_pages_bring_it_back(
    database_url: str, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    with SimulatorServer(generate_account(20_000, seed=1)) as server:
        options = {"retry_after": 0} if fault == "429" else {}
        server.faults.schedule(fault, where="list", at=9, **options)
        with without_waits():
            report = Job.of(server, database_url, ETL_CONCURRENCY=str(CONCURRENCY)).run()
    assert report.coverage == "{(,)}"
    assert report.retries == 1
    assert limits(caplog) == [2, 3, 4]


def test_requests_that_only_wait_for_one_another_are_held_back(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    account = generate_account(9_000, seed=1)
    with SimulatorServer(account, latency_seconds=0.3, workers=1) as server:
        report = Job.of(server, database_url, ETL_CONCURRENCY=str(CONCURRENCY)).run()
    assert report.coverage == "{(,)}"
    assert min(limits(caplog)) <= CONCURRENCY // 2
