"""The same runs over the same pages, compared by digests first, and by all columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from etl.warehouse.load.fingerprint import FINGERPRINT, FULL
from etl.warehouse.schema.database import open_database
from tests.campaigns.campaign import SCHEMA, Campaign, Ending, Ground
from tests.support.both_ways import Way, live_both_ways

RUNS: Final = 6
FIRST: Final = 1_000
"""Other lives than those of ``./dev test``."""


def run_case(ground: Ground, seed: int) -> Ending:
    ways = ground.keep("ways", lambda: two_ways(ground))
    figures = live_both_ways(ways, FIRST + seed, runs=RUNS)
    return Ending(f"life {FIRST + seed}", "the same", figures)


@contextmanager
def two_ways(ground: Ground) -> Iterator[list[Way]]:
    with ExitStack() as stack:
        urls = [stack.enter_context(ground.database()) for _ in range(2)]
        databases = [stack.enter_context(open_database(url, SCHEMA)) for url in urls]
        yield [Way(*each) for each in zip(databases, urls, (FINGERPRINT, FULL), strict=True)]


BOTH_WAYS: Final = Campaign(
    name="both-ways",
    promise="Recognising unchanged rows by their digests publishes what comparing all columns "
    "publishes: the same rows, versions, counts, look-ups and rejected rows, in every table.",
    run=run_case,
    in_slice=0,
    in_all=300,
)
