"""HTTP/1.1 to one server: connections that are kept, TLS, proxies.

Requests are written here, as they differ in their body only; replies are read by ``http.client``.
docs/decisions/http-client.md says why there is no larger library.
"""

from __future__ import annotations

import base64
import http.client
import io
import os
import re
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from etl.errors import ConfigurationError
from etl.kaltura.stream import Limits, Stream, StreamReader, TcpStream, TlsStream
from etl.process.secrets import Scrubber
from etl.process.stop import Stop

CONNECT_TIMEOUT_SECONDS = 10.0
# Longer than between two pages, shorter than a firewall remembers a silent connection.
IDLE_SECONDS_MAX = 30.0
_PORTS = {"http": 80, "https": 443}
# Where systems keep their authorities, for a Python whose OpenSSL looks in a place of its own.
_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect.  ``host`` is ASCII, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    setting: str = "KALTURA_SERVICE_URL"
    """Where it was given."""

    def __str__(self) -> str:
        """For a message: ``www.kaltura.com, port 443``."""
        return f"{self.host}, port {self.port}"

    @classmethod
    def of(cls, url: str) -> Address:
        """The address of an http or https URL.  Raises ValueError (which may repeat the URL)."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("not an http:// or https:// address")
        host = parts.hostname
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        return cls(parts.scheme, host, parts.port or _PORTS[parts.scheme])

    @property
    def bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """Host and port, as ``CONNECT`` wants it."""
        return f"{self.bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        return self.bracketed if self.port == _PORTS[self.scheme] else self.authority


class NotConnected(Exception):
    """No connection was made to ``address``, of the server or the proxy; the cause says why."""

    def __init__(self, address: Address) -> None:
        super().__init__(str(address))
        self.address = address


class ProxyRefused(Exception):
    """The proxy at ``address`` did not connect us to the server."""

    def __init__(self, status: int, address: Address) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.address = address


@dataclass(frozen=True, slots=True)
class Proxy:
    address: Address
    headers: str
    """``Proxy-Authorization`` with its line end, or nothing."""


@dataclass(slots=True)
class _Connection:
    tcp: TcpStream
    stream: Stream
    idle_since: float = 0.0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What ``http.client`` wants of a socket."""
        return io.BufferedReader(StreamReader(self.stream))


