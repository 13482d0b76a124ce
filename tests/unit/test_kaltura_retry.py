"""The retry policy by a clock of the test's own: attempts, total, budget, waits, interruption."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from etl.errors import DataRefused, Interrupted, ServiceFailure, ServiceUnavailable
from etl.kaltura.retry import (
    Call,
    FailureKind,
    PassingFailure,
    RetryLimits,
    RetryPolicy,
    RowSuspected,
)
from etl.process.stop import Stop


class Clock:
    """Monotonic seconds that pass only during a sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Policy(RetryPolicy):
    def __init__(
        self,
        limits: RetryLimits | None = None,
        share: float = 1.0,
        worded: Callable[[str], str] = str,
    ) -> None:
        """``share`` of the jitter's range is what the jitter always is."""
        self.clock = Clock()
        self.stop = Stop()
        super().__init__(
            limits or RetryLimits(),
            self.stop,
            sleep=self.clock.sleep,
            monotonic=self.clock,
            uniform=lambda low, high: low + share * (high - low),
            worded=worded,
        )


def failing(times: int, make: Callable[[], Exception]) -> Callable[[float], str]:
    """An attempt that fails so many times and then gives ``done``."""
    left = [times]

    def attempt(_deadline_seconds: float) -> str:
        if left[0]:
            left[0] -= 1
            raise make()
        return "done"

    return attempt


def passing() -> Exception:
    return PassingFailure("trouble", code="INTERNAL_DATABASE_ERROR")


def row() -> Exception:
    return PassingFailure("inside", failure_kind=FailureKind.ROW, code="INTERNAL_SERVERL_ERROR")


def html() -> Exception:
    return PassingFailure(
        "html",
        failure_kind=FailureKind.MARKUP,
        verdict=DataRefused("html twice", reason="markup_reply"),
    )


KINDS = {"t": passing, "r": row, "h": html}


def meeting(failures: str) -> Callable[[float], str]:
    """An attempt that meets these failures (see ``KINDS``), one after the other, then succeeds."""
    left = list(failures)

    def attempt(_deadline_seconds: float) -> str:
        if left:
            raise KINDS[left.pop(0)]()
        return "done"

    return attempt


@pytest.mark.parametrize("times", [0, 1, 5])
def test_a_passing_failure_is_mended_within_six_attempts(times: int) -> None:
    policy = Policy()

    assert policy.call(failing(times, passing)) == "done"
    assert policy.counters.requests == times + 1
    assert policy.counters.retries == times


def test_the_sixth_failure_is_final_and_keeps_code_and_facts() -> None:
    policy = Policy()
    with pytest.raises(ServiceFailure) as caught:
        policy.call(failing(99, passing), Call(facts={"page_index": 7}))

    assert policy.counters.requests == 6
    assert caught.value.code == "INTERNAL_DATABASE_ERROR"
    assert caught.value.fields["page_index"] == 7
    assert "6 attempt(s)" in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_permanent_error_causes_exactly_one_request() -> None:
    for error in (DataRefused("no"), ServiceUnavailable("redirect"), RuntimeError("a bug")):
        policy = Policy()
        with pytest.raises(type(error)):
            policy.call(failing(99, lambda error=error: error))  # type: ignore[misc]

        assert policy.counters.requests == 1
        assert policy.clock.slept == []


@pytest.mark.parametrize(
    ("failures", "row_attempts"),
    [
        # One page of HTML beside other failures is one more of them.
        ("th", None),
        ("ht", None),
        ("tthtt", None),
        ("hthth", None),
        # A row is suspected after three answers that say so, whatever else happens.
        ("rr", 3),
        ("ttttr", 3),
        ("trtrt", 3),
        ("hrhr", 3),
        # A probe has one attempt at a row, and all of them at anything else.
        ("ttttt", 1),
        # Without rows, an error inside the service is like any other.
        ("rrrrr", None),
    ],
)
def test_each_kind_of_failure_has_its_own_count(failures: str, row_attempts: int | None) -> None:
    policy = Policy()

    assert policy.call(meeting(failures), Call(row_attempts)) == "done"
    assert policy.counters.requests == len(failures) + 1
    assert policy.counters.retries == len(failures)


