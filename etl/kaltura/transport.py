"""Sockets under httpx2: a deadline for the whole request, interruption, TLS, proxies.

The timeouts of httpx2 are per read: a server that sends one byte per second never times out.
So the network backend here ends every read, write, connect and handshake at the deadline of the
thread's request, status line and headers included, and checks for a stop every half second.
"""

from __future__ import annotations

import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from etl.errors import ConfigurationError
from etl.process.secrets import Scrubber
from etl.process.stop import Stop

STOP_CHECK_SECONDS = 0.5
# More connections than threads: the pool is never what a request waits for.
MAX_CONNECTIONS = 64


class RequestDeadline(threading.local):
    """The moment (monotonic) at which the calling thread's request must be over."""

    at = float("inf")

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        self.at = time.monotonic() + seconds
        try:
            yield
        finally:
            self.at = float("inf")

    def left(self, timeout: float | None) -> float:
        """Seconds that one operation may take: its own timeout, or the deadline if sooner."""
        left = self.at - time.monotonic()
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore2.NetworkStream):
    def __init__(
        self, stream: httpcore2.NetworkStream, deadline: RequestDeadline, stop: Stop
    ) -> None:
        self._stream = stream
        self._deadline = deadline
        self._stop = stop

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = time.monotonic() + self._deadline.left(timeout)
        while True:
            self._stop.check()
            left = end - time.monotonic()
            if left <= 0:
                raise httpcore2.ReadTimeout("deadline of the request")
            try:
                return self._stream.read(max_bytes, min(left, STOP_CHECK_SECONDS))
            except httpcore2.ReadTimeout:
                continue

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = self._deadline.left(timeout)
        if left <= 0:
            raise httpcore2.WriteTimeout("deadline of the request")
        self._stream.write(buffer, left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        left = self._deadline.left(timeout)
        if left <= 0:
            raise httpcore2.ConnectTimeout("deadline of the request")
        secured = self._stream.start_tls(ssl_context, server_hostname, left)
        return _Stream(secured, self._deadline, self._stop)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, deadline: RequestDeadline, stop: Stop) -> None:
        self._sockets = httpcore2.SyncBackend()
        self._deadline = deadline
        self._stop = stop

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        self._stop.check()
        left = self._deadline.left(timeout)
        if left <= 0:
            raise httpcore2.ConnectTimeout("deadline of the request")
        stream = self._sockets.connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._deadline, self._stop)


class _Transport(httpx2.HTTPTransport):
    """httpx2's transport over a pool with our backend, which it has no parameter for."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        proxy: httpx2.Proxy | None,
        backend: httpcore2.NetworkBackend,
    ) -> None:
        super().__init__(verify=tls, trust_env=False)
        through = None
        if proxy is not None:
            through = httpcore2.Proxy(
                url=str(proxy.url), auth=proxy.raw_auth, headers=proxy.headers.raw
            )
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls,
            proxy=through,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=30.0,
            http1=True,
            http2=False,
            retries=0,  # the policy in retry.py is the only one
            network_backend=backend,
        )


def open_http(
    base_url: str,
    deadline: RequestDeadline,
    stop: Stop,
    scrubber: Scrubber,
    *,
    ca_file: Path | None,
    use_environment_proxies: bool,
) -> httpx2.Client:
    """A client that verifies TLS always, follows no redirect and reads no environment.

    Proxies of the environment (with NO_PROXY) are used only if asked for; netrc and SSL_CERT_FILE
    never are.  ``ca_file`` replaces the system's authorities by a private one.
    """
    proxy = _environment_proxy(base_url, scrubber) if use_environment_proxies else None
    transport = _Transport(_tls_context(ca_file), proxy, _Backend(deadline, stop))
    return httpx2.Client(transport=transport, trust_env=False, follow_redirects=False)


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        context = httpx2.create_ssl_context(trust_env=False)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigurationError(
                f"cannot read certificates from {ca_file}: give a PEM file", setting="ca_file"
            ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _environment_proxy(base_url: str, scrubber: Scrubber) -> httpx2.Proxy | None:
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies_environment()
    # On macOS and Windows proxy_bypass() would ask the system; this one reads NO_PROXY only.
    if urllib.request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]
        return None
    address = proxies.get(parts.scheme) or proxies.get("all")
    if not address:
        return None
    address = address if "://" in address else f"http://{address}"
    name = f"{parts.scheme.upper()}_PROXY"
    try:
        proxy = httpx2.Proxy(address)
    except (ValueError, httpx2.InvalidURL):
        proxy = None
    if proxy is None or proxy.url.scheme not in {"http", "https"}:
        raise ConfigurationError(f"{name} must be an http:// or https:// address", setting=name)
    scrubber.add(*(proxy.auth or ()))
    return proxy
