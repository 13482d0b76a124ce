"""A list that works against the walk, in memory: it adds, deletes, shuffles ties, clamps pages."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections import deque
from operator import itemgetter
from typing import NamedTuple

from etl.coverage import EVERYTHING, Coverage, Span, page_span
from etl.walk import Lookup, PageRequest, PageRows, Walk

Token = tuple[int, str]  # createdAt in seconds, id


class Account:
    """Tokens in createdAt order.  Before each reply, ``deletes`` and ``inserts`` of them are
    expected to go and come, anywhere in the list.  With ``ties_ascend`` the tokens of one second
    have the same order in descending lists, as the service was seen to give them."""

    def __init__(
        self,
        seconds: list[int],
        *,
        seed: int = 0,
        cap: int = 500,
        changing_cap: bool = False,
        deletes: float = 0,
        inserts: float = 0,
        shuffled: bool = False,
        ties_ascend: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.cap, self.changing_cap = cap, changing_cap
        self.deletes, self.inserts, self.shuffled = deletes, inserts, shuffled
        self.ties_ascend = ties_ascend
        self._made = 0
        self.listed: list[Token] = [(second, self._new_id()) for second in sorted(seconds)]
        self.alive_throughout = set(self.listed)
        self.poison: set[str] = set()
        self.requests = 0

    def _new_id(self) -> str:
        self._made += 1
        return f"id{self._made}"

    def _count(self, expected: float) -> int:
        return int(expected) + (self.random.random() < expected % 1)

    def live(self) -> None:
        """Let the events between two requests happen."""
        for _ in range(self._count(self.deletes)):
            if self.listed:
                gone = self.listed.pop(self.random.randrange(len(self.listed)))
                self.alive_throughout.discard(gone)
        for _ in range(self._count(self.inserts)):
            near = self.random.choice(self.listed)[0] if self.listed else 1000
            insort(self.listed, (near + self.random.randint(-2, 2), self._new_id()))
        if self.changing_cap and self.random.random() < 0.1:
            self.cap = self.random.randint(7, 50)

    def within(self, span: Span | None) -> set[Token]:
        """What is listed there; nothing in None."""
        if span is None:
            return set()
        begin, end = (bisect_left(self.listed, end, key=itemgetter(0)) for end in span)
        return set(self.listed[begin:end])

    def read(self, request: PageRequest) -> list[Token] | None:
        """One page at one instant; None where an unreadable row lies on it."""
        self.live()
        self.requests += 1
        tokens = self.listed
        if self.shuffled:
            tokens = sorted(self.random.sample(tokens, len(tokens)), key=lambda token: token[0])
        if request.descending and self.ties_ascend:
            tokens = sorted(tokens, key=lambda token: -token[0])
        elif request.descending:
            tokens = tokens[::-1]
        size = min(request.size, self.cap)
        page = tokens[(request.index - 1) * size : request.index * size]
        return None if any(token[1] in self.poison for token in page) else page

    def lookup(self, request: Lookup) -> set[str]:
        self.live()
        self.requests += 1
        return {token_id for _, token_id in self.listed} & set(request.token_ids)


def hostile_account(seed: int, *, big_tie: bool = False, poison: int = 0) -> Account:
    """Sizes, ties, page caps and churn of all kinds, small enough for thousands of walks."""
    choose = random.Random(seed)
    density = choose.choice([1, 2, 5, 20])
    step = 1 / choose.choice([1, 1, 2, 3])
    second, seconds = 1000, []
    for _ in range(choose.choice([0, 1, 3, 20, 60, 200, 200])):
        second += choose.randint(1, density) if choose.random() < step else 0
        seconds.append(second)
    cap = choose.choice([10, 23, 50, 50])
    if big_tie and seconds:
        seconds += [choose.choice(seconds)] * choose.randint(cap // 2, 3 * cap)
    account = Account(
        seconds,
        seed=seed,
        cap=cap,
        changing_cap=choose.random() < 0.1,
        deletes=choose.choice([0, 0.1, 0.5, 2.5]),
        inserts=choose.choice([0, 0.1, 0.5, 1.5]),
        shuffled=choose.random() < 0.3,
    )
    unreadable = choose.sample(account.listed, min(poison, len(account.listed)))
    account.poison = {token_id for _, token_id in unreadable}
    return account


class Outcome(NamedTuple):
    walk: Walk
    read: set[Token]
    missed: set[Token]
    """Listed from the first request to the last, not read, and in no recorded hole."""
    false_absences: set[Token]
    """Listed when a page came whose span holds them, but on no page so far."""


def walk_account(
    account: Account, walk: Walk, *, window: int = 1, total: str = "true", requests: int = 10**6
) -> Outcome:
    """Walk to the end, or for so many ``requests``.  Raises WalkStuck as the walk does."""
    queue: deque[PageRequest | Lookup] = deque()
    before = walk.coverage
    spans: list[Span] = []
    read: set[Token] = set()
    false_absences: set[Token] = set()
    while requests:
        while len(queue) < window and (wanted := walk.next_request()) is not None:
            queue.append(wanted)
        if not queue:
            break
        requests -= 1
        request = queue.popleft()
        if isinstance(request, Lookup):
            walk.receive_lookup(request, account.lookup(request))
            continue
        page = account.read(request)
        if page is None:
            walk.fail(request)
            continue
        read.update(page)
        count = {
            "true": len(account.listed),
            "zero": 0,
            "tenfold": 10 * len(account.listed),
            "none": None,
            "negative": -5,
        }[total]
        rows = PageRows([second for second, _ in page], [key for _, key in page], count)
        span = walk.receive(request, rows)
        if span is not None:
            spans.append(span)
            absent = account.within(own := _own_span(request, page)).difference(page)
            # Of a tie group, certified for the instant between two readings.
            others = account.within(span) - account.within(own) - read
            absent |= others & account.alive_throughout
            # Zero dates have no place in the warehouse, so they cannot go missing there.
            false_absences |= {
                token for token in absent if token[1] not in account.poison and token[0] >= 0
            }
    assert walk.coverage == before.union(spans)
    holes = Coverage(hole.span for hole in walk.holes)
    missed = {
        token
        for token in account.alive_throughout - read
        if token[1] not in account.poison and not holes.contains(token[0])
    }
    return Outcome(walk, read, missed, false_absences)


def _own_span(request: PageRequest, page: list[Token]) -> Span | None:
    seconds = sorted(second for second, _ in page)
    if not seconds:
        return EVERYTHING if request.index == 1 else None
    return page_span(
        seconds,
        from_start=request.index == 1 and not request.descending,
        to_end=request.index == 1 and request.descending,
    )
