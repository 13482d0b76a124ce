"""The simulator over HTTP: connections, sessions, lists, and the control interface."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from etl.simulator import (
    DEFAULT_ADMIN_SECRET,
    Account,
    Churn,
    SimulatorClient,
    SimulatorServer,
    generate_account,
)
from etl.simulator.api.ks import mint_v1, mint_v2, parse_privileges
from etl.simulator.message import HttpReply


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(generate_account(2_000, seed=1), keep_ids=True) as running:
        yield running


@pytest.fixture
def client(server: SimulatorServer) -> Iterator[SimulatorClient]:
    with SimulatorClient(server.url) as one:
        yield one


@pytest.fixture
def ks(client: SimulatorClient) -> str:
    return client.start_session(DEFAULT_ADMIN_SECRET)


def walk(client: SimulatorClient, ks: str, page_size: int = 500) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page_index = 1
    while page := client.list_tokens(ks, page_index, page_size)["objects"]:
        rows += page
        page_index += 1
    return rows


def test_a_quiet_walk_reads_everything_in_order(
    client: SimulatorClient, server: SimulatorServer, ks: str
) -> None:
    rows = walk(client, ks)
    assert [row["id"] for row in rows] == [one.id for one in server.account.line]
    created = [row["createdAt"] for row in rows]
    assert created == sorted(created)


def test_shuffled_ties_keep_the_order_of_seconds() -> None:
    account = Account(clock=lambda: 100)
    for number in range(300):
        account.insert({"id": f"0_{number}", "createdAt": number // 50})
    with (
        SimulatorServer(account, shuffle_ties=True) as server,
        SimulatorClient(server.url) as client,
    ):
        ks = client.start_session(DEFAULT_ADMIN_SECRET)
        for order_by, reverse in (("+createdAt", False), ("-createdAt", True)):
            pages = [client.list_tokens(ks, 2, 70, order_by=order_by)["objects"] for _ in range(5)]
            for page in pages:
                created = [row["createdAt"] for row in page]
                assert len(page) == 70
                assert created == sorted(created, reverse=reverse)
            assert len({json.dumps(page) for page in pages}) == 5


def test_page_cap_is_that_of_the_installation(server: SimulatorServer, ks: str) -> None:
    server.configure(page_cap=100)
    with SimulatorClient(server.url) as client:
        assert len(client.list_tokens(ks, 1, 500)["objects"]) == 100
        second = client.list_tokens(ks, 2, 500)["objects"]
        assert second[0]["id"] == server.account.line[100].id


def test_plain_walk_loses_tokens_under_hostile_churn_and_the_truth_shows_it() -> None:
    account = generate_account(5_000, seed=8)
    churn = Churn(delete=5, insert=5, mode="hostile", seed=8)
    with (
        SimulatorServer(account, churn=churn) as server,
        SimulatorClient(server.url) as client,
    ):
        ks = client.start_session(DEFAULT_ADMIN_SECRET)
        first = client.read("mark")
        read = {(row["id"], row["createdAt"]) for row in walk(client, ks)}
        last = client.read("mark")
        truth = client.read("truth", from_mark=first["mark"], to_mark=last["mark"])
        throughout = {tuple(row) for row in truth["throughout"]}
        assert len(throughout - read) > 0
        by_request = client.read(
            "truth", from_request=first["requests"] + 1, to_request=last["requests"]
        )
        assert {tuple(row) for row in by_request["throughout"]} >= throughout


def test_many_connections_are_answered_at_once(server: SimulatorServer, ks: str) -> None:
    server.configure(latency_ms=100)
    counts: list[int] = []

    def read_one(page_index: int) -> None:
        with SimulatorClient(server.url) as client:
            counts.append(len(client.list_tokens(ks, page_index, 100)["objects"]))

    threads = [threading.Thread(target=read_one, args=(number,)) for number in range(1, 17)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [100] * 16
    assert time.monotonic() - started < 16 * 0.1


class Waits(threading.Event):
    """Takes the place of waiting: how long each reply takes, and how many are worked on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> bool:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.seconds.append(timeout or 0.0)
        super().wait(0.01)
        with self.lock:
            self.at_once -= 1
        return False


