"""Bytes to and from a server: every wait ends at the deadline of the whole request, or at a stop.

A socket's own timeout is per operation: a server that sends one byte per second never times out.
Here every operation waits in slices of half a second at most, and before each of them looks at
the deadline and at the stop.  That costs one read of the clock per operation, and no thread.

TLS is a layer above (``ssl.SSLObject``), so that only ``TcpStream`` has to know of limits, during
a handshake too, and so that a proxy can be reached by TLS.  It costs what an ``SSLSocket`` costs.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ParamSpec, Protocol, TypeVar, cast

from etl.process.resolve import addresses_of
from etl.process.stop import Stop

STOP_CHECK_SECONDS = 0.5
_TLS_READ_BYTES = 64 * 1024

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Until when an operation may take (monotonic seconds), and what interrupts it."""

    stop: Stop
    ends_at: float

    def within(self, seconds: float) -> Limits:
        """These limits, and not longer than ``seconds`` from now."""
        return replace(self, ends_at=min(self.ends_at, time.monotonic() + seconds))

    def wait_seconds(self) -> float:
        """How long to wait before asking again.

        Raises Interrupted after a stop, TimeoutError after the deadline.
        """
        self.stop.check()
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline of the request")
        return min(left, STOP_CHECK_SECONDS)


class Stream(Protocol):
    """One connection.  Its operations raise OSError, TimeoutError at a limit, or Interrupted."""

    def receive(self, buffer: memoryview) -> int:
        """Read at least one byte into ``buffer``; 0 when the other side has closed."""

    def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class TcpStream:
    """A TCP connection to the first of the host's addresses that answers.

    ``connect_seconds`` is for each address, and for finding them.  ``limits`` may be replaced
    between two operations.
    """

    def __init__(self, host: str, port: int, limits: Limits, connect_seconds: float) -> None:
        self.limits = limits
        failure = OSError(f"no address for {host}")
        resolving = limits.within(connect_seconds)
        for family, kind, protocol, _, address in addresses_of(host, port, resolving.wait_seconds):
            try:
                self._socket = socket.socket(family, kind, protocol)
                try:
                    self._connect(address, limits.within(connect_seconds))
                except BaseException:
                    self._socket.close()
                    raise
            except OSError as exc:
                failure = exc
            else:
                # A request is one segment, which is not to wait for the next one.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return
        raise failure

    def _connect(self, address: object, limits: Limits) -> None:
        self._socket.setblocking(False)
        error = self._socket.connect_ex(address)  # type: ignore[arg-type]
        if error == errno.EINPROGRESS:
            while not self._is_ready(select.POLLOUT, limits.wait_seconds()):
                pass
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def _is_ready(self, event: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        return bool(poll.poll(seconds * 1000))

    def is_readable(self) -> bool:
        """Between two replies: the other side has closed, or says what was not asked for."""
        return self._is_ready(select.POLLIN, 0)

    def receive(self, buffer: memoryview) -> int:
        while True:
            self._socket.settimeout(self.limits.wait_seconds())
            with suppress(TimeoutError):
                return self._socket.recv_into(buffer)

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(self.limits.wait_seconds())
            with suppress(TimeoutError):
                rest = rest[self._socket.send(rest) :]

    def close(self) -> None:
        self._socket.close()


class TlsStream:
    """TLS over another stream, even over another TLS (a proxy's).  Shakes hands at once."""

    def __init__(self, below: Stream, context: ssl.SSLContext, host: str) -> None:
        self._below = below
        self._arrived = memoryview(bytearray(_TLS_READ_BYTES))
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=host.encode("ascii")
        )
        self._run(self._tls.do_handshake)

    def receive(self, buffer: memoryview) -> int:
        # With a buffer it gives the number of bytes, which typeshed does not know.
        read = cast("Callable[[int, memoryview], int]", self._tls.read)
        try:
            return self._run(read, len(buffer), buffer)
        except ssl.SSLZeroReturnError:
            return 0

    def send(self, data: bytes) -> None:
        self._run(self._tls.write, data)

    def close(self) -> None:
        self._below.close()

    def _run(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Repeat an operation of the TLS object, with what it wants to read, until it succeeds."""
        while True:
            try:
                return operation(*args, **kwargs)
            except ssl.SSLWantReadError:
                pass
            finally:
                if self._outgoing.pending:  # also the alert that tells of a failure
                    self._below.send(self._outgoing.read())
            count = self._below.receive(self._arrived)
            if count:
                self._incoming.write(self._arrived[:count])
            else:
                self._incoming.write_eof()


class StreamReader(io.RawIOBase):
    """A stream as a file to read from, which stays open when the file is closed."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._stream.receive(buffer)
