"""When an erasure is refused: a wrong key, a run at work, too few rights, what cannot be an id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    LeaseHeld,
    UsageError,
    WarehouseUnavailable,
)
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.ledger.lease import open_run
from etl.warehouse.privacy.erase import ERASER_PRIVILEGES
from etl.warehouse.privacy.subject import Subject
from etl.warehouse.schema.database import open_database
from tests.support.erasure import (
    ANNA,
    KEY,
    PAGE_CAP,
    TOKENS,
    erased,
    insert,
    live_through_some_nights,
)
from tests.support.job import Job
from tests.support.nights import require_lease
from tests.support.roles import roles_of
from tests.support.searching import fingerprint


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    account = generate_account(TOKENS, seed=41)
    with SimulatorServer(account, page_cap=PAGE_CAP) as running:
        yield running


@pytest.fixture
def job(server: SimulatorServer, database_url: str) -> Job:
    return Job.of(
        server, database_url, ETL_ABSENCE_GRACE="0s", ETL_ERASURE_KEY=KEY, ETL_RETRY_ATTEMPTS="1"
    )


@pytest.mark.parametrize("key", [None, "another key"])
def test_no_run_starts_without_the_key(server: SimulatorServer, job: Job, key: str | None) -> None:
    insert(server, "a1", fileName="anna-first")
    job.run()
    erased(job, users=(ANNA,))
    before, requests = job.everything(), len(server.service.log)
    other = None if key is None else key.replace(" ", "_") * 4

    for call in (
        lambda: job.run(ETL_ERASURE_KEY=other or ""),
        lambda: erased(job, users=("otto",), key=other),
        lambda: erased(job, users=("otto",), key=other, apply=False),
    ):
        with pytest.raises(ConfigurationError, match="ETL_ERASURE_KEY is not") as caught:
            call()
        assert caught.value.exit_code == 78
        assert KEY not in caught.value.message

    assert job.everything() == before
    assert not [each for each in list(server.service.log)[requests:] if each.action == "list"]
    assert job.last_run()["error_kind"] == "configuration"
    assert job.run().changed == 0


def test_another_account_keeps_its_people_and_needs_no_key(job: Job) -> None:
    account = generate_account(20, seed=1, partner_id=103)
    account.insert({"id": "hers", "userId": ANNA, "fileName": "anna-first"})
    with SimulatorServer(account) as other:
        there = Job.of(other, job.database_url)
        assert there.run().inserted == 21
        (report,) = erased(job, users=(ANNA,))
        assert report.tokens == 0
        assert there.run().changed == 0
    (hers,) = job.query("select user_id from kaltura.upload_token where token_id = 'hers'")
    assert hers["user_id"] == ANNA


def test_not_while_a_run_is_at_work(server: SimulatorServer, job: Job) -> None:
    insert(server, "a1", fileName="anna-first")
    job.run()
    with open_database(job.database_url, "kaltura") as database:
        run = open_run(
            database, partner_id=job.partner_id, mode="full", lease_seconds=900, resume_window=None
        )
        before = fingerprint(job.database_url)
        with pytest.raises(LeaseHeld, match=f"Run {run.run_id} of partner") as caught:
            erased(job, users=(ANNA,))
        assert caught.value.exit_code == 75
        assert fingerprint(job.database_url) == before
        # It can be counted meanwhile, and another account's can be erased.
        assert erased(job, users=(ANNA,), apply=False)[0].tokens == 1

        # A run that gives no sign of life any more is ended, as by another run.
        erased(job, users=(ANNA,), lease_seconds=0.0)
        assert job.last_run()["status"] == "abandoned"
        with pytest.raises(LeaseHeld):
            require_lease(database, run)


def test_no_run_begins_while_it_is_at_work(server: SimulatorServer, job: Job) -> None:
    insert(server, "a1", fileName="anna-first")
    job.run()
    runs = len(job.runs())
    # The erasure holds the lease and waits for a locked row.
    with psycopg.connect(job.database_url) as holder:
        holder.execute("select 1 from kaltura.upload_token where token_id = 'a1' for update")
        with open_database(job.database_url, "kaltura") as database:
            # A lock on a row is not a lease.
            with pytest.raises(WarehouseUnavailable, match="55P03"):
                erased(job, users=(ANNA,))
            assert len(job.runs()) == runs
            open_run(
                database,
                partner_id=job.partner_id,
                mode="full",
                lease_seconds=900,
                resume_window=None,
            )


def test_all_or_nothing(server: SimulatorServer, job: Job) -> None:
    """Whatever ends the transaction, before its very last statement."""
    live_through_some_nights(server, job)
    before = fingerprint(job.database_url)
    with closing(psycopg.connect(job.database_url, autocommit=True)) as connection:
        connection.execute(
            "create function die() returns trigger language plpgsql as "
            "$$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$"
        )
        connection.execute(
            "create trigger die after delete on kaltura.sync_run for each row "
            "execute function die()"
        )
    with pytest.raises(WarehouseUnavailable):
        erased(job, users=(ANNA,))
    assert fingerprint(job.database_url) == before


def test_a_loader_may_count_and_not_erase(server: SimulatorServer, job: Job) -> None:
    insert(server, "a1", fileName="anna-first")
    job.run()
    with roles_of(job.database_url) as roles:
        roles.grant_all()
        url = roles.url("loader")
        before = fingerprint(job.database_url)
        with pytest.raises(CredentialsRefused, match=r"UPDATE on \w+\.upload_token_superseded"):
            erased(job, users=(ANNA,), url=url)
        assert fingerprint(job.database_url) == before
        assert erased(job, users=(ANNA,), url=url, apply=False)[0].tokens == 1
        erased(job, users=(ANNA,))
        # The nightly run of the loader recognises her.
        loader = Job(job.url, url, job.partner_id, job.admin_secret, job.variables)
        assert loader.run().changed == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            loader.query("delete from kaltura.erasure")


@pytest.mark.parametrize(
    ("kind", "subject_id", "said"),
    [
        ("user", "", "must not be empty"),
        ("token", "", "must not be empty"),
        ("user", "a\0b", "NUL"),
        ("user", "a\udcff", "UTF-8"),
        ("user", "x" * 65_537, "longer"),
        ("token", "x" * 1_025, "longer"),
    ],
)
def test_what_cannot_be_an_id_is_refused(kind: str, subject_id: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Subject(kind, subject_id)
    assert caught.value.exit_code == 2


def test_what_an_eraser_needs_is_in_the_schema(job: Job) -> None:
    tables = {
        row["relname"]
        for row in job.query(
            "select relname from pg_class where relnamespace = 'kaltura'::regnamespace"
        )
    }
    assert tables >= {table for table, _ in ERASER_PRIVILEGES}


def test_a_broken_constraint_is_not_called_a_lease(server: SimulatorServer, job: Job) -> None:
    """Once the lease is taken, a unique violation is of something else."""
    insert(server, "a1", fileName="anna-first")
    job.run()
    job.query(
        "create function kaltura.violate() returns trigger language plpgsql as "
        "$$ begin raise unique_violation using message = 'not the lease'; end $$"
    )
    job.query(
        "create trigger violate before update on kaltura.upload_token "
        "for each row execute function kaltura.violate()"
    )
    with pytest.raises(DataRefused, match="23505"):
        erased(job, users=(ANNA,))
