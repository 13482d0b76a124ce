"""One POST, and its outcome: a complete HTTP 200 answer, or a classified error.

JSON in, JSON out.  Facts of the service that the request must respect: the Content-Type is
exactly ``application/json`` (with a charset the body is ignored), ``format=1`` in the URL keeps
errors JSON even when the body is not read, paths are compared case-sensitively by a session's
urirestrict, and a session in the URL would land in access logs.
"""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from etl.errors import (
    ConfigurationError,
    CredentialsRefused,
    DataRefused,
    EtlError,
    ServiceUnavailable,
)
from etl.kaltura.replies import Reply, session_id_text
from etl.kaltura.retry import PassingFailure
from etl.kaltura.shown import shown_host
from etl.kaltura.transport import Address, Http, NotConnected, ProxyRefused, environment_proxy
from etl.process.secrets import Scrubber
from etl.process.stop import Stop
from etl.settings.values import service_url as checked_service_url

CLIENT_TAG = "kaltura-etl"
# A page of 500 tokens is 0.2 to 0.5 MB.
RAW_BYTES_MAX = 32 * 1024 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
_UNZIP_STEP_BYTES = 4 * 1024 * 1024
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
    "User-Agent": CLIENT_TAG,
}
_RETRIED_STATUSES = frozenset({408, 425, 429})
_ERROR_HEADER = re.compile(r"error-\s*([A-Z][A-Z0-9_]{2,63})")
_PERMANENT_TLS = (
    "UNSUPPORTED_PROTOCOL",
    "WRONG_VERSION_NUMBER",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "NO_PROTOCOLS_AVAILABLE",
)


class KalturaClient:
    """Sends single requests, without retries or sessions.  Thread-safe."""

    def __init__(
        self,
        service_url: str,
        *,
        clock: Callable[[], datetime],
        stop: Stop,
        scrubber: Scrubber,
        ca_file: Path | None = None,
        use_environment_proxies: bool = False,
    ) -> None:
        """Raises ConfigurationError for an address that must not be used."""
        try:
            self.base_url = checked_service_url(service_url)
        except ValueError as exc:
            name = "KALTURA_SERVICE_URL"
            raise ConfigurationError(f"{name} {exc}", setting=name) from None
        self.scrubber = scrubber
        self.clock = clock
        proxy = environment_proxy(self.base_url, scrubber) if use_environment_proxies else None
        self._http = Http(self.base_url, _HEADERS, stop, ca_file=ca_file, proxy=proxy)

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, params: dict[str, object], deadline_seconds: float) -> Reply:
        """POST to ``/api_v3/service/<path>`` and read the whole answer within the deadline.

        Raises PassingFailure for what another attempt may fix, another EtlError for what it
        cannot, Interrupted within a second of a stop.
        """
        content = msgspec.json.encode({"format": 1, "nocache": 1, "clientTag": CLIENT_TAG} | params)
        began = time.monotonic()
        requested_at = self.clock()
        try:
            with self._http.post(
                f"/api_v3/service/{path}?format=1", content, deadline_seconds
            ) as response:
                _check_status(response, self.scrubber)
                body = _read_body(response)
        except (OSError, http.client.HTTPException, NotConnected, ProxyRefused) as exc:
            # What leaves this function is raised outside the handler and has neither cause nor
            # context: an error of http.client may hold a part of the reply.
            elapsed = time.monotonic() - began
            failure = _transport_error(exc, self._http, elapsed, deadline_seconds)
        else:
            headers = response.headers
            return Reply(
                body=body,
                requested_at=requested_at,
                received_at=self.clock(),
                kaltura_session=session_id_text(headers.get("X-Kaltura-Session")),
                server_time=_server_time(headers),
                cached=any(v.startswith("cached-") for v in headers.get_all("X-Kaltura", ())),
                error_header=_error_header(headers),
            )
        failure.message = self.scrubber.scrub_foreign(failure.message)
        failure.args = (failure.message,)
        raise failure


def utc_now() -> datetime:
    return datetime.now(UTC)


def _check_status(response: http.client.HTTPResponse, scrubber: Scrubber) -> None:
    status = response.status
    if status == 200:
        return
    if 300 <= status < 400:
        raise ServiceUnavailable(
            f"the service answered with a redirect (HTTP {status}"
            f"{_redirect_target(response, scrubber)}), which is never followed because the request "
            "contains a session: set KALTURA_SERVICE_URL to the final address",
            reason="redirect",
            http_status=status,
        )
    if status >= 500 or status < 300 or status in _RETRIED_STATUSES:
        raise PassingFailure(
            f"the service answered HTTP {status}",
            http_status=status,
            retry_after_seconds=_retry_after(response.headers),
            kaltura_session=session_id_text(response.headers.get("X-Kaltura-Session")),
        )
    if status == 407:
        raise _proxy_refused(status)
    if status in {401, 403}:
        raise CredentialsRefused(
            f"HTTP {status} from a firewall or gateway in front of the service (Kaltura itself "
            "answers 200), which refuses this client",
            http_status=status,
        )
    if status in {404, 405, 410}:
        raise ConfigurationError(
            f"HTTP {status}: there is no Kaltura service at KALTURA_SERVICE_URL",
            http_status=status,
            setting="KALTURA_SERVICE_URL",
        )
    raise DataRefused(
        f"the service refused the request with HTTP {status}",
        reason="http_status",
        http_status=status,
    )


def _redirect_target(response: http.client.HTTPResponse, scrubber: Scrubber) -> str:
    try:
        host = urlsplit(response.headers.get("Location", "")).hostname
    except ValueError:
        host = None
    host = shown_host(host, scrubber)
    return f" to {host}" if host else ""


