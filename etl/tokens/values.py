"""How one wire value becomes one column's value: exact numbers, times, texts, URLs.

Numbers are kept as the literal that was sent until their meaning is known: a float would lose
digits, and converting an unbounded int would spend seconds on a literal of a million digits.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Context, Decimal, InvalidOperation
from typing import Final, NoReturn
from urllib.parse import urlsplit

import msgspec

from etl.tokens.token import (
    CLOCK_SKEW_SECONDS,
    CREATED_SECOND_END,
    CREATED_SECOND_MIN,
    FUTURE_SECONDS_MAX,
    TEXT_BYTES_MAX,
    ZERO_DATE_FIRST,
    ZERO_DATE_LAST,
)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
REPLACEMENT: Final = "\ufffd"
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_MICROSECOND: Final = Decimal("0.000001")
# A separate context: the thread's may have been set to less precision or to other traps.
_CONTEXT: Final = Context(prec=40, traps=[InvalidOperation])
_PLACEABLE_SECONDS: Final = 10**11
_WHOLE: Final = re.compile(r"-?[0-9]+")
_SHORT_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
"""What needs no Decimal, which costs ten times as much as an int."""
_DIGITS: Final = re.compile(r"-?[0-9]{1,40}")
_ISO: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# The lead-in of an authority: blanks, a scheme followed by slashes (or http: without them, which
# browsers accept too), forward or backward; then everything up to the last @ before the path.
_IGNORED_IN_URL: Final = re.compile(r"[\t\r\n]")
_LEADING_BLANKS: Final = "".join(map(chr, range(0x21)))
_USERINFO: Final = re.compile(
    r"([\x00-\x20]*(?:[A-Za-z][A-Za-z0-9+.\t\r\n-]*:(?=[\t\r\n]*[/\\])|https?:)?[/\\\t\r\n]*)"
    r"[^/\\?#]*@",
    re.IGNORECASE,
)


class RowRejected(Exception):
    """This row cannot be loaded.  ``reason`` is the slug that ``rejected_row`` stores.

    Control flow inside ``etl.tokens``: it never leaves the package, so it is not an EtlError.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Number(msgspec.Struct, frozen=True, gc=False):
    """A JSON number as it was written."""

    literal: str

    def exact(self) -> Decimal | None:
        """The value without any rounding, or None where it exceeds even Decimal's range."""
        try:
            return Decimal(self.literal)
        except InvalidOperation:
            return None

    @property
    def is_whole(self) -> bool:
        """Whether it is written as an integer: no decimal point, no exponent."""
        return _WHOLE.fullmatch(self.literal) is not None


def is_digits(value: object) -> bool:
    """Whether it is a string that is read as a whole number."""
    return isinstance(value, str) and _DIGITS.fullmatch(value) is not None


def read_whole(
    value: object,
    column: str,
    low: int,
    high: int,
    coercions: Counter[str],
    *,
    digits_are_usual: bool,
) -> int | None:
    """An integer in [low, high] from a number or a string of digits; None for null.

    ``12.0`` is 12 and counted as a coercion; ``12.7`` is rejected (Postgres would silently round it
    to 13).
    """
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        if not digits_are_usual:
            coercions[f"{column}_text"] += 1
        whole = int(value)
        if low <= whole <= high:
            return whole
    elif isinstance(value, Number):
        if _SHORT_WHOLE.fullmatch(value.literal):
            whole = int(value.literal)
            if low <= whole <= high:
                return whole
            raise RowRejected(f"{column}_invalid")
        exact = value.exact()
        # The bounds come first: int() of 1e999999999 would write out a billion digits.
        if exact is not None and low <= exact <= high:
            whole = int(exact)
            if whole == exact:
                if not value.is_whole:
                    coercions[f"{column}_decimal"] += 1
                return whole
    raise RowRejected(f"{column}_invalid")


class Instant(msgspec.Struct, frozen=True, gc=False):
    """A time as sent, before any bound is applied.

    ``microseconds`` since 1970, rounded down; None with ``fault`` if it is not a time.
    ``coercion`` names what was done to it, if it was not whole seconds.
    """

    microseconds: int | None
    fault: str | None = None
    coercion: str | None = None

    @property
    def second(self) -> int | None:
        """Its whole second, rounded down, if it can be placed on the createdAt line."""
        if self.microseconds is None:
            return None
        second = self.microseconds // 1_000_000
        if CREATED_SECOND_MIN <= second < CREATED_SECOND_END or is_zero_date(second):
            return second
        return None

    @property
    def position(self) -> float | int | None:
        """Its position on the createdAt line: an int where it is a whole second."""
        second = self.second
        if second is None or self.microseconds is None or self.microseconds % 1_000_000 == 0:
            return second
        return self.microseconds / 1_000_000


def is_zero_date(second: int) -> bool:
    """Whether Unix second ``second`` is the server's 0000-00-00 in some zone."""
    return ZERO_DATE_FIRST <= second <= ZERO_DATE_LAST


def read_instant(value: object) -> Instant:
    """The time that ``value`` states, in Unix seconds or as ISO 8601 text with a zone."""
    if value is None:
        return Instant(None, fault="missing")
    if isinstance(value, Number):
        return _instant_of_number(value)
    if isinstance(value, str):
        return _instant_of_text(value)
    return Instant(None, fault="invalid")


