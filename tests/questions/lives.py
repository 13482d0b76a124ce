"""The lives of upload tokens: what each was at any moment.

Some are written down below: those that the examples of ``docs/howto/ask.md`` speak of.  The rest of
an account's uploads are made by ``traffic``.  Nothing here knows of a warehouse: ``accounts`` adds
the nights, ``known_account`` serves the lives and syncs them for real, and ``truth`` tells in plain
Python what the warehouse must then say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

PENDING, PARTIAL, FULL, CLOSED, TIMED_OUT, DELETED, ERROR = range(7)
UNKNOWN_CODE: Final = 99
"""A code that Kaltura does not document, nor this program know."""
GONE: Final = "gone"
BACK: Final = "back"
WORDS: Final[dict[str, int | str]] = {
    "partial": PARTIAL,
    "full": FULL,
    "closed": CLOSED,
    "timed_out": TIMED_OUT,
    "error": ERROR,
    "code_99": UNKNOWN_CODE,
    GONE: GONE,
    BACK: BACK,
}
SIZES: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
YEAR: Final = 2026

# token id | user (- is none) | file | size announced (- is none) | created (UTC) | what happened
# An upload begins as PENDING.  "+4m" counts from its creation; a size is the bytes received by
# then.  One that is full or closed has received everything.
LIVES_TEXT: Final = """
0_jan_intro    | anna  | intro.mp4      | 60 MB  | 01-12 09:00 | closed +4m
0_jan_talk     | ben   | talk.mp4       | 400 MB | 01-13 14:30 | closed +12m, gone 03-28 23:00
0_jan_never    | ben   | trailer.mov    | -      | 01-15 11:00 | gone 03-23 03:00
0_jan_subs     | carla | captions.srt   | 300 KB | 01-20 16:00 | closed +1m
0_feb_lab1     | anna  | lab 1.mp4      | 60 MB  | 02-03 08:30 | closed +5m
0_feb_lab2     | anna  | lab 2.mp4      | 60 MB  | 02-10 08:30 | closed +5m
0_feb_full     | carla | exam.mp4       | 3 GB   | 02-10 10:00 | full +50m
0_feb_demo     | dora  | demo.mp4       | 400 MB | 02-17 13:00 | closed +20m
0_feb_error    | dora  | broken.mkv     | 60 MB  | 02-18 09:00 | partial 10 MB +2m, error +6m
0_feb_subs     | -     | captions.srt   | 300 KB | 02-24 12:00 | closed +1m
0_mar_lab3     | anna  | lab 3.mp4      | 60 MB  | 03-03 08:30 | closed +6m
0_mar_talk     | ben   | talk 2.mp4     | 400 MB | 03-04 14:00 | closed +15m
0_mar_timeout  | emil  | archive.mkv    | 3 GB   | 03-05 10:00 | partial 300 MB +10m, timed_out +2d
0_mar_again    | gustav | seminar 2.mp4  | 60 MB  | 03-10 09:00 | partial 20 MB +10m, error +20m, \
partial 40 MB 03-29 10:00, error 03-30 15:00
0_mar_thrice   | gustav | seminar 3.mp4  | 60 MB  | 03-11 09:00 | partial 20 MB +10m, error +20m, \
partial 40 MB 03-30 10:00, error 03-31 03:00
0_mar_code     | dora  | clip.webm      | 4 MB   | 03-12 12:00 | code_99 +1m
0_mar_clip     | carla | clip.mp4       | 4 MB   | 03-13 09:00 | closed +2m, gone 03-30 12:00
0_mar_back     | anna  | seminar.mp4    | 60 MB  | 03-16 10:00 | closed +5m, gone 03-22 10:00, \
back 03-24 10:00
0_mar_purged   | gustav | old film.mkv   | 400 MB | 03-16 15:00 | partial 40 MB +5m, error +9m, \
gone 03-24 12:00
0_mar_meeting  | emil  | meeting.mp4    | 3 GB   | 03-17 08:00 | closed +90m
0_mar_board    | emil  | board.mp4      | 400 MB | 03-18 15:00 | closed +40m
0_20_a         | anna  | lecture 20.mp4 | 60 MB  | 03-20 09:00 | closed +4m
0_20_b         | ben   | talk 20.mp4    | 400 MB | 03-20 11:00 | closed +14m
0_20_c         | carla | clip 20.mp4    | 4 MB   | 03-20 13:00 | closed +2m
0_20_d         | emil  | tape 20.mkv    | 3 GB   | 03-20 14:00 | closed +80m
0_21_a         | anna  | lecture 21.mp4 | 60 MB  | 03-21 09:00 | closed +5m
0_21_b         | dora  | demo 21.mp4    | 400 MB | 03-21 12:00 | closed +25m
0_21_late      | emil  | tape 21.mkv    | 3 GB   | 03-21 20:30 | partial 1 GB +20m, closed +6h
0_22_a         | carla | captions.srt   | 300 KB | 03-22 08:00 | closed +1m
0_22_stuck     | ben   | talk 22.mp4    | 400 MB | 03-22 10:00 |
0_22_timeout   | emil  | tape 22.mkv    | 3 GB   | 03-22 12:00 | partial 200 MB +10m, \
timed_out 03-25 12:00
0_23_half      | ben   | talk 23.mp4    | 400 MB | 03-23 08:00 | partial 160 MB +20m, \
gone 03-28 12:00
0_23_a         | anna  | lecture 23.mp4 | 60 MB  | 03-23 09:00 | closed +4m
0_23_resumed   | carla | film 23.mov    | 3 GB   | 03-23 09:00 | partial 1 GB +30m, \
partial 2 GB 03-26 10:00, full 03-27 09:00, closed 03-27 09:10
0_23_b         | dora  | demo 23.mp4    | 60 MB  | 03-23 15:00 | closed +6m
0_23_late      | carla | notes.pdf      | 4 MB   | 03-23 22:00 | closed 03-26 08:00
0_23_evening   | carla | film 23b.mov   | 400 MB | 03-23 20:50 | partial 100 MB +5m, \
closed 03-25 15:00
0_24_a         | anna  | lecture 24.mp4 | 60 MB  | 03-24 09:00 | closed +4m
0_24_b         | ben   | talk 24.mp4    | 400 MB | 03-24 10:00 | closed +16m
0_24_error     | dora  | broken.mkv     | 60 MB  | 03-24 11:00 | partial 30 MB +3m, error +9m
0_24_hidden    | ben   | cut 24.mov     | 60 MB  | 03-24 12:00 | partial 20 MB +5m, \
gone 03-27 12:00, timed_out 03-27 20:00, back 03-29 20:00
0_24_unseen    | anna  | oops.mp4       | 4 MB   | 03-24 22:00 | gone 03-25 08:00
0_25_a         | anna  | lecture 25.mp4 | 60 MB  | 03-25 09:00 | closed +5m
0_25_b         | emil  | tape 25.mkv    | 3 GB   | 03-25 10:00 | closed +70m
0_25_c         | -     | captions.srt   | 300 KB | 03-25 12:00 | closed +1m
0_26_a         | anna  | lecture 26.mp4 | 60 MB  | 03-26 09:00 | closed +5m
0_26_b         | ben   | talk 26.mp4    | 400 MB | 03-26 10:00 | closed +13m
0_26_error     | emil  | tape 26.mkv    | 3 GB   | 03-26 11:00 | partial 1 GB +40m, error +60m
0_26_c         | carla | clip 26.mp4    | 4 MB   | 03-26 13:00 | closed +2m
0_26_wait      | dora  | demo 26.mp4    | -      | 03-26 15:00 | gone 03-30 02:00
0_27_a         | anna  | lecture 27.mp4 | 60 MB  | 03-27 09:00 | closed +4m
0_27_b         | ben   | talk 27.mp4    | 400 MB | 03-27 10:00 | closed +18m
0_27_d         | carla | film 27.mov    | 60 MB  | 03-27 12:00 | partial 20 MB +2m, \
timed_out 03-29 12:00
0_27_c         | dora  | demo 27.mp4    | 4 MB   | 03-27 21:30 | closed +3m
0_28_a         | anna  | lecture 28.mp4 | 60 MB  | 03-28 09:00 | closed +5m
0_28_hidden    | ben   | clip 28.mp4    | 4 MB   | 03-28 10:00 | closed +2m
0_28_big       | emil  | tape 28.mkv    | 20 GB  | 03-28 19:00 | partial 5 GB +60m, \
partial 12 GB 03-29 20:00, partial 15 GB 03-30 19:00
0_28_midnight  | carla | film 28.mov    | 60 MB  | 03-28 23:30 | closed +5m
0_29_a         | anna  | lecture 29.mp4 | 60 MB  | 03-29 09:00 | closed +4m
0_29_b         | -     | captions.srt   | 300 KB | 03-29 11:00 | closed +1m
0_29_error     | ben   | talk 29.mp4    | 400 MB | 03-29 14:00 | partial 50 MB +10m, error +20m
0_29_c         | ben   | talk 29b.mp4   | 400 MB | 03-29 22:30 | closed +10m
0_30_a         | anna  | lecture 30.mp4 | 60 MB  | 03-30 09:00 | closed +4m
0_30_b         | ben   | talk 30.mp4    | 400 MB | 03-30 10:00 | closed +22m
0_30_c         | emil  | tape 30.mkv    | 3 GB   | 03-30 20:00 | partial 500 MB +10m
0_30_d         | carla | clip 30.mp4    | 4 MB   | 03-30 20:59 |
"""


def moment(text: str) -> datetime:
    """``03-24 21:00`` of the accounts' year, in UTC."""
    return datetime.strptime(f"{YEAR}-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Move:
    """Something that happened to a token: a status that it took, GONE or BACK."""

    at: datetime
    to: int | str
    received: int | None
    """Bytes, where they change."""


@dataclass(frozen=True, slots=True)
class NameChange:
    """A user gets another name in Kaltura, or is deleted there (None): so do all their tokens."""

    user_id: str
    at: datetime
    becomes: str | None


@dataclass(frozen=True, slots=True)
class State:
    """What the service shows of a listed token at some moment."""

    status: int
    received: int | None
    updated_at: datetime
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Life:
    """One token."""

    token_id: str
    user_id: str | None
    """The name of its user when it was created."""
    file_name: str
    size: int | None
    """Bytes announced."""
    created_at: datetime
    moves: tuple[Move, ...]
    names: tuple[NameChange, ...] = ()
    """What became of its user's name since."""
    retry_of: str | None = None
    """The upload of the same file that failed before it."""

    def state_at(self, when: datetime) -> State | None:
        """What the service shows at that moment, what happens just then included; None: nothing."""
        if when < self.created_at:
            return None
        status, received, updated_at, listed = PENDING, None, self.created_at, True
        for move in self.moves:
            if move.at > when:
                break
            if isinstance(move.to, int):
                status, updated_at = move.to, move.at
                received = received if move.received is None else move.received
            else:
                listed = move.to == BACK
        if not listed:
            return None
        return State(status, received, updated_at, self.user_at(when))

    def user_at(self, when: datetime) -> str | None:
        name = self.user_id
        for change in self.names:
            if change.at <= when:
                name = change.becomes
        return name


def with_names(life: Life, changes: tuple[NameChange, ...]) -> Life:
    """The life of a token whose user's name changed; ``user_id`` is the first name ever."""
    ours: list[NameChange] = []
    name = life.user_id
    for change in changes:
        if change.user_id == name:
            ours.append(change)
            name = change.becomes
    before = [change for change in ours if change.at <= life.created_at]
    return replace(
        life,
        user_id=before[-1].becomes if before else life.user_id,
        names=tuple(ours[len(before) :]),
    )


# --- reading the table ---------------------------------------------------------------------------


def _bytes(text: str) -> int | None:
    if text == "-":
        return None
    number, unit = text.split()
    return int(number) * SIZES[unit]


def _when(text: str, created_at: datetime) -> datetime:
    if not text.startswith("+"):
        return moment(text)
    number, unit = int(text[1:-1]), text[-1]
    return created_at + timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[unit]: number})


def _moves(text: str, created_at: datetime, size: int | None) -> Iterator[Move]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"(\w+)(?: (\d+ [KMG]B))? (\+\d+[mhd]|\d\d-\d\d \d\d:\d\d)", part)
        assert found is not None, part
        to, received = WORDS[found[1]], found[2]
        if to in (FULL, CLOSED, UNKNOWN_CODE):
            bytes_received = size
        else:
            bytes_received = _bytes(received) if received else None
        yield Move(_when(found[3], created_at), to, bytes_received)


def _life(line: str) -> Life:
    token_id, user, file_name, size_text, created, moves = (
        part.strip() for part in line.split("|")
    )
    created_at, size = moment(created), _bytes(size_text)
    return Life(
        token_id,
        None if user == "-" else user,
        file_name,
        size,
        created_at,
        tuple(_moves(moves, created_at, size)),
    )


WRITTEN_LIVES: Final = tuple(_life(line) for line in LIVES_TEXT.strip().splitlines())
