"""Backfills of ranges and of ids: only what was asked for changes."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.process.progress import NoProgress
from etl.process.stop import Stop
from etl.run.backfill import Range, backfill_ids, backfill_range
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.settings.read import load_settings
from etl.simulator import Account, Churn, SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.support.job import (
    Job,
    ended,
    killed_at_exit,
    requests_of,
    tell,
    wait_until,
)


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(3_000, seed=14), seed=14) as running:
        yield running


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def seconds_of(account: Account) -> list[int]:
    return [token.created_at for token in account.line]


def backfill(job: Job, wanted: Range | list[str], **options: Any) -> RunReport:
    settings = load_settings(environment=job.environment(ETL_ABSENCE_GRACE="0s")).checked()
    stop = Stop()
    chosen = SyncOptions(mode="backfill", **options)
    if isinstance(wanted, list):
        return backfill_ids(settings, chosen, wanted, stop=stop, progress=NoProgress())
    return backfill_range(settings, chosen, wanted, stop=stop, progress=NoProgress())


def full(job: Job) -> RunReport:
    return job.run(ETL_ABSENCE_GRACE="0s")


def assert_sound(job: Job) -> None:
    broken = [(check.name, check.rows[:2]) for check in verify(job.database_url) if not check.ok]
    assert not broken


def change_everything(account: Account) -> None:
    """Every third token is renamed, every tenth deleted."""
    for place, token in enumerate(list(account.line)):
        if place % 10 == 0:
            account.delete(token.id)
        elif place % 3 == 0:
            account.change(token.id, {"fileName": "renamed"})


def test_nothing_outside_the_range_changes(server: SimulatorServer, database_url: str) -> None:
    job, account = Job.of(server, database_url), server.account
    full(job)
    before = job.current()
    seconds = seconds_of(account)
    begin, end = seconds[700], seconds[1_300]
    change_everything(account)

    report = backfill(job, Range(at(begin), at(end)))

    after = job.current()
    changed = {token_id for token_id, row in after.items() if row != before[token_id]}
    assert changed
    assert {
        begin <= int(before[token_id]["created_at"].timestamp()) <= end for token_id in changed
    } == {True}
    inside = {
        token_id: row
        for token_id, row in before.items()
        if begin <= int(row["created_at"].timestamp()) <= end
    }
    listed = {token.id for token in account.line}
    for token_id in inside:
        assert after[token_id]["is_listed"] == (token_id in listed)
        if token_id in listed:
            assert (
                after[token_id]["file_name"]
                == account.fields(account.find(token_id)[0]).get("fileName")
                or after[token_id]["file_name"] == before[token_id]["file_name"]
            )
    assert report.coverage == f"{{[{begin},{end + 1})}}"
    assert (report.range_from, report.range_to) == (at(begin), at(end))
    assert report.absent + report.changed == len(changed)
    run = job.last_run()
    assert (run["mode"], run["range_from"], run["range_to"]) == ("backfill", at(begin), at(end))
    assert_sound(job)
    full(job)
    assert_sound(job)


def test_ranges_of_all_kinds_are_covered_in_an_empty_warehouse(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url)
    seconds = seconds_of(server.account)
    first, last = seconds[0], seconds[-1]
    gap = max(range(len(seconds) - 1), key=lambda place: seconds[place + 1] - seconds[place])
    known: set[int] = set()
    for begin, end in (
        (seconds[gap] + 1, seconds[gap + 1] - 1),  # without a token
        (first - 5_000, first - 1),
        (last + 1, last + 500),
        (seconds[1_000], seconds[1_000]),
        (None, seconds[40]),
        (seconds[-40], None),
        (seconds[100], seconds[700]),
    ):
        wanted = Range(None if begin is None else at(begin), None if end is None else at(end))
        mark = len(server.service.log)
        report = backfill(job, wanted)
        known |= {second for second in seconds if (begin or 0) <= second <= (end or second)}
        rows = job.current().values()
        assert {int(row["created_at"].timestamp()) for row in rows} == known
        assert requests_of(server, mark) <= 2 * math.log2(3_000 / 500) + 10
        lower, upper = (
            ("(" if begin is None else f"[{begin}"),
            ")" if end is None else f"{end + 1})",
        )
        assert report.coverage == f"{{{lower},{upper}}}"
        assert_sound(job)


@pytest.mark.parametrize("tokens", [20_000])
def test_the_start_is_found_while_the_account_lives(database_url: str, tokens: int) -> None:
    account = generate_account(tokens, seed=15)
    seconds = seconds_of(account)
    with SimulatorServer(account, seed=15) as server:
        server.service.churn = Churn(delete=0.5, insert=0.5, change=0.5, seed=15)
        job = Job.of(server, database_url)
        report = backfill(job, Range(at(seconds[12_345]), at(seconds[12_400])))
        tell({"tokens": tokens, "requests": report.requests, "pages": report.pages})
    assert report.requests <= 2 * math.log2(tokens / 500) + 10
    assert report.tokens_read >= 40


def test_the_hour_that_comes_twice(database_url: str) -> None:
    """Its tokens have the createdAt of the first time: an hour too early, before older rows."""
    account = Account()
    begin = int(datetime(2025, 10, 26, 0, 0, tzinfo=UTC).timestamp())
    for number in range(300):
        second = begin + 30 * number
        fields = {"id": f"0_{number:032x}", "createdAt": second, "updatedAt": second, "status": 3}
        account.insert(fields)
    for number in range(120):
        second = begin + 30 * number
        fields = {"id": f"1_{number:032x}", "createdAt": second, "updatedAt": second, "status": 3}
        account.insert(fields)
    with SimulatorServer(account) as server:
        job = Job.of(server, database_url)
        told = job.call_command(
            "backfill",
            *(
                "--from",
                "2025-10-26T02:00 Europe/Berlin",
                "--to",
                "2025-10-26T02:59:59 Europe/Berlin",
            ),
            "--json",
        )
    assert told.code == 0, told.err
    assert told.report["tokens_read"] == 2 * 120 + 120  # two hours of the one, one of the other
    assert told.report["inserted"] == 360


def test_ids_are_asked_for_and_the_unknown_ones_named(
    server: SimulatorServer, database_url: str, tmp_path: Path
) -> None:
    job, account = Job.of(server, database_url), server.account
    full(job)
    before = job.current()
    tokens = [token.id for token in account.line]
    account.delete(tokens[5])
    account.change(tokens[6], {"fileName": "renamed"})
    account.change(tokens[2_000], {"fileName": "not asked for"})
    account.delete(tokens[2_001])
    new = account.insert({**account.fields(list(account.line)[-1]), "id": "0_new"}).id
    file = tmp_path / "ids.txt"
    ids = [*tokens[:1_200], *tokens[:10], "0_nobody", "# comment", "", new]
    file.write_text("\n".join(ids), encoding="utf-8")

    told = job.call_command("backfill", "--ids", str(file), "--json", ETL_ABSENCE_GRACE="0s")

    assert told.code == 0, told.err
    report = told.report
    assert (report["inserted"], report["changed"], report["absent"]) == (1, 1, 1)
    assert (report["asked"], report["not_found"]) == (1_202, ["0_nobody"])
    assert (report["coverage"], report["expected_requests"], report["pages"]) == ("{}", 3, 3)
    assert report["unchanged"] == 1_198
    after = job.current()
    touched = {token_id for token_id, row in after.items() if row != before.get(token_id)}
    assert touched == {tokens[5], tokens[6], new}
    run = job.last_run()
    assert (run["mode"], run["range_from"], run["range_to"]) == ("backfill", None, None)
    assert_sound(job)


def test_bad_ids_stop_everything_before_it_begins(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url)
    told = job.call_command("backfill", "--ids", "/nonexistent/ids", "--json")
    assert (told.code, told.report["exit_code"]) == (2, 2)
    assert "cannot be read: No such file or directory." in told.err
    for arguments, said in (
        ((), "Give --from, --to or both, or --ids FILE"),
        (("--from", "2026-01-01", "--ids", "-"), "--ids cannot be combined with --from or --to"),
        (("--from", "2026-01-01T00:00"), "has no zone"),
    ):
        told = job.call_command("backfill", *arguments)
        assert told.code == 2
        assert said in told.err
    assert not job.runs()
    assert not requests_of(server)


def test_a_dry_run_tells_the_plan_and_publishes_nothing(
    server: SimulatorServer, database_url: str
) -> None:
    job, account = Job.of(server, database_url), server.account
    full(job)
    seconds = seconds_of(account)
    account.change(list(account.line)[1_500].id, {"fileName": "renamed"})
    report = backfill(job, Range(at(seconds[1_400]), at(seconds[1_600])), dry_run=True)
    assert [change["change_kind"] for change in report.changes] == ["changed"]
    assert report.expected_tokens is not None
    assert report.expected_tokens >= 201
    assert report.expected_requests is not None
    assert report.requests - 8 <= report.expected_requests <= report.requests + 8
    assert job.last_run()["status"] == "dry_run"
    assert not job.superseded()


def test_a_killed_backfill_is_resumed_by_one_of_the_same_range_only(
    database_url: str,
) -> None:
    account = generate_account(6_000, seed=16)
    with SimulatorServer(account, seed=16, page_cap=100) as server:
        job = Job.of(server, database_url)
        seconds = seconds_of(account)
        wanted = Range(at(seconds[1_000]), at(seconds[5_000]))
        server.faults.schedule("service-forbidden", where="list", at=(45,))
        begin, end = (moment.isoformat() for moment in (wanted.begin, wanted.end) if moment)
        broken = job.call_command(
            "backfill", "--from", begin, "--to", end, "--json", ETL_PAGE_SIZE="100"
        )
        assert broken.code == 77, broken.err
        assert job.last_run()["pages"] > 10
        other = backfill(job, Range(at(seconds[10]), at(seconds[20])), dry_run=True)
        assert other.resumed_from is None
        again = job.call_command(
            "backfill", "--from", begin, "--to", end, "--json", ETL_PAGE_SIZE="100"
        )
        assert again.code == 0, again.err
        listed = {
            token.id
            for token in account.line
            if seconds[1_000] <= token.created_at <= seconds[5_000]
        }
        assert job.current().keys() == listed
        assert_sound(job)


def test_a_second_run_waits_for_the_first(database_url: str) -> None:
    account = generate_account(4_000, seed=17)
    with SimulatorServer(account, seed=17, page_cap=100, latency_seconds=2) as server:
        job = Job.of(server, database_url)
        with killed_at_exit(job.start()) as first:
            wait_until(lambda: any(run["walk_id"] for run in job.runs()), 60)
            begin = at(seconds_of(account)[100]).isoformat()
            arguments = ("backfill", "--from", begin, "--json")
            with killed_at_exit(job.start_command(*arguments, "--wait", "90s")) as second:
                at_once = job.call_command(*arguments)
                assert at_once.code == 75, at_once.err
                assert second.poll() is None
                server.configure(latency_ms=0)
                one, two = ended(first), ended(second)
        assert one.code == 0, one.err
        assert two.code == 0, two.err
        statuses = sorted(run["status"] for run in job.runs())
        assert statuses == ["skipped", "succeeded", "succeeded"]
        assert two.report["inserted"] == 0


def test_waiting_ends_with_a_signal_and_with_the_time(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url)
    full(job)
    job.query(
        "insert into kaltura.sync_run (partner_id, walk_id, mode, status) "
        "values (%s, 99, 'full', 'running')",
        job.partner_id,
    )
    assert job.call("--wait", "1s").code == 75
    with killed_at_exit(job.start("--wait", "1h", ETL_LOG_FORMAT="json")) as waiting:
        assert waiting.stderr is not None
        line = waiting.stderr.readline()
        while "waiting: Run" not in line:
            assert line
            line = waiting.stderr.readline()
        waiting.send_signal(signal.SIGTERM)
        told = ended(waiting, timeout=20)
    assert told.code == 143
