"""Numbers, times and foreign text in readable form.  Pure."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

NOTHING: Final = "\u2013"
_NBSP: Final = "\u00a0"
"""Between a number and its unit: no line ends there."""
TEXT_LENGTH_MAX: Final = 120
"""Characters of a name that are shown: a file name may have 65,536 bytes."""
JOINERS: Final = frozenset("\u200c\u200d")
"""Invisible, but Persian words and composed emoji need them."""
MARKS_MAX: Final = 4
"""Combining marks on one letter; more of them only paint over the lines above and below."""
SIZE_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")


def count(number: int | Decimal | None) -> str:
    """``1,234,567``; a dash for None."""
    return NOTHING if number is None else f"{int(number):,}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 upload``, ``2 uploads``, ``no uploads``."""
    noun = one if number == 1 else many or f"{one}s"
    return f"no {noun}" if number == 0 else f"{number:,} {noun}"


def percent(part: int | Decimal | None, whole: int | Decimal | None) -> str:
    """A share with one digit; some are never shown as none of them, nor nearly all as all."""
    if part is None or not whole:
        return NOTHING
    share = 100 * Decimal(part) / Decimal(whole)
    if 0 < share < Decimal("0.1"):
        return f"< 0.1{_NBSP}%"
    if Decimal("99.9") < share < 100:
        return f"> 99.9{_NBSP}%"
    return f"{share:,.1f}{_NBSP}%" if share not in (0, 100) else f"{share:.0f}{_NBSP}%"


def size(number: int | Decimal | None) -> str:
    """Bytes in units of a thousand: ``1.5 GB``."""
    if number is None:
        return NOTHING
    value, unit = Decimal(number), 0
    while abs(value) >= Decimal("999.5") and unit < len(SIZE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    text = f"{value:,.0f}" if unit == 0 or value >= 10 else f"{value:,.1f}"
    return f"{text}{_NBSP}{'byte' if number == 1 else SIZE_UNITS[unit]}"


def duration(length: timedelta | float | Decimal | None) -> str:
    """The two largest units: ``3 d 4 h``, ``12 min``, ``under 1 s``."""
    if length is None:
        return NOTHING
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if seconds < 0:
        return f"minus {duration(-seconds)}"
    return _duration(seconds).replace(" ", _NBSP)


def _duration(seconds: float) -> str:
    if 0 < seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, left = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {left} min" if left else f"{hours} h"
    days, left = divmod(round(whole / 3600), 24)
    return f"{days} d {left} h" if left and days < 100 else f"{days:,} d"


def rough_duration(length: timedelta) -> str:
    """One unit, spelt out, for a sentence: ``5 hours``, ``3 days``."""
    seconds = max(length.total_seconds(), 0)
    for unit, unit_seconds, from_seconds in (
        ("day", 86_400, 2 * 86_400),
        ("hour", 3600, 5400),
        ("minute", 60, 90),
    ):
        if seconds >= from_seconds:
            return counted(round(seconds / unit_seconds), unit)
    return "a moment"


def moment(time: datetime | None, zone: tzinfo) -> str:
    """For a table: ``2026-11-23 02:31``; it sorts, and month and day are unambiguous."""
    return NOTHING if time is None else f"{time.astimezone(zone):%Y-%m-%d %H:%M}"


def moment_in_words(time: datetime, zone: tzinfo) -> str:
    """For a sentence: ``23 November 2026 at 02:31``."""
    local = time.astimezone(zone)
    return f"{day_in_words(local.date())} at {local:%H:%M}"


def span_in_words(begin: datetime, end: datetime, zone: tzinfo) -> str:
    """To begin a sentence with: ``On 23 November 2026 from 02:10 to 02:31``."""
    first, last = begin.astimezone(zone), end.astimezone(zone)
    if first.date() != last.date():
        return f"From {moment_in_words(begin, zone)} to {moment_in_words(end, zone)}"
    day = day_in_words(first.date())
    if f"{first:%H:%M}" == f"{last:%H:%M}":
        return f"On {day} at {last:%H:%M}"
    return f"On {day} from {first:%H:%M} to {last:%H:%M}"


def day_in_words(day: date) -> str:
    """``23 November 2026``."""
    return f"{day.day} {day:%B %Y}"


def visible(text: str | None, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Foreign text on one line, bounded, without invisible characters that act on it.

    Characters that are invisible, turn the direction of writing or end a line are shown by their
    number, ``[U+202E]``.  This is no escaping: the template does that.
    """
    if text is None:
        return ""
    shown = "".join(_visible_characters(text[:length_max]))
    if len(text) > length_max:
        return f"{shown}… ({len(text):,} characters)"
    return shown


def _visible_characters(text: str) -> list[str]:
    characters, marks = [], 0
    for character in text:
        category = unicodedata.category(character)
        if category in ("Mn", "Me"):
            marks += 1
            if marks > MARKS_MAX:
                continue
        else:
            marks = 0
        hidden = category in ("Cc", "Cf", "Cs", "Zl", "Zp")
        if hidden and character not in JOINERS:
            characters.append(f"[U+{ord(character):04X}]")
        else:
            characters.append(character)
    return characters
