"""Each fault of the simulator does what its description says."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etl.simulator import (
    DEFAULT_ADMIN_SECRET,
    FAULT_KINDS,
    Fault,
    SimulatorClient,
    SimulatorServer,
    generate_account,
)
from etl.simulator.faults import RequestInfo
from etl.simulator.message import HttpReply

ROOT = Path(__file__).resolve().parents[2]
TARGET = "/api_v3/service/uploadtoken/action/list?format=1"


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(1_000, seed=1)) as running:
        yield running


@pytest.fixture
def body(server: SimulatorServer) -> bytes:
    with SimulatorClient(server.url) as client:
        ks = client.start_session(DEFAULT_ADMIN_SECRET)
    filters = {"filter": {"orderBy": "+createdAt"}, "pager": {"pageSize": 100, "pageIndex": 1}}
    return json.dumps({"ks": ks, "format": 1, "nocache": 1, **filters}).encode()


def post(server: SimulatorServer, body: bytes) -> tuple[int, dict[str, str], bytes]:
    with SimulatorClient(server.url, timeout_seconds=5) as client:
        return client.post(TARGET, body)


def page(server: SimulatorServer, body: bytes, kind: str, **options: Any) -> Any:
    server.faults.schedule(kind, **options)
    return json.loads(post(server, body)[2])


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("close", http.client.RemoteDisconnected),
        ("reset", ConnectionResetError),
        ("reset-headers", ConnectionResetError),
        ("reset-body", (ConnectionResetError, http.client.IncompleteRead)),
        ("close-body", http.client.IncompleteRead),
        ("chunked-unfinished", http.client.IncompleteRead),
        ("not-http", http.client.BadStatusLine),
    ],
)
def test_connections_break(
    server: SimulatorServer, body: bytes, kind: str, error: type[Exception]
) -> None:
    server.faults.schedule(kind)
    with pytest.raises(error):
        post(server, body)
    server.faults.clear()
    assert len(json.loads(post(server, body)[2])["objects"]) == 100


def test_no_answer_comes(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("no-answer", first=1)
    with SimulatorClient(server.url, timeout_seconds=0.3) as client, pytest.raises(TimeoutError):
        client.post(TARGET, body)
    assert post(server, body)[0] == 200


def test_a_connection_can_close_after_a_reply_without_notice(
    server: SimulatorServer, body: bytes
) -> None:
    server.faults.schedule("close-after-reply", first=1)
    with SimulatorClient(server.url, timeout_seconds=5) as client:
        _, headers, content = client.post(TARGET, body)
        assert "connection" not in headers
        assert len(json.loads(content)["objects"]) == 100
        assert server.connections_accepted == 2
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            client.post(TARGET, body)


@pytest.mark.parametrize("kind", ["slow-loris", "drip-headers"])
def test_a_reply_can_come_byte_by_byte(server: SimulatorServer, body: bytes, kind: str) -> None:
    server.faults.schedule(kind, interval_seconds=0.01)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        head = f"POST {TARGET} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        pieces = [sock.recv(65_536) for _ in range(10)]
    assert all(len(piece) < 10 for piece in pieces[1:])


@pytest.mark.parametrize("kind", ["corrupt-gzip", "truncated-gzip", "plain-as-gzip"])
def test_gzip_that_cannot_be_unpacked(server: SimulatorServer, body: bytes, kind: str) -> None:
    server.faults.schedule(kind)
    _, headers, content = post(server, body)
    assert headers["content-encoding"] == "gzip"
    with pytest.raises((zlib.error, EOFError, gzip.BadGzipFile)):
        gzip.decompress(content)


def test_an_encoding_can_be_one_that_was_not_asked_for(
    server: SimulatorServer, body: bytes
) -> None:
    server.faults.schedule("plain-as-brotli")
    _, headers, content = post(server, body)
    assert headers["content-encoding"] == "br"
    assert len(json.loads(content)["objects"]) == 100


def test_gzip_bomb_is_one_long_list(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("gzip-bomb", bytes=8 << 20)
    _, headers, content = post(server, body)
    assert headers["content-encoding"] == "gzip"
    assert len(content) < 20_000
    unpacked = zlib.decompressobj(31).decompress(content, 4 << 20)
    assert len(unpacked) == 4 << 20
    assert unpacked.startswith(b'{"totalCount":0,"objects":[   ')


def test_default_gzip_bomb_is_small_on_the_wire(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("gzip-bomb")
    assert len(post(server, body)[2]) < 2 << 20


def test_oversized_body_goes_on_until_the_reader_gives_up(
    server: SimulatorServer, body: bytes
) -> None:
    server.faults.schedule("oversized-body")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("POST", TARGET, body, {"Content-Type": "application/json"})
    assert len(connection.getresponse().read(32 << 20)) == 32 << 20
    connection.close()
    server.faults.clear()
    assert post(server, body)[0] == 200


@pytest.mark.parametrize(
    ("kind", "status", "headers"),
    [
        ("429", 429, {"retry-after": "1"}),
        ("429-no-retry-after", 429, {}),
        ("500-empty", 500, {"content-type": "text/html; charset=UTF-8"}),
        ("502-html", 502, {"content-type": "text/html; charset=UTF-8"}),
        ("503-html", 503, {}),
        ("504-html", 504, {}),
        ("200-html", 200, {"content-type": "text/html; charset=UTF-8"}),
        ("200-empty", 200, {"content-type": "application/json"}),
        ("redirect-301", 301, {"location": "https://elsewhere.example.invalid" + TARGET}),
        ("redirect-302", 302, {}),
        ("redirect-303", 303, {}),
        ("redirect-307", 307, {}),
        ("redirect-308", 308, {}),
        ("status", 408, {}),
    ],
)
def test_other_replies_take_the_place_of_the_page(
    server: SimulatorServer, body: bytes, kind: str, status: int, headers: dict[str, str]
) -> None:
    server.faults.schedule(kind)
    got, got_headers, content = post(server, body)
    assert got == status
    assert {name: got_headers.get(name) for name in headers} == headers
    assert ("retry-after" in got_headers) == (kind == "429")
    assert content.startswith(b"<html>") == (kind.endswith("-html") or kind.startswith("429"))


def test_retry_after_can_be_chosen(server: SimulatorServer, body: bytes) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    server.faults.schedule("429", retry_after=date)
    assert post(server, body)[1]["retry-after"] == date


@pytest.mark.parametrize(
    ("kind", "code", "ksid"),
    [
        ("internal-server-error", "INTERNAL_SERVERL_ERROR", None),
        ("internal-database-error", "INTERNAL_DATABASE_ERROR", None),
        ("action-blocked", "ACTION_BLOCKED", None),
        ("ks-expired", "INVALID_KS", "EXPIRED"),
        ("ks-logout", "INVALID_KS", "LOGOUT"),
        ("ks-actions-limit", "INVALID_KS", "EXCEEDED_ACTIONS_LIMIT"),
        ("ks-restricted-ip", "INVALID_KS", "EXCEEDED_RESTRICTED_IP"),
        ("ks-invalid", "INVALID_KS", "the session itself"),
        ("service-forbidden", "SERVICE_FORBIDDEN", None),
        ("unknown-error", "FLUX_CAPACITOR_EMPTY", None),
        ("memcache-down", "INTERNAL_SERVERL_ERROR", None),
    ],
)
def test_api_errors_come_with_status_200(
    server: SimulatorServer, body: bytes, kind: str, code: str, ksid: str | None
) -> None:
    server.faults.schedule(kind)
    status, _, content = post(server, body)
    error = json.loads(content)
    assert status == 200
    assert error["code"] == code
    if kind == "ks-invalid":
        assert error["args"]["KSID"] == json.loads(body)["ks"]
    elif ksid:
        assert error["args"]["KSID"] == ksid
    record = server.service.log[-1]
    assert (record.fault, record.error_code) == (kind, code)


def test_status_and_error_can_be_chosen(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("status", at=1, status=523, headers={"Retry-After": "7"})
    server.faults.schedule("unknown-error", code="ODD", args={"KSID": "x"})
    status, headers, content = post(server, body)
    assert (status, headers["retry-after"], content) == (523, "7", b"")
    error = json.loads(post(server, body)[2])
    assert (error["code"], error["args"]) == ("ODD", {"KSID": "x"})


def test_a_script_writes_on_the_socket_itself(server: SimulatorServer, body: bytes) -> None:
    def script(sock: socket.socket, reply: HttpReply) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply.body))
        sock.sendall(reply.body)
        return True

    server.faults.decide_by = lambda _: Fault("script", script=script)
    with SimulatorClient(server.url, timeout_seconds=5) as client:
        for _ in range(2):
            assert len(json.loads(client.post(TARGET, body)[2])["objects"]) == 100
    assert server.connections_accepted == 2  # the first one started the session


def test_login_can_fail(server: SimulatorServer) -> None:
    server.faults.schedule("start-session-error")
    with SimulatorClient(server.url) as client:
        reply = client.call("session", "start", secret=DEFAULT_ADMIN_SECRET, partnerId=102)
    assert reply["code"] == "START_SESSION_ERROR"


def test_memcache_outage_is_avoided_by_a_profile_without_auto_finalize(
    server: SimulatorServer, body: bytes
) -> None:
    profile = {"responseProfile": {"type": 2, "fields": "autoFinalize"}}
    other = json.dumps({**json.loads(body), **profile}).encode()
    reply = page(server, other, "memcache-down")
    assert len(reply["objects"]) == 100
    assert "autoFinalize" not in reply["objects"][0]


def test_pages_can_be_wrong(server: SimulatorServer, body: bytes) -> None:
    first = page(server, body, "unordered-page", at=1)
    created = [row["createdAt"] for row in first["objects"]]
    assert created != sorted(created)
    server.faults.clear()
    assert len(page(server, body, "more-rows")["objects"]) == 107
    server.faults.clear()
    assert len(page(server, body, "short-page")["objects"]) == 50
    server.faults.clear()
    empty = page(server, body, "empty-page")
    assert (empty["objects"], empty["totalCount"]) == ([], 0)
    server.faults.clear()
    repeated = [row["id"] for row in page(server, body, "repeated-row")["objects"]]
    assert (len(repeated), len(set(repeated))) == (101, 100)
    server.faults.clear()
    assert page(server, body, "total-zero")["totalCount"] == 0
    server.faults.clear()
    assert page(server, body, "total-wrong")["totalCount"] != 1_000
    server.faults.clear()
    assert "totalCount" not in page(server, body, "total-missing")
    server.faults.clear()
    assert page(server, body, "total-string")["totalCount"] == "1000"
    server.faults.clear()
    foreign = page(server, body, "foreign-partner")["objects"]
    assert sorted({row["partnerId"] for row in foreign}) == [102, 103]


def test_stale_page_is_marked_as_cached(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("stale-cached")
    _, headers, content = post(server, body)
    assert headers["x-kaltura"].startswith("cached-dispatcher,")
    assert "x-kaltura-session" not in headers
    assert len(json.loads(content)["objects"]) < 100


def test_json_can_be_cut_or_begin_with_a_mark(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("truncated-json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(post(server, body)[2])
    server.faults.clear()
    server.faults.schedule("bom")
    assert post(server, body)[2].startswith(b"\xef\xbb\xbf{")
    server.faults.clear()
    assert page(server, body, "other-json") == [1, 2, 3]
    server.faults.clear()
    server.faults.schedule("other-json", body=b"null")
    assert json.loads(post(server, body)[2]) is None


def test_a_good_page_can_be_marked_as_cached(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("cached")
    _, headers, content = post(server, body)
    assert headers["x-kaltura"].startswith("cached-dispatcher,cache_v3-")
    assert len(json.loads(content)["objects"]) == 100


def test_schedule_by_position_number_and_rate(server: SimulatorServer, body: bytes) -> None:
    server.faults.schedule("500-empty", where="list", at=(2, 4))
    server.faults.schedule("503-html", where="idIn")
    assert [post(server, body)[0] for _ in range(5)] == [200, 500, 200, 500, 200]
    by_id = json.dumps({**json.loads(body), "filter": {"idIn": "0_x"}}).encode()
    assert post(server, by_id)[0] == 503
    server.faults.clear()
    server.faults.schedule("500-empty", rate=0.3)
    statuses = [post(server, body)[0] for _ in range(200)]
    assert 30 < statuses.count(500) < 90


def test_a_function_can_decide(server: SimulatorServer, body: bytes) -> None:
    def decide(info: RequestInfo) -> Fault | str | None:
        return Fault("429", {"retry_after": info.number}) if info.number % 2 == 0 else None

    server.faults.decide_by = decide
    replies = [post(server, body) for _ in range(2)]
    assert [reply[0] for reply in replies] == [429, 200]
    assert replies[0][1]["retry-after"] == "2"
    assert server.faults.fired == {"429": 1}


def test_unknown_kinds_and_positions_are_refused(server: SimulatorServer) -> None:
    with pytest.raises(ValueError, match="no fault 'nonsense'"):
        server.faults.schedule("nonsense")
    with pytest.raises(ValueError, match="no position 'here'"):
        server.faults.schedule("429", where="here")
    with pytest.raises(ValueError, match="rate"):
        server.faults.schedule("429", rate=2)


def test_every_kind_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "simulator.md").read_text()
    documented = dict(re.findall(r"^\| `(\w[\w-]*)` \| (.+) \|$", text, re.MULTILINE))
    assert documented == {name: kind.description for name, kind in FAULT_KINDS.items()}
