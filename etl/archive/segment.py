"""A segment: the replies of one staging transaction in one compressed file.

Decompressed it is a line of JSON about the transaction, then per reply a line of JSON about it,
its body byte for byte, and a line feed.  ``zstdcat batch-000001.zst | less`` shows it.  Bodies are
kept as they were accepted, rows that could not be loaded included.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from etl.archive.layout import corrupt, utc
from etl.tokens.page import Page, PageFacts

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL: Final = 1
"""A page of 294 KB becomes 57 KB in under a millisecond; higher levels gain little."""
Call = Literal["pages", "lookup"]


class SegmentHead(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    partner_id: int
    run_id: int
    call: Call
    """``pages`` were staged together as pages; ``lookup``: one answer to a lookup by id."""
    range: str
    """The int8range of seconds that the run takes tokens from: ``(,)`` unless a backfill."""
    absence_grace_seconds: float
    replies: int


class ErasedRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of a reply that an erasure replaced.

    ``payload`` stands for the row as it was sent, should it be rejected.  Of a row that was
    rejected when it was read, the rest is here too (``tokens.token.Rejected``): its body is the
    payload.
    """

    row: int
    """Its index in the reply, from 0."""
    payload: str
    reason: str | None = None
    token_id: str | None = None
    created_second: int | None = None
    position: int | float | None = None


class ReplyHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The line before a body: what was asked, when, and what the reply proves.

    ``asked`` are the ids of a lookup, else None; ``open_only`` marks a page of the list of open
    tokens.  ``span`` is the int8range that the page proved; ``sha256`` and ``body_bytes`` are of
    the body as it is stored.  ``erased`` are the rows that an erasure replaced.
    """

    seq: int
    page_index: int
    page_size: int
    filter: str
    asked: list[str] | None
    open_only: bool
    requested_at: datetime
    received_at: datetime
    total_count: int | None
    rows: int
    span: str | None
    sha256: str
    body_bytes: int
    erased: list[ErasedRow] = []


class ArchivedReply(msgspec.Struct, frozen=True):
    """A reply as it is kept."""

    head: ReplyHead
    body: bytes

    @property
    def facts(self) -> PageFacts:
        """The facts of the reply, as they were when it arrived."""
        head = self.head
        return PageFacts(
            page_index=head.page_index,
            page_size=head.page_size,
            filter=head.filter,
            requested_at=head.requested_at,
            received_at=head.received_at,
            total_count=head.total_count,
            rows=head.rows,
            body_sha256=bytes.fromhex(head.sha256),
        )


_encode = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(SegmentHead).decode
_decode_reply = msgspec.json.Decoder(ReplyHead).decode


def pack(head: SegmentHead, pages: Sequence[Page]) -> bytes:
    """The file of a batch; its pages have their numbers."""
    return repack(head, list(map(reply_of, pages)))


def reply_of(page: Page) -> ArchivedReply:
    """The reply of a page, as it arrived."""
    if page.seq is None:
        raise ValueError("a page without a number cannot be archived")
    facts = page.facts
    return ArchivedReply(
        ReplyHead(
            seq=page.seq,
            page_index=facts.page_index,
            page_size=facts.page_size,
            filter=facts.filter,
            asked=None if page.asked is None else list(page.asked),
            open_only=page.open_only,
            requested_at=utc(facts.requested_at),
            received_at=utc(facts.received_at),
            total_count=facts.total_count,
            rows=facts.rows,
            span=None if page.span is None else page.span.to_sql(),
            sha256=facts.body_sha256.hex(),
            body_bytes=len(page.body),
        ),
        page.body,
    )


def repack(head: SegmentHead, replies: Sequence[ArchivedReply]) -> bytes:
    """The file of these replies, as ``unpack`` returns them."""
    parts = [_encode(head), b"\n"]
    for reply in replies:
        parts += [_encode(reply.head), b"\n", reply.body, b"\n"]
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.compress(b"".join(parts), options=options)


def unpack(packed: bytes, name: str) -> tuple[SegmentHead, list[ArchivedReply]]:
    """The replies of a file, each compared with its SHA-256; ``name`` is what errors call it.

    Raises DataRefused if anything is not as it was written.
    """
    try:
        text = zstd.decompress(packed)
    except (zstd.ZstdError, EOFError):
        raise corrupt(f"{name} cannot be decompressed, or is cut off") from None
    try:
        line, cursor = _line(text, 0)
        head = _decode_head(line)
        replies = []
        for _ in range(head.replies):
            line, cursor = _line(text, cursor)
            reply = _decode_reply(line)
            body = text[cursor : cursor + reply.body_bytes]
            cursor += reply.body_bytes + 1
            if hashlib.sha256(body).hexdigest() != reply.sha256:
                raise corrupt(f"reply {reply.seq} in {name} has a different SHA-256")
            replies.append(ArchivedReply(reply, body))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise corrupt(f"{name} is not a file of replies") from None
    if cursor != len(text):
        raise corrupt(f"{name} contains more than its first line says")
    return head, replies


def _line(text: bytes, begin: int) -> tuple[bytes, int]:
    """The line that begins there, and where the next one does.  ValueError: there is none."""
    end = text.index(b"\n", begin)
    return text[begin:end], end + 1
