"""The two limits of a sync: the minimum time of the service and of the database server.

No program that reads every page and keeps every row can be faster than the slower of them, unless
it fetches several pages at a time from a service that answers several at a time.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from benchmarks.stand import ADMIN_SECRET, PARTNER_ID, SCHEMA, Postgres, Simulator

PAGE_SIZE = 500
COLUMNS = (
    ("partner_id", "int4"),
    ("token_id", "text"),
    ("user_id", "text"),
    ("status", "int2"),
    ("file_name", "text"),
    ("file_size_bytes", "int8"),
    ("uploaded_size_bytes", "int8"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("attached_object_type", "text"),
    ("attached_object_id", "text"),
    ("auto_finalize", "bool"),
    ("upload_url", "text"),
    ("extra", "jsonb"),
)
"""The columns that the service fills, without what the program adds to a version."""


@dataclass(frozen=True, slots=True)
class Fetched:
    seconds: float
    pages: int
    bytes: int


def fetch_plainly(service: Simulator, tokens: int) -> Fetched:
    """Read all pages over one connection, one after the other, without decoding them."""
    plain = _PlainClient(service)
    ks = plain.open_session()
    pages = -(-tokens // PAGE_SIZE)
    size = 0
    began = time.perf_counter()
    for index in range(1, pages + 1):
        size += len(
            plain.post(
                "uploadtoken/action/list",
                {
                    "ks": ks,
                    "filter": {"orderBy": "+createdAt"},
                    "pager": {"pageSize": PAGE_SIZE, "pageIndex": index},
                },
            )
        )
    seconds = time.perf_counter() - began
    plain.close()
    return Fetched(seconds, pages, size)


class _PlainClient:
    """HTTP/1.1 by hand: one blocking socket, chunked replies of one chunk, nothing checked."""

    def __init__(self, service: Simulator) -> None:
        address = urlsplit(service.url)
        self._host = f"{address.hostname}:{address.port}"
        self._socket = socket.create_connection((str(address.hostname), address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(8 * 1024 * 1024)

    def close(self) -> None:
        self._socket.close()

    def open_session(self) -> str:
        parameters = {"secret": ADMIN_SECRET, "partnerId": PARTNER_ID, "type": 2}
        return str(json.loads(self.post("session/action/start", parameters)))

    def post(self, path: str, parameters: dict[str, Any]) -> bytes:
        body = json.dumps({"format": 1, "nocache": 1, **parameters}).encode()
        head = (
            f"POST /api_v3/service/{path}?format=1 HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        view, end = memoryview(self._buffer), 0
        while True:
            end += self._socket.recv_into(view[end:])
            # The last chunk is empty, and nothing follows it.
            if self._buffer.endswith(b"\r\n0\r\n\r\n", 0, end):
                break
        start = self._buffer.index(b"\r\n\r\n") + 4
        start = self._buffer.index(b"\r\n", start) + 2
        return bytes(view[start : end - 7])


def rows_for_copy(service: Simulator) -> bytes:
    """All rows of the account in the server's format: the body of a COPY BINARY."""
    server_format = psycopg.adapt.Transformer()
    out = bytearray(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    width = len(COLUMNS).to_bytes(2, "big")
    dumpers: dict[str, Any] = {}
    for row in _rows(service):
        out += width
        for (name, type_name), value in zip(COLUMNS, row, strict=True):
            if value is None:
                out += b"\xff\xff\xff\xff"
                continue
            dumper = dumpers.get(name)
            if dumper is None:
                oid = psycopg.adapters.types[type_name].oid
                dumper_class = psycopg.adapters.get_dumper_by_oid(oid, psycopg.pq.Format.BINARY)
                dumper = dumpers[name] = dumper_class(type(value), server_format)
            data = bytes(dumper.dump(value) or b"")
            out += len(data).to_bytes(4, "big") + data
    return bytes(out + b"\xff\xff")


def _rows(service: Simulator) -> Iterator[tuple[object, ...]]:
    import msgspec

    from etl.tokens.decode import decode_rows

    for page in _pages(service):
        decoded = decode_rows(page, partner_id=PARTNER_ID, now=datetime.now().astimezone())
        for token in decoded.tokens:
            extra = None if token.extra is None else msgspec.json.decode(token.extra)
            yield (PARTNER_ID, *token[:12], None if extra is None else _jsonb(extra))


def _jsonb(value: object) -> object:
    from psycopg.types.json import Jsonb

    return Jsonb(value)


def _pages(service: Simulator) -> Iterator[list[Any]]:
    import msgspec

    plain = _PlainClient(service)
    parameters: dict[str, Any] = {"ks": plain.open_session(), "filter": {"orderBy": "+createdAt"}}
    index = 0
    while True:
        index += 1
        parameters["pager"] = {"pageSize": PAGE_SIZE, "pageIndex": index}
        reply = plain.post("uploadtoken/action/list", parameters)
        page = msgspec.json.decode(reply, type=dict[str, Any])["objects"]
        if not page:
            break
        yield [msgspec.Raw(msgspec.json.encode(row)) for row in page]
    plain.close()


def copy_plainly(server: Postgres, database: str, rows: bytes) -> float:
    """Seconds of one COPY BINARY of ready-made bytes into a new table with a primary key."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_name))
        for name, type_name in COLUMNS
    )
    with psycopg.connect(server.url_of(database), autocommit=True) as connection:
        connection.execute(
            sql.SQL("create table {}.bare ({}, primary key (partner_id, token_id))").format(
                sql.Identifier(SCHEMA), columns
            )
        )
        connection.execute(
            sql.SQL('alter table {}.bare alter token_id type text collate "C"').format(
                sql.Identifier(SCHEMA)
            )
        )
        connection.execute("checkpoint")
        began = time.perf_counter()
        copied = sql.SQL("copy {}.bare from stdin (format binary)").format(sql.Identifier(SCHEMA))
        with connection.cursor() as cursor, cursor.copy(copied) as copy:
            for begin in range(0, len(rows), 1 << 17):
                copy.write(rows[begin : begin + (1 << 17)])
        seconds = time.perf_counter() - began
        connection.execute(sql.SQL("drop table {}.bare").format(sql.Identifier(SCHEMA)))
    return seconds
