"""Rows that an earlier run could not read: about where they are now.

What is remembered of them is the hole that they left: it begins with the second of the row before
them, and ends with that of the row after them.  Where in the list that is by now follows from what
the walk has read just before and from the tokens that are known to follow, so it does not matter
what was deleted further up.

All of it is a hint: it makes a page end sooner, before the row, or asks for that row alone, which
could have been asked for without it.  What is concluded follows from the replies.  A row may have
become readable, others may have gone, so hints cost at most ``CREDIT`` pages in vain.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from etl.coverage import Span

CREDIT: Final = 10
"""Pages that may be cut short by hints one after the other until a remembered row is met; then no
hint is taken any more."""

NEARER: Final = 32
"""A page that fails although it ends before the row: the next one ends nearer by this part of the
distance, ..."""

NEARER_EACH_TIME: Final = 4
"""... and each time by so many times as much."""


class Remembered(NamedTuple):
    """``rows`` rows that could not be read, side by side in this hole.

    ``after`` is how many rows of the first second of the hole come before them; None: all.
    ``before`` are the seconds of the last known tokens up to that second, and of it, in ascending
    order; ``from_start`` if no older ones are known.
    """

    hole: Span
    rows: int = 1
    after: int | None = None
    before: Sequence[int] = ()
    from_start: bool = False

    def position(self, second: int, at: int) -> int | None:
        """Where the first of them presumably is, if the rows older than ``second`` end before the
        position ``at``; None if that does not tell."""
        lower = self.hole.lower
        known = self.from_start or (self.before and self.before[0] < second)
        if second > lower or not known:
            return None
        older = bisect_left(self.before, second)
        if self.after is None:
            return at + bisect_right(self.before, lower) - older
        return at + bisect_left(self.before, lower) - older + self.after


class Suspects:
    """The rows that are remembered, as a walk passes them."""

    def __init__(self, remembered: Collection[Remembered] = ()) -> None:
        self._remembered = frozenset(remembered)
        self._credit = CREDIT
        self._missed = 0
        """Pages that failed one after the other although they ended before the presumed row."""
        self._guess: int | None = None

    def next_from(
        self, at: int, before: float, tie_before: Callable[[int], tuple[int, int]]
    ) -> int | None:
        """The position, from ``at`` on, of the next row that is presumably unreadable; None if that
        is not ``before`` a position.

        ``tie_before`` gives what ``Remembered.position`` wants, for the first second of its hole.
        """
        self._guess = None
        if self._credit > 0:
            guesses = []
            for each in self._remembered:
                place = each.position(*tie_before(each.hole.lower))
                if place is not None and at < place + each.rows:
                    guesses.append(max(place - self._nearer(place - at), at))
            guess = min(guesses, default=before)
            self._guess = int(guess) if guess < before else None
        return self._guess

    def _nearer(self, distance: int) -> int:
        """Of the tokens that should follow, some may have gone."""
        if not self._missed:
            return 0
        return max(distance // NEARER, 1) * int(NEARER_EACH_TIME ** (self._missed - 1))

    def note(self, start: int, end: int, *, failed: bool) -> None:
        """Learn from a page of these positions whether the last guess was right."""
        guess, self._guess = self._guess, None
        if guess is not None and failed and (start, end) == (guess, guess + 1):
            self._credit = CREDIT
        elif guess is not None:
            self._credit -= 1
        if not failed:
            self._missed = 0
        elif guess is not None and end <= guess:
            self._missed += 1
