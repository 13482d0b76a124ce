"""Erased people are in no file of the archive, and its replay is the warehouse as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import urlsplit

import pytest

from etl.archive.layout import decode_manifest, sha256_of
from etl.archive.object_store import ObjectStore
from etl.archive.people import ErasedArchive, erase_people
from etl.archive.segment import ArchivedReply, unpack
from etl.archive.stores import LocalStore, Store
from etl.errors import ArchiveUnavailable, ConfigurationError, DataRefused
from etl.simulator import Account, SimulatorServer, generate_account
from etl.warehouse.load.digests import fill_digests
from etl.warehouse.privacy.subject import Erased, Subject
from etl.warehouse.schema.database import open_database
from tests.support.archive import Kept, Life, archived, check, copied_database, dump
from tests.support.databases import with_database
from tests.support.erasure import ANNA, KEY, SECRETS, erased, insert
from tests.support.searching import search

HER_NAMES = [name for name in SECRETS if name != "anna-new"]


@dataclass(frozen=True)
class Lived:
    """An account after Anna's life in it, its warehouse and its archive: to be copied."""

    account: Account
    database_url: str
    archive: Path


@pytest.fixture(scope="module")
def lived(
    postgres_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lived]:
    template_url = with_database(postgres_url, template_database)
    archive = tmp_path_factory.mktemp("lived") / "archive"
    with copied_database(template_url, template_database) as url:
        account = generate_account(120, seed=11, partner_id=102)
        with keeping_anna(account, url, archive, template_url) as kept:
            live_with_anna(kept)
        yield Lived(account, url, archive)


@pytest.fixture
def kept(lived: Lived, postgres_url: str, template_database: str, tmp_path: Path) -> Iterator[Kept]:
    template_url = with_database(postgres_url, template_database)
    archive = tmp_path / "archive"
    shutil.copytree(lived.archive, archive)
    # A lock has no copy: it is named as if it had been copied already.
    account = deepcopy(lived.account, {id(lived.account.lock): RLock()})
    with (
        copied_database(template_url, urlsplit(lived.database_url).path[1:]) as url,
        keeping_anna(account, url, archive, template_url) as kept,
    ):
        yield kept


@pytest.fixture
def same_service(
    database_url: str, postgres_url: str, template_database: str, tmp_path: Path
) -> Iterator[Kept]:
    """One whose runs have all read this service, so that the next goes on with the failed one."""
    account = generate_account(120, seed=11, partner_id=102)
    template_url = with_database(postgres_url, template_database)
    with keeping_anna(account, database_url, tmp_path / "archive", template_url) as kept:
        live_with_anna(kept)
        yield kept


@contextmanager
def keeping_anna(
    account: Account, database_url: str, archive: Path, template_url: str
) -> Iterator[Kept]:
    with SimulatorServer(account, page_cap=25, seed=11) as server:
        job = archived(server, database_url, archive, ETL_ERASURE_KEY=KEY, ETL_RETRY_ATTEMPTS="1")
        yield Kept(server, job, archive, Life(server), template_url)


def live_with_anna(kept: Kept) -> None:
    """Anna uploads, renames, passes on, is rejected and sent oddly; then a night fails half-way."""
    server, account = kept.server, kept.server.account
    insert(server, "a1", fileName="anna-first", note={"x": ["anna-extra", 1.50]})
    insert(server, "a2", fileName="anna-unlisted")
    insert(server, "a3", fileName="anna-passed-on")
    insert(server, "a4", fileName="anna-orphan", createdAt=account.line[3].created_at)
    insert(server, "a5", fileName=None)
    insert(server, "a6", fileName="", status="anna-rejected")
    insert(server, "o1", userId="otto", fileName="otto.mp4", status="ottos-rejected")
    insert(server, "o2", userId="otto", fileName="anna", note="otto's", status="7")
    insert(server, "a9", fileName="anna-\ud83d half", status=9)
    assert kept.job.run().rejected == 2
    account.change("a1", {"fileName": "anna-renamed", "note": {"x": ["anna-extra-later", 1.5]}})
    account.delete("a2")
    account.change("a3", {"userId": "otto"})
    account.change("a6", {"status": "anna-rejected again"}, touch=False)
    kept.job.run()
    account.change("a4", {"userId": ...}, touch=False)
    insert(server, "a7", fileName="anna-staged", createdAt=account.line[5].created_at)
    kept.failed_run(4)


def erase(
    kept: Kept, store: Store | None = None, *, apply: bool = True, **subjects: Any
) -> tuple[list[Erased], ErasedArchive]:
    users = [Subject("user", each) for each in subjects.pop("users", (ANNA,))]
    tokens = [Subject("token", each) for each in subjects.pop("tokens", ())]
    with open_database(kept.job.database_url, "kaltura") as database:
        done, archive = erase_people(
            database,
            store or LocalStore(kept.archive),
            partner_id=kept.job.partner_id,
            key=KEY,
            subjects=[*users, *tokens],
            lease_seconds=900,
            apply=apply,
            **subjects,
        )
    assert archive is not None
    return done, archive


