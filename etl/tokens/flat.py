"""Flat rows, which is what the live server sends: read faster, and freed of unknown keys.

A row is flat if no value is an object or an array.  msgspec keeps the last of two equal keys, so
the number of keys is counted besides.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import msgspec

from etl.tokens.extra import encode_extra
from etl.tokens.keys import KNOWN_KEYS, in_other_case
from etl.tokens.values import Number, RowRejected

_BLANKS: Final = (b'" :', b'"  ', b"\t", b"\n", b"\r")
_QUOTE: Final = ord('"')
_NUMBER_STARTS: Final = frozenset(b"-0123456789")
_CONSTANTS: Final = {b"null": None, b"true": True, b"false": False}
_decode_values: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_encode: Final = msgspec.json.Encoder().encode
_NOT_FLAT: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, KeyError)


class Freed(NamedTuple):
    """A row without its unknown keys."""

    row: msgspec.Raw
    extra: bytes | None
    """The unknown keys, as ``encode_extra`` writes them."""
    coercions: Counter[str]


def parse_flat(data: bytes) -> dict[str, object] | None:
    """The values of a flat row in which no key occurs twice, else None: 3 times faster."""
    try:
        sent = _sent(data)
        if sent is not None:
            return {key: _value_of(bytes(raw)) for key, raw in sent.items()}
    except _NOT_FLAT:
        pass
    return None


def without_unknown_keys(data: bytes) -> Freed | None:
    """The row without its unknown keys, if it is flat, each key occurs once, and some are unknown.

    None as well if they cannot be stored, or if one is a known key in another case.
    """
    coercions: Counter[str] = Counter()
    try:
        sent = _sent(data)
        if sent is None:
            return None
        unknown = {key: _value_of(bytes(sent.pop(key))) for key in sent.keys() - KNOWN_KEYS}
        if in_other_case(unknown):
            return None
        extra = encode_extra(unknown, coercions)
    except (*_NOT_FLAT, RowRejected):
        return None
    return None if extra is None else Freed(msgspec.Raw(_encode(sent)), extra, coercions)


def count_keys(flat: bytes) -> int | None:
    """How many keys flat JSON objects have, or None if they are written in an unusual way.

    Outside of texts, a quote before a colon ends a key; within them it is escaped.  A key with
    blanks before its colon would not be counted.
    """
    if any(blank in flat for blank in _BLANKS):
        return None
    return flat.count(b'":') - flat.count(b'\\":')


def _sent(data: bytes) -> dict[str, msgspec.Raw] | None:
    """What a flat row says of each key; None if perhaps a key occurs twice."""
    if b'\\\\":' in data:
        return None  # perhaps a key that ends with a backslash, which would not be counted
    sent = _decode_values(data)
    return sent if count_keys(data) == len(sent) else None


def _value_of(literal: bytes) -> object:
    """The value of a text, number or constant.  Raises KeyError for an array or an object."""
    if literal[0] == _QUOTE:
        return _decode_text(literal)
    if literal[0] in _NUMBER_STARTS:
        return Number(literal.decode())
    return _CONSTANTS[literal]
