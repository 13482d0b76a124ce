"""A real HTTP server that takes notices, as the webhook of a chat does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "T0canary/B0canary/canaryCANARYcanaryCANARY"


@dataclass
class Webhook:
    """What it was sent, and how it answers."""

    address: str
    statuses: list[int] = field(default_factory=list)
    """The answers to the next requests, then 200; 0: none at all."""
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.address}/services/{TOKEN}?thread=a%20b"

    @property
    def texts(self) -> list[str]:
        return [each["text"] for each in self.got]


@contextmanager
def webhook() -> Iterator[Webhook]:
    closed = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append(json.loads(body))
            made.headers.append(dict(self.headers))
            made.paths.append(self.path)
            status = made.statuses.pop(0) if made.statuses else 200
            if status == 0:
                closed.wait(30)
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{made.address}/elsewhere")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Webhook(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
