"""Nights on a database of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etl.warehouse.engine import connect
from etl.warehouse.store import Warehouse
from tests.support.nights import MakeNights, Nights


@pytest.fixture
def make_nights(database_url: str) -> Iterator[MakeNights]:
    opened: list[Warehouse] = []

    def make(url: str | None = None, *, small: bool = False) -> Nights:
        warehouse = Warehouse(connect(url or database_url), "kaltura")
        opened.append(warehouse)
        return Nights(database_url, warehouse, small=small)

    yield make
    for warehouse in opened:
        warehouse.close()


@pytest.fixture(params=["copy", "json"])
def nights(make_nights: MakeNights, request: pytest.FixtureRequest) -> Nights:
    """Nights on this test's database, once with each way to send a batch."""
    return make_nights(small=request.param == "json")
