"""The client against a service that fails, on real sockets: every kind of fault that the wire has.

``FaultServer`` answers properly unless a fault is put in the way of a position (login, page,
look-up by ids).  Waits are recorded, not slept; deadlines are real and short.  After each test
everything that was logged (at DEBUG, httpx2's and httpcore2's own loggers included) and every
error that was raised is searched for the secrets.
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import io
import ipaddress
import json
import logging
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    Interrupted,
    ServiceUnavailable,
)
from etl.kaltura.service import Credentials, RetryLimits, ServiceSettings, open_service
from etl.kaltura.upload_token import UploadTokens
from etl.process.stop import Stop

PARTNER = 102
APP_TOKEN = "canary0apptoken0f00dfeedc0ffee00"
ADMIN_SECRET = "canary0adminsecret0f00dfeedc0ffe"
WIDGET_KS = "djJ8MTAyfCANARYwidgetfb02zb23nRdX5Y"
APP_KS = "djJ8MTAyfCANARYapptoken_A03r9utZeV-S8X4Ea=="
OTHERS_KS = "djJ8OTk5fCANARYsomebodyelse_zHzDrXcZ_nq875dj9"
PROXY_PASSWORD = "canary0proxy0password"
CANARIES = [APP_TOKEN, ADMIN_SECRET, WIDGET_KS, APP_KS, OTHERS_KS, PROXY_PASSWORD]
CREDENTIALS = Credentials(PARTNER, app_token_id="0_c6604ueb", app_token=APP_TOKEN)
ROWS = [{"id": f"0_{n}", "createdAt": 1_700_000_000 + n} for n in range(5)]
LIST_PATH = "/api_v3/service/uploadtoken/action/list?format=1"
POSITIONS = ("login", "list", "idIn")
JSON_TYPE = {"Content-Type": "application/json", "X-Kaltura-Session": "2013301934, 1795424053"}


# ---- the server -------------------------------------------------------------------------------


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def params(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def position(self) -> str:
        if "action/list" not in self.line:
            return "login"
        return "idIn" if "idIn" in self.params["filter"] else "list"


# A fault gets the socket and the proper answer; True keeps the connection.
Fault = Callable[[socket.socket, bytes], bool | None]


@dataclass
class FaultServer:
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    fault: Fault | None = None
    where: str = "list"
    times: float = 0.0
    """How many requests at that position the fault still meets."""
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def meet(self, fault: Fault, where: str = "list", times: float = float("inf")) -> None:
        self.fault, self.where, self.times = fault, where, times

    def at(self, position: str) -> list[Request]:
        return [request for request in self.requests if request.position == position]

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(
                target=self._serve, args=(plain, self.connections), daemon=True
            ).start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        plain.settimeout(30)
        with suppress(OSError), closing(plain):
            sock = self.tls.wrap_socket(plain, server_side=True) if self.tls else plain
            with closing(sock):
                while (request := read_request(sock, number)) is not None:
                    with self._lock:
                        self.requests.append(request)
                        met = self.fault is not None and request.position == self.where
                        met = met and self.times > 0
                        self.times -= met
                    answer = proper_answer(request)
                    if met and self.fault is not None:
                        if not self.fault(sock, answer):
                            return
                    else:
                        sock.sendall(framed(answer))


def read_request(sock: socket.socket, number: int) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (text.partition(":") for text in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += sock.recv(65536)
    return Request(line, headers, body, number)


def proper_answer(request: Request) -> bytes:
    if "startWidgetSession" in request.line:
        return to_json(ks=WIDGET_KS, objectType="KalturaStartWidgetSessionResponse")
    if "startSession" in request.line:
        return to_json(
            ks=APP_KS,
            sessionType=2,
            partnerId="102",
            expiry=1795424053 + 3600,
            objectType="KalturaSessionInfo",
        )
    if "session/action/get" in request.line:
        return to_json(
            sessionType="2",
            partnerId="102",
            expiry=str(1795424053 + 3600),
            objectType="KalturaSessionInfo",
        )
    return to_json(totalCount=5, objects=ROWS, objectType="KalturaUploadTokenListResponse")


def to_json(**values: Any) -> bytes:
    return json.dumps(values).encode()


def framed(
    body: bytes, status: str = "200 OK", headers: dict[str, str] | None = None, **more: str
) -> bytes:
    """A complete HTTP reply; ``more`` adds headers (``Retry_After`` for Retry-After)."""
    fields = JSON_TYPE if headers is None else headers
    fields = fields | {name.replace("_", "-"): value for name, value in more.items()}
    fields = {"Content-Length": str(len(body))} | fields
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def says(data: bytes) -> Fault:
    def fault(sock: socket.socket, _answer: bytes) -> bool:
        sock.sendall(data)
        return True

    return fault


def says_error(code: str, **args: str) -> Fault:
    message = f'Invalid KS "{OTHERS_KS}", {args}'
    return says(
        framed(
            to_json(code=code, message=message, objectType="KalturaAPIException", args=args or [])
        )
    )


def reset(sock: socket.socket) -> None:
    time.sleep(0.02)  # what was sent must arrive before the reset
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_at_once(sock: socket.socket, _answer: bytes) -> None:
    reset(sock)


def closes_at_once(_sock: socket.socket, _answer: bytes) -> None:
    return


def reset_in_headers(sock: socket.socket, _answer: bytes) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Ty")
    reset(sock)


def reset_in_body(sock: socket.socket, answer: bytes) -> None:
    sock.sendall(framed(answer)[:-20])
    reset(sock)


def closes_in_body(sock: socket.socket, answer: bytes) -> None:
    sock.sendall(framed(answer)[:-20])


def chunked_without_end(sock: socket.socket, answer: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    sock.sendall(head + b"%x\r\n" % len(answer) + answer + b"\r\n")


def nonsense(sock: socket.socket, _answer: bytes) -> None:
    sock.sendall(b"\x00\x01\x02 this is not HTTP\r\n\r\n")


def no_answer(sock: socket.socket, _answer: bytes) -> None:
    wait_for_close(sock)


def drips_headers(sock: socket.socket, answer: bytes) -> None:
    drip(sock, framed(answer, **{f"X_{n}": "x" * 40 for n in range(50)}))


def drips_body(sock: socket.socket, answer: bytes) -> None:
    data = framed(answer)
    start = len(data) - len(answer)
    sock.sendall(data[:start])
    drip(sock, data[start:])


def drip(sock: socket.socket, data: bytes) -> None:
    for byte in data:
        sock.sendall(bytes((byte,)))
        time.sleep(0.05)


def wait_for_close(sock: socket.socket) -> None:
    with suppress(OSError):
        select.select([sock], [], [], 20)


def cuts_json(sock: socket.socket, answer: bytes) -> bool:
    sock.sendall(framed(answer[:-10]))
    return True


def corrupt_gzip(sock: socket.socket, answer: bytes) -> bool:
    packed = bytearray(gzip.compress(answer))
    packed[20:28] = b"\xff" * 8
    sock.sendall(framed(bytes(packed), Content_Encoding="gzip"))
    return True


def truncated_gzip(sock: socket.socket, answer: bytes) -> bool:
    sock.sendall(framed(gzip.compress(answer)[:-9], Content_Encoding="gzip"))
    return True


def mislabelled_gzip(sock: socket.socket, answer: bytes) -> bool:
    sock.sendall(framed(answer, Content_Encoding="gzip"))
    return True


def brotli(sock: socket.socket, answer: bytes) -> bool:
    sock.sendall(framed(answer, Content_Encoding="br"))
    return True


def cached(sock: socket.socket, answer: bytes) -> bool:
    sock.sendall(framed(answer, X_Kaltura="cached-dispatcher,cache_v3-1f4bd,7.4E-5"))
    return True


HTML = framed(b"<html><h1>Welcome</h1></html>", headers={"Content-Type": "text/html"})


# ---- fixtures ---------------------------------------------------------------------------------


@pytest.fixture
def service() -> Iterator[FaultServer]:
    with closing(FaultServer()) as server:
        yield server


class Waits(list[float]):
    """The waits that the client asked for.  They take no time, but its clock moves on by them."""

    def sleep(self, seconds: float) -> None:
        self.append(seconds)

    def monotonic(self) -> float:
        return time.monotonic() + sum(self)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@dataclass
class Seen:
    """Everything that left the client as text in one test."""

    errors: list[BaseException] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def seen(caplog: pytest.LogCaptureFixture) -> Iterator[Seen]:
    """Search all that was logged and raised for the canaries, in each form in which they travel."""
    everything = Seen()
    with caplog.at_level(logging.DEBUG):
        yield everything
    text = "\n".join(everything.texts)
    for record in caplog.records:
        text += f"{record.getMessage()} {record.__dict__!r}\n"
    for error in everything.errors:
        text += "".join(traceback.format_exception(error))
        text += text_of_chain(error)
    for form in forbidden_forms():
        assert form not in text


def text_of_chain(error: BaseException | None) -> str:
    """What an error reporter would find: each error of the chain, with the request it holds."""
    text = ""
    while error is not None:
        text += f"{error!r} {error.args!r} {vars(error)!r}\n"
        request = vars(error).get("_request")
        text += repr(getattr(request, "content", b""))
        error = error.__cause__ or error.__context__
    return text


def forbidden_forms() -> list[str]:
    forms = []
    for canary in CANARIES:
        encoded = base64.b64encode(canary.encode()).decode()
        forms += [canary, canary[:18], encoded.rstrip("=")[:-2], quote(canary, safe="")]
        forms.append(canary.encode().hex())
    return forms


QUICK = RetryLimits(request_seconds=0.6)


def open_at(
    server: FaultServer,
    waits: Waits,
    credentials: Credentials = CREDENTIALS,
    *,
    limits: RetryLimits = QUICK,
    **settings: Any,
) -> UploadTokens:
    return open_service(
        server.url,
        credentials,
        stop=server.stop,
        sleep=waits.sleep,
        monotonic=waits.monotonic,
        settings=ServiceSettings(retry=limits, app_token_hash="SHA1", **settings),
    )


def run_at(server: FaultServer, waits: Waits, **settings: Any) -> int:
    """Log in, read a page, look ids up: every position once.  Gives the number of requests."""
    with open_at(server, waits, **settings) as tokens:
        assert len(tokens.list_page(1, 500).rows) == 5
        assert len(tokens.list_by_id(["0_1", "0_2"]).rows) == 5
        return tokens.counters.requests


@contextmanager
def error_of(seen: Seen, kind: type[EtlError]) -> Iterator[list[EtlError]]:
    caught: list[EtlError] = []
    with pytest.raises(kind) as raised:
        yield caught
    caught.append(raised.value)
    seen.errors.append(raised.value)
    seen.texts.append(f"{raised.value.message} {raised.value.fields}")


# ---- faults that pass -------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "closed before an answer": closes_at_once,
    "reset before an answer": reset_at_once,
    "reset in the headers": reset_in_headers,
    "reset in the body": reset_in_body,
    "closed in the body": closes_in_body,
    "chunked without an end": chunked_without_end,
    "not HTTP": nonsense,
    "corrupt gzip": corrupt_gzip,
    "truncated gzip": truncated_gzip,
    "gzip that is none": mislabelled_gzip,
    "an encoding not asked for": brotli,
    "429": says(framed(b"", "429 Too Many Requests")),
    "429 with Retry-After": says(framed(b"", "429 Too Many Requests", Retry_After="7")),
    "408": says(framed(b"", "408 Request Timeout")),
    "500 empty": says(framed(b"", "500 Internal Server Error")),
    **{
        f"{status} HTML": says(framed(b"<html>gateway</html>", f"{status} Gateway"))
        for status in (502, 503, 504, 520, 521, 522, 523, 524)
    },
    "204": says(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "206": says(framed(b"{}", "206 Partial Content")),
    "200 empty": says(framed(b"")),
    "truncated JSON": cuts_json,
    "JSON of another shape": says(framed(b"[1,2,3]")),
    "null": says(framed(b"null")),
    "an infinitely nested reply": says(framed(b"[" * 100_000)),
    "INTERNAL_SERVERL_ERROR": says_error("INTERNAL_SERVERL_ERROR"),
    "INTERNAL_DATABASE_ERROR": says_error("INTERNAL_DATABASE_ERROR"),
    "ACTION_BLOCKED": says_error("ACTION_BLOCKED", ACTION_NAME="list"),
}


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_leaves_no_trace_but_the_retries(
    service: FaultServer, waits: Waits, kind: str, where: str
) -> None:
    quiet = run_at(service, waits)
    for times in (1, 5):
        service.meet(PASSING[kind], where, times)
        assert run_at(service, waits) == quiet + times
    assert len(waits) == 6


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_stays_ends_in_exit_69_after_six_attempts(
    service: FaultServer, waits: Waits, seen: Seen, kind: str, where: str
) -> None:
    service.meet(PASSING[kind], where)
    with error_of(seen, ServiceUnavailable) as caught:
        run_at(service, waits)

    assert caught[0].exit_code == 69
    assert "6 attempt(s)" in caught[0].message
    assert len(service.at(where)) == 6


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("fault", [no_answer, drips_headers, drips_body])
def test_a_server_that_stalls_or_drips_is_cut_at_the_deadline_of_the_request(
    service: FaultServer, waits: Waits, seen: Seen, fault: Fault, where: str
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


def test_a_cached_reply_is_no_reply(service: FaultServer, waits: Waits, seen: Seen) -> None:
    for where in ("list", "idIn"):
        service.meet(cached, where, 5)
        run_at(service, waits)
        service.meet(cached, where)
        with error_of(seen, ServiceUnavailable) as caught:
            run_at(service, waits)
        assert caught[0].fields["reason"] == "cached_reply"
    # Widget sessions may be served so: a session is proved by use.
    service.meet(cached, "login")
    run_at(service, waits)


def test_nobody_listens(waits: Waits, seen: Seen) -> None:
    service = FaultServer()
    service.close()
    with error_of(seen, ServiceUnavailable) as caught:
        open_at(service, waits)

    assert len(waits) == 5
    assert "refused" in caught[0].message


def test_a_service_that_comes_back_is_used(waits: Waits) -> None:
    service = FaultServer()
    service.close()
    came_back: list[FaultServer] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            again = FaultServer.__new__(FaultServer)
            again.__dict__.update(FaultServer().__dict__)
            again._listener.close()
            again._listener = socket.create_server(("127.0.0.1", service.port))
            threading.Thread(target=again._accept, daemon=True).start()
            came_back.append(again)

    with open_service(
        service.url,
        CREDENTIALS,
        stop=service.stop,
        sleep=sleep,
        monotonic=waits.monotonic,
        settings=ServiceSettings(app_token_hash="SHA1"),
    ) as tokens:
        assert len(tokens.list_page(1, 5).rows) == 5
    came_back[0].close()


def test_a_name_that_does_not_resolve(waits: Waits, seen: Seen) -> None:
    with error_of(seen, ServiceUnavailable):
        open_service("https://service.invalid", CREDENTIALS, stop=Stop(), sleep=waits.append)

    assert len(waits) == 5


def test_a_black_hole_is_given_up_within_the_time_for_connecting(waits: Waits, seen: Seen) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(hole.getsockname())
        began = time.monotonic()
        with error_of(seen, ServiceUnavailable) as caught:
            open_service(
                f"http://127.0.0.1:{hole.getsockname()[1]}",
                CREDENTIALS,
                stop=Stop(),
                sleep=waits.sleep,
                monotonic=waits.monotonic,
                settings=ServiceSettings(retry=RetryLimits(request_seconds=0.3, attempts=2)),
            )
        for filler in fillers:
            filler.close()

    assert "no connection" in caught[0].message
    assert time.monotonic() - began < 6


def test_retry_after_is_waited_in_full_as_seconds_or_as_a_date(
    service: FaultServer, waits: Waits
) -> None:
    for reply in (
        framed(b"", "429 Slow Down", Retry_After="30"),
        framed(
            b"",
            "503 Maintenance",
            Date="Mon, 23 Nov 2026 08:54:13 GMT",
            Retry_After="Mon, 23 Nov 2026 08:54:43 GMT",
        ),
    ):
        waits.clear()
        service.meet(says(reply), times=1)
        run_at(service, waits)
        assert len(waits) == 1
        assert 30 <= waits[0] <= 31


def test_a_retry_after_that_makes_no_sense_is_a_plain_wait(
    service: FaultServer, waits: Waits
) -> None:
    for value in ("soon", "-5", "1e3", "", "Mon, 99 Nov 2026 08:54:43 GMT"):
        waits.clear()
        service.meet(says(framed(b"", "429 Slow Down", Retry_After=value)), times=1)
        run_at(service, waits)
        assert len(waits) == 1
        assert waits[0] <= 1


def test_a_retry_after_of_an_hour_ends_the_call_at_once(
    service: FaultServer, waits: Waits, seen: Seen
) -> None:
    service.meet(says(framed(b"", "429 Slow Down", Retry_After="3600")))
    with error_of(seen, ServiceUnavailable):
        run_at(service, waits)

    assert len(service.at("list")) == 1
    assert waits == []


# ---- faults that do not pass ------------------------------------------------------------------

PERMANENT: dict[str, tuple[Fault, type[EtlError], int]] = {
    "401": (says(framed(b"", "401 Unauthorized")), CredentialsRefused, 77),
    "403": (says(framed(b"", "403 Forbidden")), CredentialsRefused, 77),
    "404": (says(framed(b"", "404 Not Found")), ConfigurationError, 78),
    "407": (says(framed(b"", "407 Proxy Authentication Required")), ConfigurationError, 78),
    "413": (says(framed(b"", "413 Too Large")), DataRefused, 65),
    "SERVICE_FORBIDDEN": (says_error("SERVICE_FORBIDDEN"), CredentialsRefused, 77),
    "INVALID_KS with another's session": (
        says_error("INVALID_KS", KSID=OTHERS_KS),
        CredentialsRefused,
        77,
    ),
    "INVALID_KS with our session": (
        says_error("INVALID_KS", KSID=APP_KS),
        CredentialsRefused,
        77,
    ),
    "EXCEEDED_RESTRICTED_IP": (
        says_error("INVALID_KS", KSID="EXCEEDED_RESTRICTED_IP"),
        ConfigurationError,
        78,
    ),
    "INVALID_ENUM_VALUE": (
        says_error("INVALID_ENUM_VALUE", PARAM_NAME=APP_KS, ENUM_VAL=APP_KS),
        ConfigurationError,
        78,
    ),
    "unknown code": (says_error("FLUX_CAPACITOR_EMPTY"), DataRefused, 65),
    "a session as code": (says_error(OTHERS_KS), DataRefused, 65),
}


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("kind", PERMANENT)
def test_a_permanent_fault_causes_exactly_one_request(
    service: FaultServer, waits: Waits, seen: Seen, kind: str, where: str
) -> None:
    fault, error, exit_code = PERMANENT[kind]
    service.meet(fault, where)
    with error_of(seen, error) as caught:
        run_at(service, waits)

    assert caught[0].exit_code == exit_code
    assert len(service.at(where)) == 1
    assert waits == []


@pytest.mark.parametrize("where", POSITIONS)
def test_html_with_status_200_is_tried_once_more_and_refused(
    service: FaultServer, waits: Waits, seen: Seen, where: str
) -> None:
    service.meet(says(HTML), where, 1)
    run_at(service, waits)
    requests = len(service.at(where))
    service.meet(says(HTML), where)
    with error_of(seen, DataRefused):
        run_at(service, waits)

    assert len(service.at(where)) == requests + 2


@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_secret_goes_nowhere(
    service: FaultServer, waits: Waits, seen: Seen, status: int, where: str
) -> None:
    with closing(FaultServer()) as elsewhere:
        for target in (elsewhere.url + LIST_PATH, service.url + LIST_PATH, LIST_PATH, "//[", ""):
            before = len(service.requests)
            service.meet(says(framed(b"", f"{status} Moved", Location=target)), where)
            with error_of(seen, ServiceUnavailable) as caught:
                run_at(service, waits)
            assert caught[0].fields["reason"] == "redirect"
            positions = [request.position for request in service.requests[before:]]
            assert positions.count(where) == 1
        assert elsewhere.connections == 0
    assert waits == []


@pytest.mark.parametrize("where", POSITIONS)
def test_a_session_that_ends_is_renewed_once_and_then_refused(
    service: FaultServer, waits: Waits, seen: Seen, where: str
) -> None:
    for reason in ("EXPIRED", "LOGOUT", "EXCEEDED_ACTIONS_LIMIT"):
        service.meet(says_error("INVALID_KS", KSID=reason), where, 1)
        run_at(service, waits)
        service.meet(says_error("INVALID_KS", KSID=reason), where)
        with error_of(seen, CredentialsRefused) as caught:
            run_at(service, waits)
        assert caught[0].exit_code == 77
    assert waits == []


# ---- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", POSITIONS)
def test_a_gzip_bomb_is_refused_at_once_in_bounded_memory(
    service: FaultServer, waits: Waits, seen: Seen, where: str
) -> None:
    bomb = gzip.compress(b'{"objects":[' + b" " * (400 * 1024 * 1024), compresslevel=1)
    service.meet(says(framed(bomb, Content_Encoding="gzip")), where)
    tracemalloc.start()
    with error_of(seen, DataRefused) as caught:
        run_at(service, waits)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert caught[0].fields["reason"] == "body_too_large"
    assert len(service.at(where)) == 1
    assert peak_bytes < 100 * 1024 * 1024


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_without_end_is_refused_at_once(
    service: FaultServer, waits: Waits, seen: Seen, chunked: bool
) -> None:
    piece = b" " * 1_000_000
    sent = 0

    def endless(sock: socket.socket, _answer: bytes) -> None:
        nonlocal sent
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 9000000000"
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        while True:
            sock.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n" if chunked else piece)
            sent += len(piece)

    service.meet(endless)
    with error_of(seen, DataRefused):
        run_at(service, waits, limits=RetryLimits(request_seconds=20))

    assert sent < 60_000_000
    assert len(service.at("list")) == 1


def test_headers_without_end_are_cut(service: FaultServer, waits: Waits, seen: Seen) -> None:
    def endless(sock: socket.socket, _answer: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            sock.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))

    service.meet(endless)
    with error_of(seen, ServiceUnavailable):
        run_at(service, waits)


def test_a_page_is_read_through_gzip_and_a_byte_order_mark(
    service: FaultServer, waits: Waits
) -> None:
    def packed(sock: socket.socket, answer: bytes) -> bool:
        sock.sendall(framed(gzip.compress(b"\xef\xbb\xbf" + answer), Content_Encoding="gzip"))
        return True

    service.meet(packed)
    with open_at(service, waits) as tokens:
        page = tokens.list_page(1, 500)

    assert len(page.rows) == 5
    assert page.body.startswith(b"\xef\xbb\xbf")


def test_more_rows_than_asked_for_are_taken(service: FaultServer, waits: Waits) -> None:
    with open_at(service, waits) as tokens:
        assert len(tokens.list_page(1, 2).rows) == 5


# ---- what is sent -----------------------------------------------------------------------------


def test_the_requests_are_exactly_those_that_the_service_understands(
    service: FaultServer, waits: Waits
) -> None:
    with open_at(service, waits) as tokens:
        tokens.list_page(3, 444, status_in="0,1,2", omit_auto_finalize=True)
        tokens.list_by_id(["0_a", "0_b"])
    widget, start, page, ids = service.requests

    assert [r.line.split()[1] for r in service.requests] == [
        "/api_v3/service/session/action/startWidgetSession?format=1",
        "/api_v3/service/appToken/action/startSession?format=1",
        LIST_PATH,
        LIST_PATH,
    ]
    common = {"format": 1, "nocache": 1, "clientTag": "kaltura-etl"}
    assert widget.params == common | {"widgetId": "_102"}
    assert start.params == common | {
        "ks": WIDGET_KS,
        "id": "0_c6604ueb",
        "type": 2,
        "tokenHash": start.params["tokenHash"],
    }
    assert re.fullmatch(r"[0-9a-f]{40}", start.params["tokenHash"])
    profile = page.params["responseProfile"]
    assert "autoFinalize" not in profile["fields"]
    assert page.params == common | {
        "ks": APP_KS,
        "filter": {"orderBy": "+createdAt", "statusIn": "0,1,2"},
        "pager": {"pageSize": 444, "pageIndex": 3},
        "responseProfile": profile,
    }
    assert ids.params == common | {
        "ks": APP_KS,
        "filter": {"orderBy": "+createdAt", "idIn": "0_a,0_b"},
        "pager": {"pageSize": 500, "pageIndex": 1},
    }
    for request in service.requests:
        assert request.line.startswith("POST ")
        assert request.line.endswith(" HTTP/1.1")
        assert request.headers["content-type"] == "application/json"
        assert "cookie" not in request.headers
        assert "authorization" not in request.headers
        assert not any(canary in request.line for canary in CANARIES)


def test_one_connection_serves_one_thread_and_threads_have_their_own(
    service: FaultServer, waits: Waits
) -> None:
    with open_at(service, waits) as tokens:
        for number in range(20):
            tokens.list_page(number + 1, 500)
        assert service.connections == 1
        with ThreadPoolExecutor(4) as pool:
            pages = list(pool.map(lambda n: tokens.list_page(n, 500), range(1, 201)))
        assert service.connections <= 4
    assert [page.facts.page_index for page in pages] == list(range(1, 201))


def test_a_connection_that_the_server_closed_meanwhile_is_not_an_error(
    service: FaultServer, waits: Waits
) -> None:
    def answers_and_closes(sock: socket.socket, answer: bytes) -> None:
        sock.sendall(framed(answer))

    service.meet(answers_and_closes)
    with open_at(service, waits) as tokens:
        for _ in range(5):
            tokens.list_page(1, 500)
            time.sleep(0.05)
        assert tokens.counters.retries == 0


# ---- interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [no_answer, drips_body, drips_headers])
def test_a_stop_cuts_a_running_request_within_a_second(
    service: FaultServer, waits: Waits, seen: Seen, fault: Fault
) -> None:
    with open_at(service, waits, limits=RetryLimits()) as tokens:
        service.meet(fault)

        def interrupt() -> None:
            service.stop.request()

        timer = threading.Timer(0.3, interrupt)
        timer.start()
        began = time.monotonic()
        with error_of(seen, Interrupted) as caught:
            tokens.list_page(1, 500)

    assert time.monotonic() - began < 2  # a second, and room for a busy machine
    assert caught[0].exit_code == 143


# ---- addresses and TLS ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://www.kaltura.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0:80",
        "ftp://www.kaltura.com",
        "www.kaltura.com",
        "https://",
        "",
        "https://[",
        "https://host:port",
        f"https://user:{ADMIN_SECRET}@www.kaltura.com",
        f"https://www.kaltura.com/?ks={APP_KS}",
        f"https://www.kaltura.com/#{APP_KS}",
    ],
)
def test_an_address_that_must_not_be_used_is_a_wrong_setting(seen: Seen, url: str) -> None:
    with error_of(seen, ConfigurationError) as caught:
        open_service(url, CREDENTIALS, stop=Stop())

    assert "KALTURA_SERVICE_URL" in caught[0].message


@pytest.mark.parametrize("suffix", ["", "/", "/api_v3", "/api_v3/"])
def test_an_address_may_end_in_a_slash_or_in_the_api_itself(
    service: FaultServer, suffix: str
) -> None:
    with open_service(
        f"http://localhost:{service.port}{suffix}",
        CREDENTIALS,
        stop=service.stop,
        settings=ServiceSettings(app_token_hash="SHA1"),
    ) as tokens:
        tokens.list_page(1, 1)

    assert service.requests[-1].line == f"POST {LIST_PATH} HTTP/1.1"


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file = folder / "authority.pem"
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(
        self, *, host: str = "127.0.0.1", days: int = 1, signed_by: Authority | None = None
    ) -> ssl.SSLContext:
        """A server's context; its certificate ends ``days`` from now."""
        issuer = signed_by or self
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
            .issuer_name(issuer.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        file = self.folder / f"{time.monotonic_ns()}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_of_a_named_authority_is_accepted(authority: Authority, waits: Waits) -> None:
    with closing(FaultServer(tls=authority.context())) as service:
        assert run_at(service, waits, ca_file=authority.file) == 4


@pytest.mark.parametrize("kind", ["expired", "wrong host", "unknown authority", "no authority"])
def test_a_certificate_that_is_not_acceptable_is_not_tried_again(
    authority: Authority, tmp_path: Path, waits: Waits, seen: Seen, kind: str
) -> None:
    (tmp_path / "other").mkdir()
    context = {
        "expired": lambda: authority.context(days=-1),
        "wrong host": lambda: authority.context(host="kaltura.example"),
        "unknown authority": lambda: authority.context(signed_by=Authority(tmp_path / "other")),
        "no authority": authority.context,
    }[kind]()
    ca_file = None if kind == "no authority" else authority.file
    with closing(FaultServer(tls=context)) as service:
        with error_of(seen, ServiceUnavailable) as caught:
            run_at(service, waits, ca_file=ca_file)
        assert service.connections == 1
        assert service.requests == []
    assert caught[0].fields["reason"] == "tls"
    assert waits == []


def test_an_old_tls_version_is_refused(authority: Authority, waits: Waits, seen: Seen) -> None:
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with closing(FaultServer(tls=context)) as service:
        with error_of(seen, ServiceUnavailable):
            run_at(service, waits, ca_file=authority.file)
        assert service.requests == []
        assert service.connections == 1


def test_plain_http_on_the_https_port_is_refused(
    service: FaultServer, waits: Waits, seen: Seen
) -> None:
    with error_of(seen, ServiceUnavailable):
        open_service(
            service.url.replace("http:", "https:"),
            CREDENTIALS,
            stop=service.stop,
            sleep=waits.sleep,
            monotonic=waits.monotonic,
            settings=ServiceSettings(retry=RetryLimits(request_seconds=0.3, attempts=2)),
        )

    assert service.requests == []


def test_a_certificate_file_that_is_none_is_a_wrong_setting(
    tmp_path: Path, service: FaultServer, waits: Waits, seen: Seen
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with error_of(seen, ConfigurationError):
            open_at(service, waits, ca_file=tmp_path / name)


# ---- environment and proxies ------------------------------------------------------------------


@dataclass
class Proxy:
    """A proxy that tunnels, or answers CONNECT in its own way."""

    answer: bytes | None = None
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            self.seen.append(head.decode("latin-1"))
            if self.answer is not None:
                client.sendall(self.answer)
                return
            host, port = head.split()[1].decode().rsplit(":", 1)
            with socket.create_connection((host, int(port))) as upstream:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                while True:
                    ready, _, _ = select.select([client, upstream], [], [], 10)
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        (upstream if source is client else client).sendall(data)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_the_environment_is_not_read_unless_asked_for(
    authority: Authority,
    tmp_path: Path,
    waits: Waits,
    seen: Seen,
    environment: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    environment.setenv("HOME", str(tmp_path))
    environment.setenv("SSL_CERT_FILE", str(authority.file))
    environment.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with (
        closing(Proxy()) as proxy,
        closing(FaultServer(tls=authority.context())) as service,
    ):
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        environment.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        run_at(service, waits, ca_file=authority.file)
        assert all("authorization" not in request.headers for request in service.requests)
        # A planted SSL_CERT_FILE does not make its authority trusted.
        with error_of(seen, ServiceUnavailable):
            run_at(service, waits)
        assert proxy.seen == []


def test_a_proxy_of_the_environment_is_used_if_asked_for(
    authority: Authority, waits: Waits, environment: pytest.MonkeyPatch
) -> None:
    with (
        closing(Proxy()) as proxy,
        closing(FaultServer(tls=authority.context())) as service,
    ):
        environment.setenv("HTTPS_PROXY", f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}")
        run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert len(proxy.seen) == 1
        assert f"CONNECT 127.0.0.1:{service.port}" in proxy.seen[0]
        assert "Proxy-Authorization: Basic" in proxy.seen[0]

        environment.setenv("NO_PROXY", "example.com,127.0.0.1")
        run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("answer", "error", "times"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ConfigurationError, 1),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", ConfigurationError, 1),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ServiceUnavailable, 6),
        (b"HTTP/1.1 200 Connec", ServiceUnavailable, 6),
        (b"", ServiceUnavailable, 6),
    ],
)
def test_a_proxy_that_fails_is_told_without_its_password(
    authority: Authority,
    waits: Waits,
    seen: Seen,
    environment: pytest.MonkeyPatch,
    answer: bytes,
    error: type[EtlError],
    times: int,
) -> None:
    with (
        closing(Proxy(answer=answer)) as proxy,
        closing(FaultServer(tls=authority.context())) as service,
    ):
        environment.setenv("HTTPS_PROXY", f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}")
        with error_of(seen, error):
            run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert len(proxy.seen) == times
        assert service.connections == 0


def test_a_proxy_address_that_makes_no_sense_is_a_wrong_setting(
    service: FaultServer, waits: Waits, seen: Seen, environment: pytest.MonkeyPatch
) -> None:
    for address in ("socks5://127.0.0.1:1080", f"http://u:{PROXY_PASSWORD}@host:port", "ftp://x"):
        environment.setenv("HTTP_PROXY", address)
        with error_of(seen, ConfigurationError):
            open_at(service, waits, use_environment_proxies=True)


# ---- the search for secrets itself ------------------------------------------------------------


def test_the_search_for_secrets_finds_what_it_looks_for() -> None:
    """A proof that the fixture above can fail: the same search over texts that leak."""
    leaks = io.StringIO()
    for canary in CANARIES:
        leaks.write(f"{canary} {base64.b64encode(canary.encode()).decode()} {quote(canary)}")
        leaks.write(canary.encode().hex() + quote(canary, safe=""))

    assert all(form in leaks.getvalue() for form in forbidden_forms())


def test_an_admin_secret_never_leaves_the_process(
    service: FaultServer, waits: Waits, seen: Seen
) -> None:
    with open_at(service, waits, Credentials(PARTNER, admin_secret=ADMIN_SECRET)) as tokens:
        service.meet(says_error("INVALID_KS", KSID=OTHERS_KS))
        with error_of(seen, CredentialsRefused):
            tokens.list_page(1, 5)

    for request in service.requests:
        assert ADMIN_SECRET.encode() not in request.body
