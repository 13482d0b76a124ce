"""Nights on a database of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from etl.warehouse.schema.database import open_database
from tests.support.nights import MakeNights, Nights
from tests.support.retries import without_retry_waits


@pytest.fixture
def make_nights(database_url: str) -> Iterator[MakeNights]:
    with ExitStack() as opened:

        def make(url: str | None = None, *, small: bool = False) -> Nights:
            database = opened.enter_context(open_database(url or database_url, "kaltura"))
            return Nights(database_url, database, small=small)

        yield make


@pytest.fixture(params=["copy", "json"])
def nights(make_nights: MakeNights, request: pytest.FixtureRequest) -> Nights:
    """Nights on this test's database, once with each way to send a batch."""
    return make_nights(small=request.param == "json")


@pytest.fixture
def no_retry_waits() -> Iterator[None]:
    """Retries of this test's runs, in this process, do not wait."""
    with without_retry_waits():
        yield
