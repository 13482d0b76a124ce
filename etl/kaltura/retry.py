"""The retry policy, around one HTTP call: for each kind of failure, how many attempts and which
waits.

Bounded by attempts and by total seconds, with growing waits, jitter, Retry-After, and a budget for
the whole run, so that a service in trouble gets at most a fifth more requests.  Only
``PassingFailure`` is retried: an error that is not known to be transient is permanent.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

import tenacity

from etl.errors import EtlError, ServiceFailure
from etl.kaltura.in_flight import RequestLimit
from etl.kaltura.request_rate import RequestRate
from etl.process.stop import Stop

log = logging.getLogger("etl.kaltura")

T = TypeVar("T")

WAIT_GROWTH: Final = 4.0
"""Each wait of a call is up to so many times as long as the one before, ..."""
WAIT_FIXED_SHARE: Final = 0.5
"""... and at least this share of it is waited, the rest is jitter.  With the defaults, the waits of
a call are 1.7 to 3.4 minutes together: a restart or a failover of the service is over by then."""

WAIT_STEP_SECONDS: Final = 0.5
"""A thread that waits looks so often whether there is still something to wait for."""
BUDGET_EXTRA: Final = 10
"""Retries of a run, besides a fifth of its requests."""


class FailureKind(Enum):
    """What a failed attempt tells about the next one."""

    TROUBLE = "trouble"
    """The network or the service is in trouble, which passes."""
    RATE_LIMIT = "rate limit"
    """Kaltura's own, which it does not state in a Retry-After."""
    ROW = "row"
    """An error inside the service: trouble, or a row of the answer that it cannot serve."""
    MARKUP = "markup"
    """HTML in place of an answer.  From a service that has answered in this run it is trouble, such
    as a maintenance page; else it is that once, and a wrong address or a login page if it stays."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How one kind of failure is retried."""

    attempts: int | None = None
    """So many failures of the kind are final, although the call has attempts left."""
    in_a_row: bool = False
    """Whether a failure of another kind starts that count again."""
    until_answered: bool = False
    """Whether that count ends with the first answer in this run."""
    least_wait_seconds: float = 0.0


PATIENCE: Final[Mapping[FailureKind, Patience]] = {
    FailureKind.TROUBLE: Patience(),
    FailureKind.RATE_LIMIT: Patience(least_wait_seconds=10.0),  # the window in which Kaltura counts
    FailureKind.ROW: Patience(),  # final after ``Call.row_attempts``
    FailureKind.MARKUP: Patience(attempts=2, in_a_row=True, until_answered=True),
}


