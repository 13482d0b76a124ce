"""TLS before a Postgres server that has none, for what libpq makes of certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

from tests.support.listener import Listener

SSL_REQUEST_BYTES = 8
PIECE_BYTES = 65_536


class TlsFront:
    """Accepts Postgres connections by TLS, and passes them on to a server's socket.

    ``context`` None: it refuses TLS, as a server without it does.  ``answer`` replaces all that.
    """

    def __init__(
        self, behind: str, context: ssl.SSLContext | None = None, answer: bytes | None = None
    ) -> None:
        """``behind`` is the path of the socket."""
        self._behind = behind
        self._context = context
        self._answer = answer
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    def close(self) -> None:
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            client.recv(SSL_REQUEST_BYTES)
            if self._answer is not None:
                client.sendall(self._answer)
                return
            client.sendall(b"N" if self._context is None else b"S")
            if self._context is None:
                client.recv(PIECE_BYTES)
                return
            with (
                self._context.wrap_socket(client, server_side=True) as secured,
                socket.socket(socket.AF_UNIX) as server,
            ):
                server.connect(self._behind)
                # The handshake of Postgres takes turns, so one direction at a time is enough.
                back = threading.Thread(target=_pass_on, args=(server, secured), daemon=True)
                back.start()
                _pass_on(secured, server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(PIECE_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
