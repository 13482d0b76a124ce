"""The retry policy, around one HTTP call.

Bounded by attempts and by total seconds, with full jitter, Retry-After, and a budget for the
whole run, so that a service in trouble gets at most a fifth more requests.  Only
``ServiceFailure`` is retried: an error that is not known to be transient is permanent.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from etl.errors import EtlError, ServiceFailure
from etl.process.stop import Stop

log = logging.getLogger("etl.kaltura")

T = TypeVar("T")


class PassingFailure(ServiceFailure):
    """A failed attempt, with what the table of errors says about retrying.

    ``least_wait_seconds``: wait at least this long.  ``attempts_at_most``: fewer attempts for this
    kind.  ``verdict``: what to raise when the last attempt fails; None for the failure itself.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
        least_wait_seconds: float = 0.0,
        attempts_at_most: int | None = None,
        verdict: EtlError | None = None,
        **fields: object,
    ) -> None:
        super().__init__(
            message,
            code=code,
            http_status=http_status,
            retry_after_seconds=retry_after_seconds,
            **fields,
        )
        self.least_wait_seconds = least_wait_seconds
        self.attempts_at_most = attempts_at_most
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Bounds of the policy."""

    attempts: int = 6
    total_seconds: float = 300.0
    request_seconds: float = 60.0
    """Deadline of one whole request, from connecting to the last byte."""
    first_wait_seconds: float = 1.0
    wait_cap_seconds: float = 60.0
    budget_share: float = 0.2
    budget_extra: int = 10


class Counters:
    """Requests of this run, all threads together; ``retries`` of them were repeated."""

    def __init__(self, limits: RetryLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._requests = 0
        self._retries = 0

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def retries(self) -> int:
        return self._retries

    def count_request(self) -> None:
        with self._lock:
            self._requests += 1

    def take_retry(self) -> bool:
        """Take one retry out of the run's budget; False when it is spent."""
        with self._lock:
            wanted = self._requests - self._retries
            allowed = self._limits.budget_share * wanted + self._limits.budget_extra
            if self._retries + 1 > allowed:
                return False
            self._retries += 1
            return True


class RetryPolicy:
    """Runs attempts.  Thread-safe: one per run, with one budget and one pause for all threads."""

    def __init__(
        self,
        limits: RetryLimits,
        stop: Stop,
        *,
        sleep: Callable[[float], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """``sleep`` replaces waiting on ``stop`` (tests); ``uniform(a, b)`` gives the jitter."""
        self.limits = limits
        self.counters = Counters(limits)
        self._stop = stop
        self._sleep = sleep
        self._monotonic = monotonic
        self._uniform = uniform
        self._hold_until = float("-inf")

    def call(
        self,
        attempt: Callable[[float], T],
        *,
        attempts: int | None = None,
        facts: dict[str, object] | None = None,
    ) -> T:
        """Run ``attempt(deadline_seconds)`` until it succeeds or the policy gives up.

        ``attempts`` replaces the number of attempts for this call; ``facts`` go into every log
        event and into the final error.  Raises what the attempt raised if that is permanent,
        ServiceFailure or the failure's verdict when the policy gives up, Interrupted on a stop.
        """
        started = self._monotonic()
        facts = facts or {}
        state = _Call(attempts or self.limits.attempts)

        def one() -> T:
            left = started + self.limits.total_seconds - self._monotonic()
            self._hold(left)
            self._stop.check()
            self.counters.count_request()
            return attempt(max(0.001, min(self.limits.request_seconds, left)))

        def stop(retry: tenacity.RetryCallState) -> bool:
            failure = _failure(retry)
            at_most = min(state.attempts, getattr(failure, "attempts_at_most", None) or 1_000)
            elapsed = self._monotonic() - started
            if retry.attempt_number >= at_most:
                state.ended_by = f"after {retry.attempt_number} attempt(s)"
            elif elapsed + retry.upcoming_sleep >= self.limits.total_seconds:
                state.ended_by = (
                    f"the next attempt would be later than {self.limits.total_seconds:.0f} s"
                )
            elif not self.counters.take_retry():
                state.ended_by = "the run's budget of retries is spent"
            return bool(state.ended_by)

        def tell(retry: tenacity.RetryCallState) -> None:
            failure = _failure(retry)
            log.warning(
                "service call failed, retrying: %s",
                failure.message,
                extra={
                    "event": "service_retry",
                    "attempt": retry.attempt_number,
                    "wait_seconds": round(retry.upcoming_sleep, 3),
                    "code": failure.code,
                    "http_status": failure.http_status,
                    **facts,
                },
            )

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ServiceFailure),
            wait=self._next_wait,
            stop=stop,
            sleep=self.wait,
            before_sleep=tell,
            reraise=True,
        )
        try:
            return retrying(one)
        except ServiceFailure as failure:
            last = failure
        # Outside the handler, so that no half-read reply is kept as the context of the error.
        raise _final(last, state.ended_by, facts)

    def wait(self, seconds: float) -> None:
        """Sleep; Interrupted as soon as a stop is requested."""
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            self._stop.wait(seconds)
        self._stop.check()

    def _next_wait(self, retry: tenacity.RetryCallState) -> float:
        """Full jitter over the exponential step, on top of what the service asked for.

        That is never shortened: if it does not fit into the total, the call gives up.  It applies
        to all threads: they are one client to the service.
        """
        failure = _failure(retry)
        step = self.limits.first_wait_seconds * 2.0 ** (retry.attempt_number - 1)
        jitter = self._uniform(0.0, min(self.limits.wait_cap_seconds, step))
        asked = max(failure.retry_after_seconds or 0.0, getattr(failure, "least_wait_seconds", 0.0))
        if asked > 0:
            self._hold_until = max(self._hold_until, self._monotonic() + asked)
        return asked + jitter

    def _hold(self, left: float) -> None:
        """Wait until the time that the service asked any thread to wait for."""
        wait = self._hold_until - self._monotonic()
        if wait <= 0:
            return
        if wait >= left:
            raise PassingFailure(
                f"the service asked to wait {wait:.0f} s more",
                retry_after_seconds=wait,
                attempts_at_most=1,
            )
        self.wait(wait)


@dataclass(slots=True)
class _Call:
    attempts: int
    ended_by: str = ""


def _failure(retry: tenacity.RetryCallState) -> ServiceFailure:
    error = retry.outcome.exception() if retry.outcome else None
    if not isinstance(error, ServiceFailure):  # the retry predicate passes nothing else
        raise TypeError(f"not a ServiceFailure: {type(error).__name__}")
    return error


def _final(last: ServiceFailure, ended_by: str, facts: dict[str, object]) -> EtlError:
    verdict = getattr(last, "verdict", None)
    if isinstance(verdict, EtlError):
        verdict.fields.update(facts)
        return verdict
    fields = {key: value for key, value in last.fields.items() if key not in _OWN_FIELDS}
    return ServiceFailure(
        f"{last.message} ({ended_by}); try again later",
        code=last.code,
        http_status=last.http_status,
        retry_after_seconds=last.retry_after_seconds,
        **(fields | facts),
    )


_OWN_FIELDS = frozenset({"code", "http_status"})
