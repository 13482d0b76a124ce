"""The careful reader: one row, with a name for every irregularity.

It is some thirty times slower than the fast path of ``etl.tokens.decode`` and gets only the rows
that are not clean there.  It parses with the standard library, which keeps lone surrogates and the
literals of numbers and shows duplicate keys; msgspec does none of the three.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final

from etl.errors import DataRefused
from etl.tokens.extra import encode_extra
from etl.tokens.flat import parse_flat
from etl.tokens.keys import KNOWN_KEYS, OTHER_CASE, VALUE_KEYS, in_other_case
from etl.tokens.token import (
    ROW_BYTES_MAX,
    TOKEN_ID_BYTES_MAX,
    PartToken,
    Rejected,
    Token,
    Untold,
)
from etl.tokens.values import (
    INT64_MAX,
    INT64_MIN,
    Instant,
    Number,
    RowRejected,
    bound_instant,
    is_digits,
    read_instant,
    read_nullable_boolean,
    read_text,
    read_url,
    read_whole,
    refuse_constant,
)

INT16_MIN: Final = -(2**15)
INT16_MAX: Final = 2**15 - 1
STATUS_KNOWN: Final = range(7)
"""0 to 5 are documented, 6 (ERROR) is in the server's source."""

OBJECT_TYPE: Final = "KalturaUploadToken"


class _DuplicateKey(ValueError):
    """Two values for one key: which of them is meant is unknown."""


def read_row(
    data: bytes, *, row_index: int, partner_id: int, now_second: float
) -> tuple[Token | PartToken | Rejected, float | int | None, Counter[str]]:
    """One row, its position on the createdAt line, and the coercions needed to load it.

    A value that cannot be used costs only itself, unless it is the id, the partner, createdAt or
    the status.

    Raises DataRefused if the row invalidates its whole page: it is not one JSON object, has no
    identity, or belongs to another partner.
    """
    row = _parse(data, row_index)
    coercions: Counter[str] = Counter()
    created = read_instant(row.get("createdAt"))
    token_id = _require_identity(row, row_index)
    fault = _token_id_fault(token_id)
    if fault is not None:
        token_id = f"sha256:{hashlib.sha256(data).hexdigest()}"
    try:
        _check_partner(row.get("partnerId"), partner_id, row_index, coercions)
        if fault is not None:
            raise RowRejected(fault)
        token = _read_token(row, token_id, created, now_second, coercions)
    except RowRejected as rejection:
        # Nothing of the row is loaded, so none of its coercions counts.
        return (
            Rejected(token_id, rejection.reason, data, created.second),
            created.position,
            Counter(),
        )
    return token, created.position, coercions


def _parse(data: bytes, row_index: int) -> dict[str, object]:
    if len(data) > ROW_BYTES_MAX:
        raise _page_refused("row_too_large", row_index, f"is larger than {ROW_BYTES_MAX} bytes")
    flat = parse_flat(data)
    if flat is not None:
        return flat
    try:
        row = _DECODER.decode(data.decode("utf-8"))
    except RecursionError as exc:
        raise _page_refused("row_nested_too_deeply", row_index, "is nested too deeply") from exc
    except _DuplicateKey as exc:
        raise _page_refused("row_duplicate_key", row_index, "has a key twice") from exc
    except ValueError:
        # The cause holds the whole row, which is personal data: it must not reach a log.
        raise _page_refused("row_not_json", row_index, "is not JSON in UTF-8") from None
    if not isinstance(row, dict):
        raise _page_refused("row_not_object", row_index, "is not a JSON object")
    return row


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise _DuplicateKey
    return unique


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=Number,
    parse_float=Number,
    parse_constant=refuse_constant,
)


def _page_refused(reason: str, row_index: int, what: str) -> DataRefused:
    return DataRefused(
        f"row {row_index} of the page {what}",
        reason=reason,
        row_index=row_index,
    )


def _require_identity(row: dict[str, object], row_index: int) -> str:
    """The id as it was sent.  A row without an id cannot be counted as seen."""
    raw_id = row.get("id")
    if isinstance(raw_id, str) and raw_id.strip("\0 \t\r\n") and not raw_id.isspace():
        return raw_id
    if isinstance(raw_id, Number) and raw_id.is_whole:
        return raw_id.literal
    raise _page_refused("row_without_identity", row_index, "has no usable id")


