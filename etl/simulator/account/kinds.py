"""Kinds of generated accounts: what their file names and their rows look like.

``mixed``    what real accounts have: one name in 200 is odd, a few rows have an unknown status
``plain``    every name is a few ASCII words and every row has the usual form
``hostile``  as plain, but one name in eight has commas, quotes, backslashes, escapes, emoji or
             letters of another script
``odd``      as plain, but 2 % of the rows are valid and written unusually
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from etl.simulator.account.encode import encode_json

KINDS = ("mixed", "plain", "hostile", "odd")
HOSTILE_SHARE = 1 / 8
UNUSUAL_SHARE = 0.02

ODD_NAMES: tuple[str | None, ...] = (
    "party \U0001f389 time.mp4",
    "\u00e9\u4e2d\u6587 \u05d0.mp4",
    "\u202egnp.exe\u202c \u05de\u05e1\u05de\u05da.pdf",
    "nul \x00 end.mp4",
    "ctl \x01\x02\t\n\x7f end.mp4",
    "",
    None,  # an explicit null: the name is not valid UTF-8
    "</script> \" \\ / & ' <b>.mp4",
    "\u00e9" * 127,
    "  leading and trailing  ",
    "\U0001d54c\U0001d55f\U0001d55a.mov",
    "line\u2028separator.mp4",
)
_HOSTILE_NAMES = (
    "Week %d, part %d, final, v2.mp4",
    'say "hello" %d, then "goodbye" %d.mov',
    "C:\\media\\%d\\take %d\\.mkv",
    "a/b/%d/c?x=1&y=%d.pdf",
    "tab\t%d line\n%d bell\x07.mp4",
    "party \U0001f389\U0001f44b\U0001f3fd %d time %d.mp4",
    "\u8bb2\u5ea7 %d \u7b2c%d\u8bfe.mp4",
    "\u05e9\u05d9\u05e2\u05d5\u05e8 %d, \u05d7\u05dc\u05e7 %d.mp4",
    "\u043b\u0435\u043a\u0446\u0438\u044f \u2116%d, \u0447\u0430\u0441\u0442\u044c %d.webm",
    '{"id":"0_%032x","status":%d},{',
    "O'Brien \\'; drop table x; -- %d %d.srt",
    "cafe\u0301 %d, na\u00efve %d.mp3",
)
_EXTENSIONS = ("mp4", "mov", "mkv", "pdf", "srt", "mp3", "jpg", "webm")
_WORDS = ("Lecture", "Seminar", "Lab", "Interview", "Town hall", "Demo", "Clip", "Exam review")


def plain_name(rng: random.Random) -> bytes:
    """A file name as JSON."""
    word = _WORDS[int(rng.random() * 8)]
    name = f'"{word} {int(rng.random() * 10_000)}.{_EXTENSIONS[int(rng.random() ** 3 * 8)]}"'
    return name.encode()


def mixed_name(rng: random.Random) -> bytes:
    """A file name as JSON; one in 200 is odd."""
    if rng.random() < 0.005:
        return encode_json(rng.choice(ODD_NAMES))
    return plain_name(rng)


def hostile_name(rng: random.Random) -> bytes:
    """A file name as JSON; one in eight is hard to read or to quote."""
    if rng.random() < HOSTILE_SHARE:
        return encode_json(rng.choice(_HOSTILE_NAMES) % (rng.randrange(10_000), rng.randrange(100)))
    return plain_name(rng)


NAMES: dict[str, Callable[[random.Random], bytes]] = {
    "mixed": mixed_name,
    "plain": plain_name,
    "hostile": hostile_name,
    "odd": plain_name,
}
"""What makes the file names of each kind."""


def sometimes_unusual(rng: random.Random, body: bytes) -> bytes:
    """The JSON of a row; 2 % of them say the same, or a little more, in an unusual form."""
    if rng.random() >= UNUSUAL_SHARE:
        return body
    fields = msgspec.json.decode(body, type=dict[str, Any])
    return encode_json(rng.choice(_UNUSUAL_FORMS)(fields))


Fields = dict[str, Any]


def _unknown_number(fields: Fields) -> Fields:
    return fields | {"conversionProfileId": int(fields["createdAt"]) % 97}


def _unknown_object(fields: Fields) -> Fields:
    return fields | {"ingestInfo": {"source": "lms", "parts": [1, 2.50], "by": None}}


def _null_name(fields: Fields) -> Fields:
    return fields | {"fileName": None}


def _null_when_absent(fields: Fields) -> Fields:
    return {"uploadUrl": None, "attachedObjectId": None} | fields


def _sizes_as_numbers(fields: Fields) -> Fields:
    sizes = {name: int(fields[name]) for name in ("fileSize", "uploadedFileSize") if name in fields}
    return fields | sizes


def _decimal_size(fields: Fields) -> Fields:
    return fields | {"fileSize": float(int(fields.get("fileSize", 1)) % 10**9)}


def _status_as_text(fields: Fields) -> Fields:
    return fields | {"status": str(fields["status"])}


def _time_as_text(fields: Fields) -> Fields:
    return fields | {"updatedAt": str(fields["updatedAt"])}


def _nullable_boolean(fields: Fields) -> Fields:
    return fields | {"autoFinalize": 1 if fields["autoFinalize"] else 0}


def _unknown_status(fields: Fields) -> Fields:
    return fields | {"status": 99}


def _no_type(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name != "objectType"}


def _reversed_keys(fields: Fields) -> Fields:
    return dict(reversed(fields.items()))


_UNUSUAL_FORMS = (
    _unknown_number,
    _unknown_object,
    _null_name,
    _null_when_absent,
    _sizes_as_numbers,
    _decimal_size,
    _status_as_text,
    _time_as_text,
    _nullable_boolean,
    _unknown_status,
    _no_type,
    _reversed_keys,
)
