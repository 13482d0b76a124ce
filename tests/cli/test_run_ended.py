"""The last line of every run's log: one event with all figures, whatever came of the run."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from etl.cli.run_ended import FIGURES
from etl.process.progress import NoProgress, StageTimes, TimedProgress
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.ledger.lease import open_run
from etl.warehouse.schema.database import open_database
from tests.support.calls import call_each
from tests.support.job import Ended, Job, ended, held_after, killed_at_exit, wait_until
from tests.support.model import Row

KEYS = {
    *FIGURES,
    *("partner_id", "label", "status", "exit_code", "error_kind", "reason", "retryable"),
    *("duration_seconds", "stage_seconds", "warehouse"),
}
STAGES = ["opening", "logging in", "reading", "confirming", "auditing", "publishing", "tidying up"]
COUNTS = ("tokens_read", "inserted", "changed", "absent", "unchanged", "rejected", "unreadable")


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(300, seed=4)) as running:
        running.configure(poison=[list(running.account.line)[30].id])
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    return Job.of(server, database_url, ETL_RETRY_ATTEMPTS="1")


def last_event(each: Ended) -> Row:
    events = [json.loads(line) for line in each.err.splitlines()]
    assert [event["event"] for event in events].count("run ended") == 1, each.err
    event: Row = events[-1]
    assert event["event"] == "run ended", each.err
    assert event.keys() >= KEYS
    return event


def test_every_run_ends_with_one_event(job: Job, clean_environment: dict[str, str]) -> None:
    nowhere = "http://127.0.0.1:9"
    expected = {
        # options: status, exit code, error kind, reason
        ("sync", "--run-label", "first"): ("succeeded", 0, None, None),
        ("sync", "--mode", "incremental"): ("succeeded", 0, None, None),
        ("sync", "--dry-run"): ("dry_run", 0, None, None),
        ("backfill", "--from", "2026-01-01"): ("succeeded", 0, None, None),
        ("sync", "--max-unreadable", "0"): ("refused", 65, "refused", "unreadable"),
        ("sync", "--service-url", nowhere): ("failed", 69, "service_unavailable", None),
        ("sync", "--schema", "nothing"): ("failed", 78, "configuration", None),
        ("sync", "--page-size", "0"): ("failed", 2, "usage", None),
        ("sync", "--nonsense"): ("failed", 2, "usage", None),
        ("backfill",): ("failed", 2, "usage", None),
    }
    done = call_each(
        clean_environment | job.environment(), [[*arguments, "--json"] for arguments in expected]
    )

    assert [each.code for each in done] == [row[1] for row in expected.values()]
    events = [last_event(each) for each in done]
    names = ("status", "exit_code", "error_kind")
    assert [tuple(event[name] for name in names) for event in events] == [
        row[:3] for row in expected.values()
    ]
    for event, each, (*_, reason) in zip(events, done, expected.values(), strict=True):
        assert reason in (None, event["reason"])
        shared = ("exit_code", "partner_id", "run_id", "warehouse")
        assert [event[name] for name in shared] == [each.report[name] for name in shared]
        assert event["warehouse"]["schema"] in ("kaltura", "nothing")
        assert event["partner_id"] == job.partner_id
        if event["exit_code"]:
            for name in ("error_kind", "reason", "retryable"):
                assert event[name] == each.report[name]
            assert event["message"] == each.report["error_message"]
            assert event["retryable"] == (event["exit_code"] == 69)
        else:
            for name in (*COUNTS, "requests", "retries", "pages", "rows_read", "coverage"):
                assert event[name] == each.report[name]
            assert event["bytes"] > 100 * event["rows_read"]
            assert list(event["stage_seconds"])[:4] == STAGES[:4]
    first, second = events[0], events[1]
    assert (first["label"], first["mode"], first["inserted"]) == ("first", "full", 299)
    assert list(first["stage_seconds"]) == STAGES
    assert (second["label"], second["mode"]) == (None, "incremental")
    # A refused run tells what it has read, and how much was asked for.
    refused = events[4]
    assert (refused["run_id"], refused["mode"]) == (5, "full")
    assert refused["requests"] > 0
    assert refused["rows_read"] > 0
    assert events[9]["mode"] == "backfill"


def test_a_run_that_finds_another_one_is_skipped(
    job: Job, clean_environment: dict[str, str]
) -> None:
    with open_database(job.database_url, "kaltura") as database:
        held = open_run(
            database,
            partner_id=job.partner_id,
            mode="full",
            lease_seconds=900,
            resume_window=None,
        )
    (done,) = call_each(clean_environment | job.environment(), [["sync", "--json"]])
    event = last_event(done)

    assert (event["status"], event["exit_code"], event["retryable"]) == ("skipped", 75, True)
    assert (event["run_id"], event["holder_run_id"]) == (2, held.run_id)


def test_every_failure_names_the_account_and_the_warehouse(
    clean_environment: dict[str, str],
) -> None:
    """Where the server does not answer, and where the command line is wrong."""
    calls = [
        ["migrate"],
        ["sync"],
        ["backfill", "--from", "2026-01-01"],
        ["status"],
        ["verify"],
        ["report"],
        ["grant", "--loader", "somebody"],
        ["erase", "--user-id", "anna", "--apply"],
        ["prune"],
        ["check"],
    ]
    variables = {
        "DATABASE_URL": "postgresql://etl:canary@127.0.0.1:1/history",
        "KALTURA_PARTNER_ID": "102",
        "KALTURA_ADMIN_SECRET": "0" * 32,
        "KALTURA_SERVICE_URL": "http://127.0.0.1:9",
        "ETL_RETRY_ATTEMPTS": "1",
    }
    wrong = [[*call, "--nonsense"] for call in calls]
    done = call_each(clean_environment | variables, [[*call, "--json"] for call in calls + wrong])

    address = {"host": "127.0.0.1", "port": 1, "database": "history", "schema": "kaltura"}
    for call, each in zip(calls + wrong, done, strict=True):
        expected = 2 if "--nonsense" in call else 69 if call == ["check"] else 74
        last = json.loads(each.err.splitlines()[-1])
        assert each.code == expected, (call, each)
        assert (each.report["partner_id"], each.report["warehouse"]) == (102, address), call
        assert each.report["retryable"] == (expected != 2), call
        assert "reason" in each.report
        assert (last["exit_code"], last["warehouse"]) == (expected, address), call
        assert "canary" not in each.out + each.err


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_while_the_end_is_recorded_changes_nothing(
    first: signal.Signals, server: SimulatorServer, job: Job
) -> None:
    waiting = "select 1 from pg_stat_activity where datname = current_database() and "
    with (
        held_after(server, 0),
        killed_at_exit(job.start()) as process,
        closing(psycopg.connect(job.database_url)) as other,
    ):
        wait_until(lambda: any(run["walk_id"] for run in job.runs()), 60)
        other.execute("select from kaltura.sync_run for update")
        process.send_signal(first)
        wait_until(lambda: job.query(f"{waiting} wait_event_type = 'Lock'"), 30)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
        other.rollback()
        done = ended(process)

    (run,) = job.runs()
    assert (run["status"], run["error_kind"]) == ("failed", "interrupted")
    event = last_event(done)
    assert done.code == event["exit_code"] == 128 + first
    assert (event["run_id"], event["status"]) == (run["run_id"], "failed")


def test_the_times_of_stages_add_up() -> None:
    now = 100.0
    times = StageTimes(lambda: now)
    progress = TimedProgress(NoProgress(), times)
    for at, stage in ((101, "reading"), (104, "confirming"), (105, "reading"), (107, "publishing")):
        now = at
        progress.stage(stage)
        progress.update(1, None, 1)
    now = 110.0

    assert times.seconds() == {"opening": 1, "reading": 5, "confirming": 1, "publishing": 3}
    assert times.total_seconds() == sum(times.seconds().values())
