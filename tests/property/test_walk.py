"""The theorem: a token that is listed throughout a walk is read, or lies in a recorded hole."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from etl.coverage import EVERYTHING, Coverage, Span
from etl.walk import Hole, Lookup, PageRequest, PageRows, Walk, WalkStuck
from tests.support.adversary import Account, hostile_account, walk_account

WINDOWS = (1, 2, 3, 4, 5, 6, 7, 8)


def campaign(seeds: range, *, big_tie: bool = False, poison: bool = False) -> Counter[str]:
    """Walk hostile accounts; the laws are asserted, how the walks ended is counted."""
    ends: Counter[str] = Counter()
    for seed in seeds:
        account = hostile_account(seed, big_tie=big_tie, poison=seed % 3 if poison else 0)
        hints = random.Random(seed)
        walk = Walk(
            in_flight=hints.choice(WINDOWS),
            total_count=hints.choice([None, None, len(account.listed), hints.randrange(1_000)]),
        )
        try:
            outcome = walk_account(account, walk, window=WINDOWS[seed % len(WINDOWS)])
        except WalkStuck as stuck:
            ends[stuck.reason] += 1
            continue
        assert walk.finished
        assert not outcome.missed, f"seed {seed}"
        assert not outcome.false_absences, f"seed {seed}"
        settled = walk.coverage.union(hole.span for hole in walk.holes)
        assert not settled.holes(), f"seed {seed}"
        ends["complete" if not walk.coverage.holes() else "with holes"] += 1
    return ends


def plain_walk(account: Account) -> int:
    """Page by page, as everyone does it; returns how many live tokens it did not read."""
    read = set()
    index = 1
    while page := account.read(PageRequest(index, account.cap)):
        read.update(page)
        index += 1
    return len(account.alive_throughout - read)


def test_no_token_is_missed_in_hostile_accounts(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = range(1_000)
    ends = campaign(seeds)
    lost = sum(plain_walk(hostile_account(seed)) for seed in seeds)
    with capsys.disabled():
        print(f"\n{len(seeds)} walks: {dict(ends)}, missed 0; page by page: {lost} lost")  # noqa: T201
    assert lost > 0
    assert ends["complete"] >= 0.95 * len(seeds)


def test_no_token_is_missed_around_large_ties() -> None:
    ends = campaign(range(150), big_tie=True)
    assert ends["complete"] > 0.6 * ends.total()


def test_no_readable_token_outside_the_holes_is_missed_around_unreadable_rows() -> None:
    ends = campaign(range(75), poison=True)
    assert ends["complete"] + ends["with holes"] > 0.95 * ends.total()


# --- quiet accounts ------------------------------------------------------------------------------


def quiet_seconds(tokens: int, *, step: int = 1) -> list[int]:
    return [10**9 + position // step * 7 for position in range(tokens)]


def complete(account: Account, walk: Walk | None = None, *, window: int = 4) -> Walk:
    walk = walk or Walk()
    outcome = walk_account(account, walk, window=window)
    assert not outcome.missed
    assert not outcome.false_absences
    assert walk.finished
    assert walk.coverage == Coverage([EVERYTHING])
    assert set(account.listed) == outcome.read
    return walk


class Quiet(Account):
    """A list too long to copy for every page."""

    def read(self, request: PageRequest) -> list[tuple[int, str]]:
        self.requests += 1
        length = len(self.listed)
        start, end = request.start, request.end
        if request.descending:
            return self.listed[max(length - end, 0) : length - start][::-1]
        return self.listed[start:end]


@pytest.mark.parametrize(
    "tokens", [20_000, 200_000, pytest.param(1_000_000, marks=pytest.mark.campaign)]
)
def test_a_quiet_walk_costs_at_most_a_tenth_more_than_reading_page_by_page(tokens: int) -> None:
    random_source = random.Random(1)
    account = Quiet([10**9 + random_source.randrange(20 * tokens) for _ in range(tokens)])
    walk = Walk()
    queue: list[PageRequest] = []
    read = 0
    while True:
        while len(queue) < 4 and isinstance(request := walk.next_request(), PageRequest):
            queue.append(request)
        if not queue:
            break
        request = queue.pop(0)
        page = account.read(request)
        read += len(page)
        walk.receive(request, PageRows([s for s, _ in page], [key for _, key in page], tokens))
    assert walk.finished
    assert walk.coverage == Coverage([EVERYTHING])
    assert account.requests <= 1.10 * tokens / 500
    assert read >= tokens


@pytest.mark.parametrize("tokens", [0, 1, 2, 3, 499, 500, 501, 1751])
def test_accounts_of_all_sizes_are_read(tokens: int) -> None:
    complete(Account(quiet_seconds(tokens)))


@pytest.mark.parametrize("tokens", [3, 499, 500, 501, 1751])
@pytest.mark.parametrize("shuffled", [False, True])
def test_tokens_of_one_single_second_are_read(tokens: int, shuffled: bool) -> None:
    complete(Account([10**9] * tokens, shuffled=shuffled))


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("place", [0, 700, 1999])
def test_a_tie_larger_than_a_page_is_read(place: int, shuffled: bool) -> None:
    seconds = quiet_seconds(2_000)
    complete(Account([*seconds, *[seconds[place]] * 1_300], shuffled=shuffled))


@pytest.mark.parametrize("zero_dates", [1, 3, 500, 1200])
def test_zero_dates_before_the_first_token_are_passed(zero_dates: int) -> None:
    complete(Account([*[-62_169_966_238] * zero_dates, *quiet_seconds(900)]))


def test_nothing_but_zero_dates_is_complete() -> None:
    complete(Account([-62_169_966_238] * 700))


@pytest.mark.parametrize("cap", [50, 100, 250, 499])
def test_a_service_with_a_smaller_page_is_read(cap: int) -> None:
    walk = complete(Account(quiet_seconds(1_200, step=2), cap=cap))
    assert walk.page_size == cap


@pytest.mark.parametrize("total", ["zero", "tenfold", "none", "negative"])
@pytest.mark.parametrize("tokens", [0, 1, 3_000])
def test_a_wrong_total_count_costs_requests_and_no_token(tokens: int, total: str) -> None:
    account, walk = Account(quiet_seconds(tokens)), Walk()
    outcome = walk_account(account, walk, window=4, total=total)
    assert walk.finished
    assert len(outcome.read) == tokens
    assert walk.coverage == Coverage([EVERYTHING])
    assert account.requests < 60


def test_a_page_that_is_short_by_accident_once_is_made_up_for() -> None:
    for short in range(1, 10):
        account = Account(quiet_seconds(3_000))
        original = account.read

        def read(request: PageRequest, original=original, short=short, account=account):  # type: ignore[no-untyped-def]
            page = original(request)
            return page[:3] if account.requests == short else page

        account.read = read  # type: ignore[method-assign]
        walk = complete(account)
        assert walk.page_size == 500
        assert account.requests < 20


# --- going on from a checkpoint ------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 4, 8])
@pytest.mark.parametrize("killed_after", [1, 10, 30, 42])
def test_a_resumed_walk_reads_only_the_rest(window: int, killed_after: int) -> None:
    account = Quiet(quiet_seconds(20_000))
    first = Walk()
    walk_account(account, first, window=window, requests=killed_after)
    second = Walk(coverage=first.coverage, holes=first.holes)
    complete_from = walk_account(account, second, window=window)
    assert second.finished
    assert not second.coverage.holes()
    assert account.requests - killed_after <= 43 - killed_after + window + math.log2(20_000)
    assert complete_from.read


def test_a_covered_stretch_in_the_middle_is_not_read_again() -> None:
    seconds = quiet_seconds(20_000)
    account = Quiet(seconds)
    walk = Walk(coverage=Coverage([Span(seconds[2_000], seconds[18_000])]))
    walk_account(account, walk, window=1)
    assert walk.finished
    assert account.requests <= 30


def test_a_range_is_found_by_halving() -> None:
    seconds = quiet_seconds(50_000)
    account = Quiet(seconds)
    target = Span(seconds[23_456], seconds[24_456])
    walk = Walk(target)
    outcome = walk_account(account, walk, window=1)
    assert walk.coverage.contains_span(target)
    assert {second for second, _ in outcome.read} >= set(seconds[23_456:24_456])
    assert account.requests <= 2 * math.log2(50_000 / 500) + 10


# --- rows that cannot be read --------------------------------------------------------------------


@pytest.mark.parametrize(
    "places",
    [[0], [1], [2_999], [2_998], [1_234], [1_234, 1_235], [7, 499, 500], [0, 1, 2_998, 2_999]],
)
@pytest.mark.parametrize("window", [1, 4])
def test_unreadable_rows_are_stepped_around(places: list[int], window: int) -> None:
    account, walk = Account(quiet_seconds(3_000)), Walk()
    unreadable = {account.listed[place] for place in places}
    account.poison = {token_id for _, token_id in unreadable}
    outcome = walk_account(account, walk, window=window)
    assert walk.finished
    assert not outcome.missed
    assert outcome.read == set(account.listed) - unreadable
    assert Coverage(h.span for h in walk.holes).union(walk.coverage) == Coverage([EVERYTHING])
    assert {hole.reason for hole in walk.holes} == {"unreadable"}
    assert walk.unreadable == len(places)


@pytest.mark.parametrize("size", [12, 100, 500])
@pytest.mark.parametrize("apart", [2, 3, 5, 9])
@pytest.mark.parametrize("descending", [False, True])
def test_readable_rows_between_unreadable_ones_do_not_stop_the_walk(
    size: int, apart: int, descending: bool
) -> None:
    """A row between two that cannot be read is read, and the seconds around are given up."""
    account = Account(quiet_seconds(3 * size))
    middle = account.listed[len(account.listed) // 2 :][: 2 * apart + 1 : apart]
    account.poison = {token_id for _, token_id in middle}
    walk = Walk(page_size=size, newest_first=descending)

    outcome = walk_account(account, walk)

    assert outcome.read == set(account.listed) - set(middle)
    assert walk.finished
    assert {hole.reason for hole in walk.holes} == {"unreadable"}


def test_more_unreadable_rows_than_allowed_end_the_walk() -> None:
    account = Account(quiet_seconds(3_000))
    account.poison = {token_id for _, token_id in account.listed[100::400]}
    with pytest.raises(WalkStuck) as stuck:
        walk_account(account, Walk(max_unreadable=3))
    assert stuck.value.reason == "unreadable"


@pytest.mark.parametrize("readable_pages", [0, 1, 5])
def test_a_service_that_fails_on_everything_is_an_outage(readable_pages: int) -> None:
    account = Account(quiet_seconds(5_000))
    original = account.read
    account.read = lambda request: (  # type: ignore[method-assign]
        original(request) if account.requests < readable_pages else None
    )
    with pytest.raises(WalkStuck) as stuck:
        walk_account(account, Walk(), window=4)
    assert stuck.value.reason == "outage"


# --- seconds that change, and pages that do not ---------------------------------------------------


@pytest.mark.parametrize("tokens", [501, 600, 1_300])
def test_a_quiet_second_with_more_tokens_than_a_page_costs_few_requests(tokens: int) -> None:
    seconds = quiet_seconds(2_000)
    account = Account([*seconds, *[seconds[700]] * tokens])
    complete(account)
    assert account.requests <= math.ceil((2_000 + tokens) / 460) + 9


@pytest.mark.parametrize(("groups", "changes"), [([600], 2), ([1_300, 600, 501], 5)])
def test_a_busy_second_does_not_keep_the_rest_from_being_read(
    groups: list[int], changes: int
) -> None:
    for seed in range(5):
        choose = random.Random(seed)
        seconds = quiet_seconds(2_000)
        for tokens in groups:
            seconds += [choose.choice(seconds)] * tokens
        account = Account(seconds, seed=seed, deletes=changes / 2, inserts=changes / 2)
        walk = Walk()
        outcome = walk_account(account, walk, window=4)
        assert walk.finished
        assert not outcome.missed
        assert walk.unreadable <= len(groups) + 1
        assert account.requests <= 150


@pytest.mark.parametrize("tokens", [2_000, 30_000])
@pytest.mark.parametrize("part", ["all", "newest", "range"])
def test_a_service_that_ignores_page_index_ends_the_walk_at_once(tokens: int, part: str) -> None:
    seconds = quiet_seconds(tokens)
    account = Account(seconds)
    original = account.read
    account.read = lambda request: original(  # type: ignore[method-assign]
        PageRequest(1, request.size, request.descending)
    )
    target = {
        "all": EVERYTHING,
        "newest": Span(seconds[50], EVERYTHING.upper),
        "range": Span(seconds[50], seconds[-50]),
    }[part]
    with pytest.raises(WalkStuck, match="gives its first page") as stuck:
        walk_account(account, Walk(target, newest_first=part == "newest"), window=4)
    assert stuck.value.reason == "no_progress"
    assert account.requests <= 12


def test_hints_that_no_list_reaches_are_left_out() -> None:
    account = Quiet(quiet_seconds(3_000))
    hints = [(account.listed[1_000][0] - 1, 10**18), (account.listed[2_000][0], 10**18)]
    target = Span(account.listed[1_000][0], account.listed[2_000][0])
    walk = Walk(target, positions=hints, total_count=10**18)
    walk_account(account, walk)
    assert walk.coverage.contains_span(target)


# --- the contract --------------------------------------------------------------------------------


def test_an_unordered_page_is_refused_and_its_request_still_outstanding() -> None:
    walk = Walk()
    request = walk.next_request()
    assert isinstance(request, PageRequest)
    with pytest.raises(ValueError, match="not in ascending"):
        walk.receive(request, PageRows([3, 2], ["a", "b"], 2))
    assert walk.coverage == Coverage()
    assert not walk.finished
    walk.receive(request, PageRows([2, 3], ["b", "a"], 2))
    assert walk.coverage.contains(1)


def test_only_the_first_pages_prove_an_end_of_the_line() -> None:
    walk = Walk()
    request = walk.next_request()
    assert isinstance(request, PageRequest)
    assert walk.receive(request, PageRows([5, 9], ["a", "b"], 2)) == Span(EVERYTHING.lower, 9)
    newest = walk.next_request()
    assert newest == PageRequest(1, 500, descending=True)
    assert isinstance(newest, PageRequest)
    assert walk.receive(newest, PageRows([9, 5], ["b", "a"], 2)) == Span(6, EVERYTHING.upper)
    assert walk.finished


def test_a_tie_that_keeps_changing_becomes_a_hole() -> None:
    account = Account([*quiet_seconds(5), *[2 * 10**9] * 1_200, *[2 * 10**9 + 5] * 3])
    original = account.live
    account.live = lambda: (original(), account.listed.pop(600))[0]  # type: ignore[method-assign]
    walk = Walk()
    outcome = walk_account(account, walk)
    assert walk.holes == [Hole(Span(2 * 10**9, 2 * 10**9 + 1), "tie_group", 1)]
    assert not outcome.missed


def test_a_failed_look_up_is_no_answer() -> None:
    account, walk = Account([10**9] * 1_200), Walk()
    failed = False
    while (request := walk.next_request()) is not None:
        if not isinstance(request, Lookup):
            page = account.read(request) or []
            walk.receive(request, PageRows([s for s, _ in page], [i for _, i in page], 1_200))
        elif not failed:
            failed = True
            walk.fail(request)
        else:
            walk.receive_lookup(request, account.lookup(request))
    assert failed
    assert not walk.coverage.holes()
