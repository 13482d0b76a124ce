"""Faults below the reply: what goes wrong on the way out."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import zlib
from collections.abc import AsyncIterator

from etl.simulator.faults import Fault
from etl.simulator.http.wire import HttpReply, HttpRequest, frame_reply, head_bytes

GIGABYTE = 1 << 30
_EMPTY_LIST = b'{"totalCount":0,"objects":['
_HTML = b"<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"


def http_fault(fault: Fault, request: HttpRequest, reply: HttpReply) -> HttpReply:
    """The reply that takes the place of ``reply``."""
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
    if kind == "200-html":
        return HttpReply(_HTML % (b"Welcome", b"Please accept our terms of use"), 200, html)
    if kind == "200-empty":
        return HttpReply(b"", 200, [("Content-Type", "application/json")])
    status = int(kind[:3])
    return HttpReply(_HTML % (b"Gateway", b"The server is not answering"), status, html)


async def send_broken(
    fault: Fault,
    request: HttpRequest,
    reply: HttpReply,
    transport: asyncio.Transport,
    *,
    drain: asyncio.Event,
    now: float,
) -> None:
    """Send a reply with a transport fault; ``drain`` is set while there is room to write."""
    kind = fault.kind
    if kind == "no-answer":
        return
    if kind == "reset-headers":
        transport.write(b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 08:44:09 GMT\r\nContent-Ty")
        await _reset(transport)
    elif kind == "reset-body":
        data = frame_reply(request, reply, date=now)
        transport.write(data[: len(data) - max(len(reply.body) // 2, 1)])
        await _reset(transport)
    elif kind == "chunked-unfinished":
        head = head_bytes(reply, [("Transfer-Encoding", "chunked")], date=now)
        transport.write(head + b"%x\r\n" % len(reply.body) + reply.body + b"\r\n")
        transport.close()
    elif kind == "slow-loris":
        framing = [("Content-Length", str(len(reply.body)))]
        transport.write(head_bytes(reply, framing, date=now))
        pause = float(fault.options.get("interval_seconds", 0.2))
        for byte in reply.body[:-1]:
            await asyncio.sleep(pause)
            if transport.is_closing():
                return
            transport.write(bytes((byte,)))
    elif kind == "corrupt-gzip":
        packed = bytearray(gzip.compress(reply.body, mtime=0))
        middle = len(packed) // 2
        packed[middle : middle + 8] = bytes(byte ^ 0xFF for byte in packed[middle : middle + 8])
        _send_gzip(transport, reply, bytes(packed), now)
    elif kind == "gzip-bomb":
        _send_gzip(transport, reply, _gzip_bomb(int(fault.options.get("bytes", GIGABYTE))), now)
    elif kind == "oversized-body":
        head = head_bytes(reply, [("Transfer-Encoding", "chunked")], date=now)
        transport.write(head)
        async for piece in _blanks(int(fault.options.get("bytes", GIGABYTE)), drain):
            if transport.is_closing():
                return
            transport.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        transport.write(b"0\r\n\r\n")


def _send_gzip(transport: asyncio.Transport, reply: HttpReply, data: bytes, now: float) -> None:
    framing = [("Content-Encoding", "gzip"), ("Content-Length", str(len(data)))]
    transport.write(head_bytes(reply, framing, date=now) + data)


async def _reset(transport: asyncio.Transport) -> None:
    """Close with a reset: pending bytes go out first, then RST instead of FIN."""
    await asyncio.sleep(0.02)
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


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


async def _blanks(size: int, drain: asyncio.Event) -> AsyncIterator[bytes]:
    yield _EMPTY_LIST
    piece = b" " * (1 << 18)
    for _ in range(max(size // len(piece), 1)):
        await drain.wait()
        yield piece
        await asyncio.sleep(0)
    yield b"]}"