@pytest.mark.parametrize(
    ("failures", "row_attempts", "error"),
    [
        ("hh", None, DataRefused),
        ("thh", None, DataRefused),
        ("hthth" + "h", None, DataRefused),
        ("hththt", None, ServiceFailure),
        ("tttttt", 3, ServiceFailure),
        ("rrr", 3, RowSuspected),
        ("trtrr", 3, RowSuspected),
        ("r", 1, RowSuspected),
        ("tr", 1, RowSuspected),
        # Two answers of six are not enough to blame a row.
        ("ttttrr", 3, ServiceFailure),
        ("rrrrrr", None, ServiceFailure),
    ],
)
def test_a_kind_that_stays_is_decided_by_its_own_count(
    failures: str, row_attempts: int | None, error: type[Exception]
) -> None:
    policy = Policy()
    with pytest.raises(error) as caught:
        policy.call(meeting(failures + "t" * 9), Call(row_attempts, {"page_index": 3}))

    assert type(caught.value) is error
    assert policy.counters.requests == len(failures)
    assert isinstance(caught.value, DataRefused | ServiceFailure)
    assert caught.value.fields["page_index"] == 3
    if isinstance(caught.value, ServiceFailure):
        assert f"after {len(failures)} attempt(s)" in caught.value.message


@pytest.mark.parametrize(
    ("attempts", "failures", "error"),
    [
        (1, "r", RowSuspected),
        (2, "rr", RowSuspected),
        (2, "tr", ServiceFailure),
        (1, "h", ServiceFailure),
    ],
)
def test_fewer_attempts_than_a_kind_needs_decide_only_if_nothing_else_has_failed(
    attempts: int, failures: str, error: type[Exception]
) -> None:
    policy = Policy(RetryLimits(attempts=attempts))
    with pytest.raises(ServiceFailure) as caught:
        policy.call(meeting(failures + "t"), Call(3))

    assert type(caught.value) is error
    assert policy.counters.requests == attempts


def test_a_row_is_suspected_at_once_when_the_runs_budget_is_spent() -> None:
    policy = Policy(RetryLimits(budget_share=0, budget_extra=1))
    with pytest.raises(RowSuspected) as caught:
        policy.call(meeting("rrr"), Call(3))

    assert "after 2 attempt(s); the run's budget of retries is spent" in caught.value.message


def test_a_call_that_goes_on_in_another_session_keeps_its_count() -> None:
    policy, call = Policy(), Call()
    with pytest.raises(DataRefused):
        policy.call(failing(1, lambda: DataRefused("the session is over")), call)
    with pytest.raises(ServiceFailure) as caught:
        policy.call(failing(99, passing), call)

    assert "after 7 attempt(s)" in caught.value.message
    assert (policy.counters.requests, policy.counters.retries) == (7, 6)


def test_waits_grow_fourfold_and_are_capped_and_half_of_each_is_jitter() -> None:
    limits = RetryLimits(attempts=7, total_seconds=1e6)
    longest, shortest = Policy(limits, share=1.0), Policy(limits, share=0.0)
    for policy in (longest, shortest):
        with pytest.raises(ServiceFailure):
            policy.call(failing(99, passing))

    assert longest.clock.slept == [1, 4, 16, 64, 120, 120]
    assert shortest.clock.slept == [0.5, 2, 8, 32, 60, 60]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_outage_of_a_minute_and_a_half_is_bridged_whatever_the_jitter(share: float) -> None:
    policy = Policy(share=share)
    over = policy.clock.now + 90

    def down(_deadline_seconds: float) -> str:
        if policy.clock.now < over:
            raise passing()
        return "done"

    assert policy.call(down) == "done"
    assert policy.clock.now - over < 300 - 90


def test_real_jitter_differs_between_clients() -> None:
    waits = []
    for _ in range(20):
        clock = Clock()
        policy = RetryPolicy(RetryLimits(), Stop(), sleep=clock.sleep, monotonic=clock)
        policy.call(failing(1, passing))
        waits += clock.slept

    assert len(set(waits)) == 20
    assert all(0.5 <= wait <= 1 for wait in waits)


def test_retry_after_is_obeyed_to_the_full_even_over_the_cap() -> None:
    policy = Policy(share=0.5)

    policy.call(failing(1, lambda: PassingFailure("429", retry_after_seconds=120.0)))

    assert policy.clock.slept == [120.5]


def test_retry_after_beyond_the_total_ends_the_call_without_a_wait() -> None:
    policy = Policy()
    with pytest.raises(ServiceFailure) as caught:
        policy.call(failing(9, lambda: PassingFailure("429", retry_after_seconds=3600.0)))

    assert policy.clock.slept == []
    assert policy.counters.requests == 1
    assert caught.value.retry_after_seconds == 3600.0


def test_what_the_service_asks_of_one_thread_holds_for_all() -> None:
    policy = Policy()
    asked = failing(1, lambda: PassingFailure("429", retry_after_seconds=50.0))
    sent: list[float] = []

    def first(deadline_seconds: float) -> str:
        sent.append(policy.clock.now)
        return asked(deadline_seconds)

    sleeping = policy.clock.sleep

    def sleep(seconds: float) -> None:
        # Meanwhile another thread begins a call of its own; it waits as long.
        policy._sleep = sleeping
        policy.call(lambda _: sent.append(policy.clock.now))
        sleeping(max(0.0, seconds - 50.0))

    policy._sleep = sleep
    policy.call(first)

    assert sent[1] - sent[0] >= 50
    assert sent[2] - sent[0] >= 50


