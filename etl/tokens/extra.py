"""Unknown keys of a row as one canonical JSON object that Postgres accepts as jsonb."""

from __future__ import annotations

from collections import Counter
from json.encoder import encode_basestring
from typing import Final

from etl.tokens.token import (
    EXTRA_BYTES_MAX,
    EXTRA_DEPTH_MAX,
    EXTRA_KEYS_MAX,
    EXTRA_NUMBER_DIGITS_MAX,
)
from etl.tokens.values import Number, RowRejected, storable

COLUMN: Final = "extra"


def encode_extra(unknown: dict[str, object], coercions: Counter[str]) -> bytes | None:
    """UTF-8 text of ``unknown`` with sorted keys and no blanks; None if it is empty.

    Numbers stay as they were written, within bounds.  Raises RowRejected for more than 100 keys,
    64 KiB, 64 levels, a number that jsonb cannot store, or two keys that become equal.
    """
    if not unknown:
        return None
    if len(unknown) > EXTRA_KEYS_MAX:
        raise RowRejected("too_many_unknown_keys")
    pieces: list[str] = []
    _write(unknown, pieces, coercions, depth=1)
    encoded = "".join(pieces).encode()
    if len(encoded) > EXTRA_BYTES_MAX:
        raise RowRejected("extra_too_large")
    coercions["unknown_keys"] += 1
    return encoded


def _write(value: object, pieces: list[str], coercions: Counter[str], depth: int) -> None:
    if depth > EXTRA_DEPTH_MAX:
        raise RowRejected("extra_nested_too_deeply")
    if isinstance(value, dict):
        _write_object(value, pieces, coercions, depth)
    elif isinstance(value, list):
        pieces.append("[")
        for index, item in enumerate(value):
            if index:
                pieces.append(",")
            _write(item, pieces, coercions, depth + 1)
        pieces.append("]")
    elif isinstance(value, str):
        pieces.append(encode_basestring(storable(value, COLUMN, coercions)))
    elif isinstance(value, Number):
        pieces.append(_bounded(value))
    elif value is None:
        pieces.append("null")
    else:
        pieces.append("true" if value else "false")


def _write_object(
    value: dict[str, object], pieces: list[str], coercions: Counter[str], depth: int
) -> None:
    cleaned = {storable(key, COLUMN, coercions): item for key, item in value.items()}
    if len(cleaned) < len(value):
        # jsonb would silently keep the last of the two.
        raise RowRejected("extra_keys_collide")
    pieces.append("{")
    for index, key in enumerate(sorted(cleaned)):
        if index:
            pieces.append(",")
        pieces.append(encode_basestring(key))
        pieces.append(":")
        _write(cleaned[key], pieces, coercions, depth + 1)
    pieces.append("}")


def _bounded(number: Number) -> str:
    exact = number.exact()
    if exact is not None:
        _, digits, exponent = exact.as_tuple() if len(number.literal) < 4_096 else (0, (), "F")
        if (
            isinstance(exponent, int)
            and len(digits) + exponent <= EXTRA_NUMBER_DIGITS_MAX
            and len(digits) <= EXTRA_NUMBER_DIGITS_MAX
            and -exponent <= EXTRA_NUMBER_DIGITS_MAX
        ):
            return number.literal
    raise RowRejected("extra_number_out_of_range")
