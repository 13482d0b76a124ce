"""How an expected answer is written down: by the file of its question."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from tests.questions.lives import moment
from tests.questions.truth import BUCKETS

Rows = list[dict[str, Any]]
OUTCOMES = ("succeeded", "failed", "abandoned", "deleted", "still_open")
SINCE = moment("03-20 00:00")
BUCKET_NAMES = [*(name for name, _ in BUCKETS), "unknown"]


def rounded(value: float | Decimal, places: int) -> Decimal:
    """As Postgres rounds: halves away from zero."""
    return Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def giga(size: int) -> Decimal:
    return rounded(Decimal(size) / 10**9, 2)


class Answers(dict[str, Callable[[], Rows]]):
    """Functions that give the expected rows, by the question's file."""

    def to(self, file: str) -> Callable[[Callable[[], Rows]], Callable[[], Rows]]:
        """Decorate a function: it gives the answer to this question."""

        def keep(function: Callable[[], Rows]) -> Callable[[], Rows]:
            self[file] = function
            return function

        return keep
