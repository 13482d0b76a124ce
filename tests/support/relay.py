"""A TCP relay before a Postgres server: sees every piece that passes, and can cut the link."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Direction = Literal["request", "reply"]
PIECE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Piece:
    """What was received at once from one side, before it is passed on."""

    number: int
    """Counts from 0, over all connections and both directions."""
    direction: Direction
    """``request``: from the program to Postgres; a ``reply`` means that it is done there."""
    begin: int
    """Bytes that have passed in this direction before, over all connections."""
    data: bytes


Decide = Callable[[Piece], int | None]
"""None lets a piece pass; a number lets so many of its bytes pass, and then the link is cut."""


class Relay:
    """Relays connections of any number; ``decide`` is asked before each piece is passed on."""

    def __init__(self, url: str) -> None:
        """``url`` names the server by the folder of its socket."""
        query = parse_qs(urlsplit(url).query)
        self._server = str(Path(query["host"][0]) / f".s.PGSQL.{query.get('port', ['5432'])[0]}")
        self.decide: Decide = lambda _: None
        self.reset = False
        """Whether a cut is a reset of the connection, instead of its end."""
        self.piece_bytes = PIECE_BYTES
        """A slow link passes on a few bytes at a time."""
        self._lock = threading.Lock()
        self._pieces = 0
        self._passed: dict[Direction, int] = {"request": 0, "reply": 0}
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """The same database through the relay."""
        parts, port = urlsplit(url), self._listener.getsockname()[1]
        address = f"{parts.username}@127.0.0.1:{port}"
        plain = "sslmode=disable&gssencmode=disable"
        return parts._replace(netloc=address, query=plain).geturl()

    def begin(self, decide: Decide, *, reset: bool = False, piece_bytes: int = PIECE_BYTES) -> None:
        """Count from 0 again, and ask ``decide`` from now on."""
        with self._lock:
            self._pieces = 0
            self._passed = {"request": 0, "reply": 0}
            self.decide, self.reset, self.piece_bytes = decide, reset, piece_bytes

    def end(self) -> tuple[int, dict[Direction, int]]:
        """Let everything pass; gives the pieces and the bytes since ``begin``."""
        with self._lock:
            self.decide, self.reset, self.piece_bytes = (lambda _: None), False, PIECE_BYTES
            return self._pieces, dict(self._passed)

    def close(self) -> None:
        _shut(self._listener)
        self._listener.close()
        with self._lock:
            left = set(self._sockets)
        _shut(*left)
        deadline = time.monotonic() + 5
        while self._sockets and time.monotonic() < deadline:
            time.sleep(0.005)  # their threads close them

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:  # it is being restarted
                client.close()
                server.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on in both directions, until either ends."""
        back = threading.Thread(target=self._pump, args=(server, client, "reply"), daemon=True)
        back.start()
        self._pump(client, server, "request")
        back.join()
        client.close()
        server.close()
        with self._lock:
            self._sockets -= {client, server}

    def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        with suppress(OSError):
            while data := source.recv(self.piece_bytes):
                with self._lock:
                    piece = Piece(self._pieces, direction, self._passed[direction], data)
                    self._pieces += 1
                    self._passed[direction] += len(data)
                    decide = self.decide
                # Outside the lock: to decide may take long, or wait for another connection.
                passed = decide(piece)
                target.sendall(data[:passed])
                if passed is not None:
                    if self.reset:
                        _reset(source if direction == "request" else target)
                    break
        _shut(source, target)


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _reset(client: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RD)  # else the other thread's recv keeps the socket open
        os.close(client.detach())


@contextmanager
def relay_before(url: str) -> Iterator[Relay]:
    """A relay before the server of ``url``, on a free port of the loopback interface."""
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.close()