class Http:
    """Sends POST requests to one server, over connections that it keeps.  Thread-safe.

    TLS is always verified, by the authorities of the system or those of ``ca_file``; redirects
    are not followed, and nothing is sent twice.  The environment is not read.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        stop: Stop,
        *,
        ca_file: Path | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        """``headers`` are sent with each request.  Raises ConfigurationError for ``ca_file``."""
        try:
            self.server = Address.of(base_url)
        except ValueError:
            name = "KALTURA_SERVICE_URL"
            raise ConfigurationError(f"{name} has no valid host name", setting=name) from None
        self.proxy = proxy
        self._stop = stop
        self._path = quote(urlsplit(base_url).path, safe="/%:@!$&'()*+,;=~")
        common = {"Host": self.server.host_header} | dict(headers)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in common.items())
        if proxy is not None and self.server.scheme == "http":
            self._path = f"http://{self.server.host_header}{self._path}"
            self._headers += proxy.headers
        schemes = {self.server.scheme, proxy.address.scheme if proxy else ""}
        self._tls = _tls_context(ca_file) if ca_file or "https" in schemes else None
        self._idle: list[_Connection] = []
        self._is_closed = False

    def close(self) -> None:
        """Close the connections; those in use are closed when their request is over."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().stream.close()

    @contextmanager
    def post(
        self, path: str, content: bytes, deadline_seconds: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Send ``content`` to ``path`` below the base URL; the reply's head is read, its body not.

        The deadline holds until the context ends; a body that was read to its end by then leaves
        the connection open for the next request.  Raises NotConnected, ProxyRefused, OSError (a
        TimeoutError at the deadline), http.client.HTTPException, and Interrupted on a stop.
        """
        limits = Limits(self._stop, time.monotonic() + deadline_seconds)
        connection = self._take_idle(limits) or self._connect(limits)
        keep = False
        try:
            head = (
                f"POST {self._path}{path} HTTP/1.1\r\n{self._headers}"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            connection.stream.send(head.encode("latin-1") + content)
            response = _read_head(connection, "POST")
            yield response
            keep = response.isclosed() and not response.will_close
        finally:
            if keep and not self._is_closed:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.stream.close()

    def _take_idle(self, limits: Limits) -> _Connection | None:
        """The connection that was used last, without those that the server has closed."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            is_fresh = time.monotonic() - connection.idle_since < IDLE_SECONDS_MAX
            if is_fresh and not connection.tcp.is_readable():
                connection.tcp.limits = limits
                return connection
            connection.stream.close()

    def _connect(self, limits: Limits) -> _Connection:
        peer = self.proxy.address if self.proxy else self.server
        try:
            tcp = TcpStream(peer.host, peer.port, limits, CONNECT_TIMEOUT_SECONDS)
            try:
                tcp.limits = limits.within(CONNECT_TIMEOUT_SECONDS)
                connection = _Connection(tcp, tcp)
                if self.proxy is not None:
                    self._secure(connection, peer)
                    if self.server.scheme == "https":
                        self._ask_for_tunnel(connection, self.proxy)
                peer = self.server
                self._secure(connection, peer)
                tcp.limits = limits
            except BaseException:
                tcp.close()
                raise
        except (OSError, http.client.HTTPException, UnicodeError) as exc:
            raise NotConnected(peer) from exc
        return connection

    def _secure(self, connection: _Connection, address: Address) -> None:
        if address.scheme == "https" and self._tls is not None:
            connection.stream = TlsStream(connection.stream, self._tls, address.host)

    def _ask_for_tunnel(self, connection: _Connection, proxy: Proxy) -> None:
        target = self.server.authority
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{proxy.headers}\r\n"
        connection.stream.send(head.encode("latin-1"))
        status = _read_head(connection, "CONNECT").status
        if not 200 <= status < 300:
            raise ProxyRefused(status, proxy.address)


def _read_head(connection: _Connection, method: str) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(cast("Any", connection), method=method)
    response.begin()
    return response


def environment_proxy(base_url: str, scrubber: Scrubber) -> Proxy | None:
    """The proxy that the environment names for this address; NO_PROXY is respected.

    Raises ConfigurationError.  ``scrubber`` learns its user and password.
    """
    import urllib.request  # noqa: PLC0415 - needed for this alone

    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies_environment()
    # On macOS and Windows proxy_bypass() would ask the system; this one reads NO_PROXY only.
    if urllib.request.proxy_bypass_environment(parts.netloc, proxies):  # type: ignore[attr-defined]
        return None
    url = proxies.get(parts.scheme) or proxies.get("all")
    if not url:
        return None
    url = url if "://" in url else f"http://{url}"
    name = f"{parts.scheme.upper()}_PROXY"
    try:
        address = replace(Address.of(url), setting=name)
    except ValueError:
        raise ConfigurationError(
            f"{name} must be an http:// or https:// address", setting=name
        ) from None
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user and not password:
        return Proxy(address, "")
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    scrubber.add(user, password)
    return Proxy(address, f"Proxy-Authorization: Basic {pair}\r\n")


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = _system_context() if ca_file is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigurationError(
                f"cannot read certificates from {ca_file}: name a PEM file in ETL_CA_FILE",
                setting="ETL_CA_FILE",
            ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _system_context() -> ssl.SSLContext:
    """A context that trusts the system's authorities, whatever SSL_CERT_FILE says."""
    if sys.platform == "darwin":
        import truststore  # noqa: PLC0415 - installed on macOS only, whose keychain it asks

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
    # set_default_verify_paths() would read SSL_CERT_FILE and SSL_CERT_DIR.
    paths = ssl.get_default_verify_paths()
    file = paths.openssl_cafile if os.path.isfile(paths.openssl_cafile) else None
    folder = paths.openssl_capath if _has_certificates(paths.openssl_capath) else None
    if file is None and folder is None:
        file = next(filter(os.path.isfile, _CA_FILES), None)
    if file is not None or folder is not None:
        context.load_verify_locations(file, folder)
    return context


def _has_certificates(folder: str) -> bool:
    """Whether a folder has certificates under the names by which OpenSSL finds them."""
    try:
        return any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in os.listdir(folder))
    except OSError:
        return False
