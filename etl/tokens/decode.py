"""Rows of an ``uploadToken.list`` page become tokens; a bad row costs only itself.

Rows in the form that the live server sends are decoded by msgspec into a struct with strict bounds,
and checked as whole columns: one search through a page costs a tenth of five hundred small ones.
Any deviation goes to ``etl.tokens.row``, which gives the same result for clean rows (a property
test checks this) and a named reason for the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from etl.errors import UsageError
from etl.tokens.columns import DecodedRows, PageTokens
from etl.tokens.flat import Freed, count_keys, without_unknown_keys
from etl.tokens.row import read_row
from etl.tokens.token import (
    CLOCK_SKEW_SECONDS,
    CREATED_SECOND_END,
    CREATED_SECOND_MIN,
    TOKEN_COLUMNS,
    TOKEN_ID_BYTES_MAX,
    Rejected,
    Token,
    Untold,
)

__all__ = ["TOKEN_COLUMNS", "DecodedRows", "Rejected", "Token", "decode_rows"]

_Second = Annotated[int, msgspec.Meta(ge=CREATED_SECOND_MIN, lt=CREATED_SECOND_END)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _CleanRow(msgspec.Struct, forbid_unknown_fields=True, gc=False, rename="camel", kw_only=True):
    """The columns of a token, in their order but for ``extra``; then what is the same on each."""

    # The length of the row bounds its texts: a bound on each text doubles the time.
    id: str
    user_id: str | None = None
    status: Annotated[int, msgspec.Meta(ge=0, le=6)]
    file_name: str | None = None
    file_size: str | int | None = None
    uploaded_file_size: str | int | None = None
    created_at: _Second
    updated_at: _Second | None = None
    attached_object_type: str | None = None
    attached_object_id: str | None = None
    auto_finalize: bool | None = None
    upload_url: str | None = None
    partner_id: int
    object_type: Literal["KalturaUploadToken"]


_FIELDS: Final = _CleanRow.__struct_fields__
_REQUIRED: Final = sum(field.required for field in msgspec.structs.fields(_CleanRow))
_OPTIONAL: Final = ("updated_at", "auto_finalize", "file_size", "uploaded_file_size")
"""Fields that a row may lack, besides the optional texts."""
_TEXTS: Final = (
    *("user_id", "file_name", "upload_url", "attached_object_type", "attached_object_id"),
)
_OF_TOKEN: Final = len(TOKEN_COLUMNS) - 1
"""How many fields are columns of a token: all columns but ``extra``."""
_CREATED: Final = TOKEN_COLUMNS.index("created_at")
_SIZES: Final = [TOKEN_COLUMNS.index(name) for name in ("file_size_bytes", "uploaded_size_bytes")]
_CLEAN_ROW_BYTES_MAX: Final = 16_384
_CLEAN_ID_CHARACTERS_MAX: Final = TOKEN_ID_BYTES_MAX // 4
_STRING: Final = re.compile(rb'"(?:[^"\\]+|\\.)*"(\s*:)?')
_decode_clean: Final = msgspec.json.Decoder(_CleanRow).decode
_values: Final = msgspec.structs.astuple
_convert: Final = msgspec.convert
_BROKEN: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_Values = tuple[Any, ...]


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
    clean, freed = _clean_rows(rows, partner_id, int(now_second) + CLOCK_SKEW_SECONDS)
    if None not in clean and not freed:
        columns = [*zip(*clean, strict=True)][:_OF_TOKEN] or [()] * _OF_TOKEN
        tokens = _tokens_of([*columns, [None] * len(rows)])
        return DecodedRows(tokens, [], list(columns[_CREATED]), Counter())
    loaded: list[_Values] = []
    rejected: list[Rejected] = []
    untold: dict[int, Untold] = {}
    positions: list[float | int | None] = []
    coercions: Counter[str] = Counter()
    for index, (raw, values) in enumerate(zip(rows, clean, strict=True)):
        if values is not None:
            extra = None
            if index in freed:
                extra = freed[index].extra
                coercions.update(freed[index].coercions)
            loaded.append((*values[:_OF_TOKEN], extra))
            positions.append(values[_CREATED])
            continue
        outcome, position, coerced = read_row(
            bytes(raw), row_index=index, partner_id=partner_id, now_second=now_second
        )
        positions.append(position)
        coercions.update(coerced)
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        elif isinstance(outcome, Token):
            loaded.append(outcome)
        else:
            untold[len(loaded)] = outcome.untold
            loaded.append(outcome.token)
    tokens = _tokens_of([*zip(*loaded, strict=True)] or [()] * len(TOKEN_COLUMNS), untold)
    return DecodedRows(tokens, rejected, positions, coercions)


def _tokens_of(
    columns: Sequence[Sequence[Any]], untold: Mapping[int, Untold] | None = None
) -> PageTokens:
    """The tokens of these columns, whose sizes are integers or digits."""
    columns = list(columns)
    for index in _SIZES:
        columns[index] = _convert(columns[index], list[int | None], strict=False)
    return PageTokens(columns, untold)


def _clean_rows(
    rows: Sequence[msgspec.Raw], partner_id: int, soon: int
) -> tuple[Sequence[_Values | None], Mapping[int, Freed]]:
    """The values of each row, as sent; None for a row that is not clean in every respect.

    And, by their index, the rows that are clean without their unknown keys.
    """
    freed: dict[int, Freed] = {}
    try:
        clean: list[_Values | None] = [_values(_decode_clean(raw)) for raw in rows]
    except _BROKEN:
        rows, clean = list(rows), []
        for index, raw in enumerate(rows):
            values = _clean_row(raw)
            if values is None and len(raw) <= _CLEAN_ROW_BYTES_MAX:
                without = without_unknown_keys(bytes(raw))
                if without is not None:
                    freed[index], rows[index] = without, without.row
                    values = _clean_row(without.row)
            clean.append(values)
    decoded = [index for index, values in enumerate(clean) if values is not None]
    if decoded:
        columns = dict(zip(_FIELDS, zip(*filter(None, clean), strict=True), strict=True))
        for index in _odd_rows(columns, [rows[index] for index in decoded], partner_id, soon):
            clean[decoded[index]] = None
    return clean, freed


def _clean_row(raw: msgspec.Raw) -> _Values | None:
    try:
        return _values(_decode_clean(raw))
    except _BROKEN:
        return None


def _odd_rows(
    columns: Mapping[str, Sequence[Any]], rows: Sequence[msgspec.Raw], partner_id: int, soon: int
) -> set[int]:
    """The indexes of decoded rows that are not clean.

    Each check looks at a whole column first; single values are looked at only if that fails.
    """
    odd: set[int] = set()

    def note(column: Sequence[Any], is_odd: Callable[[Any], bool]) -> None:
        odd.update(
            index for index, value in enumerate(column) if value is not None and is_odd(value)
        )

    ids, created, updated = columns["id"], columns["created_at"], columns["updated_at"]
    page = b"".join(rows)
    if max(map(len, rows)) > _CLEAN_ROW_BYTES_MAX:
        note(rows, lambda row: len(row) > _CLEAN_ROW_BYTES_MAX)
    if columns["partner_id"].count(partner_id) < len(rows):
        note(columns["partner_id"], lambda partner: partner != partner_id)
    if max(created) > soon:
        note(created, lambda second: second > soon)
    if max(filter(None, updated), default=soon) > soon:
        note(updated, lambda second: second > soon)
    if max(map(len, ids)) > _CLEAN_ID_CHARACTERS_MAX or not all(ids) or any(map(str.isspace, ids)):
        note(ids, lambda text: not text.strip() or len(text) > _CLEAN_ID_CHARACTERS_MAX)
    for texts in (ids, *(columns[name] for name in _TEXTS)) if b"\\u0000" in page else ():
        note(texts, lambda text: "\0" in text)
    if "@" in "".join(filter(None, columns["upload_url"])):
        note(columns["upload_url"], lambda url: "@" in url)
    for sizes in (columns["file_size"], columns["uploaded_file_size"]):
        if not _are_sizes(sizes):
            note(sizes, lambda size: not _are_sizes([size]))
    optional = [columns[name] for name in (*_TEXTS, *_OPTIONAL)]
    if not _have_each_key_once(page, len(rows), optional):
        sent = [_REQUIRED + len(row) - row.count(None) for row in zip(*optional, strict=True)]
        odd.update(index for index, row in enumerate(rows) if not _has_keys(row, sent[index]))
    return odd


def _are_sizes(sizes: Sequence[str | int | None]) -> bool:
    """Whether each is a number of bytes, as ASCII digits or as an integer."""
    digits = "".join([size for size in sizes if type(size) is str])
    if digits and not (digits.isascii() and digits.isdigit()):
        return False
    try:
        _convert(sizes, list[_Size | None], strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _have_each_key_once(page: bytes, rows: int, optional: Sequence[Sequence[object]]) -> bool:
    """Whether no key occurs twice and none is null: False may be a false alarm, True never is.

    The rows are flat and have known keys only.  An object of n keys has n - 1 commas outside its
    strings, however it is spaced; where a text has a comma, the keys themselves are counted.
    """
    sent = rows * _REQUIRED + sum(rows - column.count(None) for column in optional)
    return page.count(b",") == sent - rows or count_keys(page) == sent


def _has_keys(row: msgspec.Raw, sent: int) -> bool:
    """Whether a flat row has so many keys."""
    data = bytes(row)
    if data.count(b",") == sent - 1:
        return True
    counted = count_keys(data)
    if counted is None:
        counted = sum(map(bool, _STRING.findall(data)))
    return counted == sent
