"""Comparing by digests first publishes what comparing all columns publishes, whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from etl.warehouse.load.fingerprint import FINGERPRINT, FULL
from etl.warehouse.schema.database import open_database
from tests.support.both_ways import Way, live_both_ways
from tests.support.job import tell
from tests.support.roles import own_database


@pytest.fixture
def ways(postgres_url: str, template_database: str) -> Iterator[list[Way]]:
    """Two warehouses."""
    with ExitStack() as stack:
        urls = [stack.enter_context(own_database(postgres_url, template_database)) for _ in "12"]
        databases = [stack.enter_context(open_database(url, "kaltura")) for url in urls]
        yield [Way(*each) for each in zip(databases, urls, (FINGERPRINT, FULL), strict=True)]


def live(ways: Sequence[Way], seeds: Iterable[int], *, runs: int) -> Counter[str]:
    figures: Counter[str] = Counter()
    for seed in seeds:
        try:
            figures += live_both_ways(ways, seed, runs=runs)
        except BaseException as error:
            error.add_note(f"in the life of seed {seed}")
            raise
        figures["lives"] += 1
    tell(figures)
    return figures


def test_both_ways_publish_the_same(ways: list[Way]) -> None:
    figures = live(ways, range(14), runs=4)
    for kind in (
        *("inserted", "changed", "absent", "relisted", "rejected", "resumed", "erased"),
        *("stateless", "partly_loaded"),
    ):
        assert figures[kind] > 0, figures
