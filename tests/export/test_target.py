"""Where an export goes: whole or not at all, and nothing of anybody else's is touched."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from etl.archive.object_store import ObjectStore
from etl.errors import ArchiveUnavailable, EtlError, Interrupted, LeaseHeld, UsageError
from etl.export.target import _Objects, open_target
from etl.process.stop import Stop
from tests.export.exporting import Calling, exported, manifest_of
from tests.support.export_sample import Sample

VIEWS = ("stuck_upload", "sync_night")
FILES = {
    f"{view}/partner_id={partner}/part-00000.csv" for view in VIEWS for partner in (102, 103)
} | {"manifest.json"}


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_names_the_files_and_the_same_again_does_nothing(
    sample: Sample, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "day"
    url = sample.job.database_url

    assert exported(url, folder, *VIEWS).written
    assert names_in(folder) == FILES
    manifest = manifest_of(folder)
    assert {file["name"] for view in manifest["views"] for file in view["files"]} == (
        FILES - {"manifest.json"}
    )
    assert manifest["accounts"][0]["run_id"] == sample.job.last_run()["run_id"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = exported(url, folder, *VIEWS)
    assert (again.written, again.views) == (False, manifest["views"])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(UsageError, match="has another export already"):
        exported(url, folder, *VIEWS, time_zone="Europe/Berlin")
    (folder / "stuck_upload" / "partner_id=102" / "part-00000.csv").unlink()
    with pytest.raises(UsageError, match="of which files are missing"):
        exported(url, folder, *VIEWS)


def test_an_export_that_is_stopped_leaves_nothing(sample: Sample, tmp_path: Path) -> None:
    stop, batches = Stop(), 0

    def stop_in_the_second_view() -> None:
        nonlocal batches
        batches += 1
        if batches == 3:
            assert names_in(tmp_path / "x" / "y") > {".partial/lock"}
            stop.request()

    with pytest.raises(Interrupted):
        exported(
            sample.job.database_url,
            tmp_path / "x" / "y",
            *VIEWS,
            progress=Calling(stop_in_the_second_view),
            stop=stop,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_deleted_and_nothing_else(
    sample: Sample, tmp_path: Path
) -> None:
    for name in (
        "upload_outcome/partner_id=102/part-00000.csv",
        ".partial/upload_outcome/partner_id=102/part-00001.csv",
        ".partial/lock",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    exported(sample.job.database_url, tmp_path, *VIEWS)
    assert names_in(tmp_path) == FILES


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "stuck_upload/notes.csv", "Photos/x.jpg", "a/b/part-00000.csv", "manifest.json"],
)
def test_a_folder_of_somebody_else_is_refused(sample: Sample, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="name a folder that is empty or new"):
        exported(sample.job.database_url, tmp_path, *VIEWS)
    assert names_in(tmp_path) == {name}


def test_two_exports_do_not_write_to_one_folder(sample: Sample, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(LeaseHeld, match="Another export is writing"):
        exported(sample.job.database_url, tmp_path, *VIEWS)
    os.close(descriptor)
    assert exported(sample.job.database_url, tmp_path, *VIEWS).written


def test_where_nothing_can_be_written_is_told(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/nothing/here")):
        with pytest.raises(EtlError, match=r"^The export .* cannot be written: ") as raised:
            exported(sample.job.database_url, place, *VIEWS)
        assert raised.value.exit_code in (77, 78)
    for address in ("ftp://host/path", "s3://key:secret@bucket/path"):
        with pytest.raises(EtlError, match=r"^The export's address ") as raised:
            open_target(address)
        assert raised.value.exit_code == 78


class Failing(ObjectStore):
    """An object store that notes what is written to it, and fails at one name."""

    def __init__(self, fails: str | None = None) -> None:
        from obstore.store import MemoryStore

        super().__init__("s3://bucket/day", MemoryStore(), what="export")
        self.written: list[str] = []
        self.fails = fails

    def write(self, name: str, body: bytes) -> None:
        if name == self.fails:
            raise ArchiveUnavailable("The object store failed.")
        super().write(name, body)
        self.written.append(name)


def test_in_an_object_store_the_manifest_is_written_last(sample: Sample) -> None:
    url = sample.job.database_url
    store = Failing()
    assert exported(url, _Objects(store), *VIEWS).written
    assert (set(store.written), store.written[-1]) == (FILES, "manifest.json")
    assert not exported(url, _Objects(store), *VIEWS).written
    with pytest.raises(UsageError, match="s3://bucket/day has another export already"):
        exported(url, _Objects(store), "sync_night")

    failing = Failing("manifest.json")
    with pytest.raises(ArchiveUnavailable):
        exported(url, _Objects(failing), *VIEWS)
    assert (len(failing.written), failing.folders(""), failing.files("")) == (4, [], [])
    # What a killed one leaves has no manifest.
    ObjectStore.write(failing, "upload_outcome/partner_id=102/part-00007.csv", b"half")
    failing.fails = None
    assert exported(url, _Objects(failing), *VIEWS).written
    assert failing.folders("") == list(VIEWS)
