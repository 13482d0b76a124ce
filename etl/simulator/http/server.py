"""The simulator as a server on the loopback interface: a thread per connection."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from etl.simulator.account.account import Account
from etl.simulator.api.churn import Churn
from etl.simulator.api.directory import DEFAULT_ADMIN_SECRET, Directory, Partner
from etl.simulator.api.params import is_service_path
from etl.simulator.api.service import Service
from etl.simulator.faults import Fault, Faults
from etl.simulator.http.control import PREFIX, handle_control
from etl.simulator.http.transport_faults import http_fault, send_broken
from etl.simulator.http.wire import frame_reply
from etl.simulator.message import HttpReply, HttpRequest

MAX_BODY_BYTES = 64 * 1024 * 1024
_POLL_SECONDS = 0.05


class SimulatorServer:
    """Serves one account (and other partners' if given) until closed.

    ``port`` 0 takes a free one; ``clock`` is the time that sessions are checked against;
    ``latency_seconds``, and ``row_latency_seconds`` for each of its rows, are waited before a reply
    leaves, after its content was fixed, for at most ``workers`` requests at a time (0: any number);
    with ``tls`` it speaks HTTPS.  Use it as a context manager.
    """

    def __init__(
        self,
        account: Account,
        *,
        admin_secret: str = DEFAULT_ADMIN_SECRET,
        port: int = 0,
        seed: int = 0,
        latency_seconds: float = 0.0,
        row_latency_seconds: float = 0.0,
        workers: int = 0,
        page_cap: int = 500,
        shuffle_ties: bool = False,
        churn: Churn | None = None,
        faults: Faults | None = None,
        poison: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
        keep_ids: bool = False,
        other_partners: Iterable[Partner] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.account = account
        self.partner = Partner(account, admin_secret)
        self.service = Service(
            Directory([self.partner, *other_partners]),
            seed=seed,
            clock=clock,
            faults=faults,
            keep_ids=keep_ids,
        )
        self.service.churn = churn
        self.faults = self.service.faults
        self.configure = self.service.configure
        self.life = self.service.life
        self.port = port
        self.tls = tls
        self.connections_accepted = 0
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
        self.configure(
            latency_ms=latency_seconds * 1000,
            row_latency_ms=row_latency_seconds * 1000,
            workers=workers,
            page_cap=page_cap,
            shuffle_ties=shuffle_ties,
            poison=list(poison),
        )

    @property
    def url(self) -> str:
        """The service URL, without a path."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def settings(self) -> dict[str, Any]:
        """What a client of this server needs to know: url, partner_id, admin_secret."""
        return {
            "url": self.url,
            "partner_id": self.account.partner_id,
            "admin_secret": self.partner.admin_secrets[0],
        }

    def start(self) -> None:
        """Listen and serve.  Raises OSError if the port is taken."""
        self._listener = _Listener(self)
        self.port = self._listener.server_address[1]
        self._thread = threading.Thread(
            target=self._listener.serve_forever,
            args=(_POLL_SECONDS,),
            name="simulator",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._listener is None or self._thread is None:
            return
        self._listener.shutdown()
        self._thread.join()
        self._listener.close()
        self._listener = None

    def __enter__(self) -> SimulatorServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, request: HttpRequest) -> tuple[HttpReply, Fault | None]:
        """The reply to a request, and the transport fault to apply to it, if any."""
        if request.path.startswith(PREFIX):
            if not ipaddress.ip_address(request.peer).is_loopback:
                return HttpReply(b"", 404), None
            return handle_control(self.service, request), None
        if not is_service_path(request.path):
            return HttpReply(b"Not Found\n", 404, [("Content-Type", "text/plain")]), None
        reply, fault = self.service.handle(request)
        if fault is not None and fault.group == "http":
            return http_fault(fault, request, reply), None
        return reply, fault if fault is not None and fault.group == "transport" else None


class _Listener(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, owner: SimulatorServer) -> None:
        self.owner = owner
        self.closed = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", owner.port), _Connection)

    def add(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)

    def discard(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(sock)

    def verify_request(self, *_: object) -> bool:
        self.owner.connections_accepted += 1
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is no error of the simulator."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        self.closed.set()
        self.server_close()
        with self._lock:
            for sock in self._sockets:
                _shut(sock)


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed


class _Connection(BaseHTTPRequestHandler):
    """One client connection; its requests are answered one after the other."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        if self.server.owner.tls is not None:
            self.request = self.server.owner.tls.wrap_socket(self.request, server_side=True)
        self.server.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.discard(self.request)
        super().finish()
        if self.server.owner.tls is not None:
            self.request.close()

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self.send_error(400, f"Content-Length {length[:20]!r} refused")
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = HttpRequest(
            self.command, self.path, headers, body, self.client_address[0], self.request_version
        )
        owner = self.server.owner
        reply, fault = owner.answer(request)
        owner.service.take_time(reply, self.server.closed)
        date = owner.service.clock()
        if fault is None:
            keep_alive = not self.close_connection
            self.wfile.write(frame_reply(reply, date=date, keep_alive=keep_alive))
        elif not send_broken(fault, reply, self.request, date=date):
            self.close_connection = True

    do_GET = do_POST
