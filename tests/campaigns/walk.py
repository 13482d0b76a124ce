"""Walks over lists in memory that work against them, thousands a minute."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.campaigns.campaign import Campaign, Ending, Ground
from tests.property.test_walk import campaign
from tests.property.test_walk_ranges import range_campaign
from tests.property.test_walk_unreadable import unreadable_campaign

LISTS: Final = 50
FIRST: Final = 10_000
"""Other lists than those of ``./dev test``."""


def run_case(ground: Ground, seed: int) -> Ending:
    del ground
    begin = FIRST + seed * LISTS
    seeds = range(begin, begin + LISTS)
    ends: Counter[str] = Counter()
    for kind, found in (
        ("lists", campaign(seeds)),
        ("with large ties", campaign(seeds[::5], big_tie=True)),
        ("with unreadable rows", campaign(seeds[::5], poison=True)),
        ("ranges", range_campaign(seeds)),
        ("quiet lists with unreadable rows", unreadable_campaign(seeds[::5])),
    ):
        ends += Counter({f"{kind}: {name}": count for name, count in found.items()})
    return Ending(f"lists {begin} to {begin + LISTS - 1}", "held", ends)


WALK: Final = Campaign(
    name="walk",
    promise="In lists that change between any two requests, with ties, shrinking pages, wrong "
    "counts and unreadable rows: no token that is listed throughout a walk is missed outside the "
    "holes that it records, and none is called absent.",
    run=run_case,
    in_slice=0,
    in_all=200,
)
