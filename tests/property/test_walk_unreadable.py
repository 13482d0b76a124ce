"""Rows that cannot be read: every quiet list is read around them, in few requests."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from etl.coverage import EVERYTHING, TOLERATED, Coverage
from etl.walk import Walk
from tests.support.adversary import Account, walk_account

TOKENS = 2_000
MINUTE = 60


@dataclass(frozen=True)
class Case:
    """A quiet list, of which some rows cannot be read."""

    seed: int
    page_size: int = 500
    tokens: int = TOKENS
    unreadable: int = 1
    ties: bool = False
    shuffled: bool = False
    ties_ascend: bool = False
    places: tuple[int, ...] = ()

    def account(self, *, readable: bool = False) -> Account:
        rng = random.Random(self.seed)
        seconds: list[int] = []
        while len(seconds) < self.tokens:
            second = 10**9 + MINUTE * len(seconds)
            seconds += [second] * (rng.choice([1, 1, 2, 3, 5, 9]) if self.ties else 1)
        account = Account(
            seconds[: self.tokens],
            seed=self.seed,
            cap=self.page_size,
            shuffled=self.shuffled,
            ties_ascend=self.ties_ascend,
        )
        if not readable:
            places = self.places or rng.sample(range(self.tokens), self.unreadable)
            account.poison = {account.listed[place][1] for place in places}
        return account

    @property
    def bound(self) -> int:
        """Requests that one unreadable row may cost."""
        return 2 * math.ceil(math.log2(self.page_size)) + 20


def walk_around(case: Case) -> tuple[Account, Walk]:
    """Walk such a list; the laws are asserted."""
    account, walk = case.account(), Walk(page_size=case.page_size)
    outcome = walk_account(account, walk, window=4)
    assert walk.finished, case
    assert not outcome.missed, case
    assert not outcome.false_absences, case
    assert Coverage(hole.span for hole in walk.holes).union(walk.coverage) == Coverage([EVERYTHING])
    assert {hole.reason for hole in walk.holes} <= TOLERATED
    readable = case.account(readable=True)
    walk_account(readable, Walk(page_size=case.page_size), window=4)
    assert account.requests - readable.requests <= case.bound * len(account.poison), case
    if not case.shuffled:
        bad = {token for token in account.listed if token[1] in account.poison}
        assert outcome.read == set(account.listed) - bad, case
        assert walk.unreadable == len(bad), case
    if not case.ties:
        assert in_holes(account, walk) == neighbours(account), case
    return account, walk


def in_holes(account: Account, walk: Walk) -> set[int]:
    """The positions of the readable tokens whose seconds lie in holes."""
    holes = Coverage(hole.span for hole in walk.holes)
    return {
        place
        for place, (second, token_id) in enumerate(account.listed)
        if token_id not in account.poison and holes.contains(second)
    }


def neighbours(account: Account) -> set[int]:
    """The positions of the readable tokens next to an unreadable one.

    They cannot be left out: the unreadable token may have been created in the same second.
    """
    bad = {place for place, token in enumerate(account.listed) if token[1] in account.poison}
    beside = set()
    for place in bad:
        for step in (-1, 1):
            at = place + step
            while at in bad:
                at += step
            beside.add(at)
    return beside & set(range(len(account.listed)))


def cases(seeds: range) -> Iterator[Case]:
    """Lists of all kinds, with 1 to 10 unreadable rows anywhere."""
    for seed in seeds:
        rng = random.Random(seed)
        ties = rng.random() < 0.5
        yield Case(
            seed,
            page_size=rng.choice([500, 500, 500, 499, 250, 100, 37, 23]),
            unreadable=rng.choice([1, 2, 3, 5, 10]),
            ties=ties,
            ties_ascend=rng.random() < 0.5,
        )


def unreadable_campaign(seeds: range) -> Counter[str]:
    """Walk quiet lists with unreadable rows; the laws are asserted, the lists are counted."""
    for case in cases(seeds):
        walk_around(case)
    return Counter({"complete around the rows": len(seeds)})


def test_every_quiet_list_is_read_around_its_unreadable_rows() -> None:
    unreadable_campaign(range(40))


def test_two_rows_near_one_another_do_not_stop_the_walk() -> None:
    """For these two, the walk was given up after 517 requests."""
    account, _ = walk_around(Case(0, places=(1_941, 1_957)))
    assert account.requests < 60


@pytest.mark.parametrize(
    "places",
    [(0,), (1,), (598,), (599,), (0, 1), (598, 599), (7, 8, 9, 10), (100, 102, 104, 106, 108)],
)
@pytest.mark.parametrize("page_size", [5, 6, 23, 500])
def test_rows_at_the_ends_and_side_by_side(places: tuple[int, ...], page_size: int) -> None:
    walk_around(Case(0, tokens=601, places=places, page_size=page_size))


@pytest.mark.parametrize("page_size", [5, 6])
def test_pages_of_a_few_rows_are_enough(page_size: int) -> None:
    for seed in range(10):
        walk_around(Case(seed, tokens=300, page_size=page_size))
