"""The stand-in as a server: one event loop in a thread of its own, on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from etl.simulator.account.account import Account
from etl.simulator.account.churn import Churn
from etl.simulator.account.life import Life
from etl.simulator.api.directory import DEFAULT_ADMIN_SECRET, Directory, Partner
from etl.simulator.api.params import is_service_path
from etl.simulator.api.service import Service
from etl.simulator.faults import Fault, Faults
from etl.simulator.http.control import PREFIX, handle_control
from etl.simulator.http.transport_faults import http_fault, send_broken
from etl.simulator.http.wire import BadRequest, HttpReply, HttpRequest, RequestReader, frame_reply


class SimulatorServer:
    """Serves one account (and other partners' if given) until closed.

    ``port`` 0 takes a free one; ``clock`` is the time that sessions are checked against;
    ``latency_seconds`` is waited before each reply leaves, after its content was fixed.
    Use it as a context manager, from a synchronous program.
    """

    def __init__(
        self,
        account: Account,
        *,
        admin_secret: str = DEFAULT_ADMIN_SECRET,
        port: int = 0,
        seed: int = 0,
        latency_seconds: float = 0.0,
        page_cap: int = 500,
        shuffle_ties: bool = False,
        churn: Churn | None = None,
        faults: Faults | None = None,
        poison: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
        keep_ids: bool = False,
        other_partners: Iterable[Partner] = (),
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
        self.latency_seconds = 0.0
        self.port = port
        self._seed = seed
        self._life: Life | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: asyncio.Server | None = None
        self.connections: set[_Connection] = set()
        self.configure(
            latency_ms=latency_seconds * 1000,
            page_cap=page_cap,
            shuffle_ties=shuffle_ties,
            poison=list(poison),
        )

    # ---- life of the server -------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The service URL, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen and serve.  Raises OSError if the port is taken."""
        ready: list[OSError | None] = []
        done = threading.Event()
        loop = self._loop = asyncio.new_event_loop()

        def run() -> None:
            try:
                loop.run_until_complete(self._listen(loop))
                ready.append(None)
            except OSError as exc:
                ready.append(exc)
                return
            finally:
                done.set()
            loop.run_forever()

        self._thread = threading.Thread(target=run, name="simulator", daemon=True)
        self._thread.start()
        done.wait()
        failure = ready[0] if ready else OSError("the simulator's thread died")
        if failure is not None:
            self._thread.join()
            loop.close()
            raise failure

    def close(self) -> None:
        """Stop listening and drop all connections."""
        loop = self._loop
        if self._thread is None or loop is None or loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(timeout=10)
        loop.close()

    def __enter__(self) -> SimulatorServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = await loop.create_server(
            lambda: _Connection(self, loop), "127.0.0.1", self.port, backlog=256
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.drop()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    # ---- control ------------------------------------------------------------------------------

    def configure(
        self,
        *,
        latency_ms: float | None = None,
        page_cap: int | None = None,
        shuffle_ties: bool | None = None,
        poison: list[str] | None = None,
        upload_url: str | None = None,
        rate_limit: tuple[int, float] | None = None,
        partner_status: int | None = None,
        keep_ids: bool | None = None,
    ) -> None:
        """Change settings of a running server; what is None stays as it is.

        ``rate_limit`` is (calls, seconds), (0, 0) for none; ``upload_url`` "" for none.
        """
        with self.account.lock:
            if latency_ms is not None:
                self.latency_seconds = latency_ms / 1000
            if page_cap is not None:
                if page_cap < 1:
                    raise ValueError("the page cap must be at least 1")
                self.service.tokens.page_cap = page_cap
            if shuffle_ties is not None:
                self.service.tokens.shuffle_ties = shuffle_ties
            if poison is not None:
                self.account.poison = set(poison)
            if upload_url is not None:
                self.service.tokens.upload_url = upload_url or None
            if rate_limit is not None:
                self.service.rate_limit = (
                    (int(rate_limit[0]), float(rate_limit[1])) if rate_limit[0] else None
                )
            if keep_ids is not None:
                self.service.keep_ids = keep_ids
            if partner_status is not None:
                self.partner.status = partner_status

    def life(self) -> Life:
        """The life of the account, begun at the first call; from then on its clock stands still."""
        if self._life is None:
            self._life = Life(self.account, seed=self._seed)
        return self._life

    def settings(self) -> dict[str, Any]:
        """What a client of this server needs to know: url, partner_id, admin_secret."""
        return {
            "url": self.url,
            "partner_id": self.account.partner_id,
            "admin_secret": self.partner.admin_secrets[0],
        }

    def answer(self, request: HttpRequest) -> tuple[HttpReply, Fault | None]:
        """The reply to a request, and the transport fault that it gets on its way, if any."""
        if request.path.startswith(PREFIX):
            if not ipaddress.ip_address(request.peer).is_loopback:
                return HttpReply(b"", 404), None
            return handle_control(self, request), None
        if not is_service_path(request.path):
            return HttpReply(b"Not Found\n", 404, [("Content-Type", "text/plain")]), None
        if request.method not in ("POST", "GET", "HEAD", "OPTIONS"):
            return HttpReply(b"", 405), None
        return self._answer_call(request)

    def _answer_call(self, request: HttpRequest) -> tuple[HttpReply, Fault | None]:
        reply, fault = self.service.handle(request)
        if fault is not None and fault.group == "http":
            return http_fault(fault, request, reply), None
        return reply, fault if fault is not None and fault.group == "transport" else None


class _Connection(asyncio.Protocol):
    """One client connection; requests on it are answered one after the other."""

    def __init__(self, server: SimulatorServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._drain = asyncio.Event()
        self._drain.set()
        self._busy = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._reader = RequestReader(peer[0] if peer else "127.0.0.1")
        transport.set_write_buffer_limits(high=4 << 20)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        self._server.connections.discard(self)
        self._drain.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._drain.clear()

    def resume_writing(self) -> None:
        self._drain.set()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if not self._busy:
            self._serve_next()

    def _serve_next(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            request = self._reader.next()
        except BadRequest as exc:
            reply = HttpReply(f"{exc}\n".encode(), 400, [("Connection", "close")])
            transport.write(
                frame_reply(HttpRequest("GET", "/", "HTTP/1.0", {}, b""), reply, date=time.time())
            )
            transport.close()
            return
        if request is None:
            if self._reader.wants_continue:
                self._reader.wants_continue = False
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._busy = True
        reply, fault = self._server.answer(request)
        delay = self._server.latency_seconds
        if fault is not None:
            self._task = self._loop.create_task(self._send_broken(fault, request, reply, delay))
        elif delay > 0:
            self._loop.call_later(delay, self._send, request, reply)
        else:
            self._send(request, reply)

    def _send(self, request: HttpRequest, reply: HttpReply) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(frame_reply(request, reply, date=self._server.service.clock()))
        if request.version == "HTTP/1.0" or not request.keep_alive:
            transport.close()
            return
        self._busy = False
        self._loop.call_soon(self._serve_waiting)

    def _serve_waiting(self) -> None:
        if not self._busy:
            self._serve_next()

    async def _send_broken(
        self, fault: Fault, request: HttpRequest, reply: HttpReply, delay: float
    ) -> None:
        """The connection stays busy after a fault: nothing more is answered on it."""
        transport = self._transport
        if transport is None:
            return
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(delay)
            await send_broken(
                fault,
                request,
                reply,
                transport,
                drain=self._drain,
                now=self._server.service.clock(),
            )
            if fault.kind in ("corrupt-gzip", "gzip-bomb", "oversized-body"):
                transport.close()