def test_a_reply_takes_its_time_and_that_of_its_rows(server: SimulatorServer) -> None:
    server.configure(latency_ms=150, row_latency_ms=0.8, workers=2)
    waits = Waits()

    def take(rows: int) -> None:
        server.service.take_time(HttpReply(b"", rows=rows), waits)

    threads = [threading.Thread(target=take, args=(rows,)) for rows in (0, 1, 500, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits.seconds) == pytest.approx([0.15, 0.1508, 0.55, 0.55])
    assert waits.most_at_once == 2


def test_requests_may_come_in_pieces_and_pipelined(server: SimulatorServer, ks: str) -> None:
    body = json.dumps({"ks": ks, "filter": {"idIn": "0_x"}}).encode()
    head = f"POST {LIST}?format=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        for byte in request:
            sock.sendall(bytes((byte,)))
        sock.sendall(request + request)
        data = b""
        while data.count(b"\r\n0\r\n\r\n") < 3:
            piece = sock.recv(65_536)
            assert piece
            data += piece
    assert data.count(b"HTTP/1.1 200 OK") == 3
    assert data.count(b'{"totalCount":0,"objects":[]') == 3


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_400(server: SimulatorServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(sent)
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_closing_drops_the_connections_and_frees_the_port() -> None:
    with SimulatorServer(generate_account(10)) as server:
        client = SimulatorClient(server.url)
        client.read("mark")
    with pytest.raises(http.client.RemoteDisconnected):
        client.read("mark")
    client.close()
    with SimulatorServer(generate_account(10), port=server.port) as again:
        assert again.port == server.port
    again.close()


LIST = "/api_v3/service/uploadtoken/action/list"


def test_a_content_type_with_charset_loses_the_body(client: SimulatorClient, ks: str) -> None:
    body = json.dumps({"ks": ks}).encode()
    status, headers, content = client.post(
        f"{LIST}?format=1", body, content_type="application/json; charset=utf-8"
    )
    assert status == 200
    assert headers["x-kaltura"] == "error-SERVICE_FORBIDDEN"
    assert json.loads(content)["code"] == "SERVICE_FORBIDDEN"


def test_a_reply_without_format_is_empty(client: SimulatorClient, ks: str) -> None:
    """The service sends XML, which is not simulated."""
    status, headers, content = client.post(LIST, json.dumps({"ks": ks}).encode())
    assert (status, content) == (200, b"")
    assert headers["x-kaltura"] == "error- UNKNOWN_RESPONSE_FORMAT"


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        ({"statusIn": "3"}, "closed"),
        ({"statusIn": " 3,5"}, "closed"),
        ({"statusIn": ""}, "all"),
        ({"idIn": None, "createdAtGreaterThanOrEqual": 1}, "all"),
        ({"statusIn": "5"}, "none"),
        ({"statusEqual": 3}, "closed"),
        ({"statusEqual": "3", "statusIn": "1,3"}, "closed"),
        ({"statusEqual": 3, "statusIn": "1,2"}, "none"),
        ({"statusEqual": None}, "pending"),
        ({"statusEqual": 5}, "none"),
        ({"statusEqual": ""}, "INVALID_ENUM_VALUE"),
        ({"statusEqual": 6}, "INVALID_ENUM_VALUE"),
        ({"statusEqual": "PENDING"}, "INVALID_ENUM_VALUE"),
        ({"userIdEqual": "user1@example.com"}, "NOT_SIMULATED"),
    ],
)
def test_filters(
    client: SimulatorClient,
    server: SimulatorServer,
    ks: str,
    chosen: dict[str, Any],
    count: str,
) -> None:
    closed = sum(one.status == 3 for one in server.account.line)
    pending = sum(one.status == 0 for one in server.account.line)
    assert closed > 0 < pending
    wanted = {"closed": closed, "pending": pending, "all": 2_000, "none": 0}
    reply = client.list_tokens(ks, 1, 5, **chosen)
    if count in wanted:
        assert reply["totalCount"] == wanted[count]
        assert all("statusIn" not in chosen or row["status"] == 3 for row in reply["objects"]) or (
            chosen["statusIn"] == ""
        )
    else:
        assert reply["code"] == count


def test_ids_are_taken_as_they_stand_and_come_in_their_own_order(
    client: SimulatorClient, server: SimulatorServer, ks: str
) -> None:
    ids = [token.id for token in list(server.account.line)[:40]]
    spaced = client.list_tokens(ks, idIn=f"{ids[0]}, {ids[1]},{ids[2]} ")
    assert [row["id"] for row in spaced["objects"]] == ids[:1]

    unordered = client.list_tokens(ks, order_by="", idIn=",".join(ids))
    assert [row["id"] for row in unordered["objects"]] == sorted(ids) != ids


@pytest.mark.parametrize("given", [[], [1, 2], {}, None])
def test_a_list_where_an_object_belongs_is_one_without_properties(
    client: SimulatorClient, ks: str, given: Any
) -> None:
    reply = client.call("uploadtoken", "list", ks=ks, filter=given, pager=given)
    assert (reply["totalCount"], len(reply["objects"])) == (2_000, 30)


