"""The two limits of a sync: the minimum time of the service and of the database server.

No program that reads every page and keeps every row can be faster than the slower of them.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from benchmarks.postgres import Postgres
from benchmarks.service import ADMIN_SECRET, PARTNER_ID, Simulator

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
_KNOWN = frozenset(
    (
        *("partnerId", "id", "userId", "status", "fileName", "fileSize", "uploadedFileSize"),
        *("createdAt", "updatedAt", "attachedObjectType", "attachedObjectId", "autoFinalize"),
        *("uploadUrl", "objectType"),
    )
)


@dataclass(frozen=True, slots=True)
class Copied:
    seconds: float
    wal_bytes: int


def fetch_plainly(service: Simulator, tokens: int, *, connections: int) -> float:
    """Seconds of reading all pages without decoding them, each connection one after the other."""
    clients = [_PlainClient(service) for _ in range(connections)]
    ks = clients[0].open_session()
    pages = -(-tokens // PAGE_SIZE)
    numbers = count(1)  # next() of it is one step of the interpreter

    def read(client: _PlainClient) -> None:
        while (index := next(numbers)) <= pages:
            client.list_page(ks, index)

    readers = [threading.Thread(target=read, args=(client,)) for client in clients[1:]]
    began = time.perf_counter()
    for reader in readers:
        reader.start()
    read(clients[0])
    for reader in readers:
        reader.join()
    seconds = time.perf_counter() - began
    for client in clients:
        client.close()
    return seconds


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
        return str(json.loads(self._post("session/action/start", parameters)))

    def list_page(self, ks: str, index: int) -> bytes:
        pager = {"pageSize": PAGE_SIZE, "pageIndex": index}
        order = {"orderBy": "+createdAt"}
        return self._post("uploadtoken/action/list", {"ks": ks, "filter": order, "pager": pager})

    def _post(self, path: str, parameters: dict[str, Any]) -> bytes:
        body = json.dumps({"format": 1, "nocache": 1, **parameters}).encode()
        head = (
            f"POST /api_v3/service/{path}?format=1 HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        view, end = memoryview(self._buffer), 0
        while True:
            received = self._socket.recv_into(view[end:])
            if not received:
                raise RuntimeError("the simulator closed a connection of the plain fetch")
            end += received
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
    dumpers: dict[tuple[str, type], Any] = {}
    for row in _rows(service):
        out += width
        for (name, type_name), value in zip(COLUMNS, row, strict=True):
            if value is None:
                out += b"\xff\xff\xff\xff"
                continue
            dumper = dumpers.get((name, type(value)))
            if dumper is None:
                oid = psycopg.adapters.types[type_name].oid
                dumper_class = psycopg.adapters.get_dumper_by_oid(oid, psycopg.pq.Format.BINARY)
                dumper = dumper_class(type(value), server_format)
                dumpers[name, type(value)] = dumper
            data = bytes(dumper.dump(value) or b"")
            out += len(data).to_bytes(4, "big") + data
    return bytes(out + b"\xff\xff")


def _rows(service: Simulator) -> Iterator[tuple[object, ...]]:
    """The account's rows as values of ``COLUMNS``: by other code than the program's own."""
    for page in _pages(service):
        for row in page:
            extra = {name: value for name, value in row.items() if name not in _KNOWN}
            final = row.get("autoFinalize")
            name = row.get("fileName")
            yield (
                PARTNER_ID,
                row["id"],
                row.get("userId"),
                _whole(row.get("status")),
                None if name is None else name.replace("\0", "\ufffd"),
                _whole(row.get("fileSize")),
                _whole(row.get("uploadedFileSize")),
                _time(row.get("createdAt")),
                _time(row.get("updatedAt")),
                row.get("attachedObjectType"),
                row.get("attachedObjectId"),
                None if final is None else bool(final),
                row.get("uploadUrl"),
                Jsonb(extra) if extra else None,
            )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _time(value: Any) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(int(value), UTC)


def _pages(service: Simulator) -> Iterator[list[dict[str, Any]]]:
    client = _PlainClient(service)
    ks = client.open_session()
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for index in count(1):
        page = decode(client.list_page(ks, index))["objects"]
        if not page:
            break
        yield page
    client.close()


def copy_plainly(server: Postgres, database: str, rows: bytes) -> Copied:
    """One COPY BINARY of ready-made bytes into a new table with only a primary key, committed."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}{}").format(
            sql.Identifier(name),
            sql.SQL(type_name),
            sql.SQL(' collate "C"' if name == "token_id" else ""),
        )
        for name, type_name in COLUMNS
    )
    with psycopg.connect(server.url_of(database), autocommit=True) as connection:
        connection.execute(
            sql.SQL("create table bare ({}, primary key (partner_id, token_id))").format(columns)
        )
        connection.execute("checkpoint")
        wal = server.wal_position()
        began = time.perf_counter()
        with (
            connection.cursor() as cursor,
            cursor.copy("copy bare from stdin (format binary)") as copy,
        ):
            for begin in range(0, len(rows), 1 << 17):
                copy.write(rows[begin : begin + (1 << 17)])
        seconds = time.perf_counter() - began
        wal = server.wal_position() - wal
        connection.execute("drop table bare")
    return Copied(seconds, wal)
