"""Archived replies without the data of erased users and tokens.

A row in which a run would replace values (``Suppression``) is written again with the pseudonyms.
What it then no longer shows is kept before the body (``ErasedRow``): the payload that stands for it
if it is rejected, and for a row that was rejected, why.  A reply is only replaced if it decodes to
exactly what the original decodes to after suppression: so a replay makes the same warehouse of it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from etl.archive.layout import corrupt
from etl.archive.segment import ArchivedReply, ErasedRow
from etl.errors import DataRefused
from etl.kaltura.replies import parse_list
from etl.tokens.columns import DecodedRows, PageTokens
from etl.tokens.decode import decode_rows
from etl.tokens.keys import KNOWN_KEYS, VALUE_KEYS
from etl.tokens.page import Page, page_of
from etl.tokens.pseudonyms import EXTRA_KEY, Suppression
from etl.tokens.token import Rejected, Token, Untold

_UNUSABLE: Final[dict[bytes, object]] = {b'"': "erased", b"[": [], b"{": {}}
"""For a text, an array or an object that cannot be used, by its first byte."""
_HALF_A_CHARACTER: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_values_of: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class NotRewritten(Exception):
    """A reply cannot be written again so that a replay makes the same of it."""


class _Outcome(NamedTuple):
    """What a row of a reply is: its index among the tokens, or among the rejected rows."""

    token: int | None
    rejected: int | None


def page_of_reply(reply: ArchivedReply, partner_id: int) -> Page:
    """The page of a reply, as it was decoded when it arrived or as an erasure left it.

    Raises DataRefused for a body that is not a list: it was one when it was archived.
    """
    rows, decoded = _decode(reply, partner_id)
    return page_of(
        reply.facts,
        reply.body,
        rows,
        decoded,
        asked=None if reply.head.asked is None else tuple(reply.head.asked),
        open_only=reply.head.open_only,
    )


def rewritten(
    reply: ArchivedReply, partner_id: int, suppression: Suppression
) -> ArchivedReply | None:
    """The reply without what ``suppression`` replaces; None if it replaces nothing.

    Raises DataRefused for a reply that cannot be decoded, NotRewritten for one that has to stay.
    """
    page = page_of_reply(reply, partner_id)
    return _rewritten(reply, partner_id, page, _suppressed(page, suppression))


def as_staged(reply: ArchivedReply, staged: Page, partner_id: int) -> ArchivedReply | None:
    """A reply that has just arrived, without what the run has replaced in ``staged``, its page.

    As ``rewritten``.
    """
    page = page_of_reply(reply, partner_id)
    wanted = _Suppressed(
        staged.tokens, staged.raw, staged.rejected, staged.positions, staged.token_ids
    )
    return _rewritten(reply, partner_id, page, wanted)


def _rewritten(
    reply: ArchivedReply, partner_id: int, page: Page, wanted: _Suppressed
) -> ArchivedReply | None:
    if _content(wanted) == _content(page):
        return None
    before = {each.row: each for each in reply.head.erased}
    bodies, erased = _bodies(reply), []
    new_bodies = list(bodies)
    for row, (token, rejected) in enumerate(_outcomes(bodies, page, before)):
        if token is not None:
            old, new, payload = page.tokens[token], wanted.tokens[token], bytes(wanted.raw[token])
            if new != old or payload != bytes(page.raw[token]):
                new_bodies[row] = _row_of(bodies[row], old, new, page.tokens.untold.get(token))
                erased.append(ErasedRow(row=row, payload=payload.decode()))
                continue
        elif rejected is not None:
            refused = wanted.rejected[rejected]
            if refused.payload != page.rejected[rejected].payload:
                new_bodies[row] = refused.payload
                erased.append(_erased_row(row, refused, page.positions[row]))
                continue
        if row in before:
            erased.append(before[row])
    body = _spliced(reply.body, bodies, new_bodies)
    head = msgspec.structs.replace(
        reply.head,
        sha256=hashlib.sha256(body).hexdigest(),
        body_bytes=len(body),
        erased=erased,
    )
    again = ArchivedReply(head, body)
    try:
        same = _content(page_of_reply(again, partner_id)) == _content(wanted)
    except DataRefused:
        same = False
    if not same:
        raise NotRewritten
    return again


def _decode(reply: ArchivedReply, partner_id: int) -> tuple[list[msgspec.Raw], DecodedRows]:
    """The rows, with the payload of an erased one in its place, and what they decode to."""
    rows = [msgspec.Raw(body) for body in _bodies(reply)]
    erased = {each.row: each for each in reply.head.erased}
    refused = {row: each for row, each in erased.items() if each.reason is not None}
    others = [each for row, each in enumerate(rows) if row not in refused]
    decoded = decode_rows(others, partner_id=partner_id, now=reply.head.received_at)
    if refused:
        decoded = _with_refused(rows, decoded, refused)
    for row, each in erased.items():
        rows[row] = msgspec.Raw(each.payload.encode())
    return rows, decoded


def _with_refused(
    rows: Sequence[msgspec.Raw], decoded: DecodedRows, refused: dict[int, ErasedRow]
) -> DecodedRows:
    """With the erased rejected rows in their places."""
    rejected: list[Rejected] = []
    positions: list[float | int | None] = []
    others, placed = list(decoded.rejected), iter(decoded.positions)
    for row, body in enumerate(rows):
        each = refused.get(row)
        if each is not None:
            rejected.append(
                Rejected(
                    each.token_id, str(each.reason), each.payload.encode(), each.created_second
                )
            )
            positions.append(each.position)
            continue
        positions.append(next(placed))
        if others and others[0].payload == bytes(body):
            rejected.append(others.pop(0))
    return DecodedRows(decoded.tokens, rejected, positions, decoded.coercions)


def _outcomes(
    bodies: Sequence[bytes], page: Page, before: dict[int, ErasedRow]
) -> Iterator[_Outcome]:
    """What each row is.  Rejected rows have their bodies as payloads, in page order."""
    tokens = refused = 0
    for row, body in enumerate(bodies):
        payload = before[row].payload.encode() if row in before else body
        if refused < len(page.rejected) and page.rejected[refused].payload == payload:
            yield _Outcome(None, refused)
            refused += 1
        else:
            yield _Outcome(tokens, None)
            tokens += 1


def _suppressed(page: Page, suppression: Suppression) -> _Suppressed:
    decoded = DecodedRows(page.tokens, list(page.rejected), list(page.positions), Counter())
    rows, raw = suppression.suppress(decoded, page.raw)
    return _Suppressed(rows.tokens, raw, rows.rejected, page.positions, page.token_ids)


class _Suppressed(NamedTuple):
    """What staging takes from a page."""

    tokens: PageTokens
    raw: Sequence[msgspec.Raw | bytes]
    rejected: Sequence[Rejected]
    positions: Sequence[float | int | None]
    token_ids: Sequence[str | None]


def _content(page: Page | _Suppressed) -> tuple[Any, ...]:
    return (
        list(page.tokens),
        dict(page.tokens.untold),
        [bytes(each) for each in page.raw],
        list(page.rejected),
        list(page.positions),
        list(page.token_ids),
    )


def _bodies(reply: ArchivedReply) -> list[bytes]:
    envelope = parse_list(reply.body)
    if envelope is None:
        raise corrupt(f"reply {reply.head.seq} is not a list of upload tokens")
    return [bytes(each) for each in envelope.objects]


def _erased_row(row: int, refused: Rejected, position: float | int | None) -> ErasedRow:
    return ErasedRow(
        row=row,
        payload=refused.payload.decode(),
        reason=refused.reason,
        token_id=refused.token_id,
        created_second=refused.created_second,
        position=position,
    )


def _row_of(body: bytes, old: Token, new: Token, untold: Untold | None) -> bytes:
    """The row with the values of ``new``; all other known keys stay as they were written.

    But not what could not be used, which may be anything: another such value takes its place.
    """
    try:
        sent = _values_of(body)
    except (msgspec.MsgspecError, UnicodeError):
        # Half of a character in a name: it is replaced, or the row will not be the same.
        try:
            sent = _values_of(_HALF_A_CHARACTER.sub(rb"\\ufffd", body))
        except (msgspec.MsgspecError, UnicodeError):
            raise NotRewritten from None
    row: dict[str, object] = {key: value for key, value in sent.items() if key in KNOWN_KEYS}
    for key, (column, _) in VALUE_KEYS.items():
        if untold is not None and column in untold.columns and key in row:
            row[key] = _UNUSABLE.get(bytes(sent[key])[:1], sent[key])
    if new.user_id != old.user_id:
        row["userId"] = new.user_id
    if new.file_name is not None:
        row["fileName"] = new.file_name
    if new.extra is not None:
        row[EXTRA_KEY] = msgspec.json.decode(new.extra)[EXTRA_KEY]
    return _encode(row)


def _spliced(body: bytes, rows: Sequence[bytes], new_rows: Sequence[bytes]) -> bytes:
    """The body with its rows replaced; they are in it one after the other."""
    parts, cursor = [], 0
    for row, new in zip(rows, new_rows, strict=True):
        begin = body.find(row, cursor)
        if begin < 0:
            raise NotRewritten
        parts += [body[cursor:begin], new]
        cursor = begin + len(row)
    return b"".join([*parts, body[cursor:]])