def test_a_content_type_counts_in_any_case(client: SimulatorClient, ks: str) -> None:
    body = json.dumps({"ks": ks}).encode()
    reply = client.post(f"{LIST}?format=1", body, content_type="Application/JSON")
    assert json.loads(reply[2])["totalCount"] == 2_000


@pytest.mark.parametrize(
    ("page_index", "page_size", "rows"),
    [
        ("10.9", 10, 10),
        (0, 10, 10),
        (201, 10, 0),
        (10**9, 500, 0),
        (99_999_999_999_999_999, 500, 500),
        (7, 0, 2_000),
        (1, None, 2_000),
        (1, "many", 2_000),
        (4, 501, 500),
        (5, 501, 0),
    ],
)
def test_pager(
    client: SimulatorClient, ks: str, page_index: Any, page_size: Any, rows: int
) -> None:
    reply = client.list_tokens(ks, page_index, page_size)
    assert len(reply["objects"]) == rows
    assert reply["totalCount"] == 2_000


# ---- sessions ------------------------------------------------------------------------------------


def refused(client: SimulatorClient, ks: str) -> str | None:
    """The KSID of the refusal, the code of another error, or None for a page."""
    reply = client.list_tokens(ks, 1, 1)
    if "objects" in reply:
        return None
    return str(reply["args"]["KSID"] if reply["code"] == "INVALID_KS" else reply["code"])


def test_local_sessions_of_both_versions_are_taken(client: SimulatorClient) -> None:
    later = int(time.time()) + 60
    assert refused(client, mint_v2(DEFAULT_ADMIN_SECRET, 102, expires_at=later)) is None
    assert refused(client, mint_v1(DEFAULT_ADMIN_SECRET, 102, expires_at=later)) is None
    assert refused(client, mint_v2(DEFAULT_ADMIN_SECRET, 102, expires_at=1)) == "EXPIRED"
    other = mint_v2("another secret", 102, expires_at=later)
    assert refused(client, other) == other


@pytest.mark.parametrize(
    ("privileges", "reason"),
    [
        ("urirestrict:/api_v3/service/uploadtoken/*", None),
        ("urirestrict:/api_v3/service/uploadToken/*", "EXCEEDED_RESTRICTED_URI"),
        ("iprestrict:127.0.0.1", None),
        ("iprestrict:9.9.9.9", "EXCEEDED_RESTRICTED_IP"),
        ("setrole:etl_reader", None),
        ("setrole:unknown", "INVALID_OBJECT_ID"),
        ("actionslimit:1", None),
        ("actionslimit:0", "INVALID_ACTIONS_LIMIT"),
    ],
)
def test_privileges_restrict(client: SimulatorClient, privileges: str, reason: str | None) -> None:
    ks = mint_v2(
        DEFAULT_ADMIN_SECRET,
        102,
        expires_at=int(time.time()) + 60,
        privileges=parse_privileges(privileges),
    )
    assert refused(client, ks) == reason


def test_a_user_session_sees_its_own_tokens_only(client: SimulatorClient, ks: str) -> None:
    rows = client.list_tokens(ks, 1, 0)["objects"]
    user = next(row["userId"] for row in rows if "userId" in row)
    mine = client.list_tokens(client.start_session(DEFAULT_ADMIN_SECRET, type=0, userId=user), 1, 0)
    assert mine["totalCount"] == sum(row.get("userId") == user for row in rows) > 0
    anonymous = client.start_session(DEFAULT_ADMIN_SECRET, type=0, userId="")
    assert client.list_tokens(anonymous)["totalCount"] == 0


@pytest.mark.parametrize("user", [{}, {"sessionUserId": ""}, {"sessionUserId": None}])
def test_an_app_token_needs_a_user(client: SimulatorClient, ks: str, user: dict[str, Any]) -> None:
    reply = client.call("appToken", "add", ks=ks, appToken={"sessionType": 2, **user})
    assert (reply["code"], reply["args"]) == (
        "INVALID_FIELD_VALUE",
        {"FIELD_NAME": "sessionUserId"},
    )
    assert reply["message"] == "value in field [sessionUserId] is not valid"


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_an_actions_limit_that_is_no_positive_number_is_refused(
    client: SimulatorClient, limit: str
) -> None:
    ks = client.start_session(DEFAULT_ADMIN_SECRET, privileges=f"actionslimit:{limit}")
    assert refused(client, ks) == "INVALID_ACTIONS_LIMIT"


