"""Every start leaves a trace, equal ones do not fill the ledger, and none hides another's walk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from etl.errors import CredentialsRefused, EtlError, LeaseHeld, ServiceUnavailable
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from etl.simulator.faults import RequestInfo
from etl.warehouse.ledger.attempts import begin_attempt, end_attempt
from etl.warehouse.ledger.ending import fail_run
from etl.warehouse.ledger.lease import open_run
from tests.support.job import Job, held_after, killed_at_exit, wait_until
from tests.support.model import Row
from tests.support.nights import PARTNER, MakeNights, Nights, make_token, page_of

pytestmark = pytest.mark.usefixtures("no_retry_waits")

WRONG = {"KALTURA_ADMIN_SECRET": "0" * 32}
DEAD = {"KALTURA_SERVICE_URL": "http://127.0.0.1:9"}
ONCE = {"ETL_RETRY_ATTEMPTS": "1"}
PAGES = 40
PAGE_CAP = 100


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(PAGES * PAGE_CAP, seed=8), page_cap=PAGE_CAP) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    return Job.of(server, database_url, **ONCE)


@pytest.fixture
def nights(make_nights: MakeNights) -> Nights:
    return make_nights(small=True)


@contextmanager
def held(server: SimulatorServer) -> Iterator[None]:
    """The service answers nothing until the block ends."""
    released = threading.Event()

    def hold(info: RequestInfo) -> None:
        del info
        released.wait(60)

    server.faults.decide_by = hold
    try:
        yield
    finally:
        released.set()
        server.faults.clear()


def attempted(job: Job, kind: type[EtlError], **variables: str) -> EtlError:
    with pytest.raises(kind) as caught:
        job.run(options=None, **variables)
    return caught.value


def told(rows: list[Row]) -> list[tuple[str, str | None, int]]:
    return [(row["status"], row["error_kind"], row["attempts"]) for row in rows]


def test_a_run_that_fails_before_it_reads_is_in_the_ledger(job: Job) -> None:
    error = attempted(job, CredentialsRefused, **WRONG)
    (row,) = job.runs()
    assert told([row]) == [("failed", "credentials", 1)]
    assert (row["walk_id"], row["pages"]) == (row["run_id"], 0)
    assert error.fields["run_id"] == row["run_id"]
    assert row["error_message"] == error.message
    assert freshness(job) == ("failed", False)


def test_equal_attempts_are_one_row_and_others_are_not(job: Job) -> None:
    attempted(job, CredentialsRefused, **WRONG)
    first = job.runs()[0]
    for _ in range(3):
        error = attempted(job, CredentialsRefused, **WRONG)
        assert error.fields["run_id"] == first["run_id"]
    attempted(job, ServiceUnavailable, **DEAD)
    attempted(job, ServiceUnavailable, **DEAD)
    report = job.run()
    attempted(job, CredentialsRefused, **WRONG)
    attempted(job, CredentialsRefused, **WRONG)

    expected = [
        ("failed", "credentials", 4),
        ("failed", "service_unavailable", 2),
        ("succeeded", None, 1),
        ("failed", "credentials", 2),
        ("skipped", "folded", 0),
    ]
    runs = job.runs()
    assert told(runs) == expected
    assert runs[2]["run_id"] == report.run_id
    assert runs[0]["finished_at"] > first["finished_at"]
    assert runs[0]["started_at"] == first["started_at"]
    assert freshness(job) == ("failed", False)


def test_an_attempt_hides_no_walk_that_can_be_resumed(server: SimulatorServer, job: Job) -> None:
    with held_after(server, PAGES), killed_at_exit(job.start()) as process:
        wait_until(lambda: any(run["pages"] for run in job.runs()), 60)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    walked = job.last_run()
    attempted(job, CredentialsRefused, **WRONG)
    attempted(job, CredentialsRefused, **WRONG)

    assert job.run().resumed_from == walked["run_id"]


def test_an_attempt_that_meets_a_run_is_skipped(job: Job, nights: Nights) -> None:
    open_run(
        nights.database,
        partner_id=job.partner_id,
        mode="full",
        lease_seconds=900,
        resume_window=None,
    )
    attempted(job, LeaseHeld)
    attempted(job, LeaseHeld)
    assert told(job.runs())[:2] == [("running", None, 1), ("skipped", "lease_held", 2)]
    assert freshness(job) == ("running", True)


def test_a_start_that_is_killed_leaves_its_row(server: SimulatorServer, job: Job) -> None:
    with held(server), killed_at_exit(job.start()) as process:
        wait_until(job.runs, 60)
        (row,) = job.runs()
        assert (row["status"], row["walk_id"]) == ("running", None)
        assert freshness(job) == ("running", True)
        process.kill()
        process.communicate()
    job.query("update kaltura.sync_run set heartbeat_at = now() - interval '16 minutes'")
    assert freshness(job) == ("abandoned", False)

    job.run()

    assert told(job.runs()) == [("abandoned", "abandoned", 1), ("succeeded", None, 1)]


def test_a_dry_run_and_a_label(job: Job) -> None:
    job.run(options=SyncOptions(dry_run=True, label="night of the test"))
    (row,) = job.runs()
    assert (row["status"], row["label"], row["attempts"]) == ("dry_run", "night of the test", 1)


def test_attempts_with_other_labels_or_modes_are_not_equal(nights: Nights) -> None:
    for label, mode in ((None, "full"), ("a", "full"), ("b", "full"), ("b", "incremental")):
        for _ in range(2):
            attempt = begin_attempt(nights.database, partner_id=PARTNER, mode=mode, label=label)
            end_attempt(nights.database, attempt, ServiceUnavailable("gone after 3.2 s"))
    rows = nights.query("select * from kaltura.sync_run where attempts > 0 order by run_id")
    assert [(row["label"], row["mode"], row["attempts"]) for row in rows] == [
        (None, "full", 2),
        ("a", "full", 2),
        ("b", "full", 2),
        ("b", "incremental", 2),
    ]


def test_a_run_that_has_read_is_never_folded(nights: Nights) -> None:
    for _ in range(2):
        run = nights.open()
        nights.stage(run, page_of([make_token("a", 1_700_000_000)]))
        fail_run(nights.database, run, ServiceUnavailable("gone"))
    rows = nights.query("select attempts from kaltura.sync_run")
    assert [row["attempts"] for row in rows] == [1, 1]


# --- nights ---------------------------------------------------------------------------------------


def test_every_night_has_a_row(job: Job) -> None:
    """Complete, failed twice, none, partial; and what is no run."""
    job.run()
    job.query("update kaltura.sync_run set started_at = started_at - interval '5 days'")
    job.query(
        "update kaltura.sync_run set published_at = published_at - interval '5 days', "
        "finished_at = finished_at - interval '5 days', "
        "heartbeat_at = heartbeat_at - interval '5 days'"
    )
    for _ in range(2):
        attempted(job, CredentialsRefused, **WRONG)
    job.query(
        "update kaltura.sync_run set started_at = started_at - interval '4 days', "
        "finished_at = finished_at - interval '3 days', "
        "heartbeat_at = heartbeat_at - interval '3 days' where attempts > 1"
    )
    job.run(options=SyncOptions(mode="incremental"))
    job.run(options=SyncOptions(dry_run=True))

    rows = job.query("select * from kaltura.sync_night order by day")
    assert [(row["outcome"], row["runs"], row["error_kind"]) for row in rows] == [
        ("complete", 1, None),
        ("failed", 0, "credentials"),
        ("failed", 2, "credentials"),
        ("no_run", 0, None),
        ("no_run", 0, None),
        ("partial", 1, None),
    ]
    assert rows[-1]["day"] == datetime.now(UTC).date()
    assert rows[0]["complete_at"] is not None
    assert rows[1]["complete_at"] is rows[3]["last_attempt_at"] is None


def freshness(job: Job) -> tuple[str, bool]:
    (row,) = job.query("select last_run_status, running from kaltura.sync_freshness")
    return row["last_run_status"], row["running"]
