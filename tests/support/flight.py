"""A long list in memory, and a walk over it in simulated time: how many requests are in flight."""

from __future__ import annotations

import heapq
import random
from array import array
from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from etl.walk import PageRequest, PageRows, Walk

PAGES_AHEAD = 2
"""Requests that a reader has taken from the walk, for each that may be in flight (run/leg.py)."""


class Line:
    """A long list, with deletions and insertions between two replies; ids do not matter."""

    @classmethod
    def of(cls, seconds: Iterable[int], *, churn: int = 0) -> Line:
        """A list of tokens that were created in these seconds."""
        line = cls(0, seed=1, churn=churn)
        line.seconds = array("q", sorted(seconds))
        return line

    def __init__(self, tokens: int, *, seed: int, churn: int) -> None:
        self.random = random.Random(seed)
        spread = 20 * tokens
        self.seconds = array(
            "q", sorted(10**9 + self.random.randrange(spread) for _ in range(tokens))
        )
        self.churn = churn
        self.requests = 0

    def read(self, request: PageRequest) -> PageRows:
        for _ in range(self.churn):
            self.seconds.pop(self.random.randrange(len(self.seconds)))
        for _ in range(self.churn):
            insort(self.seconds, self.random.choice(self.seconds))
        self.requests += 1
        length = len(self.seconds)
        if request.descending:
            begin, end = max(length - request.end, 0), length - request.start
            rows = list(self.seconds[begin:end])[::-1]
        else:
            rows = list(self.seconds[request.start : request.end])
        return PageRows(rows, [None] * len(rows), length)


@dataclass
class Flight:
    """How a walk went, in units of the time that a request takes."""

    requests: list[tuple[float, PageRequest]] = field(default_factory=list)
    """When each request left, in the order in which they left."""
    ended: float = 0.0

    def in_flight(self, time: float) -> int:
        """Requests under way just after this time."""
        return sum(1 for left, _ in self.requests if left <= time < left + 1)


def fly(line: Line, walk: Walk, concurrency: int) -> Flight:
    """Walk to the end as ``run/leg.py`` does: ``concurrency`` threads that take a unit of time for
    a request, replies received in the order of the requests."""
    flight = Flight()
    free = [0.0] * concurrency
    queue: deque[tuple[PageRequest, PageRows, float]] = deque()
    while True:
        while len(queue) < PAGES_AHEAD * concurrency:
            request = walk.next_request()
            if request is None:
                break
            assert isinstance(request, PageRequest)
            left = max(flight.ended, heapq.heappop(free))
            heapq.heappush(free, left + 1)
            flight.requests.append((left, request))
            queue.append((request, line.read(request), left + 1))
        if not queue:
            return flight
        request, rows, arrived = queue.popleft()
        flight.ended = max(flight.ended, arrived)
        walk.receive(request, rows)
