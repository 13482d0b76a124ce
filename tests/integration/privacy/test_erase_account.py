"""An account that leaves is erased whole, in steps that may be interrupted; others stay."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from etl.archive.account import ErasedAccount, erase_account
from etl.archive.object_store import ObjectStore
from etl.archive.stores import LocalStore, Store
from etl.errors import ArchiveUnavailable, ConfigurationError, DataRefused, LeaseHeld
from etl.process.stop import Stop
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.privacy import account as account_rows
from etl.warehouse.privacy.hold import Hold, take_hold
from etl.warehouse.schema.database import open_database
from tests.support import forked
from tests.support.archive import Kept, Life, archived, assert_same_dump, dump, keeping
from tests.support.archive import check as check_archive
from tests.support.databases import with_database
from tests.support.erasure import ANNA, assert_verified, erased
from tests.support.job import Job
from tests.support.partitions import (
    PAGE_CAP,
    SEED,
    TOKENS,
    Rows,
    World,
    live_through_some_nights,
    of_others,
    partition_tables,
    rows_by_account,
)
from tests.support.roles import own_database
from tests.support.searching import search

PARTNERS = (102, 103)


@pytest.fixture(scope="module", params=["ordinary", "partitioned"])
def loaded(
    request: pytest.FixtureRequest, postgres_url: str, template_database: str
) -> Iterator[World]:
    """Two accounts after some nights; the tests of this module copy their warehouse."""
    with ExitStack() as stack:
        url = stack.enter_context(own_database(postgres_url, template_database))
        if request.param == "partitioned":
            partition_tables(url)
        servers = []
        for partner_id in PARTNERS:
            account = generate_account(TOKENS, seed=SEED, partner_id=partner_id)
            servers.append(stack.enter_context(SimulatorServer(account, page_cap=PAGE_CAP)))
        variables = {
            "ETL_ABSENCE_GRACE": "0s",
            "ETL_KEEP_PAGES_DAYS": "3650",
            "ETL_RETRY_ATTEMPTS": "1",
        }
        world = World([Job.of(server, url, **variables) for server in servers], servers)
        live_through_some_nights(world)
        yield world


@pytest.fixture
def world(loaded: World, postgres_url: str) -> Iterator[World]:
    """The accounts in a database of this test's own."""
    name = urlsplit(loaded.url).path.removeprefix("/")
    with own_database(postgres_url, name) as url:
        yield World([replace(job, database_url=url) for job in loaded.jobs], loaded.servers)


ordinary = pytest.mark.parametrize("loaded", ["ordinary"], indirect=True)


def erase(
    job: Job, store: Store | None = None, *, apply: bool = True, stop: Stop | None = None
) -> ErasedAccount:
    with open_database(job.database_url, "kaltura") as database:
        return erase_account(
            database,
            store,
            partner_id=job.partner_id,
            lease_seconds=900,
            apply=apply,
            stop=stop or Stop(),
        )


def of_account(rows: Rows, job: Job) -> dict[str, int]:
    return {table: len(each) for (table, owner), each in rows.items() if owner == job.partner_id}


def test_nothing_of_an_account_is_left_but_the_record(world: World) -> None:
    job, other = world.jobs
    erased(job, users=("otto",), key=None)
    before = rows_by_account(world.url)
    stored = of_account(before, job)
    assert {"erasure", "erasure_key", "upload_token_staging", "rejected_row"} <= stored.keys()
    secrets = [ANNA, "anna-first", "anna-staged", "anna-rejected", f"anna-of-{job.partner_id}"]

    told = erase(job, apply=False)
    assert rows_by_account(world.url) == before
    done = erase(job)

    assert {table: rows for table, rows in done.tables.items() if rows} == stored
    assert replace(told, run_id=done.run_id) == done
    after = rows_by_account(world.url)
    assert of_others(after, job) == of_others(before, job)
    assert of_account(after, job) == {"sync_run": 1}
    (record,) = job.runs()
    assert (record["run_id"], record["status"]) == (done.run_id, "skipped")
    assert record["error_kind"] == "account_erased"
    assert record["overrides"] == {"erased_rows": done.tables}
    assert f"{sum(stored.values())} rows" in record["error_message"]
    # Of the other account there is another Anna: only what is in no row of hers must be gone.
    assert search(world.url, [f"anna-of-{job.partner_id}"]) == set()
    assert_verified(other)

    erase(other)
    assert search(world.url, secrets) == set()
    assert_verified(other)
    # A second time there is nothing to do, and the record stays.
    again = erase(job)
    assert (again.run_id, {*again.tables.values()}) == (None, {0})
    assert job.runs() == [record]


@ordinary
def test_an_erased_account_starts_anew(world: World) -> None:
    job, other = world.jobs
    kept = of_others(rows_by_account(world.url), job)
    erase(job)

    night = job.run()

    assert (night.resumed_from, night.changed, night.absent) == (None, 0, 0)
    assert night.inserted == len(job.current()) > 0
    assert job.superseded() == {}
    assert of_others(rows_by_account(world.url), job) == kept
    assert_verified(job)
    assert other.run().resumed_from is not None
    assert_verified(other)