def _check_partner(value: object, partner_id: int, row_index: int, coercions: Counter[str]) -> None:
    if value is None:
        coercions["partner_id_absent"] += 1
        return
    try:
        found = read_whole(value, "partner_id", 0, INT64_MAX, coercions, digits_are_usual=False)
    except RowRejected:
        if not (isinstance(value, Number) or is_digits(value)):
            raise
        found = None  # a number, and not ours
    if found != partner_id:
        other = "another partner" if found is None else f"partner {found}"
        raise DataRefused(
            f"row {row_index} of the page belongs to {other}, not to {partner_id}: "
            "check the session and KALTURA_PARTNER_ID",
            reason="foreign_partner",
            row_index=row_index,
            row_partner_id=found,
        )


def _token_id_fault(raw_id: str) -> str | None:
    """Why ``raw_id`` cannot be a key.  It is never coerced: a changed id is another token's."""
    if "\0" in raw_id:
        return "token_id_nul"
    try:
        length = len(raw_id.encode())
    except UnicodeEncodeError:
        return "token_id_surrogate"
    return "token_id_too_long" if length > TOKEN_ID_BYTES_MAX else None


def _read_token(
    row: dict[str, object],
    token_id: str,
    created: Instant,
    now_second: float,
    coercions: Counter[str],
) -> Token | PartToken:
    misspelt = in_other_case(row)
    if "partnerId" in misspelt.values():
        # Not the same as absent: it may be another partner.
        raise RowRejected(f"partner_id_{OTHER_CASE}")
    if isinstance(row["id"], Number):
        coercions["token_id_number"] += 1
    values: dict[str, Any] = {
        "token_id": token_id,
        "created_at": bound_instant(created, "created_at", now_second, coercions),
    }
    faults: dict[str, str] = {}
    counted: Counter[str] = Counter()

    def read(column: str, reader: _Reader, value: Any, word: str) -> None:
        try:
            values[column] = reader(value, word, counted)
        except RowRejected as rejection:
            values[column], faults[column] = None, rejection.reason
        else:
            if counted:  # seldom
                coercions.update(counted)
        if counted:
            counted.clear()

    for key, (column, word) in VALUE_KEYS.items():
        if key in misspelt.values():
            values[column], faults[column] = None, f"{word}_{OTHER_CASE}"
        elif (value := row.get(key)) is None:
            values[column] = None
        elif column == "updated_at":
            read(column, partial(_read_updated, now_second), value, word)
        else:
            read(column, _READERS[column], value, word)
    if "status" in faults:
        # A version with another status, or none, may be a state that never was.
        raise RowRejected(faults["status"])
    unknown = {
        key: value for key, value in row.items() if key not in KNOWN_KEYS and key not in misspelt
    }
    values["extra"] = None
    if unknown:
        read("extra", _read_extra, unknown, "extra")
    if "fileName" in row and row["fileName"] is None:
        # Not the same as absent: the name was not valid UTF-8 (json_encode's partial output).
        coercions["file_name_unreadable"] += 1
    if row.get("objectType", OBJECT_TYPE) != OBJECT_TYPE or "objectType" in misspelt.values():
        coercions["object_type_other"] += 1
    token = Token(**values)
    if not faults:
        return token
    return PartToken(token, Untold(tuple(faults), next(iter(faults.values()))))


def _read_status(value: object, word: str, coercions: Counter[str]) -> int | None:
    status = read_whole(value, word, INT16_MIN, INT16_MAX, coercions, digits_are_usual=False)
    if status is not None and status not in STATUS_KNOWN:
        coercions["status_unknown"] += 1
    return status


def _read_size(value: object, word: str, coercions: Counter[str]) -> int | None:
    size = read_whole(value, word, INT64_MIN, INT64_MAX, coercions, digits_are_usual=True)
    if size is not None and size < 0:
        coercions[f"{word}_negative"] += 1
    return size


def _read_updated(now_second: float, value: object, word: str, coercions: Counter[str]) -> datetime:
    return bound_instant(read_instant(value), word, now_second, coercions)


def _read_extra(unknown: dict[str, object], word: str, coercions: Counter[str]) -> bytes | None:
    del word
    return encode_extra(unknown, coercions)


_Reader = Callable[[Any, str, Counter[str]], object]
_READERS: Final[dict[str, _Reader]] = {
    "user_id": read_text,
    "status": _read_status,
    "file_name": read_text,
    "file_size_bytes": _read_size,
    "uploaded_size_bytes": _read_size,
    "attached_object_type": read_text,
    "attached_object_id": read_text,
    "auto_finalize": read_nullable_boolean,
    "upload_url": read_url,
}
"""Value, word for the column in coercions and reasons, and the coercions to count in."""
