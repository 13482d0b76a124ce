"""What is read of a reply is bounded; what is unusual and harmless is accepted."""

from __future__ import annotations

import tracemalloc

import pytest

from etl.errors import DataRefused, ServiceUnavailable
from etl.kaltura.service import RetryLimits
from tests.support.service_faults import POSITIONS, Seen, Served, Waits, error_of, open_at, run_at
from tests.support.wire import EndlessBody, endless_headers, good_gzip


@pytest.mark.parametrize("where", POSITIONS)
def test_a_gzip_bomb_is_refused_at_once_in_bounded_memory(
    service: Served, waits: Waits, seen: Seen, where: str
) -> None:
    service.meet("gzip-bomb", where)
    tracemalloc.start()
    with error_of(seen, DataRefused) as caught:
        run_at(service, waits)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert caught[0].fields["reason"] == "body_too_large"
    assert len(service.at(where)) == 1
    assert peak_bytes < 100 * 1024 * 1024


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_without_end_is_refused_at_once(
    service: Served, waits: Waits, seen: Seen, chunked: bool
) -> None:
    endless = EndlessBody(chunked)
    service.meet(endless.fault())
    with error_of(seen, DataRefused):
        run_at(service, waits, limits=RetryLimits(request_seconds=20))

    assert endless.sent < 60_000_000
    assert len(service.at("list")) == 1


def test_headers_without_end_are_cut(service: Served, waits: Waits, seen: Seen) -> None:
    service.meet(endless_headers())
    with error_of(seen, ServiceUnavailable):
        run_at(service, waits)


def test_a_page_is_read_through_gzip_and_a_byte_order_mark(service: Served, waits: Waits) -> None:
    service.meet(good_gzip(prefix=b"\xef\xbb\xbf"))
    with open_at(service, waits) as tokens:
        page = tokens.list_page(1, 500)

    assert len(page.rows) == 5
    assert page.body.startswith(b"\xef\xbb\xbf")


def test_more_rows_than_asked_for_are_taken(service: Served, waits: Waits) -> None:
    service.meet("more-rows")
    with open_at(service, waits) as tokens:
        assert len(tokens.list_page(1, 2).rows) == 5
