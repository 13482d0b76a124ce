"""Two runs at once, a run that lost its lease asleep, and a run that goes on from another."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import (
    Job,
    ended,
    held_after,
    killed_at_exit,
    listed,
    requests_of,
    wait_until,
)
from tests.support.model import Model, assert_same

PAGES = 40
PAGE_CAP = 100
HELD_AFTER = 50
"""Lists: the first PAGES of them are saved by then, and a whole walk has more."""


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    account = generate_account(PAGES * PAGE_CAP, seed=8)
    with SimulatorServer(account, page_cap=PAGE_CAP) as running:
        yield running


def wait_for_pages(job: Job, pages: int) -> None:
    """Until the only run has saved so many pages."""
    wait_until(lambda: any(run["pages"] >= pages for run in job.runs()), 60)


def fall_asleep(job: Job, pid: int) -> None:
    """Stop the process where it holds no transaction open: it sleeps between two of them.

    In the middle of a COPY its backend is active and not "in transaction", and holds locks too.
    """
    at_work = (
        "select count(*) as n from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and state <> 'idle'"
    )
    while True:
        os.kill(pid, signal.SIGSTOP)
        if not job.query(at_work)[0]["n"]:
            return
        os.kill(pid, signal.SIGCONT)


def assert_published(job: Job, server: SimulatorServer) -> None:
    model = Model()
    model.night(listed(server))
    assert_same(job.current(), model.current())


def test_the_second_of_two_runs_is_told_who_is_at_work(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url)
    server.configure(latency_ms=200)
    with killed_at_exit(job.start()) as first:
        wait_until(lambda: any(run["walk_id"] for run in job.runs()), 60)
        (run,) = job.runs()

        second = job.call()

        assert second.code == 75, second.err
        for told in (f"Run {run['run_id']}", socket.gethostname(), f"process {first.pid}"):
            assert told in second.err
        assert (second.report["status"], second.report["exit_code"]) == ("failed", 75)
        server.configure(latency_ms=0)
        one = ended(first)
    assert one.code == 0, one.err
    assert [run["status"] for run in job.runs()] == ["succeeded", "skipped"]
    assert_published(job, server)


def test_a_run_that_lost_its_lease_asleep_cannot_write(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url, ETL_LEASE_SECONDS="5")
    with killed_at_exit(job.start()) as first:
        with held_after(server, HELD_AFTER):
            wait_for_pages(job, 8)
            fall_asleep(job, first.pid)
        job.query("update kaltura.sync_run set heartbeat_at = heartbeat_at - interval '6 s'")
        second = job.run(options=SyncOptions(resume=False))
        server.account.change(listed(server)[0]["id"], {"fileName": "too late.mp4"})
        model = Model()
        before = job.everything()

        os.kill(first.pid, signal.SIGCONT)
        one = ended(first)

    assert one.code == 75, one.err
    assert f"Run {second.run_id - 1} no longer holds the lease" in one.err
    assert job.everything() == before
    assert [run["status"] for run in job.runs()] == ["abandoned", "succeeded"]
    assert [run["published_at"] is None for run in job.runs()] == [True, False]
    model.night(listed(server))
    job.run()
    assert job.current().keys() == model.current().keys()
    (left,) = job.query("select count(*) as n from kaltura.upload_token_staging")
    assert left["n"] == 0


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_killed_run_has_read_is_not_read_again(
    server: SimulatorServer, database_url: str, resume: bool
) -> None:
    job = Job.of(server, database_url)
    with killed_at_exit(job.start()) as first, held_after(server, HELD_AFTER):
        wait_for_pages(job, PAGES)
        first.kill()
        first.wait(60)
    (killed,) = job.runs()
    known = len(server.service.log)

    report = job.run(options=SyncOptions(resume=resume))

    requests = requests_of(server, known)
    assert report.resumed_from == (killed["run_id"] if resume else None)
    # At once, long before the lease ends: the process was one of this machine.
    assert [run["status"] for run in job.runs()] == ["abandoned", "succeeded"]
    assert "process of the run died" in job.runs()[0]["error_message"]
    assert job.last_run()["certificate"] == "{(,)}"
    assert_published(job, server)
    known = len(server.service.log)
    job.run()
    whole = requests_of(server, known)
    # Pages are smaller than some ties here, so a walk takes more requests than there are pages.
    assert requests < whole - 10 if resume else requests >= PAGES


def test_a_walk_that_is_too_old_is_not_gone_on_with(
    server: SimulatorServer, database_url: str
) -> None:
    server.faults.schedule("service-forbidden", where="list", at=(20,))
    job = Job.of(server, database_url)
    assert job.call().code == 77
    assert job.last_run()["pages"] > 0
    job.query("update kaltura.sync_run set started_at = started_at - interval '7 hours'")

    report = job.run()

    assert report.resumed_from is None
    assert_published(job, server)
