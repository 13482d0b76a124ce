"""Coverage: which seconds of the createdAt line a run has read completely.

The line is divided into whole Unix seconds.  A *span* is what one page proves: a half-open range
``[lower, upper)`` of seconds in which every listed token is on the page.  A *coverage* is a union
of spans.  Both are pure values and map one to one to Postgres' ``int8range`` and
``int8multirange``, so that the stored certificate can be checked with SQL.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

NEGATIVE_INFINITY: Final = -(2**62)
POSITIVE_INFINITY: Final = 2**62
"""Sentinels for an unbounded end; far outside any time that the program accepts."""

UNREADABLE: Final = "unreadable"
"""Reason of a hole around rows that the service cannot return."""
TIE_GROUP: Final = "tie_group"
"""Reason of a hole of one second that changes faster than it can be certified."""
TOLERATED: Final = frozenset({UNREADABLE, TIE_GROUP})
"""Reasons of holes with which a run may publish, as many as ``max_unreadable`` allows."""


class Span(NamedTuple):
    """Seconds ``lower <= s < upper``; the infinities denote an unbounded end."""

    lower: int
    upper: int

    def to_sql(self) -> str:
        """The ``int8range`` literal, in Postgres' canonical form."""
        low = "(" if self.lower == NEGATIVE_INFINITY else f"[{self.lower}"
        high = ")" if self.upper == POSITIVE_INFINITY else f"{self.upper})"
        return f"{low},{high}"

    def clipped(self, target: Span) -> Span:
        """The intersection with ``target``; it is empty where ``lower >= upper``."""
        return Span(max(self.lower, target.lower), min(self.upper, target.upper))


EVERYTHING: Final = Span(NEGATIVE_INFINITY, POSITIVE_INFINITY)


def page_span(
    positions: Iterable[float | None], *, from_start: bool = False, to_end: bool = False
) -> Span | None:
    """What a page in ascending createdAt order proves, or None if it proves nothing.

    ``positions`` are the createdAt of its rows in Unix seconds; None for a row that has no place on
    the line.  ``from_start`` says that no row of the list comes before the page, ``to_end`` that
    none comes after it.  Strictly between its first and its last row the page is complete; at the
    two ends a tie may continue on the adjacent page, so their seconds are excluded.

    Zero dates sort before every real time, so a page that begins with one reaches down to the start
    of the line for all tokens that can be placed on it.

    Raises:
        ValueError: the page is not in ascending order, so it is not a slice of an ordered list.
    """
    placed = [position for position in positions if position is not None]
    if any(later < earlier for earlier, later in pairwise(placed)):
        raise ValueError("the page is not in ascending createdAt order")
    if not placed:
        return EVERYTHING if from_start and to_end else None
    first, last = math.floor(placed[0]), math.floor(placed[-1])
    lower = NEGATIVE_INFINITY if from_start or first < 0 else first + 1
    upper = POSITIVE_INFINITY if to_end else last
    return Span(lower, upper) if lower < upper else None


class Coverage:
    """An immutable union of spans, kept as sorted, disjoint, non-touching spans."""

    __slots__ = ("_lowers", "_spans")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        merged: list[Span] = []
        for span in sorted(span for span in spans if span.lower < span.upper):
            if merged and span.lower <= merged[-1].upper:
                merged[-1] = Span(merged[-1].lower, max(merged[-1].upper, span.upper))
            else:
                merged.append(span)
        self._spans: tuple[Span, ...] = tuple(merged)
        self._lowers = [span.lower for span in merged]

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coverage) and self._spans == other._spans

    def __hash__(self) -> int:
        return hash(self._spans)

    def __repr__(self) -> str:
        return f"Coverage({self.to_sql()})"

    def add(self, span: Span) -> Coverage:
        """The union with one span.  O(number of spans), which stays small in a walk."""
        if span.lower >= span.upper or self.contains_span(span):
            return self
        # Only the spans that touch the new one are merged; the others are kept.
        begin = bisect_left(self._spans, span.lower, key=lambda known: known.upper)
        end = bisect_right(self._lowers, span.upper)
        lower, upper = span
        if begin < end:
            lower = min(lower, self._spans[begin].lower)
            upper = max(upper, self._spans[end - 1].upper)
        union = Coverage()
        union._spans = (*self._spans[:begin], Span(lower, upper), *self._spans[end:])
        union._lowers = [known.lower for known in union._spans]
        return union

    def union(self, other: Iterable[Span]) -> Coverage:
        """The union with any number of spans."""
        return Coverage((*self._spans, *other))

    def contains(self, second: int) -> bool:
        """Whether this second has been read completely."""
        return self.contains_span(Span(second, second + 1))

    def contains_span(self, span: Span) -> bool:
        """Whether every second of ``span`` has been read completely."""
        index = bisect_right(self._lowers, span.lower) - 1
        return index >= 0 and self._spans[index].upper >= span.upper

    def holes(self, target: Span = EVERYTHING) -> list[Span]:
        """The parts of ``target`` that are not covered, in ascending order."""
        holes = []
        cursor = target.lower
        for span in self._spans:
            if span.upper <= cursor:
                continue
            if span.lower >= target.upper:
                break
            if span.lower > cursor:
                holes.append(Span(cursor, span.lower))
            cursor = max(cursor, span.upper)
        if cursor < target.upper:
            holes.append(Span(cursor, target.upper))
        return holes

    def within(self, target: Span) -> Coverage:
        """The intersection with ``target``."""
        return Coverage(span.clipped(target) for span in self._spans)

    def first_hole(self, target: Span = EVERYTHING) -> Span | None:
        """The first part of ``target`` that is not covered, or None if all of it is."""
        holes = self.holes(target)
        return holes[0] if holes else None

    def to_sql(self) -> str:
        """The ``int8multirange`` literal, in Postgres' canonical form."""
        return "{" + ",".join(span.to_sql() for span in self._spans) + "}"

    @classmethod
    def from_sql(cls, text: str) -> Coverage:
        """Read an ``int8multirange`` (or ``int8range``) literal as Postgres prints it.

        Raises:
            ValueError: the text is not such a literal.
        """
        body = text.strip().removeprefix("{").removesuffix("}")
        if not re.fullmatch(rf"({_RANGE}(,{_RANGE})*)?", body):
            raise ValueError(f"not an int8multirange: {text!r}")
        return cls(
            Span(
                NEGATIVE_INFINITY if low == "" else int(low) + (opening == "("),
                POSITIVE_INFINITY if high == "" else int(high) + (closing == "]"),
            )
            for opening, low, high, closing in re.findall(r"([\[(])(-?\d*),(-?\d*)([\])])", body)
        )


_RANGE = r"[\[(](?:-?\d+)?,(?:-?\d+)?[\])]"
