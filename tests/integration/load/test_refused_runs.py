"""What the audit refused is read again, and no absence is published on an earlier run's word.

Each test has a night published before; after it, ``verify`` must find nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etl.errors import DataRefused, WarehouseUnavailable
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer
from etl.simulator.faults import RequestInfo
from etl.verify.checks import verify
from tests.support.job import Job, requests_of
from tests.support.refusals import (
    BAD_ROWS,
    FIRST_SECOND,
    HIDDEN,
    PAGE_SIZE,
    TOKENS,
    account_of_singles,
    assert_published,
    break_half_way,
    hide,
    kill_before_publishing,
    let_hours_pass,
    mend,
    no_room_for_publishing,
    refuse,
    show,
    spoil,
    staged,
)


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(account_of_singles(TOKENS)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Iterator[Job]:
    """The nightly job, with a night behind it."""
    job = Job.of(server, database_url, ETL_ABSENCE_GRACE="0s", ETL_PAGE_SIZE=str(PAGE_SIZE))
    job.run()
    yield job
    assert [result for result in verify(job.database_url) if not result.ok] == []


def test_tokens_that_are_shown_again_are_not_published_as_absent(
    server: SimulatorServer, job: Job
) -> None:
    before = job.everything()
    hidden = hide(server)
    refuse(job, "absence_brake")
    show(server, hidden)
    mark = len(server.service.log)

    report = job.run(options=SyncOptions(accept_absences=HIDDEN))

    assert (report.absent, report.unchanged, report.resumed_from) == (0, TOKENS, None)
    assert requests_of(server, mark) >= TOKENS / PAGE_SIZE
    assert report.requests > 1
    assert job.everything() == before


def test_tokens_that_stay_away_are_asked_for_by_the_run_that_accepts_it(
    server: SimulatorServer, job: Job
) -> None:
    hidden = hide(server)
    refuse(job, "absence_brake")
    mark = len(server.service.log)

    report = job.run(options=SyncOptions(accept_absences=HIDDEN))

    assert (report.absent, report.resumed_from) == (HIDDEN, None)
    assert any(record.position == "idIn" for record in list(server.service.log)[mark:])
    assert {key for key, row in job.current().items() if not row["is_listed"]} == set(hidden)


def test_a_refused_run_leaves_its_reason_and_nothing_to_go_on_with(
    server: SimulatorServer, job: Job
) -> None:
    hide(server)

    said = refuse(job, "absence_brake")

    assert f"--accept-absences {HIDDEN}" in said
    assert "the next run reads the list again" in said
    run = job.last_run()
    assert (run["status"], run["error_kind"], run["error_message"]) == ("refused", "refused", said)
    assert run["published_at"] is None
    assert run["finished_at"] is not None
    assert staged(job) == 0


def test_a_killed_runs_look_ups_confirm_nothing_for_the_run_that_goes_on(
    server: SimulatorServer, job: Job
) -> None:
    hidden = hide(server)
    killed = kill_before_publishing(job, "--accept-absences", str(HIDDEN))
    back, gone = hidden[::2], hidden[1::2]
    show(server, back)

    report = job.run(options=SyncOptions(accept_absences=HIDDEN))

    assert report.resumed_from == killed
    assert report.absent == len(gone)
    assert {key for key, row in job.current().items() if not row["is_listed"]} == set(gone)
    assert_published(server, job)


def test_bad_rows_that_a_failed_run_has_read_do_not_refuse_the_next(
    server: SimulatorServer, job: Job
) -> None:
    rows = spoil(server)
    broken = break_half_way(server, job)
    assert len(job.rejected(broken)) > 10
    mend(server, rows)

    report = job.run()

    assert (report.inserted, report.rejected, report.resumed_from) == (BAD_ROWS, 0, None)
    assert job.rejected(report.run_id) == []
    assert_published(server, job)


def test_bad_rows_that_were_refused_and_mended_are_published_by_the_next_run(
    server: SimulatorServer, job: Job
) -> None:
    rows = spoil(server)
    assert "rejected_row" in refuse(job, "rejected")
    assert len(job.rejected(job.last_run()["run_id"])) == BAD_ROWS
    mend(server, rows)

    report = job.run()

    assert (report.inserted, report.rejected, report.coverage) == (BAD_ROWS, 0, "{(,)}")
    assert_published(server, job)


def test_bad_rows_that_stay_are_refused_again(server: SimulatorServer, job: Job) -> None:
    spoil(server)
    break_half_way(server, job)

    for _ in range(2):
        refuse(job, "rejected")
        assert (job.last_run()["status"], job.last_run()["resumed_from"]) == ("refused", None)


def test_pages_that_are_too_old_are_read_again(server: SimulatorServer, job: Job) -> None:
    break_half_way(server, job)
    let_hours_pass(job, 7)

    report = job.run(ETL_RESUME_WINDOW="1d")

    run = job.last_run()
    assert report.resumed_from is None
    assert run["oldest_page_at"] >= run["started_at"]
    assert_published(server, job)


def test_pages_that_are_not_too_old_are_not_read_again(server: SimulatorServer, job: Job) -> None:
    broken = break_half_way(server, job)
    let_hours_pass(job, 5)

    report = job.run(ETL_RESUME_WINDOW="1d")

    run = job.last_run()
    (first_page,) = job.query(
        "select min(requested_at) as at from kaltura.sync_page where run_id = %s", broken
    )
    assert report.resumed_from == broken
    assert run["oldest_page_at"] == first_page["at"] < run["started_at"]
    assert_published(server, job)


def test_a_walk_that_takes_too_long_is_refused(server: SimulatorServer, job: Job) -> None:
    server.configure(latency_ms=100)

    said = refuse(job, "pages_too_old", ETL_PUBLISH_AGE_MAX="1s", ETL_CONCURRENCY="1")

    assert "ETL_PUBLISH_AGE_MAX" in said
    assert "ETL_CONCURRENCY" in said
    assert job.last_run()["status"] == "refused"
    server.configure(latency_ms=0)
    assert job.run().resumed_from is None
    assert_published(server, job)


def test_a_dry_run_over_a_failed_runs_walk_ends_it_for_good(
    server: SimulatorServer, job: Job
) -> None:
    before = job.everything()
    broken = break_half_way(server, job)
    assert job.run(options=SyncOptions(dry_run=True)).resumed_from == broken
    dry = job.last_run()
    assert (dry["status"], dry["published_at"]) == ("dry_run", None)
    assert staged(job) == 0
    assert job.everything() == before
    mark = len(server.service.log)

    report = job.run()

    assert report.resumed_from is None
    assert requests_of(server, mark) >= TOKENS / PAGE_SIZE
    assert_published(server, job)


def test_a_dry_run_that_would_be_refused_is_still_a_dry_run(
    server: SimulatorServer, job: Job
) -> None:
    hide(server)

    refuse(job, "absence_brake", SyncOptions(dry_run=True))

    dry = job.last_run()
    assert (dry["status"], dry["error_kind"]) == ("dry_run", "refused")
    assert staged(job) == 0


@pytest.mark.parametrize("resume", [True, False])
def test_a_failed_walk_that_is_older_than_a_refusal_is_not_gone_on_with(
    server: SimulatorServer, job: Job, resume: bool
) -> None:
    """Few enough bad rows lie in its half to be published, and they are mended by then."""
    rows = spoil(server, 12)
    break_half_way(server, job)
    refuse(job, "rejected", SyncOptions(resume=resume))
    mend(server, rows)

    report = job.run()

    assert (report.resumed_from, report.inserted, report.rejected) == (None, 12, 0)
    assert_published(server, job)


def test_a_refused_run_that_could_not_say_so_confirms_nothing(
    server: SimulatorServer, job: Job
) -> None:
    """The ledger is out of reach when the audit refuses: the run looks abandoned later."""
    hidden = hide(server)
    job.query(
        "create function kaltura.full_disk() returns trigger language plpgsql as "
        "$$ begin raise exception 'full' using errcode = 'disk_full'; end $$"
    )
    job.query(
        "create trigger full_disk before update on kaltura.sync_run for each row "
        "when (new.status = 'refused') execute function kaltura.full_disk()"
    )
    with pytest.raises(DataRefused):
        job.run()
    job.query("drop function kaltura.full_disk cascade")
    assert job.last_run()["status"] == "running"
    let_hours_pass(job, 0.5)
    show(server, hidden)

    report = job.run(options=SyncOptions(accept_absences=HIDDEN))

    assert report.absent == 0
    assert_published(server, job)


def test_a_twin_that_went_before_the_look_up_is_asked_for_again(
    server: SimulatorServer, job: Job
) -> None:
    """A look-up settles which of two rows is the token; the next run of the walk asks anew."""
    older, newer = FIRST_SECOND + 6_007, FIRST_SECOND + 6_009
    for second, name in ((older, "older"), (newer, "newer")):
        server.account.insert(
            {"id": "twin", "createdAt": second, "updatedAt": second, "fileName": name}
        )

    def newer_goes(info: RequestInfo) -> None:
        if info.position == "idIn":
            server.account.delete("twin", newer)

    server.faults.decide_by = newer_goes
    with no_room_for_publishing(job), pytest.raises(WarehouseUnavailable):
        job.run()

    report = job.run()

    assert report.resumed_from is not None
    assert job.current()["twin"]["file_name"] == "older"
    assert_published(server, job)


def test_a_walk_from_the_future_is_not_gone_on_with(server: SimulatorServer, job: Job) -> None:
    """The clock of the server was put back: the order of the look-ups is unknown."""
    gone = hide(server)
    with no_room_for_publishing(job), pytest.raises(WarehouseUnavailable):
        job.run(options=SyncOptions(accept_absences=len(gone)))
    job.query(
        "update kaltura.upload_token_staging set observed_at = observed_at + interval '1 hour'"
    )

    report = job.run(options=SyncOptions(accept_absences=len(gone)))

    assert (report.resumed_from, report.absent) == (None, len(gone))


def test_pages_that_a_trigger_keeps_are_noticed(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    """The nightly pruning is undone, and the run that has published says so."""
    job.query(
        "create function kaltura.keep() returns trigger language plpgsql as "
        "'begin return null; end'"
    )
    job.query(
        "create trigger keep before delete on kaltura.sync_page for each row "
        "execute function kaltura.keep()"
    )
    let_hours_pass(job, 100 * 24)

    assert job.run().status == "succeeded"

    assert "old pages were not pruned" in caplog.text
