"""Replies of which one part comes byte by byte: no read of them ever times out."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from etl.simulator import Fault
from etl.simulator.message import HttpReply

LONG = b"x" * 500
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


@dataclass(frozen=True)
class Drip:
    """The proper reply, of which one part (a key of ``PARTS``) comes slowly.

    With the usual interval that takes at least ten seconds, without one no time; then the reply is
    complete and correct.
    """

    part: str
    interval_seconds: float = 0.02
    begun: Callable[[], None] = lambda: None
    """Called after the first slow bytes."""

    def fault(self) -> Fault:
        return Fault(f"drip: {self.part}", script=self._write)

    def _write(self, sock: socket.socket, reply: HttpReply) -> bool:
        before, slow, after = PARTS[self.part](reply.body)
        sock.sendall(before)
        step = 1 if self.interval_seconds else len(slow)
        for number in range(0, len(slow), step):
            sock.sendall(slow[number : number + step])
            time.sleep(self.interval_seconds)
            if number == 3:
                self.begun()
        sock.sendall(after)
        return True


def _length(body: bytes, coding: bytes = b"identity") -> bytes:
    return b"\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(body))


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def _packed(body: bytes) -> bytes:
    """Gzip without compression, so as long as the body."""
    return gzip.compress(body, compresslevel=0, mtime=0)


PARTS: dict[str, Callable[[bytes], tuple[bytes, bytes, bytes]]] = {
    "status line": lambda body: (b"", b"HTTP/1.1 200 " + LONG, _length(body) + body),
    "header": lambda body: (b"HTTP/1.1 200 OK\r\n", b"X-Long: " + LONG, _length(body) + body),
    "body": lambda body: (b"HTTP/1.1 200 OK" + _length(body), body, b""),
    "gzip": lambda body: (
        b"HTTP/1.1 200 OK" + _length(_packed(body), b"gzip"),
        _packed(body),
        b"",
    ),
    "size of a chunk": lambda body: (
        CHUNKED + b"\r\n",
        b"0" * len(LONG),
        _chunk(body) + b"0\r\n\r\n",
    ),
    "chunk": lambda body: (CHUNKED + b"\r\n", _chunk(body), b"0\r\n\r\n"),
    "chunks of one byte": lambda body: (
        CHUNKED + b"\r\n",
        b"".join(_chunk(body[index : index + 1]) for index in range(len(body))),
        b"0\r\n\r\n",
    ),
    "gzip in a chunk": lambda body: (
        CHUNKED + b"Content-Encoding: gzip\r\n\r\n",
        _chunk(_packed(body)),
        b"0\r\n\r\n",
    ),
    "trailer": lambda body: (
        CHUNKED + b"\r\n" + _chunk(body) + b"0\r\n",
        b"X-Long: " + LONG,
        b"\r\n\r\n",
    ),
}
"""What comes at once, slowly, and at once again; ``slow`` has at least 500 bytes."""
