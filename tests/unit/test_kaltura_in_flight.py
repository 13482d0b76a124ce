"""One limit of requests for several runs: never exceeded, fair, and no place is ever lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from etl.errors import Interrupted, ServiceFailure
from etl.kaltura import in_flight
from etl.kaltura.in_flight import RequestLimit
from etl.kaltura.retry import PassingFailure, RetryLimits, RetryPolicy
from etl.process.stop import Stop


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "CHECK_SECONDS", 0.005)


def test_the_limit_is_reached_and_never_exceeded() -> None:
    limit, lock = RequestLimit(3), threading.Lock()
    here, most = 0, 0
    three_inside = threading.Barrier(3)

    def request() -> None:
        nonlocal here, most
        with limit.place(lambda: None):
            with lock:
                here += 1
                most = max(most, here)
            three_inside.wait(10)
            with lock:
                here -= 1

    threads = [threading.Thread(target=request) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 3


def test_the_one_that_has_waited_longest_is_next_however_quick_another_is() -> None:
    limit, order = RequestLimit(1), list[str]()
    waits = threading.Event()

    def patient() -> None:
        with limit.place(waits.set):
            order.append("patient")

    thread = threading.Thread(target=patient)
    with limit.place(lambda: None):
        thread.start()
        assert waits.wait(10)
    with limit.place(lambda: None):  # at once, while the other thread is still asleep
        order.append("quick")
    thread.join()

    assert order == ["patient", "quick"]


def test_who_gives_up_waiting_leaves_its_place_to_the_others() -> None:
    limit, stop = RequestLimit(1), Stop()
    with limit.place(lambda: None):
        stop.request()
        with pytest.raises(Interrupted), limit.place(stop.check):
            pytest.fail("there was no place")
    entered = []
    for _ in range(2):
        with limit.place(stop.check):
            entered.append(True)

    assert entered == [True, True]


def test_a_call_of_a_run_that_is_over_leaves_the_queue_and_sends_nothing() -> None:
    limit, sent = RequestLimit(1), list[float]()
    policy = RetryPolicy(RetryLimits(), Stop(), in_flight=limit)
    with limit.place(lambda: None):
        policy.give_up()
        with pytest.raises(ServiceFailure, match="another call has failed"):
            policy.call(sent.append)

    assert (sent, policy.counters.requests) == ([], 0)
    with limit.place(lambda: pytest.fail("no place is free")):
        pass


class _Queue(RequestLimit):
    """A place is free after 1,000 seconds by the clock of the test."""

    now = 0.0

    @contextmanager
    def place(self, check: Callable[[], None]) -> Iterator[None]:
        self.now += 1000
        with super().place(check):
            yield


def test_the_wait_for_a_place_is_not_the_services_and_a_pause_holds_none() -> None:
    queue, deadlines = _Queue(1), list[float]()

    def attempt(deadline_seconds: float) -> str:
        deadlines.append(deadline_seconds)
        queue.now += 20
        if len(deadlines) < 3:
            raise PassingFailure("trouble")
        return "done"

    def pause(seconds: float) -> None:
        queue.now += seconds
        with RequestLimit.place(queue, lambda: pytest.fail("no place is free")):
            pass

    policy = RetryPolicy(
        RetryLimits(total_seconds=100, request_seconds=60),
        Stop(),
        in_flight=queue,
        sleep=pause,
        monotonic=lambda: queue.now,
        uniform=lambda _low, high: high,
    )

    assert policy.call(attempt) == "done"
    assert deadlines == [60, 60, 55]  # of 100 s: two attempts, and pauses of 1 and 4 s
