"""The types of a decoded page, and the limits of every row.

A leaf, so that the fast reader (``decode``) and the careful one (``row``) can share it without
importing each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from etl.coverage import Span

CREATED_SECOND_MIN: Final = 631_152_000
"""1990-01-01T00:00:00Z in Unix seconds: the first second of the supported date range."""
CREATED_SECOND_END: Final = 4_102_444_800
"""2100-01-01T00:00:00Z in Unix seconds: the first second after the supported date range."""
ZERO_DATE_FIRST: Final = -62_170_070_400
ZERO_DATE_LAST: Final = -62_135_510_400
"""What MySQL's 0000-00-00 becomes: -62169984000 (PHP's 30 November of the year -1), give or take
the server's zone.  Both ends are inclusive."""

CLOCK_SKEW_SECONDS: Final = 300
"""How far ahead of our clock a time may be before it is counted."""
FUTURE_SECONDS_MAX: Final = 366 * 86_400
"""How far ahead of our clock a time may be before its row is rejected."""

OPEN_STATUSES: Final = (0, 1, 2)
"""Statuses of an upload that may still change by itself."""
DUPLICATE_ID: Final = "duplicate_id"
"""Reason of a rejected row whose token has another row with a newer createdAt."""

TOKEN_ID_BYTES_MAX: Final = 1_024
TEXT_BYTES_MAX: Final = 65_536
EXTRA_BYTES_MAX: Final = 65_536
EXTRA_KEYS_MAX: Final = 100
EXTRA_DEPTH_MAX: Final = 64
EXTRA_NUMBER_DIGITS_MAX: Final = 1_000
"""Digits before or after the decimal point.  jsonb accepts more, but this bounds the page."""
ROW_BYTES_MAX: Final = 8 * 1024 * 1024


def time_of_second(second: int) -> datetime:
    """The time of a Unix second."""
    return datetime.fromtimestamp(second, UTC)


def seconds_between(span: Span) -> tuple[datetime | None, datetime | None]:
    """The span's ends as times; None for an end outside the supported date range."""
    lower = None if span.lower <= CREATED_SECOND_MIN else span.lower
    upper = None if span.upper >= CREATED_SECOND_END else span.upper
    return (
        None if lower is None else time_of_second(min(lower, CREATED_SECOND_END)),
        None if upper is None else time_of_second(max(upper, CREATED_SECOND_MIN)),
    )


class Token(NamedTuple):
    """One upload token as it goes to the warehouse: every value can be written by COPY BINARY.

    Times are aware UTC.  ``extra`` is the text of a JSON object, valid for jsonb, or None.
    """

    token_id: str
    user_id: str | None
    status: int | None
    file_name: str | None
    file_size_bytes: int | None
    uploaded_size_bytes: int | None
    created_at: datetime
    updated_at: datetime | None
    attached_object_type: str | None
    attached_object_id: str | None
    auto_finalize: bool | None
    upload_url: str | None
    extra: bytes | None


TOKEN_COLUMNS: Final[tuple[str, ...]] = Token._fields
"""Column names of ``upload_token`` in the order of a ``Token``, for COPY."""

VOLATILE: Final = frozenset({"auto_finalize", "upload_url"})
"""Columns that change by themselves: refreshed with a version, never a reason for one."""
COMPARED: Final = tuple(
    name for name in TOKEN_COLUMNS if name != "token_id" and name not in VOLATILE
)
"""Columns whose change makes a version."""


TIE_ORDER: Final = (
    "updated_at",
    "status",
    "uploaded_size_bytes",
    "file_size_bytes",
    "file_name",
    "user_id",
    "attached_object_id",
    "attached_object_type",
    "upload_url",
    "auto_finalize",
)
"""Which of two rows of an id wins where createdAt and the time of observation are equal: the
greater one by these columns, None least and texts bytewise.  So the outcome does not depend on how
pages are batched."""


class Untold(NamedTuple):
    """What a loaded row does not tell, because the value that was sent cannot be used."""

    columns: tuple[str, ...]
    """Their values in the token are None."""
    reason: str
    """The reason that ``rejected_row`` stores: that of the first column."""


class PartToken(NamedTuple):
    """A token of whose row a part cannot be used."""

    token: Token
    untold: Untold


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row to keep as it was sent, because nothing or not all of it is loaded.

    ``payload`` is what was sent, byte for byte.

    ``token_id`` is its id, or ``sha256:`` and the hash of ``payload`` where the id itself cannot be
    stored.  ``created_second`` is its createdAt in Unix seconds, rounded down; None if unknown.
    """

    token_id: str | None
    reason: str
    payload: bytes
    created_second: int | None
