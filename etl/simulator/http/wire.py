"""A reply as bytes, framed as PHP behind Apache frames it."""

from __future__ import annotations

from email.utils import formatdate
from http.client import NO_CONTENT, responses

from etl.simulator.message import HttpReply


def head_bytes(reply: HttpReply, framing: list[tuple[str, str]], *, date: float) -> bytes:
    """Status line and headers.  ``Date`` comes first, as on the real server."""
    headers = [*reply.headers, *framing]
    if not any(name == "Date" for name, _ in headers):
        headers.insert(0, ("Date", formatdate(date, usegmt=True)))
    lines = [f"HTTP/1.1 {reply.status} {responses.get(reply.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def frame_reply(reply: HttpReply, *, date: float, keep_alive: bool = True) -> bytes:
    """The bytes of a reply: chunked, without Content-Length.

    Without ``keep_alive`` the body ends with the connection.
    """
    if reply.status == NO_CONTENT:
        return head_bytes(reply, [], date=date)
    if not keep_alive:
        return head_bytes(reply, [("Connection", "close")], date=date) + reply.body
    head = head_bytes(reply, [("Transfer-Encoding", "chunked")], date=date)
    if not reply.body:
        return head + b"0\r\n\r\n"
    return b"".join((head, b"%x\r\n" % len(reply.body), reply.body, b"\r\n0\r\n\r\n"))