class Killed(BaseException):
    """As if the process had ended there: its transaction is rolled back."""


@ordinary
def test_an_erasure_is_killed_in_every_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = world.jobs
    before = rows_by_account(world.url)
    stored = of_account(before, job)
    monkeypatch.setattr(account_rows, "ROWS_AT_ONCE", 9)
    monkeypatch.setattr(account_rows, "RUNS_AT_ONCE", 2)
    fence = Hold.fence
    fences = 0

    def killed_later_each_time(hold: Hold, connection: object) -> None:
        nonlocal fences
        fences += 1
        if fences == calls + 1:
            raise Killed
        fence(hold, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(Hold, "fence", killed_later_each_time)
    calls = 0
    while True:
        calls += 1
        fences = 0
        try:
            done = erase(job)
        except Killed:
            left = sum(of_account(rows_by_account(world.url), job).values())
            assert 0 < left <= sum(stored.values()) + 1
            if calls == 5:
                assert_held_by_the_erasure(world)
        else:
            break
    assert calls > 5
    assert {table: rows for table, rows in done.tables.items() if rows} == stored
    after = rows_by_account(world.url)
    assert of_account(after, job) == {"sync_run": 1}
    assert of_others(after, job) == of_others(before, job)
    assert_verified(other)


def assert_held_by_the_erasure(world: World) -> None:
    """No run and no other erasure, however long ago it was interrupted."""
    job, other = world.jobs
    job.query("update kaltura.sync_run set heartbeat_at = '2020-01-01' where status = 'running'")
    for attempt in (job.run, lambda: erased(job, users=(ANNA,), key=None)):
        with pytest.raises(LeaseHeld, match=r"is being erased.*erase --account --apply again"):
            attempt()
    # The run left its row, as every attempt does.
    assert [run["status"] for run in job.runs()][-2:] == ["running", "skipped"]
    job.query("delete from kaltura.sync_run where status = 'skipped'")
    with open_database(other.database_url, "kaltura") as database:
        assert account_rows.count_account(database, other.partner_id)["upload_token"] > 0


KILLED = """
import os, signal
from etl.warehouse.privacy.hold import Hold
Hold.leave_record = lambda self, connection: os.kill(os.getpid(), signal.SIGKILL)
from etl.cli import main
main(["erase", "--account", "--apply"])
"""


@ordinary
def test_a_process_that_was_killed_is_continued_by_another(world: World) -> None:
    job = world.jobs[0]
    ended = forked.call(env=forked.environment(**job.environment()), code=KILLED)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (held,) = job.runs()
    assert held["status"] == "running"

    done = erase(job)

    assert done.run_id == held["run_id"]
    assert done.tables["upload_token"] > 0
    assert [run["status"] for run in job.runs()] == ["skipped"]


@ordinary
def test_a_killed_erasure_of_an_archive_blocks_runs_no_longer_than_a_run(world: World) -> None:
    job = world.jobs[0]
    with open_database(job.database_url, "kaltura") as database:
        hold = take_hold(database, job.partner_id, "archive", lease_seconds=900, privileges=[])
    with pytest.raises(LeaseHeld):
        job.run()
    # Another erasure takes it over at once.
    erased(job, users=(ANNA,), key=None, apply=False)
    with open_database(job.database_url, "kaltura") as database:
        assert (
            take_hold(database, job.partner_id, "archive", lease_seconds=900, privileges=[]).run_id
            == hold.run_id
        )
    job.query("update kaltura.sync_run set heartbeat_at = '2020-01-01' where status = 'running'")

    assert job.run().inserted > 0

    ended = [run["status"] for run in job.runs() if run["status"] != "skipped"]
    assert ended[-2:] == ["abandoned", "succeeded"]
    assert_verified(job)


@ordinary
def test_a_stop_between_two_transactions_is_obeyed(world: World) -> None:
    job = world.jobs[0]
    stop = Stop()
    stop.request()

    with pytest.raises(Exception, match="Stopped by SIGTERM"):
        erase(job, stop=stop)

    assert job.last_run()["status"] == "running"
    assert erase(job).run_id is not None


@ordinary
def test_a_running_run_keeps_its_account(world: World) -> None:
    job = world.jobs[0]
    before = rows_by_account(world.url)
    job.query(
        "update kaltura.sync_run set status = 'running', finished_at = null, "
        "error_kind = null, heartbeat_at = now() where run_id = %s",
        job.last_run()["run_id"],
    )
    running = rows_by_account(world.url)

    with pytest.raises(LeaseHeld):
        erase(job)

    assert rows_by_account(world.url) == running != before


@ordinary
@pytest.mark.parametrize("table", ["upload_token", "sync_page", "sync_run"])
def test_rows_that_postgres_keeps_are_noticed(world: World, table: str) -> None:
    job = world.jobs[0]
    job.query(
        "create function public.keep() returns trigger language plpgsql as 'begin return null; end'"
    )
    job.query(
        f"create trigger keep before delete on kaltura.{table} for each row "
        "execute function public.keep()"
    )
    stored = of_account(rows_by_account(world.url), job)[table]

    with pytest.raises(DataRefused, match="a trigger"):
        erase(job)

    left = of_account(rows_by_account(world.url), job)[table]
    assert left == stored + (table == "sync_run")
    job.query("drop function public.keep cascade")
    erase(job)
    assert of_account(rows_by_account(world.url), job) == {"sync_run": 1}


# --- archives ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nights(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kept, Job]]:
    """An archive of two accounts, and the job of the second one, for the tests below to copy."""
    with (
        own_database(postgres_url, template_database) as url,
        keeping(
            url,
            with_database(postgres_url, template_database),
            tmp_path_factory.mktemp("kept") / "archive",
        ) as kept,
        SimulatorServer(generate_account(100, seed=12, partner_id=7), page_cap=50) as server,
    ):
        other = archived(server, kept.job.database_url, kept.archive)
        for seed in (0, 1):
            kept.life.night(kept.job, seed)
            Life(server).day(seed)
            other.run()
        left_over = kept.archive / "partner-102" / "run-0000000001" / ".batch-000001.zst.9.new"
        left_over.write_bytes(b"by a killed writer")
        yield kept, other


@pytest.fixture
def shared(
    nights: tuple[Kept, Job], postgres_url: str, tmp_path: Path
) -> Iterator[tuple[Kept, Job]]:
    """That archive and its warehouse, of this test's own."""
    kept, other = nights
    archive = tmp_path / "archive"
    shutil.copytree(kept.archive, archive)
    name = urlsplit(kept.job.database_url).path.removeprefix("/")
    with own_database(postgres_url, name) as url:

        def own(job: Job) -> Job:
            variables = job.variables | {"ETL_ARCHIVE": str(archive)}
            return replace(job, database_url=url, variables=variables)

        yield replace(kept, job=own(kept.job), archive=archive), own(other)


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_archive_of_the_account_is_deleted(shared: tuple[Kept, Job]) -> None:
    kept, other = shared
    store = LocalStore(kept.archive)
    others = files(kept.archive / "partner-7")
    runs = len(kept.manifests())

    told = erase(kept.job, store, apply=False)
    assert kept.manifests() != []
    done = erase(kept.job, store)

    assert told.archived_runs == done.archived_runs == runs > 1
    assert sorted(path.name for path in kept.archive.iterdir()) == ["archive.json", "partner-7"]
    assert files(kept.archive / "partner-7") == others
    # What is left is the other account's history, and the account may come back.
    assert check_archive(other, kept.archive).equal
    kept.life.night(kept.job, 2)
    with kept.replayed() as (again, _):
        assert_same_dump(dump(again.database_url), dump(kept.job.database_url))


class Failing(LocalStore):
    """A folder in which so many deletions succeed."""

    def __init__(self, root: Path, deletions: int) -> None:
        super().__init__(root)
        self._deletions = deletions

    def delete(self, folder: str, *, but: Collection[str] = ()) -> int:
        if self._deletions == 0:
            raise ArchiveUnavailable("The archive cannot be deleted.")
        self._deletions -= 1
        return super().delete(folder, but=but)


def test_an_archive_that_cannot_be_deleted_leaves_the_account_whole(
    shared: tuple[Kept, Job],
) -> None:
    kept, _ = shared
    before = dump(kept.job.database_url)

    with pytest.raises(ArchiveUnavailable):
        erase(kept.job, Failing(kept.archive, 0))

    assert_same_dump(dump(kept.job.database_url), before)
    kept.job.run()
    kept.assert_replayed()


def test_a_deletion_that_stopped_half_way_is_continued(shared: tuple[Kept, Job]) -> None:
    kept, _ = shared
    with pytest.raises(ArchiveUnavailable):
        erase(kept.job, Failing(kept.archive, 1))
    assert kept.manifests() == [1]
    with pytest.raises(LeaseHeld, match="is being erased"):
        kept.job.run()

    erase(kept.job, LocalStore(kept.archive))

    assert not (kept.archive / "partner-102").exists()
    assert [run["error_kind"] for run in kept.job.runs()] == ["account_erased"]


def test_an_archive_of_another_warehouse_is_not_deleted(shared: tuple[Kept, Job]) -> None:
    kept, _ = shared
    before = files(kept.archive)
    with (
        kept.replayed(until=1) as (elsewhere, _),
        pytest.raises(ConfigurationError, match="did not publish"),
    ):
        erase(elsewhere, LocalStore(kept.archive))
    assert files(kept.archive) == before


def test_an_archive_in_an_object_store_is_deleted(shared: tuple[Kept, Job]) -> None:
    from obstore.store import MemoryStore

    kept, _ = shared
    store = ObjectStore("s3://bucket/kept", MemoryStore())
    for path in kept.archive.rglob("*"):
        if path.is_file():
            store.write(str(path.relative_to(kept.archive)), path.read_bytes())

    done = erase(kept.job, store)

    assert done.archive == "s3://bucket/kept"
    assert store.folders("") == ["partner-7"]
    assert store.files("") == ["archive.json"]
    assert len(store.folders("partner-7")) == 2
