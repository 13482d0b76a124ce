"""Faults that pass: retried, with the waits of the policy, and given up after six attempts."""

from __future__ import annotations

import time

import pytest

from etl.errors import ServiceUnavailable
from etl.kaltura.service import RetryLimits, ServiceSettings, open_service
from etl.process.stop import Stop
from etl.simulator import Fault
from tests.support.service_faults import (
    CREDENTIALS,
    POSITIONS,
    Seen,
    Served,
    Waits,
    api_fault,
    error_of,
    full_backlog,
    open_at,
    run_at,
    status_fault,
)

PASSING: dict[str, Fault] = {
    "closed before a reply": Fault("close"),
    "reset before a reply": Fault("reset"),
    "reset in the headers": Fault("reset-headers"),
    "reset in the body": Fault("reset-body"),
    "closed in the body": Fault("close-body"),
    "chunked without an end": Fault("chunked-unfinished"),
    "not HTTP": Fault("not-http"),
    "corrupt gzip": Fault("corrupt-gzip"),
    "truncated gzip": Fault("truncated-gzip"),
    "gzip that is none": Fault("plain-as-gzip"),
    "an encoding not asked for": Fault("plain-as-brotli"),
    "429": Fault("429-no-retry-after"),
    "429 with Retry-After": Fault("429", {"retry_after": 7}),
    "408": status_fault(408),
    "500 empty": Fault("500-empty"),
    **{f"{status} HTML": Fault(f"{status}-html") for status in (502, 503, 504)},
    **{
        f"{status} HTML": status_fault(status, b"<html>gateway</html>")
        for status in (520, 521, 522, 523, 524)
    },
    "204": status_fault(204),
    "206": status_fault(206, b"{}"),
    "200 empty": Fault("200-empty"),
    "truncated JSON": Fault("truncated-json"),
    "JSON of another shape": Fault("other-json"),
    "null": Fault("other-json", {"body": b"null"}),
    "an infinitely nested reply": Fault("other-json", {"body": b"[" * 100_000}),
    "INTERNAL_SERVERL_ERROR": api_fault("INTERNAL_SERVERL_ERROR"),
    "INTERNAL_DATABASE_ERROR": api_fault("INTERNAL_DATABASE_ERROR"),
    "ACTION_BLOCKED": api_fault("ACTION_BLOCKED", ACTION_NAME="list"),
}
STALLING = (
    Fault("no-answer"),
    Fault("drip-headers", {"interval_seconds": 0.05}),
    Fault("slow-loris", {"interval_seconds": 0.05}),
)


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_leaves_no_trace_but_the_retries(
    service: Served, waits: Waits, kind: str, where: str
) -> None:
    quiet = run_at(service, waits)
    for times in (1, 5):
        service.meet(PASSING[kind], where, times)
        assert run_at(service, waits) == quiet + times
    assert len(waits) == 6


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_stays_ends_in_exit_69_after_six_attempts(
    service: Served, waits: Waits, seen: Seen, kind: str, where: str
) -> None:
    service.meet(PASSING[kind], where)
    with error_of(seen, ServiceUnavailable) as caught:
        run_at(service, waits)

    assert caught[0].exit_code == 69
    assert "6 attempt(s)" in caught[0].message
    assert len(service.at(where)) == 6


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize(
    "kinds",
    [
        ("503-html", "200-html"),
        ("200-html", "503-html", "200-html", "reset", "200-html"),
        ("429-no-retry-after", "internal-server-error", "200-html", "500-empty"),
    ],
    ids=" ".join,
)
def test_a_page_of_html_among_other_failures_is_one_more_of_them(
    service: Served, waits: Waits, kinds: tuple[str, ...], where: str
) -> None:
    quiet = run_at(service, waits)
    service.meet_each(kinds, where)
    assert run_at(service, waits) == quiet + len(kinds)


