"""What ``backfill`` takes for ``--from``, ``--to`` and ``--ids``; else a UsageError."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from etl.errors import UsageError
from etl.run.backfill import Range
from etl.settings.values import shown

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
ID_BYTES_MAX: Final = 255
LINES_NAMED: Final = 10
COLUMN_NAMES: Final = frozenset(("id", "ids", "token_id", "upload_token_id", "uploadtokenid"))
QUOTES: Final = "\"'"
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME: Final = re.compile(
    r"(?P<wall>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?)(?P<fraction>[.,]\d+)?\s*(?P<zone>.*)",
    re.ASCII | re.DOTALL,
)
_OFFSET: Final = re.compile(r"[+-]\d\d(:?\d\d)?", re.ASCII)
_ZONE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)


def read_range(begin: str | None, end: str | None, *, now: datetime) -> Range:
    """The range of ``--from`` and ``--to``; raises UsageError with one sentence."""
    first = None if begin is None else read_moment("--from", begin, is_end=False)
    last = None if end is None else read_moment("--to", end, is_end=True)
    for option, text, moment in (("--from", begin, first), ("--to", end, last)):
        if moment is not None and moment < EARLIEST:
            raise UsageError(
                f"{option} {shown(text or '')} is before 1990; there are no tokens that old."
            )
    if first is not None and first > now:
        raise UsageError(f"--from {shown(begin or '')} is in the future.")
    # A day that has begun in any zone is not in the future.
    if last is not None and last > now + timedelta(days=1):
        raise UsageError(
            f"--to {shown(end or '')} is in the future: omit --to to read up to the newest token."
        )
    if first is not None and last is not None and first > last:
        raise UsageError(f"--from {shown(begin or '')} is after --to {shown(end or '')}.")
    return Range(first, last)


def read_moment(option: str, text: str, *, is_end: bool) -> datetime:
    """A moment in UTC: a plain date is the first, or the last, second of that day in UTC.

    A time needs a zone: Z, an offset or a name.  If an hour occurs twice on the wall clock, the
    earlier one is used for a start and the later one for an end.
    """
    text = text.strip()
    if _DAY.fullmatch(text):
        day = _calendar(option, text, text)
        moment = datetime.combine(day.date(), time(), UTC)
        return moment + timedelta(days=1, seconds=-1) if is_end else moment
    match = _TIME.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{option} must be a date such as 2026-03-01, or a time with a zone such as "
            f"2026-03-01T08:30:00Z, not {shown(text)}."
        )
    wall = _calendar(option, match["wall"], text)
    if match["fraction"] and match["fraction"].strip(".,0"):
        raise UsageError(
            f"{option} {shown(text)} has a fraction of a second; createdAt has whole seconds."
        )
    if not match["zone"]:
        raise UsageError(
            f"{option} {shown(text)} has no zone: add one, such as {wall:%Y-%m-%dT%H:%M:%S}Z."
        )
    zone = _zone(option, match["zone"].strip("[]"), text)
    try:
        if isinstance(zone, timedelta):
            return wall.replace(tzinfo=UTC) - zone
        return wall.replace(tzinfo=zone, fold=1 if is_end else 0).astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{option} {shown(text)} is outside the supported date range.") from None


def _calendar(option: str, wall: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(wall)
    except ValueError:
        raise UsageError(f"{option} {shown(text)} is not a valid date or time.") from None


def _zone(option: str, name: str, text: str) -> timedelta | ZoneInfo:
    if name in ("Z", "z", "UTC"):
        return timedelta(0)
    if _OFFSET.fullmatch(name):
        digits = name[1:].replace(":", "").ljust(4, "0")
        hours, minutes = int(digits[:2]), int(digits[2:])
        if hours <= 18 and minutes < 60:
            offset = timedelta(hours=hours, minutes=minutes)
            return -offset if name[0] == "-" else offset
    elif _ZONE_NAME.fullmatch(name):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return ZoneInfo(name)
    raise UsageError(
        f"{option} {shown(text)} has the unknown zone {shown(name)}: use Z, an offset such as "
        "+02:00, or a name such as Europe/Berlin."
    )


def read_ids(lines: Iterable[bytes], source: str) -> list[str]:
    """The ids of a file, one per line; empty lines and lines that start with # are ignored.

    So is a first line that is a column's name, and quotes around a whole line are taken off: that
    is what exports of one column look like.  Raises a UsageError that names the invalid lines.
    """
    ids: list[str] = []
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        data = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        text = data.decode("utf-8", "replace").strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES:
            text = text[1:-1]
        if not (ids or wrong) and text.lower() in COLUMN_NAMES:
            continue
        if _is_id(text):
            ids.append(text)
        else:
            wrong.append((number, text))
    if wrong:
        raise UsageError(_no_ids(wrong, source))
    if not ids:
        raise UsageError(f"{source} contains no id: write one per line.")
    return ids


def ids_of_file(name: str) -> list[str]:
    """As ``read_ids``; ``-`` is standard input."""
    if name == "-":
        return read_ids(sys.stdin.buffer, "standard input")
    try:
        with Path(name).open("rb") as lines:
            return read_ids(lines, name)
    except OSError as exc:
        raise UsageError(f"{name} cannot be read: {exc.strerror}.") from exc


def _is_id(text: str) -> bool:
    """Whether the service can look it up: a comma separates ids there."""
    unfit = any(
        char in ",\ufffd" + QUOTES or char.isspace() or not char.isprintable() for char in text
    )
    return not unfit and len(text.encode()) <= ID_BYTES_MAX


def _no_ids(wrong: list[tuple[int, str]], source: str) -> str:
    numbers = [str(number) for number, _ in wrong[:LINES_NAMED]]
    if len(wrong) > LINES_NAMED:
        named = f"{', '.join(numbers)} and {len(wrong) - LINES_NAMED} more contain"
    elif len(numbers) > 1:
        named = f"{', '.join(numbers[:-1])} and {numbers[-1]} contain"
    else:
        named = f"{numbers[0]} contains"
    lines = "Line" if len(wrong) == 1 else "Lines"
    return (
        f"{lines} {named} no token id (such as {shown(wrong[0][1])}); nothing was done. Correct "
        f"{source} and try again."
    )