def test_a_pause_that_no_call_can_wait_for_fails_other_calls_at_once() -> None:
    policy = Policy()
    with pytest.raises(ServiceFailure):
        policy.call(failing(9, lambda: PassingFailure("503", retry_after_seconds=3600.0)))
    with pytest.raises(ServiceFailure) as caught:
        policy.call(failing(0, passing))

    assert "asked to wait" in caught.value.message
    assert policy.counters.requests == 1
    assert policy.clock.slept == []


def test_the_rate_limit_waits_at_least_ten_seconds() -> None:
    policy = Policy(share=0.0)
    policy.call(failing(2, lambda: PassingFailure("blocked", failure_kind=FailureKind.RATE_LIMIT)))

    assert policy.clock.slept == [10.0, 10.0]


def test_total_seconds_bound_the_call_and_the_last_request() -> None:
    limits = RetryLimits(attempts=50, total_seconds=100.0, request_seconds=60.0)
    policy = Policy(limits)
    deadlines: list[float] = []

    def slow(deadline_seconds: float) -> None:
        deadlines.append(deadline_seconds)
        policy.clock.now += deadline_seconds
        raise PassingFailure("timeout")

    with pytest.raises(ServiceFailure) as caught:
        policy.call(slow)

    assert deadlines == [60.0, pytest.approx(39.0)]
    assert policy.clock.now == pytest.approx(1100.0)
    assert "later than 100 s" in caught.value.message


def test_the_runs_budget_bounds_retries_to_a_fifth_and_ten() -> None:
    policy = Policy(RetryLimits(attempts=6))
    for _ in range(100):
        policy.call(failing(0, passing))
    refusals: list[str] = []
    for _ in range(400):
        try:
            policy.call(failing(1, passing))
        except ServiceFailure as error:
            refusals.append(error.message)

    first_requests = policy.counters.requests - policy.counters.retries
    assert first_requests == 500
    assert policy.counters.retries == 110
    assert len(refusals) == 290
    assert all("budget" in message for message in refusals)


def test_each_retry_is_one_log_event_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(worded=str.upper)
    with caplog.at_level(logging.DEBUG, logger="etl.kaltura"):
        policy.call(failing(2, passing), Call(facts={"page_index": 4}))

    events = [record for record in caplog.records if record.__dict__.get("event")]
    assert [e.__dict__["attempt"] for e in events] == [1, 2]
    assert [e.__dict__["wait_seconds"] for e in events] == [1, 4]
    assert {e.__dict__["code"] for e in events} == {"INTERNAL_DATABASE_ERROR"}
    assert {e.__dict__["page_index"] for e in events} == {4}
    assert {e.__dict__["event"] for e in events} == {"service_retry"}
    said = passing().args[0].upper()
    assert {e.getMessage() for e in events} == {f"service call failed, retrying: {said}"}


def test_a_stop_ends_a_wait_within_a_second() -> None:
    stop = Stop()
    policy = RetryPolicy(RetryLimits(), stop)
    asks = failing(9, lambda: PassingFailure("429", retry_after_seconds=60.0))
    timer = threading.Timer(0.2, stop.request)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        policy.call(asks)

    assert time.monotonic() - began < 2  # a second, and room for a busy machine
    assert caught.value.exit_code == 143


def test_giving_up_ends_the_waits_of_all_threads_and_every_further_retry() -> None:
    policy = RetryPolicy(RetryLimits(), Stop())
    asks = failing(9, lambda: PassingFailure("429", retry_after_seconds=60.0))
    timer = threading.Timer(0.1, policy.give_up)
    timer.start()
    for attempt in (asks, failing(9, passing)):
        with pytest.raises(ServiceFailure):
            policy.call(attempt)

    assert policy.counters.requests == 2
    assert policy.counters.retries == 0


def test_after_a_stop_no_request_is_sent() -> None:
    policy = Policy()
    policy.stop.request(2)
    with pytest.raises(Interrupted) as caught:
        policy.call(failing(0, passing))

    assert policy.counters.requests == 0
    assert caught.value.exit_code == 130


def test_a_retry_that_a_stop_prevents_is_not_counted() -> None:
    policy = Policy()
    policy._sleep = lambda _seconds: policy.stop.request(15)
    with pytest.raises(Interrupted):
        policy.call(failing(9, passing))

    assert (policy.counters.requests, policy.counters.retries) == (1, 0)


def test_counters_add_up_under_threads() -> None:
    policy = RetryPolicy(RetryLimits(budget_extra=10_000), Stop(), sleep=lambda _: None)

    def work() -> None:
        for _ in range(200):
            policy.call(failing(1, passing))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert policy.counters.requests == 8 * 200 * 2
    assert policy.counters.retries == 8 * 200
