"""What the client sends, over which connections, and that it stops within a second."""

from __future__ import annotations

import base64
import io
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from etl.errors import CredentialsRefused, Interrupted
from etl.kaltura import transport
from etl.kaltura.service import Credentials, RetryLimits
from etl.simulator import Fault
from etl.simulator.api.ks import Session, read_ks
from etl.simulator.faults import RequestInfo
from tests.support.service_faults import (
    ADMIN_SECRET,
    APP_TOKEN_ID,
    CANARIES,
    LIST_PATH,
    OTHERS_KS,
    PARTNER,
    Seen,
    Serve,
    Served,
    Waits,
    api_fault,
    error_of,
    forbidden_forms,
    open_at,
    sent_by,
)
from tests.support.wire import Authority


def test_the_requests_are_exactly_those_that_the_service_understands(
    service: Served, waits: Waits
) -> None:
    with open_at(service, waits) as tokens:
        tokens.list_page(3, 444, status_in="0,1,2", omit_auto_finalize=True)
        tokens.list_by_id(["0_a", "0_b"])
    _, start, page, ids = service.requests
    sent = [sent_by(info) for info in service.requests]

    assert [info.request.target for info in service.requests] == [
        "/api_v3/service/session/action/startWidgetSession?format=1",
        "/api_v3/service/appToken/action/startSession?format=1",
        LIST_PATH,
        LIST_PATH,
    ]
    common = {"format": 1, "nocache": 1, "clientTag": "kaltura-etl"}
    assert sent[0] == common | {"widgetId": "_102"}
    assert session_of(start).privilege("widget") == "1"
    assert sent[1] == common | {
        "ks": sent[1]["ks"],
        "id": APP_TOKEN_ID,
        "type": 2,
        "tokenHash": sent[1]["tokenHash"],
    }
    assert re.fullmatch(r"[0-9a-f]{40}", sent[1]["tokenHash"])
    assert session_of(page).privilege("apptoken") == APP_TOKEN_ID
    assert session_of(page).ks == session_of(ids).ks
    profile = sent[2]["responseProfile"]
    assert "autoFinalize" not in profile["fields"]
    assert sent[2] == common | {
        "ks": session_of(page).ks,
        "filter": {"orderBy": "+createdAt", "statusIn": "0,1,2"},
        "pager": {"pageSize": 444, "pageIndex": 3},
        "responseProfile": profile,
    }
    assert sent[3] == common | {
        "ks": session_of(ids).ks,
        "filter": {"orderBy": "+createdAt", "idIn": "0_a,0_b"},
        "pager": {"pageSize": 500, "pageIndex": 1},
    }
    assert "ks" not in sent[0]
    secrets = [*CANARIES, *service.sessions()]
    for info in service.requests:
        request = info.request
        assert (request.method, request.version) == ("POST", "HTTP/1.1")
        assert request.headers["content-type"] == "application/json"
        assert "cookie" not in request.headers
        assert "authorization" not in request.headers
        assert not any(secret in request.target for secret in secrets)


def session_of(info: RequestInfo) -> Session:
    """The session of a request, which the simulator made."""
    session = read_ks(str(sent_by(info)["ks"]), lambda _: (ADMIN_SECRET,))
    assert session is not None
    return session


def test_one_connection_serves_one_thread_and_threads_have_their_own(
    service: Served, waits: Waits
) -> None:
    with open_at(service, waits) as tokens:
        for number in range(20):
            tokens.list_page(number + 1, 500)
        assert service.server.connections_accepted == 1
        with ThreadPoolExecutor(4) as pool:
            pages = list(pool.map(lambda n: tokens.list_page(n, 500), range(1, 201)))
        assert service.server.connections_accepted <= 4
    assert [page.facts.page_index for page in pages] == list(range(1, 201))


@pytest.mark.parametrize("secured", [False, True])
def test_a_connection_that_the_server_closed_meanwhile_is_not_an_error(
    serve: Serve, authority: Authority, waits: Waits, secured: bool
) -> None:
    service = serve(tls=authority.context() if secured else None)
    service.meet("close-after-reply")
    with open_at(service, waits, ca_file=authority.file if secured else None) as tokens:
        for _ in range(5):
            tokens.list_page(1, 500)
            time.sleep(0.05)
        assert tokens.counters.retries == 0
    assert service.server.connections_accepted == 5


def test_tls_connections_are_reused(serve: Serve, authority: Authority, waits: Waits) -> None:
    service = serve(tls=authority.context())
    with open_at(service, waits, ca_file=authority.file) as tokens:
        for number in range(5):
            tokens.list_page(number + 1, 500)
    assert service.server.connections_accepted == 1


def test_a_connection_that_was_idle_for_long_is_not_used_again(
    service: Served, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "IDLE_SECONDS_MAX", 0.0)
    with open_at(service, waits) as tokens:
        tokens.list_page(1, 500)
        accepted = service.server.connections_accepted
        tokens.list_page(1, 500)
    assert service.server.connections_accepted == accepted + 1


@pytest.mark.parametrize("kind", ["no-answer", "slow-loris", "drip-headers"])
def test_a_stop_cuts_a_running_request_within_a_second(
    service: Served, waits: Waits, seen: Seen, kind: str
) -> None:
    with open_at(service, waits, limits=RetryLimits()) as tokens:
        service.meet(Fault(kind, {"interval_seconds": 0.05}))

        def interrupt() -> None:
            service.stop.request()

        timer = threading.Timer(0.3, interrupt)
        timer.start()
        began = time.monotonic()
        with error_of(seen, Interrupted) as caught:
            tokens.list_page(1, 500)

    assert time.monotonic() - began < 2  # a second, and room for a busy machine
    assert caught[0].exit_code == 143


def test_the_search_for_secrets_finds_what_it_looks_for() -> None:
    """A proof that the fixture above can fail: the same search over texts that leak."""
    leaks = io.StringIO()
    for canary in CANARIES:
        leaks.write(f"{canary} {base64.b64encode(canary.encode()).decode()} {quote(canary)}")
        leaks.write(canary.encode().hex() + quote(canary, safe=""))

    assert all(form in leaks.getvalue() for form in forbidden_forms(list(CANARIES)))


def test_an_admin_secret_never_leaves_the_process(
    service: Served, waits: Waits, seen: Seen
) -> None:
    with open_at(service, waits, Credentials(PARTNER, admin_secret=ADMIN_SECRET)) as tokens:
        service.meet(api_fault("INVALID_KS", KSID=OTHERS_KS))
        with error_of(seen, CredentialsRefused):
            tokens.list_page(1, 5)

    for info in service.requests:
        assert ADMIN_SECRET.encode() not in info.request.body