def _proxy_refused(status: int, address: Address | None = None) -> ConfigurationError:
    """``address`` is None where a proxy on the way answered in place of the service."""
    at, setting = (f" at {address}", address.setting) if address else ("", "HTTPS_PROXY")
    return ConfigurationError(
        f"the proxy{at} refused the request (HTTP {status}): check the address, user and password "
        f"in {setting}, and whether the proxy allows this destination",
        http_status=status,
    )


def _read_body(response: http.client.HTTPResponse) -> bytes:
    """The decoded body, within the limits."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise PassingFailure("the reply has an encoding that was not asked for", http_status=200)
    if response.length is None:
        raw = response.read(RAW_BYTES_MAX + 1)
    elif response.length <= RAW_BYTES_MAX:
        raw = response.read()  # with a number, a body that is cut off would be no error
    else:
        raise _too_large(RAW_BYTES_MAX)
    if len(raw) > RAW_BYTES_MAX:
        raise _too_large(RAW_BYTES_MAX)
    return raw if encoding in {"", "identity"} else _unzipped(raw)


def _unzipped(raw: bytes) -> bytes:
    """The content of one gzip member.

    A page comes out in one step; of a decompression bomb no more than the limit is unpacked.
    """
    unzip = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    room = BODY_BYTES_MAX
    try:
        while not unzip.eof:
            piece = unzip.decompress(raw, min(_UNZIP_STEP_BYTES, room + 1))
            if not piece and not raw:
                break  # neither more input nor anything left inside the decoder
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                raise _too_large(BODY_BYTES_MAX)
            raw = unzip.unconsumed_tail
        complete = unzip.eof and not unzip.unused_data
    except zlib.error:
        complete = False
    if not complete:
        raise PassingFailure("the reply's gzip data is broken or cut off", http_status=200)
    return b"".join(pieces)


def _too_large(bytes_max: int) -> DataRefused:
    return DataRefused(
        f"the reply is larger than {bytes_max // (1024 * 1024)} MiB; a page is under 1 MiB",
        reason="body_too_large",
    )


def _transport_error(
    exc: Exception, transport: Http, elapsed: float, deadline_seconds: float
) -> EtlError:
    """Our error for what the transport raises; with texts of the system only."""
    if isinstance(exc, ProxyRefused):
        if exc.status < 500:
            return _proxy_refused(exc.status, exc.address)
        return PassingFailure(f"the proxy at {exc.address} failed", reason="proxy")
    peer = exc.address if isinstance(exc, NotConnected) else transport.server
    name = f"the {'service' if peer == transport.server else 'proxy'} at {peer}"
    if peer == transport.server and transport.proxy is not None:
        name += f", through the proxy at {transport.proxy.address}"
    if (tls := _permanent_tls(exc)) is not None:
        return ConfigurationError(
            f"the TLS certificate or protocol of {name} is not acceptable ({tls}); "
            f"verification is never disabled: check {peer.setting}, have the certificate renewed, "
            "or set ETL_CA_FILE to the file of a private authority",
            reason="tls",
            setting=peer.setting,
        )
    cause = exc.__cause__ if isinstance(exc, NotConnected) else exc
    if isinstance(exc, NotConnected):
        text = f"no connection to {name}: {_connect_text(cause, peer, elapsed)}"
    elif isinstance(exc, TimeoutError):
        text = f"no complete reply of {name} within {deadline_seconds:.0f} s"
    else:
        text = f"the connection to {name} broke during the request ({_os_text(exc)})"
    return PassingFailure(text, reason="transport", transport=type(cause).__name__)


def _connect_text(cause: BaseException | None, peer: Address, elapsed: float) -> str:
    """Why there is no connection, and what to look at."""
    if isinstance(cause, socket.gaierror):
        return (
            f"its name cannot be resolved ({_os_text(cause)}); check {peer.setting} and the DNS of "
            "this machine"
        )
    if isinstance(cause, TimeoutError):
        return f"nothing within {elapsed:.0f} s; check {peer.setting}, firewalls and proxies"
    if isinstance(cause, ConnectionRefusedError):
        return f"it was refused, so nothing listens there; check {peer.setting}"
    return _os_text(cause)


def _permanent_tls(exc: BaseException) -> str | None:
    """The reason if a TLS error is permanent, else None."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message or "certificate not verified"
        if isinstance(cause, ssl.SSLError) and cause.reason in _PERMANENT_TLS:
            return cause.reason.lower().replace("_", " ")
        cause = cause.__cause__ or cause.__context__
    return None


def _os_text(exc: BaseException | None) -> str:
    """The system's text.  Those of http.client may repeat what the server sent."""
    text = str(exc).strip() if isinstance(exc, OSError) else ""
    return text[:120] if text.isprintable() and text else type(exc).__name__


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds that the server asks to wait: a number, or a date by its own clock."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    now = _http_date(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _server_time(headers: http.client.HTTPMessage) -> float | None:
    """Unix seconds by the server's clock: PHP's own in X-Kaltura-Session, else the Date header."""
    session = session_id_text(headers.get("X-Kaltura-Session"))
    if session is not None:
        seconds = float(session.partition(",")[2])
        if seconds < 1e11:
            return seconds
    return _http_date(headers.get("Date", ""))


def _http_date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _error_header(headers: http.client.HTTPMessage) -> str | None:
    for value in headers.get_all("X-Kaltura", ()):
        if match := _ERROR_HEADER.match(value):
            return match[1]
    return None
