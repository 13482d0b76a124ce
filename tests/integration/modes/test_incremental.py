"""Incremental runs: what they promise, what they cost, and when they are full runs instead."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from etl.errors import DataRefused
from etl.run.plan import SyncOptions
from etl.run.report import RunReport
from etl.simulator import SimulatorServer, generate_account
from etl.verify.checks import verify
from tests.support.job import Job, listed, requests_of, tell
from tests.support.model import VALUES, VOLATILE, assert_same, columns_of
from tests.support.restamp import restamp_run

OPEN = (0, 1, 2)
INCREMENTAL = SyncOptions(mode="incremental")


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(1_200, seed=4), seed=4) as running:
        yield running


def stable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in (*VALUES, "is_listed") if name not in VOLATILE}


def truth(server: SimulatorServer) -> dict[str, dict[str, Any]]:
    return {
        fields["id"]: stable(columns_of(fields) | {"is_listed": True}) for fields in listed(server)
    }


def known(job: Job) -> dict[str, dict[str, Any]]:
    return {token_id: stable(row) for token_id, row in job.current().items()}


def keep_users(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """A user's name, once known, stays."""
    return expected if expected["user_id"] is not None else expected | {"user_id": found["user_id"]}


def assert_promise(job: Job, server: SimulatorServer, before: dict[str, dict[str, Any]]) -> None:
    """All tokens are known; those that were or are open are as the service tells."""
    now, service = known(job), truth(server)
    assert service.keys() <= now.keys()
    were_open = {
        token_id for token_id, row in before.items() if row["is_listed"] and row["status"] in OPEN
    }
    are_open = {token_id for token_id, row in service.items() if row["status"] in OPEN}
    new = service.keys() - before.keys()
    for token_id in were_open | are_open | new:
        if token_id in service:
            found = now[token_id]
            assert found == keep_users(found, service[token_id]), token_id
        else:
            assert not now[token_id]["is_listed"], token_id


def assert_truth(job: Job, server: SimulatorServer) -> None:
    now, service = known(job), truth(server)
    here = {token_id: row for token_id, row in now.items() if row["is_listed"]}
    assert_same(
        here,
        {token_id: keep_users(here.get(token_id, row), row) for token_id, row in service.items()},
    )


def assert_sound(job: Job) -> None:
    broken = [
        (result.name, result.rows[:2]) for result in verify(job.database_url) if not result.ok
    ]
    assert not broken


def run(job: Job, options: SyncOptions = INCREMENTAL, **variables: str) -> RunReport:
    return job.run(options=options, ETL_ABSENCE_GRACE="0s", **variables)


def test_without_a_watermark_it_is_a_full_run_and_says_so(
    server: SimulatorServer, database_url: str
) -> None:
    job = Job.of(server, database_url)
    told = job.call("--mode", "incremental")
    assert told.code == 0, told.err
    assert (told.report["mode"], told.report["coverage"]) == ("full", "{(,)}")
    assert "no published run has read the whole account" in told.report["full_because"]
    assert "a full run instead of an incremental one" in told.err
    assert job.last_run()["mode"] == "full"

    again = job.call("--mode", "incremental").report

    assert (again["mode"], again["full_because"]) == ("incremental", None)
    assert again["open_coverage"] == "{(,)}"
    assert again["coverage"].endswith(",)}")
    assert again["inserted"] + again["changed"] + again["absent"] == 0
    assert job.last_run()["mode"] == "incremental"
    assert_sound(job)


