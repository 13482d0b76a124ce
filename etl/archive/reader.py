"""What an archive contains: published and unpublished runs, and their replies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from etl.archive.layout import (
    MANIFEST_NAME,
    MARK_NAME,
    Manifest,
    Segment,
    check_mark,
    corrupt,
    decode_manifest,
    is_content_of,
    is_segment,
    partner_folder,
    partner_of,
    run_folder,
    run_name,
    run_of,
    sha256_of,
)
from etl.archive.segment import ArchivedReply, SegmentHead, unpack
from etl.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from etl.archive.stores import Store

_NOT_AN_ARCHIVE: Final = "no archive of this program"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of replies in a run's folder, as a manifest would list it."""

    segment: Segment
    replies: tuple[tuple[int, datetime], ...]
    """The number and the time of arrival of each."""


class Archive:
    """An archive in a store, read only.

    Every method raises ArchiveUnavailable, or DataRefused for what is damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def address(self) -> str:
        return self._store.address

    def require(self) -> None:
        """Raise ConfigurationError unless there is an archive, DataRefused if it is of another
        format."""
        mark = self._store.read(MARK_NAME)
        if mark is None:
            raise ConfigurationError(
                f"{self.address} is {_NOT_AN_ARCHIVE}: there is no {MARK_NAME} in it.",
                archive=self.address,
            )
        check_mark(mark, self.address)

    def partners(self) -> list[int]:
        """The accounts that have a folder, in ascending order."""
        found = (partner_of(name) for name in self._store.folders(""))
        return sorted(partner_id for partner_id in found if partner_id is not None)

    def run_ids(self, partner_id: int) -> list[int]:
        """Every run that has a folder, published or not, in ascending order."""
        found = (run_of(name) for name in self._store.folders(partner_folder(partner_id)))
        return sorted(run_id for run_id in found if run_id is not None)

    def manifest(self, partner_id: int, run_id: int) -> Manifest | None:
        """The run's manifest; None if it has not published, or its archive is unfinished."""
        name = f"{run_folder(partner_id, run_id)}/{MANIFEST_NAME}"
        body = self._store.read(name)
        if body is None:
            return None
        manifest = decode_manifest(body, f"{self.address}/{name}")
        if (manifest.partner_id, manifest.run_id) != (partner_id, run_id):
            raise corrupt(f"{self.address}/{name} is the manifest of another run")
        return manifest

    def replies(
        self, manifest: Manifest, segment: Segment
    ) -> tuple[SegmentHead, list[ArchivedReply]]:
        """The replies of one file of a manifest, compared with its SHA-256."""
        name = f"{partner_folder(manifest.partner_id)}/{segment.name}"
        shown = f"{self.address}/{name}"
        packed = self._store.read(name)
        if packed is None:
            raise corrupt(f"{shown} is missing", run_id=manifest.run_id)
        if not is_content_of(packed, segment):
            raise corrupt(
                f"{shown} is not the file that the manifest names: its SHA-256 differs",
                run_id=manifest.run_id,
            )
        head, replies = unpack(packed, shown)
        if head.partner_id != manifest.partner_id:
            raise corrupt(f"{shown} is of another account", run_id=manifest.run_id)
        return head, replies

    def kept(self, partner_id: int, run_id: int) -> Iterator[Kept]:
        """The files of replies in a run's folder in the order of writing, staged or not."""
        folder = run_folder(partner_id, run_id)
        for name in self._store.files(folder):
            if not is_segment(name):
                continue
            packed = self._store.read(f"{folder}/{name}")
            if packed is None:
                continue
            _, replies = unpack(packed, f"{self.address}/{folder}/{name}")
            yield kept_of(run_id, name, packed, replies)


def kept_of(run_id: int, name: str, packed: bytes, replies: list[ArchivedReply]) -> Kept:
    """One file as a manifest would list it."""
    return Kept(
        Segment(
            name=f"{run_name(run_id)}/{name}",
            sha256=sha256_of(packed),
            bytes=len(packed),
            replies=len(replies),
            rows=sum(reply.head.rows for reply in replies),
        ),
        tuple((reply.head.seq, reply.head.received_at) for reply in replies),
    )