def _instant_of_text(text: str) -> Instant:
    if _DIGITS.fullmatch(text):
        instant = _instant_of_number(Number(text))
        return Instant(instant.microseconds, instant.fault, "text")
    match = _ISO.fullmatch(text)
    if match is None:
        return Instant(None, fault="invalid")
    if match[1] is None:
        return Instant(None, fault="without_zone")
    try:
        since = datetime.fromisoformat(text) - EPOCH
    except (ValueError, OverflowError):
        return Instant(None, fault="invalid")
    return Instant(since // timedelta(microseconds=1), coercion="text")


def _instant_of_number(number: Number) -> Instant:
    if _SHORT_WHOLE.fullmatch(number.literal):
        second = int(number.literal)
        if -_PLACEABLE_SECONDS < second < _PLACEABLE_SECONDS:
            return Instant(second * 1_000_000)
    exact = number.exact()
    if exact is None or not -_PLACEABLE_SECONDS < exact < _PLACEABLE_SECONDS:
        return Instant(None, fault="out_of_range")
    # quantize() rounds once, and down: a time just before 2100 must not become 2100.
    floored = exact.quantize(_MICROSECOND, rounding=ROUND_FLOOR, context=_CONTEXT)
    microseconds = int(floored.scaleb(6, context=_CONTEXT))
    if exact != microseconds // 1_000_000:
        return Instant(microseconds, coercion="fraction")
    return Instant(microseconds, coercion=None if number.is_whole else "decimal")


def bound_instant(
    instant: Instant, column: str, now_second: float, coercions: Counter[str]
) -> datetime:
    """The aware UTC time of ``instant``; RowRejected outside 1990-2100 or far in the future."""
    if instant.microseconds is None:
        raise RowRejected(f"{column}_{instant.fault}")
    second = instant.microseconds // 1_000_000
    if is_zero_date(second):
        raise RowRejected(f"{column}_zero_date")
    if not CREATED_SECOND_MIN <= second < CREATED_SECOND_END:
        raise RowRejected(f"{column}_out_of_range")
    ahead = instant.microseconds / 1_000_000 - now_second
    if ahead > FUTURE_SECONDS_MAX:
        raise RowRejected(f"{column}_in_future")
    if ahead > CLOCK_SKEW_SECONDS:
        coercions[f"{column}_ahead"] += 1
    if instant.coercion is not None:
        coercions[f"{column}_{instant.coercion}"] += 1
    return EPOCH + timedelta(microseconds=instant.microseconds)


def storable(text: str, column: str, coercions: Counter[str]) -> str:
    """``text`` with U+FFFD for what Postgres cannot store: NUL, and halves of surrogate pairs."""
    if "\0" in text:
        coercions[f"{column}_nul"] += 1
        text = text.replace("\0", REPLACEMENT)
    # isascii() reads a flag of the string; only other strings are searched.
    if not text.isascii() and _SURROGATE.search(text):
        coercions[f"{column}_surrogate"] += 1
        text = _SURROGATE.sub(REPLACEMENT, text)
    return text


def read_text(value: object, column: str, coercions: Counter[str]) -> str | None:
    """A text column: None for null, a number as it was written, at most 64 KiB of UTF-8."""
    if value is None:
        return None
    if isinstance(value, Number):
        coercions[f"{column}_number"] += 1
        value = value.literal
    if not isinstance(value, str):
        raise RowRejected(f"{column}_invalid")
    return _truncated(storable(value, column, coercions), column, coercions)


def _truncated(text: str, column: str, coercions: Counter[str]) -> str:
    if len(text) * 4 <= TEXT_BYTES_MAX:
        return text
    encoded = text.encode()
    if len(encoded) <= TEXT_BYTES_MAX:
        return text
    coercions[f"{column}_truncated"] += 1
    # "ignore" drops the first bytes of a character that was cut in two, and nothing else.
    return encoded[:TEXT_BYTES_MAX].decode("utf-8", "ignore")


def read_url(value: object, column: str, coercions: Counter[str]) -> str | None:
    """A URL as text, without user and password.  It is never opened, so any scheme is allowed."""
    text = read_text(value, column, coercions)
    if text is None or "@" not in text:
        return text
    match = _USERINFO.match(text)
    stored = text if match is None else match[1] + text[match.end() :]
    # Browsers end the authority at a backslash, others do not: neither may find a user in it.
    for _ in range(text.count("@")):
        authority = _authority(stored)
        if "@" not in authority:
            break
        plain = _IGNORED_IN_URL.sub("", stored.lstrip(_LEADING_BLANKS))
        stored = plain.replace(authority, authority.rpartition("@")[2], 1)
    if stored != text:
        coercions[f"{column}_userinfo"] += 1
    return stored


def _authority(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def read_nullable_boolean(value: object, column: str, coercions: Counter[str]) -> bool | None:
    """A JSON boolean or KalturaNullableBoolean: -1 is null, 0 false, 1 true."""
    if value is None or isinstance(value, bool):
        return value
    whole = read_whole(value, column, -1, 1, coercions, digits_are_usual=False)
    return None if whole == -1 else whole == 1


def refuse_constant(literal: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts and which are not JSON."""
    raise ValueError(f"{literal} is not JSON")


EXACT_JSON: Final = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=refuse_constant
)
"""Decodes JSON with numbers as they were written.  Raises ValueError, and RecursionError."""
