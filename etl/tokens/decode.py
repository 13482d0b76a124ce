"""Rows of an ``uploadToken.list`` page become tokens; a bad row costs only itself.

Rows in the form that the live server sends are read by one msgspec decode into a struct with
strict bounds.  Any deviation goes to ``etl.tokens.row``, which gives the same result for clean rows
(a property test checks this) and a named reason for the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, repeat
from typing import Annotated, Final, Literal

import msgspec

from etl.errors import UsageError
from etl.tokens.row import read_row
from etl.tokens.token import (
    CLOCK_SKEW_SECONDS,
    CREATED_SECOND_END,
    CREATED_SECOND_MIN,
    TOKEN_COLUMNS,
    TOKEN_ID_BYTES_MAX,
    DecodedRows,
    Rejected,
    Token,
)

__all__ = ["TOKEN_COLUMNS", "DecodedRows", "Rejected", "Token", "decode_rows"]

_Second = Annotated[int, msgspec.Meta(ge=CREATED_SECOND_MIN, lt=CREATED_SECOND_END)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _CleanRow(msgspec.Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    # The length of the row bounds its texts: a bound on each text doubles the time.
    id: str
    partner_id: int
    status: Annotated[int, msgspec.Meta(ge=0, le=6)]
    created_at: _Second
    object_type: Literal["KalturaUploadToken"]
    updated_at: _Second | None = None
    user_id: str | None = None
    file_name: str | None = None
    file_size: str | None = None
    uploaded_file_size: str | None = None
    upload_url: str | None = None
    attached_object_type: str | None = None
    attached_object_id: str | None = None
    auto_finalize: bool | None = None


_TEXT_FIELDS: Final = (
    *("user_id", "file_name", "file_size", "uploaded_file_size", "upload_url"),
    *("attached_object_type", "attached_object_id"),
)
_PARTS: Final = 8
_CLEAN_ROW_BYTES_MAX: Final = 16_384
_CLEAN_ID_CHARACTERS_MAX: Final = TOKEN_ID_BYTES_MAX // 4
# Five keys are required, so there are at least four commas; two of their values are texts.
_COMMAS_SURE: Final = 4
_STRINGS_SURE: Final = 2 + 5
_decode_clean: Final = msgspec.json.Decoder(_CleanRow).decode
_values: Final = msgspec.structs.astuple
_convert: Final = msgspec.convert
_new_tuple: Final = tuple.__new__


def decode_rows(rows: Sequence[msgspec.Raw], *, partner_id: int, now: datetime) -> DecodedRows:
    """Tokens, rejected rows and positions of one page, in page order.

    ``now`` (aware) bounds times in the future.  Raises DataRefused where a row invalidates its
    whole page, with ``fields['reason']`` (see docs/reference/records.md) and ``row_index``;
    ``foreign_partner`` is final, the others may succeed on a retry of the page.  No other exception
    is raised, whatever the bytes.
    """
    if now.tzinfo is None:
        raise UsageError("decode_rows needs an aware time: pass datetime.now(UTC)")
    now_second = now.timestamp()
    soon = int(now_second) + CLOCK_SKEW_SECONDS
    clean = _read_clean(rows, partner_id, soon)
    if clean is not None:
        return DecodedRows(clean[0], [], clean[1], Counter())

    page = DecodedRows([], [], [], Counter())
    # Parts of the page still to read, the next one last: a part that is not clean is divided into
    # eight, so that one odd row costs a second pass over its page and not five hundred small ones.
    parts = _cut(0, len(rows))
    while parts:
        begin, end = parts.pop()
        some = rows[begin:end]
        clean = _read_clean(some, partner_id, soon)
        if clean is not None:
            page.tokens.extend(clean[0])
            page.positions.extend(clean[1])
        elif end - begin > 1:
            parts += _cut(begin, end)
        else:
            outcome, position, coerced = read_row(
                bytes(some[0]), row_index=begin, partner_id=partner_id, now_second=now_second
            )
            page.positions.append(position)
            page.coercions.update(coerced)
            if isinstance(outcome, Token):
                page.tokens.append(outcome)
            else:
                page.rejected.append(outcome)
    return page


def _cut(begin: int, end: int) -> list[tuple[int, int]]:
    """``[begin, end)`` in at most eight parts, the last one first."""
    step = -(-(end - begin) // _PARTS)
    return [(start, min(start + step, end)) for start in range(begin, end, step)][::-1]


def _read_clean(
    rows: Sequence[msgspec.Raw], partner_id: int, soon: int
) -> tuple[list[Token], list[float | int | None]] | None:
    """Tokens and positions if every row is clean in every respect, else None.

    The checks look at whole columns: one search through a page costs a tenth of five hundred
    small ones.  When they fail, the caller tries smaller parts.
    """
    try:
        columns = list(zip(*[_values(_decode_clean(raw)) for raw in rows], strict=True))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not columns:
        return [], []
    sent = dict(zip(_CleanRow.__struct_fields__, columns, strict=True))
    ids, partners, created, updated = (
        sent[name] for name in ("id", "partner_id", "created_at", "updated_at")
    )
    texts = [sent[name] for name in _TEXT_FIELDS]
    sizes, uploaded = sent["file_size"], sent["uploaded_file_size"]
    page = b"".join(rows)
    if (
        max(map(len, rows)) > _CLEAN_ROW_BYTES_MAX
        or "\0" in "".join(filter(None, chain(ids, *texts)))
        or partners.count(partner_id) != len(rows)
        or max(created) > soon
        or max(filter(None, updated), default=soon) > soon
        or max(map(len, ids)) > _CLEAN_ID_CHARACTERS_MAX
        or not all(ids)
        or any(map(str.isspace, ids))
        or "@" in "".join(filter(None, sent["upload_url"]))
        or not _are_digits(sizes)
        or not _are_digits(uploaded)
        or not _have_no_duplicate_key(page, len(rows), texts, (updated, sent["auto_finalize"]))
    ):
        return None
    try:
        loaded = sent | {
            "token_id": ids,
            "file_size_bytes": _convert(sizes, list[_Size | None], strict=False),
            "uploaded_size_bytes": _convert(uploaded, list[_Size | None], strict=False),
            "created_at": _convert(created, list[datetime], strict=False),
            "updated_at": _convert(updated, list[datetime | None], strict=False),
            "extra": repeat(None, len(rows)),
        }
    except msgspec.ValidationError:
        return None
    values = zip(*[loaded[name] for name in TOKEN_COLUMNS], strict=True)
    return list(map(_new_tuple, repeat(Token), values)), list(created)


def _are_digits(sizes: Sequence[str | None]) -> bool:
    """Whether each text among ``sizes`` is ASCII digits (or empty: conversion refuses that)."""
    digits = "".join(filter(None, sizes))
    return not digits or (digits.isascii() and digits.isdigit())


def _have_no_duplicate_key(
    page: bytes,
    rows: int,
    texts: Sequence[Sequence[str | None]],
    others: Sequence[Sequence[object]],
) -> bool:
    """Whether no key occurs twice and none is null.  False may be a false alarm, True never.

    msgspec silently keeps the last of two equal keys.  But an object of n keys has n - 1 commas
    outside its strings, however it is spaced, so a key that was sent and is missing from the struct
    shows in the count.  Where a name contains a comma, quotes are counted instead: two for each key
    and each text.
    """
    strings = sum(rows - column.count(None) for column in texts)
    optional = strings + sum(rows - column.count(None) for column in others)
    if page.count(b",") == rows * _COMMAS_SURE + optional:
        return True
    return page.count(b'"') == 2 * (rows * _STRINGS_SURE + optional + strings)
