"""A server that goes away in the middle of a run, and what the ledger says afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from etl.errors import WarehouseUnavailable
from etl.process.stop import Stop
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.ledger.ending import failed_on_error, settle_commit
from etl.warehouse.load.publish import publish
from etl.warehouse.load.resolve import audit_counts
from etl.warehouse.schema.database import open_database
from tests.support.job import Job, ended, held_after, killed_at_exit, wait_until
from tests.support.nights import Nights, make_token, page_of
from tests.support.own_server import OwnServer


def restarts(server: OwnServer, after: int) -> Callable[[float], bool]:
    """A wait that takes no time; the server is there again after so many."""
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        assert waits == sorted(waits)
        waits.append(seconds)
        if len(waits) == after:
            server.start()
        return False

    return wait


def test_a_run_that_loses_its_server_ends_its_row_when_it_is_back(
    server: OwnServer, own_url: str
) -> None:
    with open_database(own_url, "kaltura") as database:
        nights = Nights(own_url, database)
        run = nights.open()
        run.wait = restarts(server, after=4)
        server.stop()
        with pytest.raises(WarehouseUnavailable), failed_on_error(database, run):
            nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))

        assert nights.ledger(run.run_id)["status"] == "failed"
        assert nights.open().run_id > run.run_id


def test_a_stop_ends_the_waiting(server: OwnServer, own_url: str) -> None:
    stop = Stop()
    with open_database(own_url, "kaltura") as database:
        nights = Nights(own_url, database)
        run = nights.open()
        run.wait = stop.wait
        server.stop()
        try:
            stop.request()
            with pytest.raises(WarehouseUnavailable), failed_on_error(database, run):
                raise WarehouseUnavailable("lost")
        finally:
            server.start()
        assert nights.ledger(run.run_id)["status"] == "running"


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_that_a_restart_left_unanswered_is_looked_up(
    server: OwnServer, own_url: str, committed: bool
) -> None:
    with open_database(own_url, "kaltura") as database:
        nights = Nights(own_url, database)
        run = nights.open()
        nights.stage(run, page_of([make_token("a")], from_start=True, to_end=True))
        counts = audit_counts(database, run)
        if committed:
            publish(database, run, counts, holes=[], overrides={}, requests=1, retries=0)
        run.wait = restarts(server, after=2)
        server.stop()
        assert settle_commit(database, run) == committed
        assert nights.ledger(run.run_id)["status"] == ("succeeded" if committed else "failed")


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_job_whose_server_restarts(server: OwnServer, own_url: str, interrupted: bool) -> None:
    """The process waits for the server and leaves a row that the next start can go on from."""
    account = generate_account(1_000, seed=8)
    with SimulatorServer(account, page_cap=100) as service:
        job = Job.of(service, own_url, ETL_CONCURRENCY="1")
        with killed_at_exit(job.start()) as process:
            with held_after(service, 3):
                wait_until(lambda: any(run["walk_id"] for run in job.runs()), 60)
                server.stop()
            assert process.stderr is not None
            told: list[str] = []
            while "waiting for Postgres" not in "".join(told[-1:]):
                told.append(process.stderr.readline())
                assert told[-1], "".join(told)
            if interrupted:
                os.kill(process.pid, signal.SIGTERM)
                process.wait(60)
            server.start()
            one = ended(process)
        # The error that ended the run, not the signal that ended the waiting.
        assert one.code == 74, one.err
        (run,) = job.runs()
        assert run["status"] == ("running" if interrupted else "failed")

        report = job.run()

        assert report.status == "succeeded"
        assert len(job.current()) == len(account.line)
