"""Requests per second: how many begin in any interval, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import Interrupted, ServiceFailure
from etl.kaltura.request_rate import RequestRate, request_rate
from etl.kaltura.retry import PassingFailure, RetryLimits, RetryPolicy
from etl.kaltura.service import Credentials, open_service
from etl.process.stop import Stop
from etl.simulator import SimulatorServer, generate_account

DAY_SECONDS = 86_400.0


class Clock:
    """Monotonic seconds that pass only during a sleep; ``meanwhile`` happens during the next."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[], object] | None = None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        self.now += seconds

    def policy(self, rate: RequestRate, limits: RetryLimits | None = None) -> RetryPolicy:
        return RetryPolicy(
            limits or RetryLimits(),
            Stop(),
            rate=rate,
            sleep=self.sleep,
            monotonic=self,
            uniform=lambda _low, high: high,
        )


def begun_within(starts: list[float], seconds: float) -> int:
    """The most requests that began in any interval of that length."""
    return max(sum(begin <= each < begin + seconds for each in starts) for begin in starts)


@given(
    per_second=st.floats(0.01, 1000),
    wanted=st.lists(st.floats(0, DAY_SECONDS), min_size=1, max_size=40),
    seconds=st.floats(0.001, DAY_SECONDS),
)
def test_no_interval_has_more_starts_than_the_rate_allows(
    per_second: float, wanted: list[float], seconds: float
) -> None:
    rate = RequestRate(per_second)
    turns = [rate.take_turn(now) for now in sorted(wanted)]

    assert all(turn >= now for turn, now in zip(turns, sorted(wanted), strict=True))
    assert begun_within(turns, seconds) <= per_second * seconds * (1 + 1e-6) + 1


def test_a_request_that_comes_late_begins_at_once() -> None:
    rate = RequestRate(2)
    assert [rate.take_turn(now) for now in (10.0, 10.0, 10.1, 20.0)] == [10.0, 10.5, 11.0, 20.0]


def test_without_the_setting_there_is_no_limit() -> None:
    assert request_rate(None) is None


def test_runs_that_share_a_rate_are_one_to_it() -> None:
    clock, rate, starts = Clock(), RequestRate(4), list[float]()
    policies = [clock.policy(rate), clock.policy(rate)]
    for number in range(10):
        policies[number % 2].call(lambda _deadline: starts.append(clock.now))

    assert starts == [1000 + number / 4 for number in range(10)]


def test_a_repeated_request_waits_its_turn_too() -> None:
    clock, starts = Clock(), list[float]()
    policy = clock.policy(RequestRate(0.1))

    def attempt(_deadline_seconds: float) -> None:
        starts.append(clock.now)
        if len(starts) < 3:
            raise PassingFailure("trouble")

    policy.call(attempt)

    assert starts == [1000, 1010, 1020]


def test_the_wait_for_a_turn_is_not_the_services() -> None:
    clock, deadlines = Clock(), list[float]()
    policy = clock.policy(RequestRate(0.01), RetryLimits(total_seconds=50, request_seconds=60))
    for _ in range(3):
        policy.call(deadlines.append)

    assert deadlines == [50, 50, 50]


def test_a_pause_that_the_service_asks_for_meanwhile_is_made() -> None:
    clock, starts = Clock(), list[float]()
    policy = clock.policy(RequestRate(1), RetryLimits(attempts=1))
    policy.call(lambda _deadline: starts.append(clock.now))

    def another_call_is_told_to_wait() -> None:
        def told(_deadline_seconds: float) -> None:
            raise PassingFailure("slow down", retry_after_seconds=30)

        with pytest.raises(ServiceFailure):
            policy.call(told)

    clock.meanwhile = another_call_is_told_to_wait
    policy.call(lambda _deadline: starts.append(clock.now))

    assert starts[1] >= 1030


def test_a_call_of_a_run_that_is_over_sends_nothing() -> None:
    clock, sent = Clock(), list[float]()
    policy = clock.policy(RequestRate(1))
    policy.call(sent.append)
    clock.meanwhile = policy.give_up
    with pytest.raises(ServiceFailure, match="another call has failed"):
        policy.call(sent.append)

    assert len(sent) == policy.counters.requests == 1


def test_a_stop_ends_the_wait_for_a_turn() -> None:
    stop = Stop()
    policy = RetryPolicy(RetryLimits(), stop, rate=RequestRate(0.01))
    policy.call(lambda _deadline: stop.request())
    with pytest.raises(Interrupted):
        policy.call(lambda _deadline: pytest.fail("it was not its turn yet"))


def test_the_simulator_gets_so_many_requests_per_second_the_login_included() -> None:
    clock, starts = Clock(), list[float]()
    with SimulatorServer(generate_account(300, seed=4)) as server:
        known = server.settings()
        credentials = Credentials(known["partner_id"], admin_secret=known["admin_secret"])
        with open_service(
            server.url,
            credentials,
            stop=Stop(),
            rate=RequestRate(3),
            monotonic=clock,
            sleep=clock.sleep,
        ) as tokens:
            for index in range(1, 31):
                tokens.list_page(index, 10)
                starts.append(clock.now)
        login = len(server.service.log) - len(starts)

    assert begun_within(starts, 1.0) == 3
    assert starts[-1] - 1000 == pytest.approx((30 + login - 1) / 3)
