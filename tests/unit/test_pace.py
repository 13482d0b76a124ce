"""Fewer requests in flight while the service is in trouble, and all of them again afterwards."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from etl.run.pace import Pace

Service = Callable[[int, int], tuple[float, bool]]
"""(number of the request, requests in flight) → (seconds that it takes, whether it is repeated)."""


def limits(pace: Pace, service: Service, pages: int, *, rows: int = 500) -> list[int]:
    """The limit after each reply, in simulated time, with as many in flight as it allows."""
    now, sent = 0.0, 0
    seen: list[int] = []
    in_flight: list[tuple[float, int, float, int, bool]] = []
    while len(seen) < pages:
        while len(in_flight) < pace.limit:
            sent += 1
            seconds, repeated = service(sent, len(in_flight) + 1)
            heapq.heappush(in_flight, (now + seconds, sent, seconds, pace.epoch, repeated))
        now, _, seconds, epoch, repeated = heapq.heappop(in_flight)
        pace.note(epoch, repeated=repeated, seconds=seconds, rows=rows)
        seen.append(pace.limit)
    return seen


def test_a_service_that_keeps_up_gets_all_that_is_wanted() -> None:
    assert set(limits(Pace(8), lambda number, _: (0.4 + number % 5 * 0.1, False), 300)) == {8}


def test_a_repeated_request_halves_the_number_once_and_quiet_rounds_bring_it_back() -> None:
    pace = Pace(8)
    seen = limits(pace, lambda number, _: (0.5, number in (17, 18, 20)), 80)
    assert seen[15] == 8
    assert min(seen) == 4, "three failures of one moment are one"
    assert seen[-1] == 8
    assert seen == sorted(seen[:17], reverse=True) + sorted(seen[17:])


def test_a_service_that_keeps_refusing_gets_one_request_at_a_time() -> None:
    pace = Pace(8)
    assert limits(pace, lambda *_: (0.5, True), 40)[-1] == 1
    seen = limits(pace, lambda *_: (0.5, False), 60)
    assert seen[-1] == 8, "and all again when it has recovered"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_requests_that_only_wait_for_one_another_are_held_back(workers: int) -> None:
    """More in flight than the service works on take the longer, and are no more pages a second."""

    def saturated(_: int, in_flight: int) -> tuple[float, bool]:
        return 0.5 * max(in_flight / workers, 1.0), False

    seen = limits(Pace(8), saturated, 400)
    late = seen[100:]
    assert sum(late) / len(late) <= 2.5 * workers
    assert min(late) >= workers / 2


def test_a_list_whose_pages_are_slow_far_down_is_read_with_all_that_is_wanted() -> None:
    seen = limits(Pace(8), lambda number, _: (0.5 + number * 0.01, False), 400)
    assert sum(limit < 8 for limit in seen) <= 0.15 * len(seen)
    assert seen[-1] == 8


def test_a_quick_service_is_not_spared() -> None:
    seen = limits(Pace(8), lambda _, in_flight: (0.01 * in_flight, False), 300)
    assert set(seen) == {8}


def test_rows_of_a_search_say_nothing_about_pages() -> None:
    pace = Pace(4)
    for _ in range(12):
        pace.note(pace.epoch, repeated=False, seconds=0.15, rows=1)
    assert set(limits(pace, lambda *_: (0.55, False), 100)) == {4}
    for _ in range(12):
        pace.note(pace.epoch, repeated=False, seconds=9.0, rows=1)
    assert pace.limit == 4


def test_a_reply_tells_nothing_about_a_later_limit() -> None:
    pace = Pace(8)
    before = pace.epoch
    pace.note(before, repeated=True, seconds=None, rows=0)
    pace.note(before, repeated=True, seconds=None, rows=0)
    assert (pace.limit, pace.epoch) == (4, before + 1)
