"""Whether the service gives the page that was asked for.

A service, or a proxy before it, that ignores ``pageIndex`` gives the first page again and again.
Its rows are in order and its reply is well-formed, so only the repetition shows it, and without
an end the walk would look for one further and further away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etl.walk.knowledge import WalkStuck
from etl.walk.planner import PageRequest

NO_PROGRESS: Final = "no_progress"
"""Reason of a walk that is given the same rows whatever it asks for."""

POSITIONS_AT_MOST: Final = 2**31 - 1
"""No list is longer, and page numbers are stored as 32-bit integers."""

REPETITIONS: Final = 4
"""Pages in a row that begin with the first row of the list although others should come before.  A
list that moves shows that once, if as many tokens are added before it as the page has before it."""


class Progress:
    """Compares the first row of each page with that of the list."""

    def __init__(self) -> None:
        self._first: dict[bool, str] = {}
        """The first token of the list, by order."""
        self._repetitions = 0

    def note(self, request: PageRequest, token_ids: Sequence[str | None]) -> None:
        """Note the ids of a page, in the order of the request.

        Raises:
            WalkStuck: the service gives the first page whatever is asked for.
        """
        first = token_ids[0] if token_ids else None
        if first is None:
            return
        if request.index == 1:
            self._first[request.descending] = first
        elif first == self._first.setdefault(request.descending, first):
            self._repetitions += 1
            if self._repetitions >= REPETITIONS:
                raise WalkStuck(
                    NO_PROGRESS,
                    f"the service gives its first page whatever pageIndex is asked for "
                    f"(last: {request.index}, size {request.size})",
                )
        else:
            self._repetitions = 0
