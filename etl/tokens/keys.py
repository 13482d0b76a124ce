"""The keys of a row that have a column, and the reasons for which a row is kept in rejected_row.

A reason is a word for the column and what is wrong with its value: ``updated_at_zero_date``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from etl.tokens.token import DUPLICATE_ID


class Key(NamedTuple):
    """A key that tells one column of a token."""

    column: str
    word: str
    """What the reasons call the column."""


VALUE_KEYS: Final[Mapping[str, Key]] = {
    "userId": Key("user_id", "user_id"),
    "status": Key("status", "status"),
    "fileName": Key("file_name", "file_name"),
    "fileSize": Key("file_size_bytes", "file_size"),
    "uploadedFileSize": Key("uploaded_size_bytes", "uploaded_size"),
    "updatedAt": Key("updated_at", "updated_at"),
    "attachedObjectType": Key("attached_object_type", "attached_object_type"),
    "attachedObjectId": Key("attached_object_id", "attached_object_id"),
    "autoFinalize": Key("auto_finalize", "auto_finalize"),
    "uploadUrl": Key("upload_url", "upload_url"),
}
"""In the order of the columns.  A value of one that cannot be used costs only itself, unless it is
the status: then nothing of the row is loaded."""
IDENTITY_KEYS: Final = ("id", "partnerId", "createdAt")
"""Without a good value of these, nothing of a row is loaded."""
KNOWN_KEYS: Final = frozenset([*IDENTITY_KEYS, *VALUE_KEYS, "objectType"])
_KNOWN_IN_ANY_CASE: Final = {key.lower(): key for key in KNOWN_KEYS}

OTHER_CASE: Final = "other_case"
"""The key was sent in another case (``FileName``): its value is not used."""
_TIME_FAULTS: Final = ("zero_date", "out_of_range", "in_future", "without_zone", "invalid")
_EXTRA_FAULTS: Final = (
    "too_many_unknown_keys",
    *("extra_too_large", "extra_nested_too_deeply", "extra_number_out_of_range"),
    "extra_keys_collide",
)


def reasons_of(key: str) -> tuple[str, ...]:
    """The reasons for which the value of a key of ``VALUE_KEYS`` cannot be used."""
    faults = _TIME_FAULTS if key == "updatedAt" else ("invalid",)
    return tuple(f"{VALUE_KEYS[key].word}_{fault}" for fault in (*faults, OTHER_CASE))


STATUS_REASONS: Final = reasons_of("status")
"""Nothing of such a row is loaded: without its status, it does not show the state of its token."""
PARTLY_LOADED: Final = frozenset(
    [
        *[reason for key in VALUE_KEYS if key != "status" for reason in reasons_of(key)],
        *_EXTRA_FAULTS,
    ]
)
"""Such a row was loaded without a value: the known one is kept, or there is none."""
SHOWN_ANYHOW: Final = PARTLY_LOADED | {DUPLICATE_ID}
"""Reasons of rows that do not keep the state of their token from being seen: a row rejected as a
duplicate id says nothing about the token itself, and one that was loaded in part has shown it."""


def in_other_case(keys: Iterable[str]) -> dict[str, str]:
    """The known keys that a row lacks and has in another case only: the known key of each."""
    sent = set(keys)
    return {
        key: known
        for key in sent - KNOWN_KEYS
        if (known := _KNOWN_IN_ANY_CASE.get(key.lower())) is not None and known not in sent
    }
