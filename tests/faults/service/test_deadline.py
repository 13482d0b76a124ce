"""The deadline of a request and a stop hold in every part of it, however slowly bytes come.

Nothing here measures time: a reply that is not cut off is complete after ten seconds or more, and
is then accepted, so a client without a deadline fails these tests.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from etl.errors import Interrupted, ServiceUnavailable
from etl.kaltura.service import RetryLimits, ServiceSettings, open_service
from etl.process.stop import Stop
from tests.support.drip import LONG, PARTS, Drip
from tests.support.service_faults import (
    CREDENTIALS,
    TOKENS,
    Seen,
    Serve,
    Served,
    Waits,
    error_of,
    full_backlog,
    open_at,
    run_at,
)
from tests.support.wire import Authority, Proxy

SHORT = RetryLimits(request_seconds=0.4, attempts=1)
LONG_ENOUGH = RetryLimits(request_seconds=60)


@pytest.mark.parametrize("part", PARTS)
def test_a_slow_reply_is_cut_off_and_a_fast_one_is_accepted(
    service: Served, waits: Waits, seen: Seen, part: str
) -> None:
    with open_at(service, waits, limits=SHORT) as tokens:
        service.meet(Drip(part, interval_seconds=0.0).fault(), times=1)
        assert len(tokens.list_page(1, 500).rows) == TOKENS

        service.meet(Drip(part).fault())
        with error_of(seen, ServiceUnavailable) as caught:
            tokens.list_page(1, 500)

    assert caught[0].fields["transport"] == "TimeoutError"
    assert "no complete reply" in caught[0].message


@pytest.mark.parametrize("part", PARTS)
def test_a_stop_cuts_off_a_slow_reply(service: Served, waits: Waits, seen: Seen, part: str) -> None:
    with open_at(service, waits, limits=LONG_ENOUGH) as tokens:
        service.meet(Drip(part, begun=service.stop.request).fault())
        with error_of(seen, Interrupted):
            tokens.list_page(1, 500)


def test_slow_bytes_inside_tls_are_cut_off(
    serve: Serve, authority: Authority, waits: Waits, seen: Seen
) -> None:
    service = serve(tls=authority.context())
    with open_at(service, waits, limits=SHORT, ca_file=authority.file) as tokens:
        service.meet(Drip("chunk").fault())
        with error_of(seen, ServiceUnavailable) as caught:
            tokens.list_page(1, 500)

    assert "no complete reply" in caught[0].message


def test_a_proxy_that_is_slow_to_answer_is_cut_off(
    serve: Serve,
    authority: Authority,
    waits: Waits,
    seen: Seen,
    environment: pytest.MonkeyPatch,
) -> None:
    service = serve(tls=authority.context())
    answer = b"HTTP/1.1 407 " + LONG + b"\r\n\r\n"
    with closing(Proxy(answer=answer, interval_seconds=0.02)) as proxy:
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with error_of(seen, ServiceUnavailable) as caught:
            run_at(
                service,
                waits,
                limits=SHORT,
                ca_file=authority.file,
                use_environment_proxies=True,
            )

    assert "no connection" in caught[0].message


@contextmanager
def silent_server(accepted: Callable[[], None]) -> Iterator[int]:
    """A port that accepts one connection, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                kept.append(listener.accept()[0])
                accepted()

        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()
        for each in kept:
            each.close()


def test_a_handshake_without_an_answer_is_cut_off(waits: Waits, seen: Seen) -> None:
    with silent_server(lambda: None) as port, error_of(seen, ServiceUnavailable) as caught:
        open_service(
            f"https://127.0.0.1:{port}",
            CREDENTIALS,
            stop=Stop(),
            sleep=waits.sleep,
            monotonic=waits.monotonic,
            settings=ServiceSettings(retry=SHORT),
        )

    assert "no connection" in caught[0].message


def test_a_stop_cuts_off_a_handshake(waits: Waits, seen: Seen) -> None:
    stop = Stop()
    with silent_server(stop.request) as port, error_of(seen, Interrupted):
        open_service(f"https://127.0.0.1:{port}", CREDENTIALS, stop=stop, sleep=waits.sleep)


def test_a_stop_ends_the_wait_for_a_connection(waits: Waits, seen: Seen) -> None:
    stop = Stop()
    timer = threading.Timer(0.2, stop.request)
    with full_backlog() as url:
        timer.start()
        with error_of(seen, Interrupted):
            open_service(url, CREDENTIALS, stop=stop, sleep=waits.sleep, monotonic=waits.monotonic)
        timer.join()