def test_the_newest_and_the_open_are_read_and_nothing_else(
    server: SimulatorServer, database_url: str
) -> None:
    job, account = Job.of(server, database_url), server.account
    run(job, SyncOptions())
    tokens = [account.fields(token) for token in account.line]
    closed = [fields["id"] for fields in tokens[:800] if fields["status"] == 3]
    for number, fields in enumerate(tokens[100:130]):
        account.change(fields["id"], {"status": number % 3})
    run(job)  # they turn up as open
    for token_id in [fields["id"] for fields in tokens[100:110]]:
        account.change(token_id, {"status": 3})
    for token_id in [fields["id"] for fields in tokens[110:115]]:
        account.delete(token_id)
    account.change(tokens[116]["id"], {"uploadedFileSize": "77"})
    account.delete(closed[0])
    account.change(closed[1], {"fileName": "renamed"})
    newest = tokens[-1]["createdAt"]
    for number in range(20):
        account.insert({**tokens[-1], "id": f"new{number}", "createdAt": newest + number // 3})
    before = known(job)

    report = run(job)

    assert (report.inserted, report.changed, report.absent) == (20, 11, 5)
    assert_promise(job, server, before)
    now = known(job)
    assert now[closed[0]]["is_listed"]  # what was finished is for the next full run
    assert now[closed[1]]["file_name"] != "renamed"
    assert_sound(job)
    run(job, SyncOptions())
    assert_truth(job, server)
    assert_sound(job)


def test_a_token_with_an_unknown_status_is_not_called_missing(
    server: SimulatorServer, database_url: str
) -> None:
    job, account = Job.of(server, database_url), server.account
    for place, status in ((10, 4), (11, 6), (12, 99)):
        account.change(account.line[place].id, {"status": status})
    run(job, SyncOptions())
    mark = len(server.service.log)
    report = run(job)
    assert (report.absent, report.changed, report.inserted) == (0, 0, 0)
    assert not [record for record in list(server.service.log)[mark:] if "idIn" in str(record)]


def test_few_requests_for_many_new_and_open_tokens(database_url: str) -> None:
    account = generate_account(12_000, seed=9)
    tokens = [account.fields(token) for token in account.line]
    for fields in tokens[::6][:2_000]:
        account.change(fields["id"], {"status": 1})
    for fields in tokens:
        if fields["status"] in OPEN and fields["id"] not in {f["id"] for f in tokens[::6][:2_000]}:
            account.change(fields["id"], {"status": 3})
    with SimulatorServer(account, seed=9) as server:
        job = Job.of(server, database_url)
        run(job, SyncOptions())
        for fields in tokens[::6][:400]:
            account.change(fields["id"], {"status": 3})
        for number in range(1_000):
            born = tokens[-1]["createdAt"] + 1 + 3 * number
            account.insert({**tokens[-1], "id": f"new{number}", "createdAt": born, "status": 3})
        mark = len(server.service.log)
        report = run(job)
        requests = requests_of(server, mark)
        tell({"new": 1_000, "open": 1_600, "closed": 400, "requests": requests})
    assert (report.inserted, report.changed) == (1_000, 400)
    assert requests <= 25


@pytest.mark.parametrize("age", [timedelta(days=6), timedelta(days=8)])
def test_full_every_asks_for_a_full_run_when_the_certificate_is_old(
    server: SimulatorServer, database_url: str, age: timedelta
) -> None:
    job = Job.of(server, database_url)
    run_id = run(job, SyncOptions()).run_id
    with psycopg.connect(database_url, autocommit=True) as connection:
        restamp_run(connection, run_id, datetime.now(UTC) - age)
    told = job.call("--mode", "incremental", "--full-every", "7d")
    assert told.code == 0, told.err
    assert told.report["mode"] == ("full" if age.days > 7 else "incremental")
    status = job.call_command("status", "--json").report["accounts"][0]
    assert status["complete_age_hours"] == pytest.approx(
        0 if age.days > 7 else age.days * 24, abs=0.2
    )


def test_a_backfill_up_to_the_end_does_not_move_the_watermark(
    server: SimulatorServer, database_url: str
) -> None:
    job, account = Job.of(server, database_url), server.account
    run(job, SyncOptions())
    last = account.fields(list(account.line)[-1])
    for number in range(60):
        born = last["createdAt"] + 600 * (number + 1)
        account.insert({**last, "id": f"new{number}", "createdAt": born})
    begin = datetime.fromtimestamp(last["createdAt"] + 600 * 50, UTC)
    filled = job.call_command("backfill", "--from", begin.isoformat(), "--json")
    assert filled.code == 0, filled.err
    assert filled.report["inserted"] == 11
    assert run(job).inserted == 49
    assert_truth(job, server)
    assert_sound(job)


def test_a_token_of_the_far_future_does_not_blind_the_next_runs(
    server: SimulatorServer, database_url: str
) -> None:
    job, account = Job.of(server, database_url), server.account
    last = account.fields(list(account.line)[-1])
    ahead = int(datetime.now(UTC).timestamp()) + 200 * 86_400
    account.insert({**last, "id": "ahead", "createdAt": ahead})
    run(job, SyncOptions())
    account.insert({**last, "id": "new", "createdAt": last["createdAt"] + 5})
    assert run(job).inserted == 1


def test_the_repeated_hour_of_autumn_is_within_the_lookback(
    server: SimulatorServer, database_url: str
) -> None:
    job, account = Job.of(server, database_url), server.account
    run(job, SyncOptions())
    last = account.fields(list(account.line)[-1])
    account.insert({**last, "id": "an hour ago", "createdAt": last["createdAt"] - 3_599})
    assert run(job).inserted == 1


def test_mass_deletion_of_open_tokens_is_braked(server: SimulatorServer, database_url: str) -> None:
    job, account = Job.of(server, database_url), server.account
    some = [token.id for token in list(account.line)[:400]]
    for token_id in some:
        account.change(token_id, {"status": 1})
    run(job, SyncOptions())
    for token_id in some[:210]:
        account.delete(token_id)
    with pytest.raises(DataRefused) as refused:
        run(job)
    assert refused.value.fields["reason"] == "absence_brake"
    report = run(job, SyncOptions(mode="incremental", accept_absences=210))
    # What was refused is read again, and asked for again.
    assert (report.absent, report.resumed_from) == (210, None)


def test_a_dry_run_says_what_would_change(server: SimulatorServer, database_url: str) -> None:
    job, account = Job.of(server, database_url), server.account
    run(job, SyncOptions())
    last = account.fields(list(account.line)[-1])
    account.insert({**last, "id": "new", "createdAt": last["createdAt"] + 5})
    report = run(job, SyncOptions(mode="incremental", dry_run=True))
    assert [change["token_id"] for change in report.changes] == ["new"]
    assert "new" not in job.current()


def test_full_every_needs_the_incremental_mode(server: SimulatorServer, database_url: str) -> None:
    told = Job.of(server, database_url).call("--full-every", "7d")
    assert told.code == 2
    assert "--mode incremental" in told.err


# --- weeks ---------------------------------------------------------------------------------------


def live(
    job: Job, nightly: Job | None, server: SimulatorServer, *, days: int, every_hours: int
) -> dict[str, int]:
    """Incremental runs by day and a full one each night, as if the days went by."""
    life = server.life()
    figures = {"incremental": 0, "full": 0, "requests incremental": 0, "requests full": 0}

    def one_run(which: Job, options: SyncOptions) -> None:
        mark = len(server.service.log)
        report = run(which, options)
        with psycopg.connect(which.database_url, autocommit=True) as connection:
            restamp_run(connection, report.run_id, datetime.fromtimestamp(life.now, UTC))
        if which is job:
            figures[options.mode] += 1
            figures[f"requests {options.mode}"] += requests_of(server, mark)

    one_run(job, SyncOptions())
    if nightly is not None:
        one_run(nightly, SyncOptions())
    for _ in range(days):
        for _ in range(24 // every_hours - 1):
            life.advance(every_hours)
            before = known(job)
            one_run(job, INCREMENTAL)
            assert_promise(job, server, before)
        life.advance(every_hours)
        one_run(job, SyncOptions())
        assert_truth(job, server)
        if nightly is not None:
            one_run(nightly, SyncOptions())
    assert_sound(job)
    return figures


def test_days_with_incremental_runs_and_a_full_one_each_night(database_url: str) -> None:
    with SimulatorServer(generate_account(700, seed=21), seed=21, shuffle_ties=True) as server:
        figures = live(Job.of(server, database_url), None, server, days=2, every_hours=4)
    assert figures["incremental"] == 10


INTERVALS = """
select count(*) as changes,
       extract(epoch from percentile_cont(0.5) within group (order by happened_before
           - happened_after)) / 3600 as median_hours,
       extract(epoch from avg(happened_before - happened_after)) / 3600 as mean_hours
from kaltura.upload_token_status_history
where from_status is not null and from_status_code in (0, 1, 2)
"""


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_month_of_hourly_runs(database_url: str, empty_database_url: str) -> None:
    from etl.warehouse.schema.revision import migrate

    migrate(empty_database_url, "kaltura")
    with SimulatorServer(generate_account(1_000, seed=30), seed=30, shuffle_ties=True) as server:
        job, nightly = Job.of(server, database_url), Job.of(server, empty_database_url)
        figures = live(job, nightly, server, days=30, every_hours=1)
    (hourly,), (daily,) = job.query(INTERVALS), nightly.query(INTERVALS)
    tell(
        {
            **figures,
            **{f"hourly {name}": float(value) for name, value in hourly.items()},
            **{f"nightly {name}": float(value) for name, value in daily.items()},
        }
    )
    assert hourly["changes"] > daily["changes"]
    assert hourly["mean_hours"] < daily["mean_hours"] / 4
