"""One POST, and its outcome: a complete HTTP 200 answer, or a classified error.

JSON in, JSON out.  Facts of the service that the request must respect: the Content-Type is
exactly ``application/json`` (with a charset the body is ignored), ``format=1`` in the URL keeps
errors JSON even when the body is not read, paths are compared case-sensitively by a session's
urirestrict, and a session in the URL would land in access logs.
"""

from __future__ import annotations

import email.utils
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
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
from etl.kaltura.transport import RequestDeadline, open_http
from etl.process.secrets import Scrubber
from etl.process.stop import Stop
from etl.settings.values import service_url as checked_service_url

CLIENT_TAG = "kaltura-etl"
CONNECT_TIMEOUT_SECONDS = 10.0
# A page of 500 tokens is 0.2 to 0.5 MB.
RAW_BYTES_MAX = 32 * 1024 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
_DECODE_STEP_BYTES = 1024 * 1024
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
        self._deadline = RequestDeadline()
        self._http = open_http(
            self.base_url,
            self._deadline,
            stop,
            scrubber,
            ca_file=ca_file,
            use_environment_proxies=use_environment_proxies,
        )

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
            with (
                self._deadline.within(deadline_seconds),
                self._http.stream(
                    "POST",
                    f"{self.base_url}/api_v3/service/{path}?format=1",
                    content=content,
                    headers={
                        "Content-Type": "application/json",
                        "Accept": "application/json",
                        "Accept-Encoding": "gzip",
                        "User-Agent": CLIENT_TAG,
                    },
                    timeout=httpx2.Timeout(
                        deadline_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, deadline_seconds)
                    ),
                ) as response,
            ):
                _check_status(response)
                body = _read_body(response)
                headers = response.headers
        except httpx2.HTTPError as exc:
            # The httpx2 error refers to the request, and that to its body with the session: what
            # leaves this function is raised outside the handler and has neither cause nor context.
            failure = _transport_error(exc, time.monotonic() - began, deadline_seconds)
        else:
            return Reply(
                body=body,
                requested_at=requested_at,
                received_at=self.clock(),
                kaltura_session=session_id_text(headers.get("X-Kaltura-Session")),
                server_time=_server_time(headers),
                cached=any(v.startswith("cached-") for v in headers.get_list("X-Kaltura")),
                error_header=_error_header(headers),
            )
        failure.message = self.scrubber.scrub_foreign(failure.message)
        failure.args = (failure.message,)
        raise failure


def utc_now() -> datetime:
    return datetime.now(UTC)


def _check_status(response: httpx2.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if 300 <= status < 400:
        raise ServiceUnavailable(
            f"the service answered with a redirect (HTTP {status}"
            f"{_redirect_target(response)}), which is never followed because the request "
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


def _redirect_target(response: httpx2.Response) -> str:
    try:
        host = urlsplit(response.headers.get("Location", "")).hostname
    except ValueError:
        host = None
    return f" to {host}" if host and re.fullmatch(r"[\w.\-:]{1,100}", host) else ""


def _proxy_refused(status: int) -> ConfigurationError:
    return ConfigurationError(
        f"the proxy refused the request (HTTP {status}): check the proxy's address, user and "
        "password in the environment",
        http_status=status,
    )


def _read_body(response: httpx2.Response) -> bytes:
    """The decoded body, within the limits; decoded in steps, because of decompression bombs."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise PassingFailure("the reply has an encoding that was not asked for", http_status=200)
    raw = _bounded(response.iter_raw(), RAW_BYTES_MAX)
    if encoding in {"", "identity"}:
        return b"".join(raw)
    decoded = bytearray()
    unzip = zlib.decompressobj(wbits=31)
    try:
        for chunk in raw:
            rest = chunk
            while rest:
                decoded += unzip.decompress(rest, _DECODE_STEP_BYTES)
                if len(decoded) > BODY_BYTES_MAX:
                    raise _too_large(BODY_BYTES_MAX)
                rest = b"" if unzip.eof else unzip.unconsumed_tail
        # What is still inside the decoder once all input is in.
        while not unzip.eof and (more := unzip.decompress(b"", _DECODE_STEP_BYTES)):
            decoded += more
            if len(decoded) > BODY_BYTES_MAX:
                raise _too_large(BODY_BYTES_MAX)
        complete = unzip.eof and not unzip.unused_data
    except zlib.error:
        complete = False
    if not complete:
        raise PassingFailure("the reply's gzip data is broken or cut off", http_status=200)
    return bytes(decoded)


def _bounded(chunks: Iterator[bytes], bytes_max: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > bytes_max:
            raise _too_large(bytes_max)
        yield chunk


def _too_large(bytes_max: int) -> DataRefused:
    return DataRefused(
        f"the reply is larger than {bytes_max // (1024 * 1024)} MiB; a page is under 1 MiB",
        reason="body_too_large",
    )


def _transport_error(exc: httpx2.HTTPError, elapsed: float, deadline_seconds: float) -> EtlError:
    """Our error for what httpx2 raises; with texts of the system only, never of the request."""
    if isinstance(exc, httpx2.ProxyError):
        status = str(exc)[:3]
        if status.isdigit() and not status.startswith("5"):
            return _proxy_refused(int(status))
        return PassingFailure("the proxy failed", reason="proxy")
    if (tls := _permanent_tls(exc)) is not None:
        return ServiceUnavailable(
            f"the service's TLS certificate or protocol is not acceptable ({tls}); "
            "verification is never disabled: fix the certificate, or set ETL_CA_FILE to the file "
            "of a private authority",
            reason="tls",
        )
    if isinstance(exc, (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)):
        return ServiceUnavailable(
            f"the request could not be sent ({type(exc).__name__})", reason="transport"
        )
    if not isinstance(exc, httpx2.TransportError):
        return ServiceUnavailable(f"the request failed ({type(exc).__name__})", reason="transport")
    if isinstance(exc, httpx2.ConnectTimeout):
        text = f"no connection to the service within {elapsed:.0f} s"
    elif isinstance(exc, httpx2.TimeoutException):
        text = f"no complete reply within {deadline_seconds:.0f} s"
    elif isinstance(exc, httpx2.ConnectError):
        text = f"no connection to the service ({_os_text(exc)})"
    else:
        text = f"the connection broke during the request ({_os_text(exc)})"
    return PassingFailure(text, reason="transport", transport=type(exc).__name__)


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


def _os_text(exc: httpx2.HTTPError) -> str:
    text = str(exc).strip()
    return text[:120] if text.isprintable() and text else type(exc).__name__


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds that the server asks to wait: a number, or a date by its own clock."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    now = _http_date(headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _server_time(headers: httpx2.Headers) -> float | None:
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


def _error_header(headers: httpx2.Headers) -> str | None:
    for value in headers.get_list("X-Kaltura"):
        if match := _ERROR_HEADER.match(value):
            return match[1]
    return None
