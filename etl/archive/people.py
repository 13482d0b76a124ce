"""Erasure of users and tokens: in the warehouse, then in its archive.

Files keep their names.  A manifest names the next content of a file before the file is replaced
(``Segment.becomes_sha256``), so every run can be read at any moment, and an interrupted erasure is
completed by the next one: that replaces whatever is on the erasure list.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from etl.archive.erased import NotRewritten, rewritten
from etl.archive.layout import (
    ERASED_NAME,
    MANIFEST_NAME,
    MARK_NAME,
    Manifest,
    Segment,
    becoming,
    check_mark,
    encode_manifest,
    is_content_of,
    is_segment,
    partner_folder,
    run_folder,
    run_name,
    with_content,
)
from etl.archive.own import require_own
from etl.archive.reader import Archive
from etl.archive.segment import ReplyHead, SegmentHead, repack, unpack
from etl.errors import DataRefused, EtlError
from etl.warehouse.privacy.erase import ERASER_PRIVILEGES, erase, load_erasures
from etl.warehouse.privacy.hold import Hold, take_hold
from etl.warehouse.privacy.pages import PageHash, rehash_pages

if TYPE_CHECKING:
    from etl.archive.stores import Store
    from etl.warehouse.privacy.erase import Erasures
    from etl.warehouse.privacy.subject import Erased, Subject
    from etl.warehouse.schema.database import Database

log = logging.getLogger(__name__)

_DAMAGED: Final = "it is not the file that its manifest names"
_STAYS: Final = "a row cannot be replaced so that a replay makes the same of it"


@dataclass(frozen=True, slots=True)
class Left:
    """A file that still contains the data, or may, and why."""

    file: str
    reason: str


@dataclass(slots=True, kw_only=True)
class ErasedArchive:
    """What the erasure did in an archive."""

    address: str
    files: int = 0
    """Files of replies that were searched, or would be."""
    rewritten: int = 0
    """Those of them that contained something to replace."""
    left: list[Left] = field(default_factory=list)


def erase_people(
    database: Database,
    store: Store | None,
    *,
    partner_id: int,
    key: str | None,
    subjects: Sequence[Subject],
    again: bool = False,
    lease_seconds: float,
    apply: bool,
) -> tuple[list[Erased], ErasedArchive | None]:
    """``erase`` in the warehouse, and in the archive of ``store``; None: there is none.

    The warehouse goes first, in one transaction.  In the archive everything is replaced that is on
    the account's erasure list, so a second call completes an interrupted one.  What cannot be
    replaced is named in ``left``.

    Raises what ``erase`` raises, and ConfigurationError, DataRefused or ArchiveUnavailable for an
    archive of another warehouse, of another format, or that cannot be read or written.
    """
    erase_rows = partial(
        erase,
        database,
        partner_id=partner_id,
        key=key,
        subjects=subjects,
        again=again,
        lease_seconds=lease_seconds,
        apply=apply,
    )
    archive = None if store is None else _archive_in(store)
    if store is None or archive is None:
        return erase_rows(), None if store is None else ErasedArchive(address=store.address)
    require_own(archive, database, partner_id)
    report = ErasedArchive(address=archive.address)
    hold = None
    if apply:
        hold = take_hold(
            database,
            partner_id,
            "archive",
            lease_seconds=lease_seconds,
            privileges=[*ERASER_PRIVILEGES, ("sync_page", "SELECT"), ("sync_page", "UPDATE")],
        )
    try:
        erased = erase_rows(hold=hold)
        if hold is None:
            report.files = len(_segment_names(store, archive, partner_id))
        else:
            _rewrite_archive(hold, store, archive, key, report)
    finally:
        if hold is not None:
            hold.release()
    return erased, report


def _archive_in(store: Store) -> Archive | None:
    """The archive; None if nothing was archived there yet."""
    mark = store.read(MARK_NAME)
    if mark is None:
        return None
    check_mark(mark, store.address)
    return Archive(store)


def _segment_names(store: Store, archive: Archive, partner_id: int) -> list[str]:
    """The files of replies of the account, from its folder."""
    return [
        f"{run_name(run_id)}/{name}"
        for run_id in archive.run_ids(partner_id)
        for name in store.files(run_folder(partner_id, run_id))
        if is_segment(name)
    ]


def _rewrite_archive(
    hold: Hold, store: Store, archive: Archive, key: str | None, report: ErasedArchive
) -> None:
    erasures = load_erasures(hold.database, hold.partner_id, key)
    if erasures is None:
        return
    rewriter = _Rewriter(hold, store, archive, erasures, report)
    try:
        # First: what a run archives from now on must agree with what is replaced.
        store.write(f"{partner_folder(hold.partner_id)}/{ERASED_NAME}", b"{}\n")
        rewriter.run()
    except EtlError as error:
        raise type(error)(
            "It is erased in the warehouse, but the archive is not finished: "
            f"{error.message} Then run the same command again.",
            **error.fields,
        ) from error
    for each in report.left:
        log.warning("not erased in the archive: %s: %s", each.file, each.reason)


class _Rewriter:
    """Replaces what is on the erasure list in every file of an account."""

    def __init__(
        self,
        hold: Hold,
        store: Store,
        archive: Archive,
        erasures: Erasures,
        report: ErasedArchive,
    ) -> None:
        self._hold = hold
        self._store = store
        self._archive = archive
        self._erasures = erasures
        self._report = report
        self._folder = partner_folder(hold.partner_id)

    def run(self) -> None:
        partner_id = self._hold.partner_id
        named: set[str] = set()
        for run_id in self._archive.run_ids(partner_id):
            self._store.tidy(run_folder(partner_id, run_id))
            try:
                manifest = self._archive.manifest(partner_id, run_id)
            except DataRefused as damaged:
                self._leave(f"{run_name(run_id)}/{MANIFEST_NAME}", damaged.message)
                continue
            if manifest is not None:
                named |= {segment.name for segment in manifest.segments}
                self._rewrite_run(manifest)
        # Of runs that have not published, and what was archived but never staged.
        for name in _segment_names(self._store, self._archive, partner_id):
            if name not in named:
                packed = self._store.read(f"{self._folder}/{name}")
                if packed is not None:
                    new = self._without_the_erased(name, packed)
                    if new is not None:
                        self._store.write(f"{self._folder}/{name}", new)

    def _rewrite_run(self, manifest: Manifest) -> None:
        """Replace the files of a published run, one after the other."""
        segments = list(manifest.segments)
        for index, segment in enumerate(segments):
            name = f"{self._folder}/{segment.name}"
            packed = self._store.read(name)
            if packed is None or not is_content_of(packed, segment):
                self._leave(segment.name, _DAMAGED)
                continue
            now = with_content(segment, packed)
            new = self._without_the_erased(segment.name, packed)
            segments[index] = now
            if new is not None:
                # Until the next manifest is written, the file may be the one or the other.
                segments[index] = becoming(now, new)
                self._write_manifest(manifest, segments)
                self._store.write(name, new)
                segments[index] = with_content(now, new)
        if segments != manifest.segments:
            self._write_manifest(manifest, segments)

    def _write_manifest(self, manifest: Manifest, segments: Sequence[Segment]) -> None:
        name = f"{run_folder(manifest.partner_id, manifest.run_id)}/{MANIFEST_NAME}"
        self._store.write(name, encode_manifest(manifest.with_segments(segments)))

    def _without_the_erased(self, name: str, packed: bytes) -> bytes | None:
        """The file as it should be; None if it stays.  The ledger knows the new hashes then."""
        self._report.files += 1
        self._hold.beat()
        partner_id = self._hold.partner_id
        try:
            head, replies = unpack(packed, name)
            new_replies, stays = [], False
            for reply in replies:
                try:
                    # Each by itself: a token of this reply alone must not change another one.
                    suppression = self._erasures.suppression()
                    new_replies.append(rewritten(reply, partner_id, suppression) or reply)
                except NotRewritten:
                    new_replies.append(reply)
                    stays = True
        except DataRefused as damaged:
            self._leave(name, damaged.message)
            return None
        if stays:
            self._leave(name, _STAYS)
        changed = [new.head for new, old in zip(new_replies, replies, strict=True) if new != old]
        if not changed:
            return None
        self._rehash(head, changed)
        self._report.rewritten += 1
        return repack(head, new_replies)

    def _rehash(self, head: SegmentHead, changed: Sequence[ReplyHead]) -> None:
        rehash_pages(
            self._hold,
            head.run_id,
            [PageHash(each.seq, each.received_at, bytes.fromhex(each.sha256)) for each in changed],
        )

    def _leave(self, name: str, reason: str) -> None:
        self._report.left.append(Left(f"{self._folder}/{name}", reason))