def test_an_error_sentence_counts_every_request_of_its_call(
    service: Served, waits: Waits, seen: Seen
) -> None:
    """Those of the session that ended meanwhile as well."""
    with open_at(service, waits) as tokens:
        before = tokens.counters.retries
        service.meet_each(["503-html", "ks-expired", *["503-html"] * 9])
        with error_of(seen, ServiceUnavailable) as caught:
            tokens.list_page(1, 500)
        assert len(service.at("list")) == 7
        assert tokens.counters.retries == before + 6
    assert "after 7 attempt(s)" in caught[0].message


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("fault", STALLING, ids=lambda fault: fault.kind)
def test_a_server_that_stalls_or_drips_is_cut_at_the_deadline_of_the_request(
    service: Served, waits: Waits, seen: Seen, fault: Fault, where: str
) -> None:
    limits = RetryLimits(request_seconds=0.4, attempts=3)
    service.meet(fault, where, 1)
    began = time.monotonic()
    run_at(service, waits, limits=limits)
    assert 0.4 <= time.monotonic() - began < 6

    service.meet(fault, where)
    began = time.monotonic()
    with error_of(seen, ServiceUnavailable):
        run_at(service, waits, limits=limits)
    assert 1.2 <= time.monotonic() - began < 8


def test_a_cached_reply_is_no_reply(service: Served, waits: Waits, seen: Seen) -> None:
    for where in ("list", "idIn"):
        service.meet("cached", where, 5)
        run_at(service, waits)
        service.meet("cached", where)
        with error_of(seen, ServiceUnavailable) as caught:
            run_at(service, waits)
        assert caught[0].fields["reason"] == "cached_reply"
    # Widget sessions may be served so: a session is proved by use.
    service.meet("cached", "login")
    run_at(service, waits)


def test_no_server_listens(service: Served, waits: Waits, seen: Seen) -> None:
    service.server.close()
    with error_of(seen, ServiceUnavailable) as caught:
        open_at(service, waits)

    assert len(waits) == 5
    assert "refused" in caught[0].message


def test_a_service_that_comes_back_is_used(service: Served, waits: Waits) -> None:
    service.server.close()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            service.server.start()

    with open_service(
        service.server.url,
        CREDENTIALS,
        stop=service.stop,
        sleep=sleep,
        monotonic=waits.monotonic,
        settings=ServiceSettings(app_token_hash="SHA1"),
    ) as tokens:
        assert len(tokens.list_page(1, 5).rows) == 5


def test_a_name_that_does_not_resolve(waits: Waits, seen: Seen) -> None:
    with error_of(seen, ServiceUnavailable):
        open_service("https://service.invalid", CREDENTIALS, stop=Stop(), sleep=waits.append)

    assert len(waits) == 5


def test_a_black_hole_is_given_up_within_the_time_for_connecting(waits: Waits, seen: Seen) -> None:
    with full_backlog() as url:
        began = time.monotonic()
        with error_of(seen, ServiceUnavailable) as caught:
            open_service(
                url,
                CREDENTIALS,
                stop=Stop(),
                sleep=waits.sleep,
                monotonic=waits.monotonic,
                settings=ServiceSettings(retry=RetryLimits(request_seconds=0.3, attempts=2)),
            )

    assert "no connection" in caught[0].message
    assert time.monotonic() - began < 6


def test_retry_after_is_waited_in_full_as_seconds_or_as_a_date(
    service: Served, waits: Waits
) -> None:
    for fault in (
        status_fault(429, Retry_After="30"),
        status_fault(
            503,
            Date="Mon, 23 Nov 2026 08:54:13 GMT",
            Retry_After="Mon, 23 Nov 2026 08:54:43 GMT",
        ),
    ):
        waits.clear()
        service.meet(fault, times=1)
        run_at(service, waits)
        assert len(waits) == 1
        assert 30 <= waits[0] <= 31


def test_an_invalid_retry_after_is_a_plain_wait(service: Served, waits: Waits) -> None:
    for value in ("soon", "-5", "1e3", "", "Mon, 99 Nov 2026 08:54:43 GMT"):
        waits.clear()
        service.meet(status_fault(429, Retry_After=value), times=1)
        run_at(service, waits)
        assert len(waits) == 1
        assert waits[0] <= 1


def test_a_retry_after_of_an_hour_ends_the_call_at_once(
    service: Served, waits: Waits, seen: Seen
) -> None:
    service.meet(status_fault(429, Retry_After="3600"))
    with error_of(seen, ServiceUnavailable):
        run_at(service, waits)

    assert len(service.at("list")) == 1
    assert waits == []