def texts(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Everything in the archive, decompressed."""
    for path in sorted(archive.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            if path.suffix == ".zst":
                head, replies = unpack(body, path.name)
                body = b"\n".join([repr(head).encode(), *map(reply_text, replies)])
            yield str(path.relative_to(archive)), body


def reply_text(reply: ArchivedReply) -> bytes:
    return repr(reply.head).encode() + reply.body


def names_in(archive: Path) -> set[str]:
    forms = {
        name: {
            name.encode(),
            json.dumps(name)[1:-1].encode(),
            json.dumps(name)[1:-1].replace("/", "\\/").encode(),
        }
        for name in HER_NAMES
    }
    return {
        name
        for _, text in texts(archive)
        for name, each in forms.items()
        if any(form in text for form in each)
    }


def names_of(archive: Path) -> list[str]:
    return sorted(str(path.relative_to(archive)) for path in archive.rglob("*"))


def assert_readable(kept: Kept) -> None:
    """Every manifest names what is there, and a replay that knows who is erased takes it."""
    found = check(kept.job, kept.archive)
    assert {table.table for table in found.tables if not table.equal} <= {"sync_page"}


def assert_replay_is_the_warehouse(kept: Kept) -> None:
    """In an empty warehouse, which has no list of the erased."""
    # An erasure leaves it to the next run to make the digests of the pseudonyms.
    with open_database(kept.job.database_url, "kaltura") as database:
        fill_digests(
            database, kept.job.partner_id, kept.job.last_run()["run_id"], check=lambda: None
        )
    kept.assert_replayed()


def test_a_user_is_erased_in_the_archive(same_service: Kept) -> None:
    kept = same_service
    assert names_in(kept.archive) >= {ANNA, "anna-first", "anna-staged", "anna-rejected"}
    files, bystanders = names_of(kept.archive), bytes_without_anna(kept)
    hashes = {row["body_sha256"].hex() for row in pages(kept)}

    left_over = kept.archive / "partner-102/run-0000000001/.batch-000009.zst.77.new"
    left_over.write_bytes(b"anna-first, by a killed writer")
    _, told = erase(kept, apply=False)
    assert (told.rewritten, told.files) == (0, len(list(kept.archive.rglob("*.zst"))))
    _, archive = erase(kept)

    assert archive.left == []
    assert archive.files == told.files
    assert archive.rewritten > 0
    assert names_in(kept.archive) == set()
    assert names_of(kept.archive) == sorted([*files, "partner-102/erased.json"])
    assert {name: (kept.archive / name).read_bytes() for name in bystanders} == bystanders
    for run_id in kept.manifests():
        for segment in kept.manifest(run_id).segments:
            body = (kept.archive / "partner-102" / segment.name).read_bytes()
            assert (segment.sha256, segment.bytes) == (sha256_of(body), len(body))
            assert segment.becomes_sha256 is None
    # With the rest of a reply, its hash would confirm a guess of what was erased.
    replaced = {reply["sha256"] for reply in erased_replies(kept)}
    assert replaced
    assert not replaced & hashes
    assert replaced <= {row["body_sha256"].hex() for row in pages(kept)}
    assert_replay_is_the_warehouse(kept)
    # The lease is given back, and the failed night goes on from its archived pages.
    assert [run["status"] for run in kept.job.runs()] == ["succeeded", "succeeded", "failed"]
    assert kept.job.run().resumed_from is not None
    assert names_in(kept.archive) == set()
    # Anna goes on uploading, and is in no file of later nights either.
    insert(kept.server, "a8", fileName="anna-new", note="anna-new")
    kept.server.account.change("a6", {"status": "anna-rejected once more"}, touch=False)
    kept.job.run()
    assert not any(b"anna-" in text for name, text in texts(kept.archive))
    assert_replay_is_the_warehouse(kept)
    # And one that has the list.
    assert check(kept.job, kept.archive).equal
    # Once more: nothing is left to do.
    before = dict(texts(kept.archive))
    _, again = erase(kept)
    assert again.rewritten == 0
    assert dict(texts(kept.archive)) == before


def pages(kept: Kept) -> list[dict[str, Any]]:
    return kept.job.query("select run_id, seq, body_sha256 from kaltura.sync_page")


def erased_replies(kept: Kept) -> list[dict[str, Any]]:
    return [
        {"sha256": reply.head.sha256, "erased": reply.head.erased}
        for path in kept.archive.rglob("*.zst")
        for reply in unpack(path.read_bytes(), path.name)[1]
        if reply.head.erased
    ]


def bytes_without_anna(kept: Kept) -> dict[str, bytes]:
    """The files of replies in which none of her tokens is."""
    marks = [f'"id":"a{number}"'.encode() for number in range(1, 10)]
    return {
        name: (kept.archive / name).read_bytes()
        for name, text in texts(kept.archive)
        if name.endswith(".zst") and not any(mark in text for mark in marks)
    }


def test_a_token_and_later_a_user_are_erased(kept: Kept) -> None:
    erase(kept, users=(), tokens=("a3", "o1"))
    assert "anna-passed-on" not in names_in(kept.archive)
    assert ANNA in names_in(kept.archive)

    erase(kept, users=(ANNA, "otto"))

    assert names_in(kept.archive) == set()
    assert not any(b"otto" in text for _, text in texts(kept.archive))
    assert_replay_is_the_warehouse(kept)


class Killed(BaseException):
    pass


class Killing(LocalStore):
    """A folder whose writer dies before or after the n-th write."""

    def __init__(self, root: Path, writes: float, *, after: bool) -> None:
        super().__init__(root)
        self._left, self._after = writes, after

    def write(self, name: str, body: bytes) -> None:
        self._left -= 1
        if self._left <= 0 and not self._after:
            raise Killed
        super().write(name, body)
        if self._left <= 0:
            raise Killed


def test_an_erasure_that_is_killed_at_any_write_is_completed_by_the_next(kept: Kept) -> None:
    erased(kept.job, users=(ANNA,))
    before = search(kept.job.database_url, HER_NAMES)
    assert before == set()
    writes = 0
    while True:
        writes += 1
        try:
            # One more file each time, the manifest before and the file itself.
            erase(kept, Killing(kept.archive, 2 if writes % 2 else 3, after=bool(writes % 3)))
        except Killed:
            if writes == 2:
                assert_readable(kept)
        else:
            break
    assert writes > 3
    assert names_in(kept.archive) == set()
    assert_replay_is_the_warehouse(kept)


class Full(LocalStore):
    def write(self, name: str, body: bytes) -> None:
        raise ArchiveUnavailable(f"The archive cannot be written: {name[:7]} {len(body) > 0}.")


def test_an_archive_that_cannot_be_written_is_named(kept: Kept) -> None:
    with pytest.raises(ArchiveUnavailable, match=r"erased in the warehouse.*not finished"):
        erase(kept, Full(kept.archive))

    assert search(kept.job.database_url, HER_NAMES) == set()
    assert kept.job.last_run()["status"] == "failed"
    _, archive = erase(kept)
    assert archive.left == []
    assert names_in(kept.archive) == set()


def test_what_cannot_be_rewritten_is_named(kept: Kept) -> None:
    damaged = kept.archive / "partner-102" / kept.manifest(1).segments[0].name
    damaged.write_bytes(damaged.read_bytes()[:-7])
    manifest = kept.archive / "partner-102/run-0000000002/manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"mode": "full"', b'"mode": "odd"'))

    _, archive = erase(kept)

    assert {each.file for each in archive.left} == {
        str(damaged.relative_to(kept.archive)),
        str(manifest.relative_to(kept.archive)),
    }
    assert all("damaged" in each.reason or "not the file" in each.reason for each in archive.left)
    with pytest.raises(DataRefused):
        decode_manifest(manifest.read_bytes(), "m")


def test_an_archive_in_an_object_store_is_rewritten(kept: Kept) -> None:
    from obstore.store import MemoryStore

    store = ObjectStore("s3://bucket/kept", MemoryStore())
    names = [path.relative_to(kept.archive) for path in kept.archive.rglob("*") if path.is_file()]
    for name in names:
        store.write(str(name), (kept.archive / name).read_bytes())

    _, archive = erase(kept, store)

    assert (archive.address, archive.left) == ("s3://bucket/kept", [])
    for name in names:
        body = store.read(str(name))
        assert body is not None
        (kept.archive / name).write_bytes(body)
    assert names_in(kept.archive) == set()
    assert_replay_is_the_warehouse(kept)


def test_an_archive_of_another_warehouse_is_not_rewritten(kept: Kept) -> None:
    before = dump(kept.job.database_url)
    kept.job.query(
        "update kaltura.sync_run set published_at = published_at - interval '1 s' where run_id = 2"
    )
    with pytest.raises(ConfigurationError, match="did not publish"):
        erase(kept)
    assert dump(kept.job.database_url)["upload_token"] == before["upload_token"]
    assert "anna-first" in names_in(kept.archive)


def test_a_row_of_hers_that_was_loaded_in_part_is_rewritten(kept: Kept) -> None:
    insert(kept.server, "a8", fileName="anna-first", updatedAt="anna-rejected")
    insert(kept.server, "b8", fileName="anna-first", fileSize=["anna-rejected"])
    assert kept.job.run().partly_loaded == 2

    _, archive = erase(kept)

    assert archive.left == []
    assert names_in(kept.archive) == set()
    assert_replay_is_the_warehouse(kept)


def test_a_row_of_hers_that_cannot_be_written_again_is_named(kept: Kept) -> None:
    """Without its misspelt key the row would be loaded whole."""
    insert(kept.server, "a8", AttachedObjectType="anna-rejected")
    run = kept.job.run()
    assert run.partly_loaded == 1

    _, archive = erase(kept)

    assert {each.file.split("/")[1] for each in archive.left} == {f"run-{run.run_id:010}"}
