"""Names in an archive, and the manifest: the file that makes a folder of replies a published run.

``archive.json``                                     the mark of an archive, with its format
``partner-102/run-0000000042/run.json``              what the run was when it began
``partner-102/run-0000000042/batch-000001.zst``      one staging transaction (``segment``)
``partner-102/run-0000000042/manifest.json``         written last; without it, nothing was published
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from etl.errors import DataRefused

FORMAT: Final = "kaltura-etl-archive"
FORMAT_VERSION: Final = 1
MARK_NAME: Final = "archive.json"
MANIFEST_NAME: Final = "manifest.json"
RUN_NAME: Final = "run.json"
ERASED_NAME: Final = "erased.json"
"""In a partner's folder: an erasure has replaced data in it, so later runs archive none either."""
CORRUPT: Final = "archive_corrupt"
"""``fields['reason']`` of the refusal of an archive that is not what was written."""

_PARTNER = re.compile(r"partner-(\d{1,10})")
_RUN = re.compile(r"run-(\d{10,19})")
_SEGMENT = re.compile(r"batch-(\d{6,12})\.zst")


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """``archive.json``."""

    format: str
    format_version: int


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of replies, as a manifest names it.  ``name`` is relative to the partner's folder."""

    name: str
    sha256: str
    bytes: int
    replies: int
    rows: int
    becomes_sha256: str | None = None
    """While an erasure replaces the file: it is what ``sha256`` says, or already this."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a published run except its replies.

    ``ledger``: rows of ``sync_run`` as of publication: first the runs that it resumed, oldest
    first, then its own.  ``segments`` are in the order of staging.
    """

    format: str
    format_version: int
    program_version: str
    partner_id: int
    run_id: int
    mode: str
    published_at: datetime
    follows_run_id: int | None
    """The run of the account that published before it; None for the first."""
    ledger: list[dict[str, Any]]
    segments: list[Segment]

    @property
    def row(self) -> dict[str, Any]:
        """The run's own row of the ledger."""
        return self.ledger[-1]

    def with_segments(self, segments: Sequence[Segment]) -> Manifest:
        return msgspec.structs.replace(self, segments=list(segments))


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    sha256: str
    manifest: msgspec.Raw


def partner_folder(partner_id: int) -> str:
    return f"partner-{partner_id}"


def run_folder(partner_id: int, run_id: int) -> str:
    return f"partner-{partner_id}/{run_name(run_id)}"


def run_name(run_id: int) -> str:
    return f"run-{run_id:010d}"


def segment_name(number: int) -> str:
    return f"batch-{number:06d}.zst"


def partner_of(folder: str) -> int | None:
    """The partner of a folder's name; None if it is no partner's folder."""
    found = _PARTNER.fullmatch(folder)
    return None if found is None else int(found.group(1))


def run_of(folder: str) -> int | None:
    found = _RUN.fullmatch(folder)
    return None if found is None else int(found.group(1))


def is_segment(name: str) -> bool:
    return _SEGMENT.fullmatch(name) is not None


def is_segment_path(name: str) -> bool:
    """Whether a manifest may name it: ``run-…/batch-….zst``, and nothing outside the folder."""
    folder, slash, file = name.partition("/")
    return slash == "/" and run_of(folder) is not None and is_segment(file)


def sha256_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def utc(moment: datetime) -> datetime:
    """The same instant in UTC, so that equal times are written alike."""
    return moment.astimezone(UTC)


def is_content_of(packed: bytes, segment: Segment) -> bool:
    """Whether the file of a manifest is what was written."""
    found = sha256_of(packed)
    if found == segment.becomes_sha256:
        return True
    return found == segment.sha256 and len(packed) == segment.bytes


def with_content(segment: Segment, packed: bytes) -> Segment:
    """As a manifest names the file when its content is ``packed``."""
    return msgspec.structs.replace(
        segment, sha256=sha256_of(packed), bytes=len(packed), becomes_sha256=None
    )


def becoming(segment: Segment, packed: bytes) -> Segment:
    """As a manifest names the file while its content is replaced by ``packed``."""
    return msgspec.structs.replace(segment, becomes_sha256=sha256_of(packed))


def encode_mark() -> bytes:
    mark = Mark(format=FORMAT, format_version=FORMAT_VERSION)
    return msgspec.json.format(msgspec.json.encode(mark), indent=2) + b"\n"


def check_mark(body: bytes, address: str) -> None:
    """Raise DataRefused unless it is the mark of an archive that this program can read."""
    try:
        mark = msgspec.json.decode(body, type=Mark)
    except msgspec.DecodeError:
        raise corrupt(f"{MARK_NAME} in {address} is not that of an archive") from None
    _check_format(mark.format, mark.format_version, address)


def encode_manifest(manifest: Manifest) -> bytes:
    """As stored: indented for readers, with the SHA-256 of its own text."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return b'{"sha256": "%s",\n"manifest": %s}\n' % (sha256_of(text).encode(), text)


def decode_manifest(body: bytes, name: str) -> Manifest:
    """Read a manifest; ``name`` is what errors call it.  Raises DataRefused if it was changed."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise corrupt(f"{name} is not a manifest, or is cut off") from None
    text = bytes(envelope.manifest)
    if sha256_of(text) != envelope.sha256:
        raise corrupt(f"{name} was changed after it was written: its SHA-256 differs")
    try:
        mark = msgspec.json.decode(text, type=Mark)
        _check_format(mark.format, mark.format_version, name)
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError:
        raise corrupt(f"{name} is not a manifest of this format") from None
    if not manifest.ledger or not all(is_segment_path(each.name) for each in manifest.segments):
        raise corrupt(f"{name} does not name its runs and files as a manifest does")
    return manifest


def _check_format(name: str, version: int, where: str) -> None:
    if name != FORMAT:
        raise corrupt(f"{where} is not of an archive of this program")
    if version != FORMAT_VERSION:
        raise DataRefused(
            f"{where} is of archive format {version}, and this program reads format "
            f"{FORMAT_VERSION}: use the program that wrote it.",
            reason="archive_format",
        )


def corrupt(what: str, **fields: object) -> DataRefused:
    """The refusal of a damaged archive; ``what`` says where and how."""
    return DataRefused(
        f"The archive is damaged: {what}. Nothing of this run was published.",
        **(fields | {"reason": CORRUPT}),
    )
