"""HTTP/1.1 on the wire: requests out of a byte stream, replies into one."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import formatdate

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
REASONS = {
    200: "OK",
    301: "Moved Permanently",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class BadRequest(Exception):
    """The bytes are no HTTP request that this server takes."""


@dataclass(slots=True)
class HttpRequest:
    """One request; header names in lower case."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes
    peer: str = "127.0.0.1"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def keep_alive(self) -> bool:
        wish = self.headers.get("connection", "").lower()
        return wish == "keep-alive" if self.version == "HTTP/1.0" else wish != "close"


@dataclass(slots=True)
class HttpReply:
    """One reply before it is framed."""

    body: bytes
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)


class RequestReader:
    """Cuts requests out of the bytes of one connection."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self._buffer = bytearray()
        self._peer = peer
        self.wants_continue = False
        """The client waits for ``100 Continue`` before it sends the body."""

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> HttpRequest | None:
        """The next complete request, or None until more bytes have come."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest("request head too long")
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        try:
            method, target, version = lines[0].split(" ")
        except ValueError:
            raise BadRequest(f"no request line: {lines[0][:80]!r}") from None
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.wants_continue = headers.get("expect", "").lower() == "100-continue"
        start = end + 4
        if "chunked" in headers.get("transfer-encoding", "").lower():
            found = self._read_chunks(start)
            if found is None:
                return None
            body, stop = found
        else:
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                raise BadRequest(f"Content-Length {length[:20]!r} refused")
            stop = start + int(length)
            if len(self._buffer) < stop:
                return None
            body = bytes(self._buffer[start:stop])
        del self._buffer[:stop]
        self.wants_continue = False
        if "://" in target:
            target = "/" + target.split("/", 3)[3] if target.count("/") >= 3 else "/"
        return HttpRequest(method, target, version, headers, body, self._peer)

    def _read_chunks(self, start: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while True:
            line_end = self._buffer.find(b"\r\n", start)
            if line_end < 0:
                return None
            try:
                size = int(bytes(self._buffer[start:line_end]).split(b";")[0], 16)
            except ValueError:
                raise BadRequest("bad chunk size") from None
            if len(body) + size > MAX_BODY_BYTES:
                raise BadRequest("body too long")
            start = line_end + 2
            if len(self._buffer) < start + size + 2:
                return None
            if size == 0:
                end = self._buffer.find(b"\r\n", start)
                return None if end < 0 else (bytes(body), end + 2)
            body += self._buffer[start : start + size]
            start += size + 2


def head_bytes(reply: HttpReply, framing: list[tuple[str, str]], *, date: float) -> bytes:
    """Status line and headers.  ``Date`` comes first, as on the real server."""
    lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Unknown')}"]
    lines.append(f"Date: {formatdate(date, usegmt=True)}")
    lines += [f"{name}: {value}" for name, value in (*reply.headers, *framing)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def frame_reply(request: HttpRequest, reply: HttpReply, *, date: float) -> bytes:
    """The bytes of a reply as PHP behind Apache sends them: chunked, without Content-Length.

    An HTTP/1.0 client, or one that closes, gets a body that ends with the connection.
    """
    body = b"" if request.method == "HEAD" else reply.body
    if request.version == "HTTP/1.0" or not request.keep_alive:
        return head_bytes(reply, [("Connection", "close")], date=date) + body
    head = head_bytes(reply, [("Transfer-Encoding", "chunked")], date=date)
    if request.method == "HEAD":
        return head
    if not body:
        return head + b"0\r\n\r\n"
    return b"".join((head, b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"))
