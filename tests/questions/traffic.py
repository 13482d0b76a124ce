"""The everyday uploads of an account, made from a seed: what happens to most, and what goes wrong.

Only ``Random.random()`` is used, which gives the same numbers in every version of Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tests.questions.lives import (
    BACK,
    CLOSED,
    ERROR,
    FULL,
    GONE,
    PARTIAL,
    TIMED_OUT,
    Life,
    Move,
)

MB: Final = 10**6
SIZES: Final = (400_000, 4 * MB, 30 * MB, 60 * MB, 150 * MB, 400 * MB, 3_000 * MB, 12_000 * MB)
DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
KINDS: Final = (
    (0.55, "quick"),
    (0.66, "slow"),
    (0.77, "resumed"),
    (0.85, "error"),
    (0.89, "timed_out"),
    (0.92, "never_begun"),
    (0.95, "left_half"),
    (0.97, "left_full"),
    (1.00, "deleted"),
)
"""Of a hundred uploads: up to this share, this kind."""
RETRIED: Final = 0.8
"""Of the failed uploads, those that their user tries again."""


@dataclass
class Traffic:
    """Makes lives.  ``ids`` are taken first, then made up: the same for every account."""

    seed: int
    users: Sequence[str]
    zone: ZoneInfo
    per_day: float
    ids: Iterator[str]
    taken: set[datetime] = field(default_factory=set)
    """Seconds in which a token was created; no two are created in the same."""
    hides_open_ones: bool = False
    """Whether some uploads go on while they are not listed."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed).random
        self.number = 0

    def days(self, first: datetime, days: int) -> Iterator[Life]:
        """The uploads of some days: most in office hours, a third as many at weekends."""
        for number in range(days):
            day = first + timedelta(days=number)
            per_day = self.per_day * (0.33 if day.weekday() >= 5 else 1)
            for _ in range(int(per_day + self.random())):
                hour = 24 * self.random() if self.random() < 0.2 else 8 + 10 * self.random()
                local = day.replace(tzinfo=self.zone) + timedelta(seconds=int(hour * 3600))
                yield from self._upload(local.astimezone(first.tzinfo))

    def _upload(self, at: datetime, again: Life | None = None, attempts: int = 1) -> Iterator[Life]:
        while at in self.taken:
            at += timedelta(seconds=1)
        self.taken.add(at)
        if again is None:
            self.number += 1
            user: str | None = self.users[int(self.random() ** 2 * len(self.users))]
            size, name = SIZES[int(self.random() * len(SIZES))], f"recording {self.number}.mp4"
        else:
            assert again.size is not None
            user, size, name = again.user_id, again.size, again.file_name
        drawn = self.random()
        kind = next(kind for share, kind in KINDS if drawn < share)
        moves = list(getattr(self, f"_{kind}")(at, size))
        if self.hides_open_ones:
            moves = self._hidden(at, moves)
        if moves and moves[-1].to == CLOSED:
            moves += self._afterwards(moves[-1].at)
        life = Life(
            next(self.ids),
            user,
            name,
            size,
            at,
            tuple(moves),
            retry_of=again.token_id if again else None,
        )
        yield life
        if kind in ("error", "timed_out") and attempts < 3 and self.random() < RETRIED:
            later = self._between(5 * 60, 4 * 3600)
            yield from self._upload(moves[-1].at + later, life, attempts + 1)

    def _between(self, least: float, most: float) -> timedelta:
        """Seconds, whole ones."""
        return timedelta(seconds=int(least + (most - least) * self.random()))

    def _seconds_for(self, size: int) -> float:
        """How long it takes to send so many bytes: 0.5 to 8 MB a second."""
        return size / MB / (0.5 + 7.5 * self.random()) + 5

    def _sent(self, at: datetime, size: int, shares: Sequence[float], gap: timedelta) -> list[Move]:
        """So much of the file has arrived by then: one move for each share, ``gap`` apart."""
        return [
            Move(at + gap * number, PARTIAL, int(size * share))
            for number, share in enumerate(shares)
        ]

    def _finished(self, at: datetime, size: int) -> list[Move]:
        """All has arrived, and after a moment the upload is made an entry."""
        return [Move(at, FULL, size), Move(at + self._between(2, 300), CLOSED, size)]

    # --- the kinds of lives ----------------------------------------------------------------------

    def _quick(self, at: datetime, size: int) -> list[Move]:
        begun = at + self._between(2, 90)
        seconds = self._seconds_for(size)
        sent = self._sent(begun, size, (0.1, 0.6), timedelta(seconds=int(seconds / 3) + 1))
        return [*sent, *self._finished(begun + timedelta(seconds=int(seconds) + 3), size)]

    def _slow(self, at: datetime, size: int) -> list[Move]:
        begun, gap = at + self._between(5, 600), self._between(3600, 9 * 3600)
        sent = self._sent(begun, size, (0.1, 0.3, 0.5, 0.8), gap)
        return [*sent, *self._finished(sent[-1].at + gap, size)]

    def _resumed(self, at: datetime, size: int) -> list[Move]:
        begun, gap = at + self._between(5, 300), self._between(60, 1200)
        sent = self._sent(begun, size, (0.05, 0.2, 0.3), gap)
        shares: Sequence[float] = (0.4, 0.5, 0.6)
        for _ in range(1 if self.random() < 0.6 else 2):
            pause = self._between(12 * 3600, 80 * 3600)
            sent += self._sent(sent[-1].at + pause, size, shares, gap)
            shares = (0.7, 0.9)
        return [*sent, *self._finished(sent[-1].at + gap, size)]

    def _error(self, at: datetime, size: int) -> list[Move]:
        begun, gap = at + self._between(2, 60), self._between(10, 900)
        sent = self._sent(begun, size, (0.1, 0.3), gap)
        return [*sent, Move(sent[-1].at + gap, ERROR, None)]

    def _timed_out(self, at: datetime, size: int) -> list[Move]:
        sent = self._sent(at + self._between(2, 600), size, (0.2,), timedelta())
        return [*sent, Move(sent[-1].at + self._between(40 * 3600, 70 * 3600), TIMED_OUT, None)]

    def _never_begun(self, at: datetime, _: int) -> list[Move]:
        if self.random() < 0.5:
            return []
        return [Move(at + self._between(9 * 86_400, 20 * 86_400), GONE, None)]

    def _left_half(self, at: datetime, size: int) -> list[Move]:
        return self._sent(at + self._between(2, 600), size, (0.2, 0.5), self._between(60, 3600))

    def _left_full(self, at: datetime, size: int) -> list[Move]:
        return [Move(at + self._between(60, 3600), FULL, size)]

    def _deleted(self, at: datetime, size: int) -> list[Move]:
        sent = self._left_half(at, size)
        return [*sent, Move(sent[-1].at + self._between(2 * 3600, 80 * 3600), GONE, None)]

    def _hidden(self, at: datetime, moves: list[Move]) -> list[Move]:
        """One in twenty is not listed for some days, and whatever happens to it meanwhile does."""
        if self.random() >= 0.05 or any(move.to == GONE for move in moves):
            return moves
        gone = at + self._between(10, 86_400)
        back = gone + self._between(20 * 3600, 5 * 86_400)
        taken = {move.at for move in moves}
        if gone in taken or back in taken:
            return moves
        return sorted([*moves, Move(gone, GONE, None), Move(back, BACK, None)], key=_when)

    def _afterwards(self, at: datetime) -> list[Move]:
        drawn = self.random()
        if drawn < 0.12:
            return [Move(at + self._between(3 * 86_400, 25 * 86_400), GONE, None)]
        if drawn < 0.2:
            gone = at + self._between(86_400, 15 * 86_400)
            return [
                Move(gone, GONE, None),
                Move(gone + self._between(20 * 3600, 6 * 86_400), BACK, None),
            ]
        return []


def _when(move: Move) -> datetime:
    return move.at


def token_ids(seed: int) -> Iterator[str]:
    """As Kaltura makes them; endless, and without duplicates."""
    draw, seen = random.Random(seed).random, set[str]()
    while True:
        token_id = "0_" + "".join(DIGITS[int(draw() * len(DIGITS))] for _ in range(8))
        if token_id not in seen:
            seen.add(token_id)
            yield token_id
