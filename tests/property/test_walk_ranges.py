"""Walks over a part of the list: all of its tokens are read, and its place is found cheaply."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter, deque

import pytest

from etl.coverage import EVERYTHING, NEGATIVE_INFINITY, POSITIVE_INFINITY, Coverage, Span
from etl.walk import Lookup, PageRequest, PageRows, Walk, WalkStuck
from tests.support.adversary import Account, hostile_account, walk_account
from tests.support.flight import Line

TOKENS = [20_000, 200_000, pytest.param(2_000_000, marks=pytest.mark.campaign)]


def some_target(account: Account, rng: random.Random) -> Span:
    """A range within, across, before, behind or around what is listed; one end may be open."""
    seconds = [second for second, _ in account.listed] or [1_000]
    ends = sorted(rng.choice(seconds) + rng.choice([-400, -1, 0, 0, 1, 400]) for _ in range(2))
    lower = NEGATIVE_INFINITY if rng.random() < 0.2 else ends[0]
    upper = POSITIVE_INFINITY if rng.random() < 0.3 else ends[1] + 1
    return Span(lower, upper)


def some_positions(account: Account, target: Span, rng: random.Random) -> list[tuple[int, int]]:
    """Hints at where the target lies in the list: none, nearly right, or wrong."""
    kind = rng.choice(["none", "near", "wrong"])
    if kind == "none":
        return []
    positions = []
    for second in (target.lower - 1, target.upper - 1):
        place = bisect_left(account.listed, (second + 1, ""))
        place += rng.randint(-2, 2) if kind == "near" else rng.randint(-300, 300)
        positions.append((second, max(place, 0)))
    return positions


def range_campaign(seeds: range) -> Counter[str]:
    """Walk ranges of hostile accounts; the laws are asserted, how the walks ended is counted."""
    ends: Counter[str] = Counter()
    for seed in seeds:
        account, rng = hostile_account(seed, big_tie=seed % 10 == 0), random.Random(seed)
        target = some_target(account, rng)
        newest_first = target.upper == POSITIVE_INFINITY and rng.random() < 0.7
        walk = Walk(
            target,
            newest_first=newest_first,
            in_flight=rng.choice([1, 4, 8]),
            positions=some_positions(account, target, rng),
        )
        try:
            outcome = walk_account(account, walk, window=rng.choice([1, 2, 4, 8]))
        except WalkStuck as stuck:
            ends[stuck.reason] += 1
            continue
        missed = {token for token in outcome.missed if target.lower <= token[0] < target.upper}
        assert not missed, f"seed {seed}"
        assert not outcome.false_absences, f"seed {seed}"
        settled = walk.coverage.union(hole.span for hole in walk.holes)
        assert not settled.holes(target), f"seed {seed}"
        ends["newest first" if newest_first else "range"] += 1
    return ends


def test_no_token_of_a_range_is_missed_in_hostile_accounts() -> None:
    ends = range_campaign(range(700))
    assert ends["newest first"] > 50
    assert ends["range"] > 400


def requests_to_find(line: Line, walk: Walk, target: Span, *, window: int = 1) -> int:
    """Walk to the end; requests until a page held the beginning of the target."""
    found = None
    queue: deque[PageRequest | Lookup] = deque()
    while True:
        while len(queue) < window and (wanted := walk.next_request()) is not None:
            queue.append(wanted)
        if not queue:
            break
        request = queue.popleft()
        assert isinstance(request, PageRequest)
        walk.receive(request, line.read(request))
        if found is None and walk.coverage.contains(target.lower):
            found = line.requests
    assert walk.finished
    assert found is not None
    return found


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("churn", [0, 2])
def test_the_start_of_a_range_is_found_in_few_requests(tokens: int, churn: int) -> None:
    bound = 2 * math.log2(tokens / 500) + 10
    most = 0
    line = Line(tokens, seed=1, churn=churn)
    for seed in range(12):
        line.requests = 0
        begin = line.seconds[line.random.randrange(len(line.seconds))]
        length = line.random.choice([1, 3_600, 86_400])
        target = Span(begin, begin + length)
        rows = bisect_left(line.seconds, target.upper) - bisect_left(line.seconds, begin)
        found = requests_to_find(line, Walk(target), target)
        assert found <= bound, (seed, found, bound)
        # Then the rows of the range, and little more.
        assert line.requests - found <= 1.2 * rows / 500 + 6
        most = max(most, found)
    assert most > 0


@pytest.mark.parametrize("churn", [0, 2])
def test_ranges_beside_the_list_are_covered_at_once(churn: int) -> None:
    line = Line(200_000, seed=3, churn=churn)
    first, last = line.seconds[0], line.seconds[-1]
    gap = max(range(len(line.seconds) - 1), key=lambda at: line.seconds[at + 1] - line.seconds[at])
    for target in (
        Span(first - 1_000, first - 500),
        Span(last + 100, last + 200),
        Span(NEGATIVE_INFINITY, first - 10),
        Span(last + 10, POSITIVE_INFINITY),
        Span(line.seconds[gap] + 5, line.seconds[gap] + 6),
        Span(line.seconds[777], line.seconds[777] + 1),
    ):
        line.requests = 0
        requests_to_find(line, Walk(target), target)
        assert line.requests <= 2 * math.log2(400) + 10, target


def test_the_newest_are_read_from_the_end() -> None:
    line = Line(200_000, seed=5, churn=1)
    target = Span(line.seconds[-1_000], POSITIVE_INFINITY)
    assert requests_to_find(line, Walk(target, newest_first=True), target) <= 4


def test_a_far_watermark_is_reached() -> None:
    line = Line(200_000, seed=6, churn=0)
    target = Span(line.seconds[50_000], POSITIVE_INFINITY)
    requests_to_find(line, Walk(target, newest_first=True, in_flight=8), target, window=8)
    assert line.requests <= 1.10 * 150_000 / 500 + 25


@pytest.mark.parametrize("listed", [0, 2, 40, 499, 700])
def test_the_newest_of_a_small_account_need_few_requests(listed: int) -> None:
    account = Account([10**9 + 7 * at for at in range(listed)])
    walk = Walk(Span(10**9 - 50, POSITIVE_INFINITY), newest_first=True)
    walk_account(account, walk)
    assert walk.finished
    assert account.requests <= 4


class Ledger:
    """What a killed walk leaves behind: coverage, and where its pages lay."""

    def __init__(self) -> None:
        self.coverage = Coverage()
        self.positions: list[tuple[int, int]] = []
        self.rows = 0

    def note(self, request: PageRequest, rows: PageRows, span: Span | None) -> None:
        if span is not None:
            self.coverage = self.coverage.add(span)
        placed = [int(at) for at in rows.positions if at is not None]
        self.rows += len(placed)
        if not request.descending and len(placed) == request.size:
            self.positions.append((placed[0] - 1, request.start))
            self.positions.append((placed[-1], request.start + len(placed)))


def walk_with_ledger(
    line: Line, walk: Walk, ledger: Ledger, *, requests: int = 10**9, window: int = 8
) -> int:
    """Walk for so many requests; returns how many were made."""
    queue: deque[PageRequest] = deque()
    made = 0
    while made < requests:
        while len(queue) < window and isinstance(wanted := walk.next_request(), PageRequest):
            queue.append(wanted)
        if not queue:
            break
        request = queue.popleft()
        rows = line.read(request)
        ledger.note(request, rows, walk.receive(request, rows))
        made += 1
    return made


@pytest.mark.parametrize(
    ("tokens", "churn"),
    [(200_000, 0), (200_000, 1), pytest.param(1_000_000, 0, marks=pytest.mark.campaign)],
)
def test_a_full_walk_killed_half_way_needs_about_half_the_requests_again(
    tokens: int, churn: int
) -> None:
    line, ledger = Line(tokens, seed=11, churn=churn), Ledger()
    whole = walk_with_ledger(line, Walk(in_flight=8), Ledger())
    walk_with_ledger(line, Walk(in_flight=8), ledger, requests=whole // 2)
    resumed = Walk(in_flight=8, coverage=ledger.coverage, positions=ledger.positions)
    rest = walk_with_ledger(line, resumed, ledger)
    assert resumed.finished
    assert resumed.coverage == Coverage([EVERYTHING])
    assert rest <= 0.55 * whole + 40, (whole, rest)


def test_a_walk_killed_at_any_moment_reads_the_window_twice_at_most() -> None:
    whole_line = Line(40_000, seed=12, churn=0)
    whole = walk_with_ledger(whole_line, Walk(in_flight=8), Ledger())
    rng = random.Random(12)
    for killed_after in rng.sample(range(1, whole), 50):
        ledger = Ledger()
        walk_with_ledger(whole_line, Walk(in_flight=8), ledger, requests=killed_after)
        resumed = Walk(in_flight=8, coverage=ledger.coverage, positions=ledger.positions)
        rest = walk_with_ledger(whole_line, resumed, ledger)
        assert resumed.finished
        # Beyond what the walk would have needed anyway: the window in flight, and two rows to
        # find each of at most 8 places again.
        assert killed_after + rest <= whole + 8 + 2 * 8 + 2, (killed_after, rest, whole)
