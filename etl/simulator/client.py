"""The simplest client: for tests, and to control a simulator in another process."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit


class SimulatorClient:
    """One keep-alive connection, without retries or checks."""

    def __init__(self, url: str, *, timeout_seconds: float = 30.0) -> None:
        host = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            host.hostname or "127.0.0.1", host.port, timeout=timeout_seconds
        )

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> SimulatorClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(
        self,
        target: str,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a POST; header names in lower case."""
        given = {"Content-Type": content_type, **(headers or {})}
        self._connection.request("POST", target, body, given)
        reply = self._connection.getresponse()
        content = reply.read()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, content

    def call(self, service: str, action: str, **params: Any) -> Any:
        """The JSON reply of an action."""
        target = f"/api_v3/service/{service}/action/{action}?format=1"
        body = json.dumps({"format": 1, "nocache": 1, **params}).encode()
        return json.loads(self.post(target, body)[2])

    def start_session(self, admin_secret: str, partner_id: int = 102, **params: Any) -> str:
        """An admin session's string."""
        known = {"type": 2, "userId": "etl", **params}
        ks = self.call("session", "start", secret=admin_secret, partnerId=partner_id, **known)
        return str(ks)

    def list_tokens(
        self,
        ks: str,
        page_index: int = 1,
        page_size: int = 500,
        *,
        order_by: str = "+createdAt",
        **chosen: Any,
    ) -> Any:
        """uploadToken.list; further keywords go into the filter."""
        return self.call(
            "uploadtoken",
            "list",
            ks=ks,
            filter={"orderBy": order_by, **chosen},
            pager={"pageSize": page_size, "pageIndex": page_index},
        )

    def read(self, name: str, **query: Any) -> Any:
        """GET ``/simulator/<name>``."""
        self._connection.request("GET", f"/simulator/{name}?{urlencode(query)}")
        return self._control_reply()

    def control(self, name: str, **body: Any) -> Any:
        """POST ``/simulator/<name>``; ValueError with what the simulator says against it."""
        self._connection.request("POST", f"/simulator/{name}", json.dumps(body).encode())
        return self._control_reply()

    def _control_reply(self) -> Any:
        reply = self._connection.getresponse()
        value = json.loads(reply.read())
        if reply.status != http.client.OK:
            raise ValueError(value["error"])
        return value
