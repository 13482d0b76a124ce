"""Rows that an earlier night could not read: found again in few requests, or as if for the first
time where they are no longer where they were."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from etl.coverage import EVERYTHING, NEGATIVE_INFINITY, UNREADABLE, Coverage, Span
from etl.walk import Hole, Remembered, Walk
from etl.walk.remembered import CREDIT
from tests.property.test_walk_unreadable import Case, walk_around
from tests.support.adversary import Account, walk_account


def remembered_from(account: Account, walk: Walk) -> list[Remembered]:
    """What the ledger and the warehouse know after this walk."""
    good = [second for second, token_id in account.listed if token_id not in account.poison]
    found = []
    for hole in walk.holes:
        if hole.reason == UNREADABLE and hole.tokens:
            before = [second for second in good if second <= hole.span.lower]
            last = tuple(before[-walk.page_size :])
            found.append(
                Remembered(hole.span, hole.tokens, hole.after, last, len(before) < walk.page_size)
            )
    return found


def next_night(case: Case, gone: int, *, mended: Sequence[int] = ()) -> Account:
    """The same account when ``gone`` readable tokens have gone, anywhere; of the unreadable rows
    those in ``mended`` (by rank) can be read."""
    account, rng = case.account(), random.Random(case.seed)
    readable = [token for token in account.listed if token[1] not in account.poison]
    left = set(account.listed) - set(rng.sample(readable, gone))
    bad = [token[1] for token in account.listed if token[1] in account.poison]
    account.poison -= {bad[rank] for rank in mended}
    account.listed = [token for token in account.listed if token in left]
    account.alive_throughout = set(account.listed)
    return account


def walk_with(account: Account, case: Case, remembered: Sequence[Remembered]) -> Walk:
    """Walk with these hints; the laws are asserted."""
    walk = Walk(page_size=case.page_size, remembered=remembered)
    outcome = walk_account(account, walk, window=4)
    assert walk.finished, case
    assert not outcome.missed, case
    assert not outcome.false_absences, case
    assert Coverage(hole.span for hole in walk.holes).union(walk.coverage) == Coverage([EVERYTHING])
    bad = {token for token in account.listed if token[1] in account.poison}
    assert outcome.read == set(account.listed) - bad, case
    assert walk.unreadable == len(bad), case
    return walk


def extra_requests(account: Account, case: Case, remembered: Sequence[Remembered]) -> int:
    """What the unreadable rows cost in a walk with these hints."""
    walk_with(account, case, remembered)
    spent = account.requests
    account.poison, account.requests = set(), 0
    walk_account(account, Walk(page_size=case.page_size), window=4)
    return spent - account.requests


def concluded(account: Account, walk: Walk) -> tuple[list[Hole], list[bool]]:
    """What the walk says of the seconds in which tokens were created: its holes, and of each token
    that is in none of them, whether its second is covered.

    The seconds between two rows beside an unreadable one are covered if a page that was read holds
    both; no token is there.
    """
    seconds = [second for second, _ in account.listed]
    holes = [
        hole
        for hole in walk.holes
        if hole.tokens or any(hole.span.lower <= each < hole.span.upper for each in seconds)
    ]
    inside = Coverage(hole.span for hole in holes)
    return holes, [walk.coverage.contains(each) for each in seconds if not inside.contains(each)]


def mean_costs(cases: Sequence[Case], gone: int) -> tuple[float, float]:
    """Requests for each unreadable row in the first night and in the next."""
    first, again, rows = 0, 0, 0
    for case in cases:
        account, walk = walk_around(case)
        remembered = remembered_from(account, walk)
        rows += len(account.poison)
        first += extra_requests(next_night(case, gone), case, ())
        again += extra_requests(next_night(case, gone), case, remembered)
    return first / rows, again / rows


@pytest.mark.parametrize("unreadable", [1, 3, 10])
def test_a_remembered_row_costs_half_a_dozen_requests(unreadable: int) -> None:
    """Among them are the page that fails, two to be sure, and one page more to read."""
    first, again = mean_costs([Case(seed, unreadable=unreadable) for seed in range(5)], gone=0)
    assert first > 12
    assert again <= 7


@pytest.mark.parametrize("ties", [True, False])
def test_it_is_found_again_although_tokens_have_gone(ties: bool) -> None:
    cases = [Case(seed, unreadable=3, ties=ties) for seed in range(5)]
    first, again = mean_costs(cases, gone=20)
    assert again <= (0.7 if ties else 0.6) * first


@pytest.mark.parametrize("seed", range(20))
def test_hints_right_stale_or_nonsense_change_no_conclusion(seed: int) -> None:
    """Rows that were mended or have moved, and hints at rows that were never unreadable: holes,
    count and coverage are those of a walk without hints, and it costs a few requests at most."""
    rng = random.Random(seed)
    case = Case(
        seed,
        page_size=rng.choice([500, 250, 100, 37, 23]),
        unreadable=rng.choice([1, 3, 10]),
        ties=rng.random() < 0.5,
        ties_ascend=rng.random() < 0.5,
    )
    account, walk = walk_around(case)
    remembered = remembered_from(account, walk)
    for _ in range(rng.choice([0, 3, 10])):
        lower = rng.choice(account.listed)[0]
        hole = Span(rng.choice([lower, NEGATIVE_INFINITY]), lower + rng.choice([1, 121]))
        before = [second for second, _ in account.listed if second <= lower][-300:]
        unknown = sorted(rng.sample(range(lower - 9_000, lower + 1), 300))
        after = rng.choice([None, 0, 1, 7])
        seconds = tuple(rng.choice([before, unknown]))
        remembered.append(Remembered(hole, rng.choice([1, 4]), after, seconds, rng.random() < 0.5))
    # Another run may have known less of the same hole.
    remembered += [each._replace(after=None) for each in remembered]
    mended = rng.sample(range(case.unreadable), rng.randrange(case.unreadable + 1))
    gone = rng.choice([0, 5, 300])

    plain, hinted = (next_night(case, gone, mended=mended) for _ in range(2))
    without, with_hints = walk_with(plain, case, ()), walk_with(hinted, case, remembered)

    assert concluded(hinted, with_hints) == concluded(plain, without), case
    assert hinted.requests <= plain.requests + CREDIT + 5, case