def test_an_app_token_gives_a_least_privilege_session_that_can_be_revoked(
    client: SimulatorClient, ks: str
) -> None:
    token = client.call(
        "appToken",
        "add",
        ks=ks,
        appToken={
            "hashType": "SHA256",
            "sessionType": 2,
            "sessionUserId": "kaltura-etl",
            "sessionPrivileges": "setrole:5001,urirestrict:/api_v3/service/uploadtoken/action/*",
        },
    )

    def start() -> Any:
        widget = client.call("session", "startWidgetSession", widgetId="_102")["ks"]
        digest = hashlib.sha256((widget + token["token"]).encode()).hexdigest()
        return client.call("appToken", "startSession", ks=widget, id=token["id"], tokenHash=digest)

    session = start()
    assert session["sessionType"] == 2
    assert refused(client, session["ks"]) is None
    wrong = client.call("appToken", "startSession", ks=ks, id=token["id"], tokenHash="00")
    assert wrong["code"] == "INVALID_APP_TOKEN_HASH"
    assert client.call("appToken", "delete", ks=ks, id=token["id"]) is None
    assert refused(client, session["ks"]) == "LOGOUT"
    assert start()["code"] == "APP_TOKEN_ID_NOT_FOUND"


def test_rate_limit_blocks_and_forgets(server: SimulatorServer, client: SimulatorClient) -> None:
    ks = client.start_session(DEFAULT_ADMIN_SECRET)
    client.control("configure", rate_limit=[2, 0.3])
    assert [refused(client, ks) for _ in range(3)] == [None, None, "ACTION_BLOCKED"]
    time.sleep(0.35)
    assert refused(client, ks) is None
    server.configure(rate_limit=(0, 0))
    assert [refused(client, ks) for _ in range(5)] == [None] * 5


def test_poison_fails_every_page_that_holds_it(
    server: SimulatorServer, client: SimulatorClient, ks: str
) -> None:
    server.configure(poison=[server.account.line[700].id])
    assert client.list_tokens(ks, 2, 500)["code"] == "INTERNAL_SERVERL_ERROR"
    assert client.list_tokens(ks, 701, 1)["code"] == "INTERNAL_SERVERL_ERROR"
    assert len(client.list_tokens(ks, 700, 1)["objects"]) == 1
    assert len(client.list_tokens(ks, 3, 500)["objects"]) == 500


# ---- the control interface -----------------------------------------------------------------------


def test_mutations_over_http(client: SimulatorClient, server: SimulatorServer, ks: str) -> None:
    first = server.account.line[0]
    done = client.control(
        "mutate",
        ops=[
            {"op": "insert", "token": {"id": "0_new", "createdAt": 5, "fileName": "a\u0000b"}},
            {"op": "change", "id": "0_new", "fields": {"status": 2}, "remove": ["fileName"]},
            {"op": "delete", "id": first.id},
            {"op": "undelete", "id": first.id},
            {"op": "delete", "id": "unknown"},
        ],
    )
    assert done == {"done": [True, True, True, True, False], "mark": 4}
    rows = client.list_tokens(ks, 1, 2)["objects"]
    assert rows[0]["id"] == "0_new"
    assert rows[0]["status"] == 2
    assert "fileName" not in rows[0]
    assert rows[1]["id"] == first.id
    listed = client.read("list")
    assert listed["totalCount"] == 2_001


def test_log_tells_what_was_asked_and_served(client: SimulatorClient, ks: str) -> None:
    client.list_tokens(ks, 2, 10, statusIn="3")
    last = client.read("log", since=1)[-1]
    assert last["position"] == "list"
    assert (last["page_index"], last["page_size"], last["rows"]) == (2, 10, 10)
    assert last["filter"] == {"orderBy": "+createdAt", "statusIn": "3"}
    assert len(last["ids"]) == 10


def test_time_passes_on_demand(client: SimulatorClient) -> None:
    before = client.read("status")
    events = client.control("advance", hours=24)["events"]
    after = client.read("status")
    assert events["begin"] > 0
    assert after["account_time"] - before["account_time"] == pytest.approx(86_400, abs=60)
    assert after["mark"] > 0


def test_churn_can_be_set_and_stopped(client: SimulatorClient, ks: str) -> None:
    client.control("churn", delete=3, insert=2, change=1)
    client.list_tokens(ks)
    assert client.read("mark")["mark"] == 6
    client.control("churn")
    client.list_tokens(ks)
    assert client.read("mark")["mark"] == 6


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("mutate", {"ops": [{"op": "explode"}]}),
        ("faults", {"rules": [{"kind": "no-such-fault"}]}),
        ("churn", {"delete": -1}),
        ("configure", {"page_cap": 0}),
        ("nothing", {}),
    ],
)
def test_nonsense_is_refused(client: SimulatorClient, name: str, body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        client.control(name, **body)
