"""What is pruned is what is old, and the warehouse still agrees with itself afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import psycopg
import pytest

from etl.errors import CredentialsRefused, ServiceUnavailable
from etl.simulator import Account, SimulatorServer, generate_account
from etl.verify.checks import verify
from etl.warehouse.privacy import prune as pruning
from etl.warehouse.privacy.prune import Pruned, prune, prune_old_pages
from etl.warehouse.read.checks import check_files
from etl.warehouse.schema.database import open_database
from tests.support.job import Job, listed
from tests.support.model import Row, assert_same
from tests.support.restamp import restamp_run
from tests.support.roles import own_database, roles_of
from tests.support.searching import fingerprint

NIGHTS = 6
TOKENS = 60
AFTER_THE_NIGHTS = 1_767_575_000
"""The account's time: seconds since 1970."""
KEPT = {"ETL_ABSENCE_GRACE": "0s", "ETL_KEEP_PAGES_DAYS": "3650"}


def account_and_nights() -> tuple[Account, Iterator[int]]:
    """An account, and what happens in it before each night; the same at every call."""
    account = generate_account(TOKENS, seed=43, clock=lambda: AFTER_THE_NIGHTS)

    def nights() -> Iterator[int]:
        rows = [token.id for token in account.line]
        account.insert({"id": "bad", "partnerId": "never", "createdAt": 1_767_000_000})
        for night in range(NIGHTS):
            if night:
                account.change(rows[3], {"fileName": f"name {night}"})
                account.change(rows[10 + night], {"status": 4})
                account.delete(rows[20 + night])
            if night == 3:
                account.undelete(rows[21])
            yield night

    return account, nights()


@pytest.fixture(scope="module")
def loaded(postgres_url: str, template_database: str) -> Iterator[str]:
    """The URL of the warehouse that the tests copy.

    Six nights, ten days apart, the last one yesterday; each with a rejected row.
    """
    account, nights = account_and_nights()
    with own_database(postgres_url, template_database) as url, SimulatorServer(account) as server:
        for night in nights:
            report = Job.of(server, url, **KEPT).run()
            begin = datetime.now(UTC) - timedelta(days=1 + 10 * (NIGHTS - 1 - night))
            with psycopg.connect(url, autocommit=True) as connection:
                restamp_run(connection, report.run_id, begin)
        yield url


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    """The service as it is after the nights."""
    account, nights = account_and_nights()
    assert len(list(nights)) == NIGHTS
    with SimulatorServer(account) as running:
        yield running


@pytest.fixture
def job(loaded: str, server: SimulatorServer, postgres_url: str) -> Iterator[Job]:
    """The nightly job after the nights, with a warehouse of this test's own."""
    name = urlsplit(loaded).path.removeprefix("/")
    with own_database(postgres_url, name) as url:
        yield Job.of(server, url, **KEPT)


def pruned(job: Job, *, apply: bool = True, url: str = "", **days: int) -> list[Pruned]:
    with open_database(url or job.database_url, "kaltura") as database:
        return prune(database, days=days, partner_id=None, apply=apply)


def failing(job: Job) -> dict[str, list[Row]]:
    return {each.name: each.rows for each in verify(job.database_url) if not each.ok}


def rows_in(job: Job) -> dict[str, int]:
    tables = ("sync_page", "rejected_row", "upload_token", "upload_token_superseded")
    return {
        table: job.query(f"select count(*) as n from kaltura.{table}")[0]["n"]  # noqa: S608
        for table in tables
    }


def test_old_pages_and_rejected_rows(job: Job) -> None:
    before = rows_in(job)
    assert before["rejected_row"] == NIGHTS
    young = sum(run["pages"] for run in job.runs()[3:])

    told = pruned(job, pages=25, rejected=15)

    assert [(each.kind, each.rows) for each in told] == [
        ("pages", before["sync_page"] - young),
        ("rejected", 4),
    ]
    after = rows_in(job)
    assert (after["sync_page"], after["rejected_row"]) == (young, 2)
    assert after["upload_token_superseded"] == before["upload_token_superseded"]
    assert failing(job) == {}
    # One record a transaction, each with the horizon.
    records = job.query("select kind, sum(deleted)::int as n from kaltura.pruning group by 1")
    assert {row["kind"]: row["n"] for row in records} == {each.kind: each.rows for each in told}
    assert [each.rows for each in pruned(job, pages=25, rejected=15)] == [0, 0]


def test_rejected_rows_that_were_not_pruned_are_missed(job: Job) -> None:
    pruned(job, rejected=15)
    job.query("delete from kaltura.rejected_row where run_id = %s", job.last_run()["run_id"])
    assert failing(job).keys() == {"rejected_rows_counted"}


