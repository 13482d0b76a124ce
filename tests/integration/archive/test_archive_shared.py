"""One archive for more than one run of one warehouse: whose it is, and who goes on with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from etl.archive.stores import LocalStore
from etl.errors import ConfigurationError
from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.schema.revision import migrate
from tests.support.archive import (
    Kept,
    Life,
    archived,
    assert_same_dump,
    assert_verified,
    check,
    dump,
    keeping,
    replay_into,
)
from tests.support.databases import with_database
from tests.support.erasure import KEY, erased
from tests.support.model import assert_same


@pytest.fixture
def kept(
    database_url: str, postgres_url: str, template_database: str, tmp_path: Path
) -> Iterator[Kept]:
    template_url = with_database(postgres_url, template_database)
    with keeping(database_url, template_url, tmp_path / "archive") as kept:
        yield kept


def test_an_archive_of_another_warehouse_is_not_touched(
    kept: Kept, empty_database_url: str
) -> None:
    kept.job.run()
    before = {path: path.stat().st_mtime_ns for path in kept.archive.rglob("*")}
    other = archived(kept.server, empty_database_url, kept.archive)
    migrate(empty_database_url)
    with pytest.raises(ConfigurationError, match="of another warehouse"):
        other.run()
    with pytest.raises(ConfigurationError, match="did not publish"):
        other.run()

    assert {path: path.stat().st_mtime_ns for path in kept.archive.rglob("*")} == before


def test_runs_in_one_process_write_the_mark_of_a_new_archive_at_the_same_time(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path / "archive")
    with ThreadPoolExecutor(8) as pool:
        written = [pool.submit(store.write, "archive.json", b"mark") for _ in range(80)]
        for each in written:
            each.result()

    assert store.read("archive.json") == b"mark"
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["archive.json"]


def test_a_replayed_warehouse_goes_on_with_its_archive(kept: Kept) -> None:
    """Disaster recovery: replay into a new schema, then archive on from there."""
    for seed in range(2):
        kept.life.night(kept.job, seed)
    kept.failed_run(10)
    with kept.replayed() as (recovered, _):
        report = kept.life.night(recovered, 2)

        assert report.run_id == 4
        assert_verified(recovered.database_url)
        with kept.replayed() as (again, _):
            assert_same_dump(dump(again.database_url), dump(recovered.database_url))


def test_two_accounts_share_an_archive(kept: Kept) -> None:
    other = generate_account(300, seed=12, partner_id=7)
    with SimulatorServer(other, page_cap=50, seed=12) as server:
        both = [
            (kept.job, kept.life),
            (archived(server, kept.job.database_url, kept.archive), Life(server)),
        ]
        dumps = {}
        for seed in range(4):
            job, life = both[seed % 2]
            report = life.night(job, seed)
            dumps[report.run_id] = dump(kept.job.database_url)
    assert sorted(path.name for path in kept.archive.iterdir()) == [
        "archive.json",
        "partner-102",
        "partner-7",
    ]
    with kept.replayed(until=1) as (again, _):
        for run_id, expected in dumps.items():
            replay_into(again, [kept.archive], "kaltura", until=run_id)
            assert_same_dump(dump(again.database_url), expected)
    # The archive of one account alone is that account's history.
    shutil.rmtree(kept.archive / "partner-7")
    tokens = "select * from kaltura.upload_token where partner_id = 102"
    with kept.replayed() as (alone, _):
        assert_same(
            {row["token_id"]: row for row in alone.query(tokens)},
            {row["token_id"]: row for row in kept.job.query(tokens)},
        )


def test_a_killed_run_is_named_and_ignored(kept: Kept) -> None:
    kept.job.run()
    kept.life.day(6)
    kept.failed_run(15)
    killed = kept.job.last_run()["run_id"]
    with kept.replayed() as (recovered, report):
        assert report.unfinished == [(102, killed)]
        assert [run.run_id for run in report.runs] == [1]
        assert [run["run_id"] for run in recovered.runs()] == [1]
        # Its number is not given away again.
        assert recovered.run().run_id == killed + 1


@pytest.mark.parametrize("key", [KEY, None], ids=["setting", "kept in the warehouse"])
def test_what_was_erased_does_not_come_back_to_be_compared(kept: Kept, key: str | None) -> None:
    job = replace(kept.job, variables=kept.job.variables | {"ETL_ERASURE_KEY": key or ""})
    for seed in range(2):
        kept.life.night(job, seed)
    (row,) = job.query(
        "select user_id, count(*) as tokens from kaltura.upload_token where user_id is not null "
        "group by user_id order by 2 desc limit 1"
    )
    (erasure,) = erased(job, users=(row["user_id"],), key=key)
    assert erasure.tokens >= row["tokens"]
    kept.life.night(job, 2)

    found = check(job, kept.archive)
    assert (found.equal, found.notes) == (True, [])
    # The archive itself still has what was sent: into a new warehouse it comes back.
    plain = "select count(*) as tokens from kaltura.upload_token where user_id = %s"
    assert job.query(plain, row["user_id"]) == [{"tokens": 0}]
    with kept.replayed() as (again, _):
        assert again.query(plain, row["user_id"]) != [{"tokens": 0}]
