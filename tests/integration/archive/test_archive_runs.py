"""What a run leaves in its archive, whether it succeeds, fails or is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.errors import DataRefused, EtlError
from etl.run.plan import SyncOptions
from tests.support import forked
from tests.support.archive import (
    Kept,
    assert_same_dump,
    assert_verified,
    check,
    dump,
    job_without_archive,
    keeping,
)
from tests.support.databases import with_database
from tests.support.environment import PYTHONPATH
from tests.support.job import Job


@pytest.fixture
def kept(
    database_url: str, postgres_url: str, template_database: str, tmp_path: Path
) -> Iterator[Kept]:
    template_url = with_database(postgres_url, template_database)
    with keeping(database_url, template_url, tmp_path / "archive") as kept:
        yield kept


def test_an_archived_run_is_complete_and_says_what_it_was(kept: Kept) -> None:
    report = kept.job.run()

    manifest = kept.manifest(report.run_id)
    row = manifest.row
    assert (manifest.mode, manifest.follows_run_id) == ("full", None)
    assert row["coverage"] == "{(,)}"
    assert row["published_at"] is not None
    assert (row["pages"], row["rows_read"]) == (report.pages, report.rows_read)
    assert sum(segment.replies for segment in manifest.segments) == report.pages
    assert sum(segment.rows for segment in manifest.segments) == report.rows_read
    folder = kept.archive / "partner-102"
    assert sum((folder / segment.name).stat().st_size for segment in manifest.segments) == sum(
        segment.bytes for segment in manifest.segments
    )
    # One file for each staging transaction, and nothing else.
    names = sorted(path.name for path in (folder / f"run-{report.run_id:010d}").iterdir())
    batches = [f"batch-{number:06d}.zst" for number in range(1, len(manifest.segments) + 1)]
    assert names == sorted([*batches, "manifest.json", "run.json"])
    run = json.loads((folder / f"run-{report.run_id:010d}" / "run.json").read_text())
    assert run["run_id"] == report.run_id


def test_the_option_of_the_command_line(kept: Kept) -> None:
    done = job_without_archive(kept.job).call("--archive", str(kept.archive))

    assert done.code == 0, done.err
    assert kept.manifests() == [done.report["run_id"]]
    kept.assert_replayed()


def test_a_dry_run_is_not_archived(kept: Kept) -> None:
    kept.job.run(options=SyncOptions(dry_run=True))

    assert not kept.archive.exists()


def test_a_resumed_walk_is_complete(kept: Kept) -> None:
    kept.job.run()
    kept.life.day(1)
    kept.failed_run(15)
    failed = kept.job.last_run()
    assert failed["status"] == "failed"
    assert failed["pages"] > 0
    assert kept.manifests() == [1]
    report = kept.job.run()

    assert report.resumed_from == failed["run_id"]
    manifest = kept.manifest(report.run_id)
    folders = {segment.name.partition("/")[0] for segment in manifest.segments}
    assert len(folders) == 2
    assert [row["run_id"] for row in manifest.ledger] == [failed["run_id"], report.run_id]
    with kept.replayed() as (job, _):
        kept.assert_same(job)
        (first, second) = job.runs()[-2:]
        assert (first["run_id"], first["started_at"]) == (failed["run_id"], failed["started_at"])
        assert (first["status"], first["mode"]) == ("failed", "replay")
        assert (second["walk_id"], second["resumed_from"]) == (first["run_id"], first["run_id"])


def test_a_walk_that_is_not_wholly_archived_starts_over(kept: Kept) -> None:
    kept.job.run()
    without = job_without_archive(kept.job)
    kept.life.fail_after(15)
    with pytest.raises(EtlError):
        without.run()
    kept.server.faults.clear()
    assert kept.job.last_run()["pages"] > 0
    report = kept.job.run()

    run = kept.job.last_run()
    assert (run["walk_id"], report.coverage) == (report.run_id, "{(,)}")
    kept.assert_replayed()


def test_a_file_that_was_lost_makes_the_walk_start_over(kept: Kept) -> None:
    kept.job.run()
    kept.failed_run(15)
    failed = kept.job.last_run()["run_id"]
    lost = sorted(kept.archive.glob(f"partner-102/run-{failed:010d}/batch-*"))[-1]
    lost.write_bytes(lost.read_bytes()[:-5])
    report = kept.job.run()

    assert kept.job.last_run()["walk_id"] == report.run_id
    kept.assert_replayed()


KILLED_BEFORE_ITS_MANIFEST = """
import os, signal
from etl.archive.writer import Recorder
Recorder.finish = lambda self, run: os.kill(os.getpid(), signal.SIGKILL)
from etl.cli import main
main(["sync"])
"""


def killed_after_publishing(job: Job) -> int:
    """A run that is killed between its commit and its manifest; returns its number."""
    environment = forked.environment(**job.environment())
    ended = forked.call(env=environment, code=KILLED_BEFORE_ITS_MANIFEST)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    run = job.last_run()
    assert run["status"] == "succeeded"
    return int(run["run_id"])


def test_the_next_run_finishes_an_archive(kept: Kept) -> None:
    kept.job.run()
    kept.life.day(2)
    killed = killed_after_publishing(kept.job)
    assert kept.manifests() == [1]
    found = check(kept.job, kept.archive)
    assert not found.equal
    assert f"run {killed} has published and its archive is unfinished" in found.notes[0]
    kept.life.day(3)
    report = kept.job.run()

    assert kept.manifests() == [1, killed, report.run_id]
    assert kept.manifest(report.run_id).follows_run_id == killed
    kept.assert_replayed()
    assert check(kept.job, kept.archive).equal


def test_an_archive_that_cannot_be_finished_has_a_gap(kept: Kept) -> None:
    """The pages of the ledger say which replies were staged; once pruned, it is unknown."""
    killed = killed_after_publishing(kept.job)
    kept.job.query("delete from kaltura.sync_page")
    report = kept.job.run()

    assert kept.manifests() == [report.run_id]
    with pytest.raises(DataRefused, match=f"follows run {killed}, which is not archived"):
        kept.assert_replayed()
    found = check(kept.job, kept.archive)
    assert (found.equal, found.tables) == (False, [])


def test_a_history_may_restart_after_a_gap(kept: Kept) -> None:
    job_without_archive(kept.job).run()
    kept.life.day(4)
    report = kept.job.run()
    with kept.replayed(accept_gaps=True) as (job, replayed):
        (run,) = replayed.runs
        assert (run.run_id, run.published_at) == (report.run_id, report.published_at)
        assert run.differs["inserted"] == [report.inserted, report.tokens_read - report.rejected]
        assert_verified(job.database_url)


def test_attempts_that_read_nothing_do_not_stop_the_next_run(kept: Kept) -> None:
    """The second of them is folded into the first, and the next run has its row and its folder."""
    kept.job.run()
    for _ in range(2):
        kept.server.faults.schedule("unknown-error", where="list", first=1)
        with pytest.raises(DataRefused):
            kept.job.run()
    report = kept.job.run()

    assert report.run_id == 3
    assert kept.manifests() == [1, 3]
    kept.assert_replayed()


def test_a_folder_that_cannot_be_written_stops_the_run_before_it_reads(kept: Kept) -> None:
    kept.archive.write_text("in the way")
    asked = len(kept.server.service.log)
    with pytest.raises(EtlError, match="cannot be") as failed:
        kept.job.run()

    assert failed.value.exit_code == 78
    lists = [record for record in list(kept.server.service.log)[asked:] if record.action == "list"]
    assert len(lists) <= 1  # the proof of the session
    assert kept.job.last_run()["error_kind"] == "configuration"


def test_a_disk_that_fills_up_publishes_nothing(kept: Kept) -> None:
    kept.job.run()
    before = dump(kept.job.database_url)
    kept.life.day(5)
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))\n"
        "from etl.cli import main\n"
        "main(['sync', '--json'])\n"
    )
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": PYTHONPATH,
        # Bytecode cut off at the limit would break every later import of it.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | kept.job.environment(),
        check=False,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 74, ended.stderr
    assert json.loads(ended.stdout)["error_kind"] == "archive_unavailable"
    assert_same_dump(dump(kept.job.database_url), before)
    kept.job.run()
    kept.assert_replayed()
