"""What must not be published is not, and the exit code says why.

Each test has a night published before; a refused run must leave it as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    ServiceUnavailable,
    WarehouseUnavailable,
)
from etl.run.plan import SyncOptions
from etl.simulator import SimulatorServer, generate_account
from tests.support.job import Job, listed

pytestmark = pytest.mark.usefixtures("no_retry_waits")

TOKENS = 1_200
ATTEMPTS = {"ETL_RETRY_ATTEMPTS": "2", "ETL_RETRY_TOTAL_SECONDS": "3", "ETL_ABSENCE_GRACE": "0s"}


class Refused(Protocol):
    """Run, expect an error, and see that nothing changed but the ledger."""

    def __call__(
        self, kind: type[EtlError], code: int, reason: str = "", **variables: str
    ) -> EtlError: ...


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(TOKENS, seed=11)) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    """The nightly job, with a night behind it."""
    job = Job.of(server, database_url, **ATTEMPTS)
    job.run()
    return job


@pytest.fixture
def refused(job: Job) -> Refused:
    def expect(kind: type[EtlError], code: int, reason: str = "", **variables: str) -> EtlError:
        before, runs = job.everything(), len(job.runs())
        with pytest.raises(kind) as caught:
            job.run(options=None, **variables)
        assert caught.value.exit_code == code
        assert job.everything() == before
        if reason:
            assert caught.value.fields["reason"] == reason
        for run in job.runs()[runs:]:
            status = "refused" if kind is DataRefused else "failed"
            assert (run["status"], run["error_kind"]) == (status, caught.value.kind)
            assert run["published_at"] is None
            assert run["error_message"]
        assert len(job.runs()) <= runs + 1
        return caught.value

    return expect


def test_too_many_absences_want_a_word(server: SimulatorServer, job: Job, refused: Refused) -> None:
    for fields in listed(server)[: TOKENS // 5 + 1]:
        server.account.delete(fields["id"])

    error = refused(DataRefused, 65, "absence_brake")
    assert "--accept-absences 241" in str(error)
    with pytest.raises(DataRefused):
        job.run(options=SyncOptions(accept_absences=240))
    report = job.run(options=SyncOptions(accept_absences=241))

    assert report.absent == 241
    assert job.last_run()["overrides"] == {"accept_absences": 241}


def test_an_account_that_is_empty_all_at_once_is_refused(
    server: SimulatorServer, refused: Refused
) -> None:
    for fields in listed(server):
        server.account.delete(fields["id"])

    refused(DataRefused, 65, "absence_brake")


def _bad_row(server: SimulatorServer, number: int) -> None:
    second = 1_700_000_000 + number
    server.account.insert_raw(
        f"bad{number}",
        second,
        b'{"id":"bad%d","partnerId":102,"status":"often","createdAt":%d}' % (number, second),
    )


def test_ten_bad_rows_are_kept_aside_and_eleven_want_a_word(
    server: SimulatorServer, job: Job, refused: Refused
) -> None:
    for number in range(10):
        _bad_row(server, number)
    report = job.run()
    assert (report.rejected, report.unchanged) == (10, TOKENS)
    rejected = job.rejected(report.run_id)
    assert {row["token_id"] for row in rejected} == {f"bad{number}" for number in range(10)}

    _bad_row(server, 10)
    error = refused(DataRefused, 65, "rejected")
    assert "--accept-rejected 11" in str(error)
    with pytest.raises(DataRefused):
        job.run(options=SyncOptions(accept_rejected=10))
    report = job.run(options=SyncOptions(accept_rejected=11))

    assert (report.rejected, report.resumed_from) == (11, None)
    assert job.last_run()["overrides"] == {"accept_rejected": 11}


def test_a_row_of_another_account(server: SimulatorServer, refused: Refused) -> None:
    server.faults.schedule("foreign-partner", where="list", rate=1.0)

    refused(DataRefused, 65, "foreign_partner")


def test_one_unreadable_row_is_a_hole_and_nothing_more(server: SimulatorServer, job: Job) -> None:
    fields = listed(server)[600]
    server.configure(poison=[fields["id"]])
    server.account.delete(listed(server)[5]["id"])

    report = job.run()

    assert (report.status, report.unreadable, report.absent) == ("succeeded", 1, 1)
    (hole,) = report.holes
    assert hole["tokens"] == 1
    assert job.current()[fields["id"]]["is_listed"]
    run = job.last_run()
    assert (run["unreadable"], run["holes"]) == (1, report.holes)


def test_eleven_unreadable_rows_are_too_many(
    server: SimulatorServer, job: Job, refused: Refused
) -> None:
    ids = [fields["id"] for fields in listed(server)]
    server.configure(poison=ids[100:1200:100])

    refused(DataRefused, 65, "unreadable")

    report = job.run(ETL_MAX_UNREADABLE="11")
    assert report.unreadable == 11


def test_pages_that_are_never_in_order(server: SimulatorServer, refused: Refused) -> None:
    server.faults.schedule("unordered-page", where="list", rate=1.0)

    refused(DataRefused, 65, "unordered_page")


def test_a_service_that_fails_on_every_page(server: SimulatorServer, refused: Refused) -> None:
    server.faults.schedule("internal-server-error", where="list", rate=1.0)

    refused(ServiceUnavailable, 69)


@pytest.mark.parametrize("kind", ["500-empty", "503-html", "truncated-json"])
def test_a_service_that_is_down(server: SimulatorServer, refused: Refused, kind: str) -> None:
    server.faults.schedule(kind, where="list", rate=1.0)

    refused(ServiceUnavailable, 69)


@pytest.mark.parametrize("kind", ["stale-cached", "500-empty", "unordered-page", "reset-body"])
def test_a_service_that_fails_now_and_then(server: SimulatorServer, job: Job, kind: str) -> None:
    # The third request may repeat the first.
    server.faults.schedule(kind, where="list", at=(1, 3))

    report = job.run(options=None, ETL_RETRY_ATTEMPTS="3")

    assert (report.unchanged, report.absent, report.coverage) == (TOKENS, 0, "{(,)}")


def test_a_service_whose_cache_is_down_is_read_without_it(
    server: SimulatorServer, job: Job
) -> None:
    server.faults.schedule("memcache-down", where="list", rate=1.0)
    server.account.change(listed(server)[0]["id"], {"fileName": "new.mp4"})

    report = job.run()

    assert (report.changed, report.unchanged, report.unreadable) == (1, TOKENS - 1, 0)
    # What was not asked for is not erased.
    assert all(row["auto_finalize"] is not None for row in job.current().values())


def test_a_wrong_secret(refused: Refused) -> None:
    refused(CredentialsRefused, 77, KALTURA_ADMIN_SECRET="f" * 32)


def test_a_users_session(server: SimulatorServer, job: Job, refused: Refused) -> None:
    from etl.simulator import SimulatorClient

    with SimulatorClient(server.url) as client:
        ks = client.start_session(job.admin_secret, job.partner_id, type=0, userId="anna")
    del job.variables["ETL_RETRY_ATTEMPTS"]
    before = len(server.service.log)

    refused(CredentialsRefused, 77, KALTURA_ADMIN_SECRET="", KALTURA_KS=ks)

    assert not any(call.action == "list" for call in list(server.service.log)[before:])


@pytest.mark.parametrize("version", ["0000", None])
def test_a_schema_of_another_version(
    server: SimulatorServer, job: Job, refused: Refused, version: str | None
) -> None:
    (table,) = job.query(
        "select table_schema, table_name from information_schema.tables "
        "where table_name ~ 'alembic_version'"
    )
    name = f'"{table["table_schema"]}"."{table["table_name"]}"'
    if version is None:
        job.query(f"delete from {name}")  # noqa: S608
    else:
        job.query(f"update {name} set version_num = %s", version)  # noqa: S608
    before = len(server.service.log)

    refused(ConfigurationError, 78)

    assert len(server.service.log) == before


def test_a_database_that_is_not_there(server: SimulatorServer, refused: Refused) -> None:
    before = len(server.service.log)
    refused(WarehouseUnavailable, 74, DATABASE_URL="postgresql://u@127.0.0.1:1/none")
    assert len(server.service.log) == before


def test_an_unknown_page_size_of_the_service_costs_nothing(
    server: SimulatorServer, job: Job
) -> None:
    for cap in (60, 499):
        server.configure(page_cap=cap)
        report = job.run()
        assert (report.unchanged, report.coverage) == (TOKENS, "{(,)}")
