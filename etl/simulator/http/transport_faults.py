"""Faults below the reply: other HTTP replies, and what goes wrong on the socket."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator

from etl.simulator.faults import Fault
from etl.simulator.http.wire import frame_reply, head_bytes
from etl.simulator.message import HttpReply, HttpRequest

GIGABYTE = 1 << 30
_EMPTY_LIST = b'{"totalCount":0,"objects":['
_HTML = b"<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"


def http_fault(fault: Fault, request: HttpRequest, reply: HttpReply) -> HttpReply:
    """The reply that replaces ``reply``."""
    html = [("Content-Type", "text/html; charset=UTF-8")]
    kind = fault.kind
    if kind.startswith("429"):
        wait = [] if kind != "429" else [("Retry-After", str(fault.options.get("retry_after", 1)))]
        return HttpReply(_HTML % (b"Too Many Requests", b"Slow down"), 429, html + wait)
    if kind == "500-empty":
        kept = [pair for pair in reply.headers if pair[0].lower() != "content-type"]
        return HttpReply(b"", 500, [*kept, ("Content-type", "text/html; charset=UTF-8")])
    if kind.startswith("redirect-"):
        target = f"https://elsewhere.example.invalid{request.target}"
        location = str(fault.options.get("location", target))
        return HttpReply(b"", int(kind[-3:]), [("Location", location), *html])
    if kind == "200-empty":
        return HttpReply(b"", 200, [("Content-Type", "application/json")])
    if kind == "status":
        headers = dict(fault.options.get("headers", {}))
        body = bytes(fault.options.get("body", b""))
        return HttpReply(body, int(fault.options.get("status", 408)), list(headers.items()))
    texts = (b"Gateway", b"The server is not answering")
    if kind == "200-html":
        texts = (b"Welcome", b"Please accept our terms of use")
    return HttpReply(_HTML % texts, int(kind[:3]), html)


def send_broken(fault: Fault, reply: HttpReply, sock: socket.socket, *, date: float) -> bool:
    """Send a reply with a transport fault; whether the connection can be used again.

    Raises OSError when the client gives up first.
    """
    kind = fault.kind
    if fault.script is not None:
        return bool(fault.script(sock, reply))
    if kind in _BEFORE_THE_END:
        sock.sendall(_BEFORE_THE_END[kind](reply, date))
        if kind.startswith("reset"):
            reset(sock)
        return False
    if kind in _ENCODED:
        encoding, data = _ENCODED[kind](reply.body, fault)
        framing = [("Content-Encoding", encoding), ("Content-Length", str(len(data)))]
        sock.sendall(head_bytes(reply, framing, date=date) + data)
        return True
    if kind == "oversized-body":
        sock.sendall(head_bytes(reply, [("Transfer-Encoding", "chunked")], date=date))
        for piece in _blanks(int(fault.options.get("bytes", GIGABYTE))):
            sock.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        return True
    _stall(fault, reply, sock, date)
    return False


def _stall(fault: Fault, reply: HttpReply, sock: socket.socket, date: float) -> None:
    """Send byte by byte, or nothing, until the client gives up."""
    dripped = b""
    if fault.kind == "drip-headers":
        dripped = head_bytes(reply, [(f"X-{n}", "x" * 40) for n in range(50)], date=date)
    elif fault.kind == "slow-loris":
        framing = [("Content-Length", str(len(reply.body)))]
        sock.sendall(head_bytes(reply, framing, date=date))
        dripped = reply.body[:-1]
    for byte in dripped:
        time.sleep(float(fault.options.get("interval_seconds", 0.2)))
        sock.sendall(bytes((byte,)))
    while sock.recv(65_536):
        pass


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN, once what was sent has arrived."""
    time.sleep(0.02)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # A plain close waits for the file objects that were made of the socket.
    os.close(sock.detach())


def _half_of_the_headers(reply: HttpReply, date: float) -> bytes:
    head = head_bytes(reply, [], date=date)
    return head[: len(head) // 2]


def _half_of_the_body(reply: HttpReply, date: float) -> bytes:
    data = frame_reply(reply, date=date)
    return data[: len(data) - max(len(reply.body) // 2, 1)]


def _unfinished_chunks(reply: HttpReply, date: float) -> bytes:
    return frame_reply(reply, date=date).removesuffix(b"0\r\n\r\n")


_BEFORE_THE_END: dict[str, Callable[[HttpReply, float], bytes]] = {
    "close": lambda _reply, _date: b"",
    "reset": lambda _reply, _date: b"",
    "reset-headers": _half_of_the_headers,
    "reset-body": _half_of_the_body,
    "close-body": _half_of_the_body,
    "close-after-reply": lambda reply, date: frame_reply(reply, date=date),
    "chunked-unfinished": _unfinished_chunks,
    "not-http": lambda _reply, _date: b"\x00\x01\x02 this is not HTTP\r\n\r\n",
}
"""What is sent before the connection ends."""


def _corrupt(body: bytes, _: Fault) -> tuple[str, bytes]:
    packed = bytearray(gzip.compress(body, mtime=0))
    middle = len(packed) // 2
    packed[middle : middle + 8] = bytes(byte ^ 0xFF for byte in packed[middle : middle + 8])
    return "gzip", bytes(packed)


_ENCODED: dict[str, Callable[[bytes, Fault], tuple[str, bytes]]] = {
    "corrupt-gzip": _corrupt,
    "truncated-gzip": lambda body, _: ("gzip", gzip.compress(body)[:-9]),
    "plain-as-gzip": lambda body, _: ("gzip", body),
    "plain-as-brotli": lambda body, _: ("br", body),
    "gzip-bomb": lambda _, fault: ("gzip", _gzip_bomb(int(fault.options.get("bytes", GIGABYTE)))),
}
"""Content-Encoding and body of replies that are framed well."""


def _gzip_bomb(size: int) -> bytes:
    """One gzip stream that unpacks to an empty list with ``size`` blanks in it.

    The blocks between two full flushes do not refer to each other, so one is made and repeated.
    The checksum is wrong, which only a reader who unpacked everything will notice.
    """
    block_size = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(_EMPTY_LIST) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * block_size) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(b'],"objectType":"KalturaUploadTokenListResponse"}') + packer.flush()
    return start + block * max(size // block_size, 1) + end


def _blanks(size: int) -> Iterator[bytes]:
    yield _EMPTY_LIST
    piece = b" " * (1 << 18)
    for _ in range(max(size // len(piece), 1)):
        yield piece
    yield b"]}"