class PassingFailure(ServiceFailure):
    """A failed attempt that another one may mend.

    ``verdict`` is what to raise if failures of its kind are final; None for the failure itself.
    """

    def __init__(
        self,
        message: str,
        *,
        failure_kind: FailureKind = FailureKind.TROUBLE,
        code: str | None = None,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
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
        self.failure_kind = failure_kind
        self.verdict = verdict

    @property
    def asked_seconds(self) -> float:
        """The wait that the service asks for."""
        return max(self.retry_after_seconds or 0.0, PATIENCE[self.failure_kind].least_wait_seconds)


class RowSuspected(ServiceFailure):
    """The service failed on this answer each time, as it does if it cannot serve a row of it."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """Bounds of the policy."""

    attempts: int = 6
    attempts_unanswered: int | None = None
    """The same as long as no call of this run has been answered; None: ``attempts``, too."""
    total_seconds: float = 300.0
    request_seconds: float = 60.0
    """Deadline of one whole request, from connecting to the last byte."""
    first_wait_seconds: float = 1.0
    wait_cap_seconds: float = 120.0
    budget_share: float = 0.2
    budget_extra: int = BUDGET_EXTRA


@dataclass(slots=True)
class Call:
    """One call: what is asked of the policy, and how it has gone so far.

    It goes on in a renewed session, so it may be given to the policy several times.
    """

    row_attempts: int | None = None
    """After so many failures of ``FailureKind.ROW``, a row is suspected; None: it has no rows."""
    facts: dict[str, object] = field(default_factory=dict)
    """They go into every log event and into the final error."""
    sent: int = 0
    """Requests that went out."""
    failed: Counter[FailureKind] = field(default_factory=Counter)
    in_a_row: int = 0
    """How many of the last failures were of one kind."""
    last: FailureKind | None = None
    answered: bool = False
    """Whether the service had answered another call of this run when this one failed last."""

    def note(self, kind: FailureKind, *, answered: bool = False) -> None:
        self.failed[kind] += 1
        self.answered = answered
        self.in_a_row = self.in_a_row + 1 if kind is self.last else 1
        self.last = kind

    def is_decided(self) -> bool:
        """Whether the last failure was one too many of its kind, whatever attempts are left."""
        if self.last is None:
            return False
        patience = PATIENCE[self.last]
        if patience.until_answered and self.answered:
            return False
        at_most = self.row_attempts if self.last is FailureKind.ROW else patience.attempts
        met = self.in_a_row if patience.in_a_row else self.failed[self.last]
        return at_most is not None and met >= at_most

    def suspects_row(self) -> bool:
        """Whether the failures speak for a row: enough of them, or as many as there were."""
        if self.row_attempts is None or self.last is not FailureKind.ROW:
            return False
        return self.is_decided() or self.failed[FailureKind.ROW] == self.failed.total()


class Counters:
    """Requests of this run that went out, all threads together; ``retries`` of them again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._retries = 0
        self._bytes = 0
        self._granted = 0

    @property
    def requests(self) -> int:
        return self._requests

    @property
    def retries(self) -> int:
        return self._retries

    @property
    def bytes_received(self) -> int:
        """Bytes of the replies' bodies, as they were before compression."""
        return self._bytes

    def columns(self) -> dict[str, int]:
        """Requests and retries, by their names in the ledger."""
        with self._lock:
            return {"requests": self._requests, "retries": self._retries}

    def count_request(self, *, again: bool) -> None:
        with self._lock:
            self._requests += 1
            self._retries += again

    def count_reply(self, size: int) -> None:
        with self._lock:
            self._bytes += size

    def take_retry(self, limits: RetryLimits) -> bool:
        """Take one retry out of the run's budget; False when it is spent."""
        with self._lock:
            wanted = self._requests - self._retries
            allowed = limits.budget_share * wanted + limits.budget_extra
            if self._granted + 1 > allowed:
                return False
            self._granted += 1
            return True


class RetryPolicy:
    """Runs attempts.  Thread-safe: one per run, with one budget and one pause for all threads."""

    def __init__(
        self,
        limits: RetryLimits,
        stop: Stop,
        *,
        counters: Counters | None = None,
        in_flight: RequestLimit | None = None,
        rate: RequestRate | None = None,
        worded: Callable[[str], str] = str,
        sleep: Callable[[float], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """``in_flight`` and ``rate`` are limits that other runs may share; ``worded`` is what the
        log says instead of a message.

        ``sleep`` replaces waiting on ``stop`` (tests); ``uniform(a, b)`` gives the jitter.
        """
        self.limits = limits
        self.counters = counters or Counters()
        self._stop = stop
        self._in_flight = in_flight
        self._rate = rate
        self._worded = worded
        self._sleep = sleep
        self._monotonic = monotonic
        self._uniform = uniform
        self._hold_until = float("-inf")
        self._is_over = False
        self._has_answered = False

    def give_up(self) -> None:
        """From now on nothing is retried, in no thread: what the calls were for is over."""
        self._is_over = True

    def call(self, attempt: Callable[[float], T], call: Call | None = None) -> T:
        """Run ``attempt(deadline_seconds)`` until it succeeds or the policy gives up.

        Raises what the attempt raised if that is permanent; when the policy gives up the failure's
        verdict, RowSuspected or ServiceFailure; Interrupted on a stop.
        """
        started = self._monotonic()
        call = call or Call()
        ended_by = ""

        def one() -> T:
            nonlocal started
            try:
                while True:
                    left = started + self.limits.total_seconds - self._monotonic()
                    self._hold(left)
                    queued = self._monotonic()
                    with self._place():
                        self._await_turn()
                        started += self._monotonic() - queued  # that wait is not the service's
                        self._stop.check()
                        if self._is_over and call.sent > 0:
                            raise PassingFailure("given up because another call has failed")
                        if self._is_held():
                            continue  # asked for while this call was in the queue
                        self.counters.count_request(again=call.sent > 0)
                        call.sent += 1
                        return attempt(max(0.001, min(self.limits.request_seconds, left)))
            except PassingFailure as failure:
                call.note(failure.failure_kind, answered=self._has_answered)
                raise

        def stop(retry: tenacity.RetryCallState) -> bool:
            nonlocal ended_by
            elapsed = self._monotonic() - started
            ended_by = f"after {call.sent} attempt(s)"
            if call.is_decided() or call.failed.total() >= self._attempts() or self._is_over:
                return True
            if elapsed + retry.upcoming_sleep >= self.limits.total_seconds:
                seconds = f"{self.limits.total_seconds:.0f} s"
                ended_by += f"; the next one would be later than {seconds}"
                return True
            if not self.counters.take_retry(self.limits):
                ended_by += "; the run's budget of retries is spent"
                return True
            return False

        def tell(retry: tenacity.RetryCallState) -> None:
            failure = _failure(retry)
            log.warning(
                "service call failed, retrying: %s",
                self._worded(failure.message),
                extra={
                    "event": "service_retry",
                    "attempt": call.sent,
                    "wait_seconds": round(retry.upcoming_sleep, 3),
                    "code": failure.code,
                    "http_status": failure.http_status,
                    **call.facts,
                },
            )

        def wait(retry: tenacity.RetryCallState) -> float:
            return self._next_wait(_failure(retry), call.failed.total())

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingFailure),
            wait=wait,
            stop=stop,
            sleep=self.wait,
            before_sleep=tell,
            reraise=True,
        )
        try:
            answer = retrying(one)
        except PassingFailure as failure:
            last = failure
        else:
            self._has_answered = True
            return answer
        # Outside the handler, so that no half-read reply is kept as the context of the error.
        raise _final(last, ended_by, call)

    def _attempts(self) -> int:
        if self._has_answered or self.limits.attempts_unanswered is None:
            return self.limits.attempts
        return self.limits.attempts_unanswered

    def _place(self) -> AbstractContextManager[None]:
        if self._in_flight is None:
            return nullcontext()
        return self._in_flight.place(self._check_in_queue)

    def _await_turn(self) -> None:
        """Wait until the rate lets this request begin.

        It has its place already: a turn taken before would be used late, together with others.
        """
        if self._rate is None:
            return
        wait = self._rate.take_turn(self._monotonic()) - self._monotonic()
        if wait > 0:
            self.wait(wait)
            self._check_in_queue()

    def _check_in_queue(self) -> None:
        self._stop.check()
        if self._is_over:
            raise PassingFailure("given up because another call has failed")

    def wait(self, seconds: float) -> None:
        """Sleep until nothing is retried any more; Interrupted as soon as a stop is requested."""
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            until = time.monotonic() + seconds
            while not self._is_over and (left := until - time.monotonic()) > 0:
                self._stop.wait(min(left, WAIT_STEP_SECONDS))
                self._stop.check()
        self._stop.check()

    def _next_wait(self, failure: PassingFailure, failures: int) -> float:
        """The exponential step, half of it jitter; or jitter on top of what the service asked for.

        That is never shortened: if it does not fit into the total, the call gives up.  It applies
        to all threads: they are one client to the service.
        """
        growth = WAIT_GROWTH ** (failures - 1)
        step = min(self.limits.wait_cap_seconds, self.limits.first_wait_seconds * growth)
        asked = failure.asked_seconds
        if asked > 0:
            self._hold_until = max(self._hold_until, self._monotonic() + asked)
            return asked + self._uniform(0.0, step)
        return self._uniform(WAIT_FIXED_SHARE * step, step)

    def _is_held(self) -> bool:
        return not self._is_over and self._hold_until > self._monotonic()

    def _hold(self, left: float) -> None:
        """Wait until the time that the service asked any thread to wait for."""
        wait = self._hold_until - self._monotonic()
        if wait <= 0:
            return
        if wait >= left:
            raise PassingFailure(
                f"the service asked to wait {wait:.0f} s more", retry_after_seconds=wait
            )
        self.wait(wait)


def _failure(retry: tenacity.RetryCallState) -> PassingFailure:
    error = retry.outcome.exception() if retry.outcome else None
    if not isinstance(error, PassingFailure):  # the retry predicate passes nothing else
        raise TypeError(f"not a PassingFailure: {type(error).__name__}")
    return error


def _final(last: PassingFailure, ended_by: str, call: Call) -> EtlError:
    if last.verdict is not None and call.is_decided():
        last.verdict.fields.update(call.facts)
        return last.verdict
    fields = {key: value for key, value in last.fields.items() if key not in _OWN_FIELDS}
    return (RowSuspected if call.suspects_row() else ServiceFailure)(
        f"{last.message} ({ended_by}); try again later",
        code=last.code,
        http_status=last.http_status,
        retry_after_seconds=last.retry_after_seconds,
        **(fields | call.facts),
    )


_OWN_FIELDS = frozenset({"code", "http_status"})