@pytest.mark.parametrize("nightly", [True, False], ids=["nightly", "prune"])
def test_pruned_pages_excuse_no_lost_ones(job: Job, nightly: bool) -> None:
    """What was there when it was pruned is counted; what was lost before stays lost."""
    oldest, latest = job.runs()[0], job.last_run()
    assert oldest["rejected"] == latest["rejected"] == 1
    job.query("delete from kaltura.sync_page where run_id = %s and seq = 0", oldest["run_id"])
    assert "pages_counted" in failing(job)
    if nightly:
        with open_database(job.database_url, "kaltura") as database:
            assert prune_old_pages(database, 25) > 0
    else:
        pruned(job, pages=25, rejected=25)
    counted = {run["run_id"]: run for run in job.runs()}
    assert counted[oldest["run_id"]]["pages_pruned"] == oldest["pages"] - 1
    assert counted[oldest["run_id"]]["rejected_pruned"] == 1
    assert counted[latest["run_id"]]["pages_pruned"] == 0
    assert {name: len(rows) for name, rows in failing(job).items()} == {"pages_counted": 1}
    # And all pages of a run that was not pruned.
    job.query("delete from kaltura.sync_page where run_id = %s", latest["run_id"])
    job.query("delete from kaltura.rejected_row where run_id = %s", latest["run_id"])
    assert failing(job).keys() >= {
        "pages_counted",
        "certificate_adds_up",
        "certificates",
        "oldest_page_truthful",
        "absences_observed",
        "rejected_rows_counted",
    }


