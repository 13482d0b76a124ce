"""What other programs read in an export: every row as it is in the warehouse, and none erased."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from etl.simulator import SimulatorServer, generate_account
from etl.warehouse.read.extract import exportable
from tests.lake.lake import (
    CERTIFICATES,
    HISTORY,
    KILLED_BEFORE_COMMIT,
    SAME,
    WAITS_BEFORE_COMMIT,
    Lake,
)
from tests.support.export_sample import FILE_NAME, USER, Sample
from tests.support.job import Job, ended, killed_at_exit, wait_until
from tests.support.roles import own_database

pytestmark = pytest.mark.campaign


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_duckdb_reads_every_row_of_every_view(lake: Lake, tmp_path: Path, file_format: str) -> None:
    views = [part for view in exportable() for part in ("--view", view)]
    done = lake.call("export", "--format", file_format, "--to", str(tmp_path / "x"), *views)

    assert done.code == 0, done.err
    assert lake.differing(file_format, tmp_path / "x") == dict.fromkeys(exportable(), 0)


def test_delta_tables_follow_the_publications(lake: Lake, sample: Sample) -> None:
    first = lake.exported()
    assert [(each["table"], each["partner_id"]) for each in first["tables"]] == [
        (table, partner) for partner in (102, 103) for table in (HISTORY, CERTIFICATES)
    ]
    assert lake.differing() == SAME
    versions = lake.versions()
    again = lake.exported()
    assert (again["written"], lake.versions()) == (False, versions)

    sample.insert(950, fileName="new.mp4")
    report = sample.job.run()
    assert lake.export(before=KILLED_BEFORE_COMMIT).code == -9
    assert lake.versions() == versions
    last = lake.exported("--partner-id", "102")
    assert (last["written"], last["run_id"]) == (True, report.run_id)
    assert lake.differing() == SAME
    after = lake.versions()
    for table in (HISTORY, CERTIFICATES):
        assert after[table]["rows"][:-1] == versions[table]["rows"]
        assert after[table]["rows"][-1] == versions[table]["rows"][-1] + 1
        assert after[table]["run_ids"][-1] == str(report.run_id)
        assert after[table]["protocol"] == [1, 2]  # which every reader of Delta understands


def test_an_erasure_leaves_nothing_of_the_erased(lake: Lake, sample: Sample) -> None:
    lake.exported()
    sample.insert(950, fileName=FILE_NAME, userId=USER)
    sample.job.run()
    lake.exported()
    sample.insert(951, fileName=FILE_NAME, userId=USER)
    sample.job.run()
    lake.export(before=KILLED_BEFORE_COMMIT)
    assert len(lake.mentions(USER)) == 3

    call = ("erase", "--partner-id", "102", "--user-id", USER, "--json")
    assert lake.call(*call).report["lake"] == {"address": str(lake.folder), "tables": []}
    erased = lake.call(*call, "--apply")
    assert erased.code == 0, erased.err
    told = {each["table"]: each for each in erased.report["lake"]["tables"]}
    assert told[HISTORY]["files_deleted"] == 3
    assert (lake.mentions(USER), lake.mentions(FILE_NAME)) == ([], [])
    assert lake.differing() == SAME
    # Of the versions before it there is nothing to read.
    assert {rows for rows in lake.versions()[HISTORY]["rows"] if rows} == {
        told[HISTORY]["rows"] + 20
    }
    # Nothing is published since, and still the next export knows what was erased without it.
    sample.job.query("update kaltura.upload_token set file_name = 'erased:0' where version > 1")
    assert lake.exported()["written"]
    assert lake.differing() == SAME


def test_an_erasure_leaves_what_another_warehouse_is_writing(
    lake: Lake, postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    """No lock keeps the two apart: each is in a database of its own."""
    lake.exported("--partner-id", "102")
    with own_database(postgres_url, template_database) as url:
        with SimulatorServer(generate_account(20, seed=9, partner_id=104)) as server:
            Job.of(server, url).run()
        other = Lake(lake.python, url, lake.folder)
        waits = WAITS_BEFORE_COMMIT.format(folder=str(tmp_path))
        with killed_at_exit(
            other.start("export", "--format", "delta", "--json", before=waits)
        ) as writing:
            wait_until((tmp_path / "written").exists, 60)
            erasure = ("erase", "--partner-id", "102", "--user-id", USER, "--apply", "--json")
            assert lake.call(*erasure).code == 0
            (tmp_path / "go").touch()
            assert ended(writing).code == 0
    rows = {table: told["rows"][-1] for table, told in lake.versions().items()}
    lake.exported("--partner-id", "103")
    assert {table: told["rows"][-1] for table, told in lake.versions().items()} == {
        HISTORY: rows[HISTORY] + 20,
        CERTIFICATES: rows[CERTIFICATES] + 1,
    }
    assert lake.mentions(USER) == []
    # Every file that is named is there: the other warehouse's rows are the ones that this lacks.
    assert lake.differing() == {HISTORY: 20, CERTIFICATES: 1}


def test_an_account_that_leaves_is_deleted(lake: Lake, sample: Sample) -> None:
    lake.exported()
    call = ("erase", "--account", "102", "--json", "--apply")
    for _ in range(2):  # as after an interruption
        erased = lake.call(*call)
        assert erased.code == 0, erased.err
        assert [each["run_id"] for each in erased.report["lake"]["tables"]] == [None, None]
        assert (lake.mentions("0_sample"), lake.differing()) == ([], SAME)
    sample.job.run()
    assert lake.exported()["written"]
    assert lake.differing() == SAME


def test_columns_that_a_view_gets_are_added(lake: Lake, sample: Sample) -> None:
    lake.exported()
    sample.job.query("alter table kaltura.sync_run add column later bigint default 7")
    told = lake.exported()
    assert [each["rows"] is None for each in told["tables"]] == [True, False, True, False]
    assert lake.differing() == SAME


def test_exports_of_two_accounts_do_not_disturb_each_other(lake: Lake, sample: Sample) -> None:
    for number in range(3):
        running = [
            lake.start("export", "--format", "delta", "--partner-id", partner)
            for partner in ("102", "103")
        ]
        ends = [ended(process) for process in running]
        assert [end.code for end in ends] == [0, 0], ends
        assert lake.differing() == SAME
        # So that there is something to export again.
        sample.job.query(f"alter table kaltura.sync_run add column more_{number} bigint")


def test_what_is_not_its_own_is_left_alone(lake: Lake, sample: Sample, tmp_path: Path) -> None:
    (lake.folder / HISTORY).mkdir(parents=True)
    (lake.folder / HISTORY / "notes.txt").write_text("mine")
    refused = lake.export()
    assert (refused.code, "name another folder" in refused.err) == (78, True)
    (lake.folder / HISTORY / "notes.txt").unlink()

    lake.exported()
    sample.job.query("update kaltura.sync_run set published_at = published_at + interval '1 s'")
    before = lake.versions()
    erasure = ("erase", "--partner-id", "102", "--user-id", USER, "--apply", "--json")
    for refused in (lake.export(), lake.call(*erasure)):
        assert (refused.code, refused.report["reason"]) == (78, "other_warehouse")
    assert lake.versions() == before
    assert sample.job.query("select 1 from kaltura.upload_token where user_id = %s", USER)
    (tmp_path / "file").write_text("")
    assert lake.export("--to", str(tmp_path / "file")).code == 78
    assert lake.export("--to", "/proc/nothing").code == 78


def test_no_export_writes_while_an_erasure_is_at_work(lake: Lake, sample: Sample) -> None:
    with psycopg.connect(sample.job.database_url) as connection:
        connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"kaltura-etl export {lake.folder}"],
        )
        link = lake.folder.with_name("link")
        link.symlink_to(lake.folder)
        for each in (lake, Lake(lake.python, lake.database_url, link)):
            busy = each.export()
            assert (busy.code, busy.report["reason"]) == (75, "target_busy")
    assert not lake.folder.exists()
