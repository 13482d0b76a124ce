"""The files of an archive: what is written is read back, and what was changed is refused."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from etl.archive.catalogue import plan_of
from etl.archive.layout import (
    FORMAT,
    FORMAT_VERSION,
    MARK_NAME,
    Manifest,
    Segment,
    check_mark,
    decode_manifest,
    encode_manifest,
    encode_mark,
    run_name,
    segment_name,
    sha256_of,
)
from etl.archive.object_store import ObjectStore
from etl.archive.reader import Archive, Kept
from etl.archive.segment import SegmentHead, pack, unpack
from etl.archive.stores import LocalStore, Store, open_store
from etl.archive.writer import chosen_of
from etl.coverage import Span
from etl.errors import ConfigurationError, DataRefused, EtlError, UsageError
from etl.tokens.columns import PageTokens
from etl.tokens.page import Page, PageFacts

AT = datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC)
BODIES = [
    b'{"objects": []}',
    b"\xef\xbb\xbf{\n\n}",
    b'{"name": "\xff\xfe\\ud83d"}\n',
    b"",
    b'\n{"seq": 1}\n',
    bytes(range(256)) * 40,
]


def page_with(body: bytes, seq: int, *, body_sha256: bytes | None = None) -> Page:
    return Page(
        facts=PageFacts(
            page_index=seq + 1,
            page_size=500,
            filter='{"orderBy":"+createdAt"}',
            requested_at=AT,
            received_at=AT + timedelta(microseconds=seq),
            total_count=None,
            rows=3,
            body_sha256=body_sha256 or hashlib.sha256(body).digest(),
        ),
        body=body,
        tokens=PageTokens.of([]),
        raw=[],
        span=Span(5, 9),
        seq=seq,
    )


def head_of(replies: int, **values: Any) -> SegmentHead:
    fields: dict[str, Any] = {
        "partner_id": 102,
        "run_id": 7,
        "call": "pages",
        "range": "(,)",
        "absence_grace_seconds": 900.0,
        "replies": replies,
    }
    return SegmentHead(**(fields | values))


def manifest_with(run_id: int = 7, **values: Any) -> Manifest:
    fields: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "program_version": "0.1.0",
        "partner_id": 102,
        "run_id": run_id,
        "mode": "full",
        "published_at": AT + timedelta(seconds=run_id),
        "follows_run_id": None,
        "ledger": [{"run_id": run_id, "holes": [], "coverage": "{(,)}"}],
        "segments": [
            Segment(
                name=f"{run_name(run_id)}/{segment_name(1)}",
                sha256="0" * 64,
                bytes=9,
                replies=1,
                rows=3,
            )
        ],
    }
    return Manifest(**(fields | values))


def test_replies_come_back_byte_for_byte() -> None:
    pages = [page_with(body, seq) for seq, body in enumerate(BODIES)]
    pages[1].asked = ("a", "ü,\n", "")
    pages[2].span = None
    pages[3].open_only = True
    pages[4].facts = msgspec.structs.replace(pages[4].facts, total_count=12)

    head, replies = unpack(pack(head_of(len(pages)), pages), "a file")

    assert head == head_of(len(pages))
    assert [reply.body for reply in replies] == BODIES
    for page, reply in zip(pages, replies, strict=True):
        assert reply.head.received_at == page.facts.received_at
        assert reply.head.span == (None if page.span is None else page.span.to_sql())
        assert reply.head.asked == (None if page.asked is None else list(page.asked))
        assert reply.head.open_only == page.open_only
        assert reply.head.total_count == page.facts.total_count


def test_a_file_of_replies_that_was_changed_anywhere_is_refused() -> None:
    packed = pack(head_of(len(BODIES)), [page_with(body, seq) for seq, body in enumerate(BODIES)])

    for length in [0, 1, 10, len(packed) // 2, len(packed) - 1]:
        with pytest.raises(DataRefused, match="damaged") as refused:
            unpack(packed[:length], "a file")
        assert refused.value.fields["reason"] == "archive_corrupt"
    for place in range(0, len(packed), 7):
        changed = bytearray(packed)
        changed[place] ^= 0x10
        with pytest.raises(DataRefused):
            unpack(bytes(changed), "a file")
    with pytest.raises(DataRefused, match="more than"):
        unpack(pack(head_of(1), [page_with(body, 0) for body in BODIES[:2]]), "a file")
    with pytest.raises(DataRefused, match="SHA-256"):
        unpack(pack(head_of(1), [page_with(b"a", 0, body_sha256=b"\0" * 32)]), "a file")


def test_a_manifest_comes_back_and_no_change_of_it_goes_unseen() -> None:
    manifest = manifest_with(ledger=[{"overrides": {"a": "é", "n": 1.5}, "holes": [None]}])
    body = encode_manifest(manifest)

    assert decode_manifest(body, "m") == manifest
    for place in range(len(body) - 1):
        changed = bytearray(body)
        changed[place] ^= 0x01
        with pytest.raises(DataRefused):
            decode_manifest(bytes(changed), "m")
    with pytest.raises(DataRefused):
        decode_manifest(body[:-3], "m")


@pytest.mark.parametrize(
    "name", ["../x/batch-000001.zst", "/etc/passwd", "batch-000001.zst", "run-0000000007/../a"]
)
def test_a_manifest_names_nothing_outside_its_partner(name: str) -> None:
    segment = Segment(name=name, sha256="0" * 64, bytes=1, replies=1, rows=1)
    with pytest.raises(DataRefused, match="does not name"):
        decode_manifest(encode_manifest(manifest_with(segments=[segment])), "m")


def test_another_format_is_refused_by_name() -> None:
    with pytest.raises(DataRefused, match="format 2") as refused:
        decode_manifest(encode_manifest(manifest_with(format_version=2)), "m")
    assert refused.value.fields["reason"] == "archive_format"
    with pytest.raises(DataRefused, match="not of an archive"):
        check_mark(msgspec.json.encode({"format": "tar", "format_version": 1}), "a")
    with pytest.raises(DataRefused, match="not that of an archive"):
        check_mark(b"{}", "a")


# --- stores --------------------------------------------------------------------------------------


def memory_store() -> Store:
    from obstore.store import MemoryStore

    return ObjectStore("s3://bucket/path", MemoryStore())


@pytest.fixture(params=["folder", "objects"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "folder":
        return lambda: LocalStore(tmp_path / "not" / "there" / "yet")
    return memory_store


def test_a_store_keeps_names_in_folders(make_store: Callable[[], Store]) -> None:
    store = make_store()

    assert store.read("archive.json") is None
    assert store.folders("") == store.files("") == store.files("a/b") == []
    store.write("archive.json", b"1")
    store.write("partner-1/run-0000000002/batch-000001.zst", b"\0\xff" * 5)
    store.write("partner-1/run-0000000010/manifest.json", b"3")
    store.write("partner-1/run-0000000010/manifest.json", b"4")
    store.write("partner-12/run-0000000010/manifest.json", b"5")

    assert store.read("partner-1/run-0000000002/batch-000001.zst") == b"\0\xff" * 5
    assert store.read("partner-1/run-0000000010/manifest.json") == b"4"
    assert store.folders("") == ["partner-1", "partner-12"]
    assert store.files("") == ["archive.json"]
    assert store.folders("partner-1") == ["run-0000000002", "run-0000000010"]
    assert store.files("partner-1/run-0000000010") == ["manifest.json"]


def test_a_folder_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        LocalStore(tmp_path / "archive").write("partner-1/run-0000000001/run.json", b"{}")
    finally:
        os.umask(before)

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "archive", *(tmp_path / "archive").rglob("*"))
    }
    assert modes == {
        "archive": 0o700,
        "partner-1": 0o700,
        "run-0000000001": 0o700,
        "run.json": 0o600,
    }


def test_what_a_killed_writer_left_is_no_file_of_the_archive(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "partner-1").mkdir()
    (tmp_path / "partner-1" / ".manifest.json.123.new").write_bytes(b"half")

    assert store.files("partner-1") == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EtlError, match=f"cannot be written: {tmp_path}/file is a file") as failed:
        LocalStore(tmp_path / "file").write("partner-1/run.json", b"{}")
    assert failed.value.exit_code == 78
    assert "Free some space" not in failed.value.message


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files is what a full disk is: the write ends in the middle."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from etl.archive.stores import LocalStore\n"
        "from etl.errors import ArchiveUnavailable\n"
        "store = LocalStore(Path(sys.argv[1]))\n"
        "store.write('partner-1/small', b'x' * 10)\n"
        "try:\n"
        "    store.write('partner-1/large', b'x' * 100_000)\n"
        "except ArchiveUnavailable as error:\n"
        "    print(error.exit_code, error.message)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, 8_192))

    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limit,
        cwd=Path(__file__).resolve().parents[3],
        env={"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert ended.stdout.startswith("74 "), ended.stderr
    assert [path.name for path in (tmp_path / "partner-1").iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/path", "begins with ftp://, where no files can be kept"),
        ("https://host/path", "begins with https://, where no files can be kept"),
        ("file://host/path", "file:///folder"),
        ("file:relative", "file:///folder"),
        ("s3:/bucket/path", "begin with s3://, with two slashes"),
        ("S3:bucket", "begin with s3://, with two slashes"),
        ("az://", "names no bucket"),
        ("s3://key:secret@bucket/path", "without a user"),
        ("s3://bucket/path?region=x", "without a user"),
        ("s3:///path", "names no bucket"),
    ],
)
def test_an_address_that_can_be_none(address: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        open_store(address)
    assert "secret" not in refused.value.message


def test_an_object_store_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'kaltura-etl\[archive\]'"):
        open_store("s3://bucket/path")


def test_addresses_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/anna")
    assert open_store("archive").address == str(tmp_path / "archive")
    assert open_store("file:///var/a%20b").address == "/var/a b"
    assert open_store("~/kept").address == "/home/anna/kept"


# --- which files and which runs ------------------------------------------------------------------


def kept_with(name: str, *replies: tuple[int, datetime]) -> Kept:
    return Kept(Segment(name=name, sha256="", bytes=0, replies=1, rows=1), replies)


def test_only_what_was_staged_belongs_to_a_run() -> None:
    later = AT + timedelta(microseconds=1)
    kept = [
        kept_with("first", (0, AT), (1, AT)),
        kept_with("never staged", (2, AT), (3, AT)),
        kept_with("second try", (2, later), (3, later)),
    ]

    chosen = chosen_of(kept, {0: AT, 1: AT, 2: later, 3: later})
    assert chosen is not None
    assert [segment.name for segment in chosen] == ["first", "second try"]
    assert chosen_of(kept, {0: AT, 1: AT, 2: later, 3: later, 4: later}) is None
    assert chosen_of(kept[1:], {0: AT, 1: AT, 2: later, 3: later}) is None


def archive_of(path: Path, *manifests: Manifest, unfinished: tuple[int, ...] = ()) -> Archive:
    store = LocalStore(path)
    store.write(MARK_NAME, encode_mark())
    for manifest in manifests:
        folder = f"partner-{manifest.partner_id}/{run_name(manifest.run_id)}"
        store.write(f"{folder}/manifest.json", encode_manifest(manifest))
    for run_id in unfinished:
        store.write(f"partner-102/{run_name(run_id)}/run.json", b"{}")
    return Archive(store)


def test_runs_are_planned_as_they_were_published(tmp_path: Path) -> None:
    one = archive_of(
        tmp_path / "one",
        manifest_with(1),
        manifest_with(4, follows_run_id=1),
        manifest_with(3, partner_id=7),
        unfinished=(2, 9),
    )
    two = archive_of(tmp_path / "two", manifest_with(6, follows_run_id=4), manifest_with(1))

    plan = plan_of([two, one])

    assert [run.manifest.run_id for run in plan.runs] == [1, 3, 4, 6]
    assert plan.gaps == []
    assert plan.unfinished == [(102, 2), (102, 9)]
    assert plan.last_run_id == 9
    assert [run.manifest.run_id for run in plan_of([two, one], until=3).runs] == [1, 3]
    with pytest.raises(UsageError, match="no archive has a published run"):
        plan_of([one], until=6)


def test_gaps_and_archives_that_do_not_fit(tmp_path: Path) -> None:
    begins_late = archive_of(tmp_path / "late", manifest_with(4, follows_run_id=1))
    (gap,) = plan_of([begins_late]).gaps
    assert "run 4 of partner 102 follows run 1" in gap
    other = archive_of(tmp_path / "other", manifest_with(4))
    with pytest.raises(DataRefused, match="two warehouses"):
        plan_of([begins_late, other])
    with pytest.raises(ConfigurationError, match="no archive of this program"):
        plan_of([Archive(LocalStore(tmp_path / "nowhere"))])


def test_a_file_that_is_missing_or_another(tmp_path: Path) -> None:
    packed = pack(head_of(1), [page_with(b"{}", 0)])
    name = f"{run_name(7)}/{segment_name(1)}"
    segment = Segment(name=name, sha256=sha256_of(packed), bytes=len(packed), replies=1, rows=3)
    manifest = manifest_with(segments=[segment])
    archive = archive_of(tmp_path, manifest)

    with pytest.raises(DataRefused, match="is missing"):
        archive.replies(manifest, segment)
    LocalStore(tmp_path).write(f"partner-102/{name}", pack(head_of(1), [page_with(b"[]", 0)]))
    with pytest.raises(DataRefused, match="not the file that the manifest names"):
        archive.replies(manifest, segment)
    LocalStore(tmp_path).write(f"partner-102/{name}", packed)
    assert archive.replies(manifest, segment)[1][0].body == b"{}"