def test_old_versions(server: SimulatorServer, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    # The clean cut must not depend on where a transaction ends.
    monkeypatch.setattr(pruning, "VERSIONS_AT_ONCE", 3)
    before = job.superseded()
    old = job.query(
        "select token_id, version from kaltura.upload_token_superseded "
        "where valid_to < now() - interval '25 days'"
    )
    assert 0 < len(old) < len(before)

    (told,) = pruned(job, versions=25)

    assert told.rows == len(old)
    gone = {(row["token_id"], row["version"]) for row in old}
    assert job.superseded() == {key: row for key, row in before.items() if key not in gone}
    assert failing(job) == {}
    records = job.query("select * from kaltura.pruning")
    assert sum(row["deleted"] for row in records) == len(old)
    assert max(row["deleted"] for row in records) <= 3
    assert {row["horizon"] for row in records} == {told.horizon}

    # The next nights go on from there.
    rows = [fields["id"] for fields in listed(server)]
    server.account.change(rows[3], {"fileName": "another"})
    server.account.delete(rows[5])
    night = job.run()
    assert (night.changed, night.absent) == (1, 1)
    assert failing(job) == {}


def test_the_history_since_the_horizon_is_as_it_was(job: Job) -> None:
    def known(days: int) -> set[tuple[str, int]]:
        rows = job.query(
            "select token_id, version from kaltura.upload_token_as_of(now() - %s * interval '1 d')",
            days,
        )
        return {(row["token_id"], row["version"]) for row in rows}

    before = {days: known(days) for days in range(0, 60, 5)}

    pruned(job, versions=25)

    after = {days: known(days) for days in before}
    assert {days: after[days] for days in before if days <= 25} == {
        days: before[days] for days in before if days <= 25
    }
    # Earlier, tokens are missing that were there: as docs/howto/erase.md says.
    assert len(after[35]) < len(before[35])
    assert after[35] <= before[35]


def test_all_earlier_versions(server: SimulatorServer, job: Job) -> None:
    current = job.current()
    pruned(job, versions=0, pages=0, rejected=0)
    assert job.superseded() == {}
    assert_same(job.current(), current)
    assert failing(job) == {}
    alive = {fields["id"] for fields in listed(server)} - {"bad"}
    assert {key for key, row in job.current().items() if row["is_listed"]} == alive
    assert job.run().changed == 0


CORRUPTIONS = [
    # In the middle of what is left.
    (
        "versions_contiguous",
        "delete from upload_token_superseded where version = 5 and token_id = "
        "(select token_id from upload_token_superseded where version = 5 limit 1)",
    ),
    (
        "versions_contiguous",
        "delete from upload_token_superseded where (token_id, version) = (select token_id, "
        "max(version) from upload_token_superseded group by 1 having count(*) > 1 limit 1)",
    ),
    # All of it, but too young to have been pruned.
    (
        "versions_contiguous",
        "delete from upload_token_superseded where valid_to > now() - interval '5 d'",
    ),
    (
        "ledger_counts_versions",
        "delete from upload_token_superseded where valid_from > now() - interval '20 d'",
    ),
    (
        "ledger_counts_versions",
        "update sync_run set changed = changed + 1 "
        "where run_id = (select max(run_id) from sync_run)",
    ),
    ("ledger_counts_versions", "update sync_run set inserted = 0 where inserted > 0"),
    ("versions_contiguous", "delete from pruning"),
    ("ledger_counts_versions", "update pruning set kind = 'pages'"),
]


def test_the_checks_still_find_what_was_not_pruned(job: Job) -> None:
    pruned(job, versions=25)
    assert failing(job) == {}
    checks = {path.stem: path.read_bytes() for path in check_files()}
    with psycopg.connect(job.database_url) as connection:
        for check, corruption in CORRUPTIONS:
            connection.execute("set local search_path = kaltura")
            connection.execute(corruption)
            assert connection.execute(checks[check]).fetchall(), corruption
            connection.rollback()


def test_a_dry_run_counts_the_same_and_changes_nothing(job: Job) -> None:
    before = fingerprint(job.database_url)
    told = pruned(job, apply=False, pages=25, rejected=15, versions=35)
    assert fingerprint(job.database_url) == before
    assert [(each.kind, each.rows) for each in pruned(job, pages=25, rejected=15, versions=35)] == [
        (each.kind, each.rows) for each in told
    ]
    assert all(each.rows for each in told)


def test_a_failed_run_may_still_be_resumed(server: SimulatorServer, job: Job) -> None:
    server.faults.schedule("503-html", where="idIn", rate=1.0)
    server.account.delete(listed(server)[7]["id"])
    with pytest.raises(ServiceUnavailable):
        job.run(ETL_RETRY_ATTEMPTS="1")
    server.faults.clear()
    failed = job.last_run()
    assert failed["pages"] > 0

    pruned(job, pages=0, rejected=0)

    left = job.query("select distinct run_id from kaltura.sync_page")
    assert [row["run_id"] for row in left] == [failed["run_id"]]
    assert job.run().resumed_from == failed["run_id"]
    assert failing(job) == {}


def test_another_accounts_night_keeps_what_may_be_resumed(
    server: SimulatorServer, database_url: str
) -> None:
    """The nightly run prunes the pages of every account, however short they are kept."""
    job = Job.of(
        server,
        database_url,
        ETL_RETRY_ATTEMPTS="1",
        ETL_RESUME_WINDOW="7d",
        ETL_PUBLISH_AGE_MAX="7d",
    )
    server.faults.schedule("service-forbidden", where="list", at=(2,))
    with pytest.raises(CredentialsRefused):
        job.run(ETL_CONCURRENCY="1")
    server.faults.clear()
    failed = job.last_run()
    assert failed["pages"] > 0
    with (
        SimulatorServer(generate_account(5, seed=1, partner_id=103)) as other,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        there = Job.of(other, database_url, ETL_KEEP_PAGES_DAYS="1")
        restamp_run(connection, failed["run_id"], datetime.now(UTC) - timedelta(days=2))
        there.run()
        pages = "select count(*)::int as n from kaltura.sync_page where run_id = %s"
        assert job.query(pages, failed["run_id"]) == [{"n": failed["pages"]}]
        assert len(job.rejected(failed["run_id"])) == failed["rejected"] == 1

        assert job.run().resumed_from == failed["run_id"]
        assert failing(job) == {}

        # It is not resumed when it is older than any ETL_RESUME_WINDOW.
        restamp_run(connection, failed["run_id"], datetime.now(UTC) - timedelta(days=8))
        there.run()
        assert job.query(pages, failed["run_id"]) == [{"n": 0}]


def test_each_account_has_its_own_horizon(job: Job) -> None:
    with SimulatorServer(generate_account(5, seed=1, partner_id=103)) as other:
        Job.of(other, job.database_url).run()
    with open_database(job.database_url, "kaltura") as database:
        told = prune(database, days={"pages": 0}, partner_id=103, apply=True)
    assert [each.partner_id for each in told] == [103]
    assert {each.partner_id for each in pruned(job, apply=False, pages=0)} == {102, 103}
    assert failing(job) == {}


def test_a_loader_may_count_and_not_delete_versions(job: Job) -> None:
    with roles_of(job.database_url) as roles:
        roles.grant_all()
        url = roles.url("loader")
        before = fingerprint(job.database_url)
        assert pruned(job, apply=False, url=url, versions=25)[0].rows > 0
        with pytest.raises(
            CredentialsRefused, match=r"DELETE on .*INSERT on \w+\.pruning"
        ) as caught:
            pruned(job, url=url, versions=25, pages=25)
        assert caught.value.exit_code == 77
        assert fingerprint(job.database_url) == before


def test_prunes_at_the_same_time_take_turns(job: Job) -> None:
    """Each row is deleted by one of them, and none takes another's work for a broken table."""
    old = job.query("select count(*)::int as n from kaltura.upload_token_superseded")[0]["n"]
    pages = job.query("select count(*)::int as n from kaltura.sync_page")[0]["n"]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: pruned(job, pages=0, versions=0), range(4)))
    rows = [{each.kind: each.rows for each in one} for one in told]
    assert sum(each["versions"] for each in rows) == old > 0
    assert sum(each["pages"] for each in rows) == pages > 0
