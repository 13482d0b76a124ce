"""Digests of tokens: equal rows have equal digests, so an interval can be compared as a whole.

The digest of a token covers its id and the columns that make a version, without the user, who has a
digest of its own: a row that lacks the user (deleted in Kaltura) is compared by the first alone.
Both are pure functions of stored columns, made after suppression, and signed 64-bit integers.

A digest may decide that nothing has changed.  That something has changed is decided by the columns
alone, so a collision could only hide a change of the very token: its id is digested too.  BLAKE2b,
cut to 64 bits, makes another row of a given digest a search of 2^64; who chooses both rows, of a
token of his own, needs 2^32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from etl.tokens.token import COMPARED
from etl.tokens.values import EXACT_JSON, Number

DIGESTED: Final = ("token_id", *[name for name in COMPARED if name != "user_id"])
"""The columns of a token's digest, in its order."""
DIGEST_COLUMNS: Final = ("digest", "user_digest")
"""Where the warehouse keeps them, beside the latest version of a token."""
NO_USER: Final = 0
"""In place of the digest of a user: there is none.  No user has it."""
_BYTES: Final = 8
_REMEMBERED_CHARACTERS_MAX: Final = 256
"""Longer user ids, which may have 64 KiB, are not kept in memory."""
_pack: Final = msgspec.msgpack.Encoder().encode


def token_digests(rows: Iterable[Sequence[Any]]) -> tuple[int, ...]:
    """The digests of rows of ``DIGESTED`` values.

    Times are Unix seconds, or an aware datetime where they are not whole; ``extra`` is canonical
    (``canonical_json``).
    """
    digests = [blake2b(_pack(row), digest_size=_BYTES).digest() for row in rows]
    return struct.unpack(f">{len(digests)}q", b"".join(digests))


def user_digest(user_id: str | None) -> int:
    """The digest of a user id, ``NO_USER`` for None."""
    if user_id is None:
        return NO_USER
    if len(user_id) > _REMEMBERED_CHARACTERS_MAX:
        return _digest_of_user(user_id)
    return _remembered(user_id)


def _digest_of_user(user_id: str) -> int:
    digest = blake2b(user_id.encode(), digest_size=_BYTES, person=b"user").digest()
    return int.from_bytes(digest, "big", signed=True) or 1


_remembered: Final = lru_cache(maxsize=1 << 16)(_digest_of_user)


def canonical_json(text: bytes | str) -> str:
    """JSON with sorted keys and exact numbers without needless zeros, as jsonb compares them."""
    return canonical(EXACT_JSON.decode(text if isinstance(text, str) else text.decode()))


def canonical(value: Any) -> str:
    """The same of a decoded value whose numbers are ``Number``."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, Number):
        return _canonical_number(value)
    return json.dumps(value)


def _canonical_number(number: Number) -> str:
    exact = number.exact()
    if exact is None:
        return number.literal
    sign, digits, exponent = exact.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    whole = text.rstrip("0")
    if not whole or not isinstance(exponent, int):
        return "0"
    return f"{'-' * sign}{whole}e{exponent + len(text) - len(whole)}"
