"""Which addresses and which certificates are accepted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from etl.errors import ConfigurationError, Interrupted, ServiceUnavailable
from etl.kaltura import transport
from etl.kaltura.service import RetryLimits, ServiceSettings, open_service
from etl.process.stop import Stop
from tests.support.service_faults import (
    ADMIN_SECRET,
    APP_KS,
    CREDENTIALS,
    LIST_PATH,
    Seen,
    Serve,
    Served,
    Waits,
    error_of,
    open_at,
    run_at,
)
from tests.support.wire import Authority


@pytest.mark.parametrize(
    "url",
    [
        "http://www.kaltura.com",
        "http://localhost.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0:80",
        "ftp://www.kaltura.com",
        "www.kaltura.com",
        "https://",
        "",
        "https://[",
        "https://host:port",
        f"https://user:{ADMIN_SECRET}@www.kaltura.com",
        f"https://www.kaltura.com/?ks={APP_KS}",
        f"https://www.kaltura.com/#{APP_KS}",
    ],
)
def test_an_address_that_must_not_be_used_is_a_wrong_setting(seen: Seen, url: str) -> None:
    with error_of(seen, ConfigurationError) as caught:
        open_service(url, CREDENTIALS, stop=Stop())

    assert "KALTURA_SERVICE_URL" in caught[0].message


@pytest.mark.parametrize("suffix", ["", "/", "/api_v3", "/api_v3/"])
def test_an_address_may_end_in_a_slash_or_in_the_api_itself(service: Served, suffix: str) -> None:
    with open_service(
        f"http://localhost:{service.server.port}{suffix}",
        CREDENTIALS,
        stop=service.stop,
        settings=ServiceSettings(app_token_hash="SHA1"),
    ) as tokens:
        tokens.list_page(1, 1)

    request = service.requests[-1].request
    assert (request.method, request.target) == ("POST", LIST_PATH)


def test_a_certificate_of_a_named_authority_is_accepted(
    serve: Serve, authority: Authority, waits: Waits
) -> None:
    assert run_at(serve(tls=authority.context()), waits, ca_file=authority.file) == 4


@pytest.mark.parametrize("kind", ["expired", "wrong host", "unknown authority", "no authority"])
def test_a_certificate_that_is_not_acceptable_is_not_tried_again(
    serve: Serve, authority: Authority, tmp_path: Path, waits: Waits, seen: Seen, kind: str
) -> None:
    (tmp_path / "other").mkdir()
    contexts: dict[str, Callable[[], ssl.SSLContext]] = {
        "expired": lambda: authority.context(days=-1),
        "wrong host": lambda: authority.context(host="kaltura.example"),
        "unknown authority": lambda: authority.context(signed_by=Authority(tmp_path / "other")),
        "no authority": authority.context,
    }
    ca_file = None if kind == "no authority" else authority.file
    service = serve(tls=contexts[kind]())
    with error_of(seen, ConfigurationError) as caught:
        run_at(service, waits, ca_file=ca_file)
    assert caught[0].exit_code == 78
    assert f"the service at 127.0.0.1, port {service.server.port} is not" in caught[0].message
    assert "KALTURA_SERVICE_URL" in caught[0].message
    assert service.server.connections_accepted == 1
    assert service.requests == []
    assert caught[0].fields["reason"] == "tls"
    assert waits == []


def test_an_old_tls_version_is_refused(
    serve: Serve, authority: Authority, waits: Waits, seen: Seen
) -> None:
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    service = serve(tls=context)
    with error_of(seen, ConfigurationError):
        run_at(service, waits, ca_file=authority.file)
    assert service.requests == []
    assert service.server.connections_accepted == 1


def open_briefly(url: str, waits: Waits, stop: Stop) -> None:
    open_service(
        url,
        CREDENTIALS,
        stop=stop,
        sleep=waits.sleep,
        monotonic=waits.monotonic,
        settings=ServiceSettings(retry=RetryLimits(request_seconds=5, attempts=2)),
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://no-such-host.invalid", "at no-such-host.invalid, port 443: its name cannot be"),
        ("https://a..b", "the service at a..b, port 443: its name cannot be resolved"),
        ("http://127.0.0.1:1", "the service at 127.0.0.1, port 1: it was refused"),
        ("https://255.255.255.255", "Network is unreachable"),
    ],
)
def test_an_address_where_nothing_answers_is_named_and_tried_again(
    waits: Waits, seen: Seen, url: str, said: str
) -> None:
    with error_of(seen, ServiceUnavailable) as caught:
        open_briefly(url, waits, Stop())

    assert caught[0].exit_code == 69
    assert said in caught[0].message
    assert len(waits) == 1


def test_a_name_that_takes_too_long_to_resolve(
    waits: Waits, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's function knows no deadline, and no stop."""
    released = threading.Event()

    def hangs(*_: object, **__: object) -> list[object]:
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_SECONDS", 0.05)
    stop = Stop()
    try:
        with error_of(seen, ServiceUnavailable) as caught:
            open_briefly("https://kaltura.example", waits, stop)
        assert "the service at kaltura.example, port 443: nothing within 0 s" in caught[0].message
        monkeypatch.setattr(transport, "CONNECT_TIMEOUT_SECONDS", 60)
        stop.request()
        with error_of(seen, Interrupted):
            open_briefly("https://kaltura.example", waits, stop)
    finally:
        released.set()


def test_plain_http_on_the_https_port_is_refused(service: Served, waits: Waits, seen: Seen) -> None:
    with error_of(seen, ConfigurationError):
        open_service(
            service.server.url.replace("http:", "https:"),
            CREDENTIALS,
            stop=service.stop,
            sleep=waits.sleep,
            monotonic=waits.monotonic,
            settings=ServiceSettings(retry=RetryLimits(request_seconds=0.3, attempts=2)),
        )

    assert service.requests == []


def test_a_certificate_file_that_is_none_is_a_wrong_setting(
    tmp_path: Path, service: Served, waits: Waits, seen: Seen
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with error_of(seen, ConfigurationError):
            open_at(service, waits, ca_file=tmp_path / name)


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_without_certificates_is_named_with_its_setting(
    tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if text:
        file.write_text(text)

    with pytest.raises(ConfigurationError) as caught:
        open_service(
            "https://localhost",
            CREDENTIALS,
            stop=Stop(),
            settings=ServiceSettings(ca_file=file),
        )

    assert f"{file}: name a PEM file in ETL_CA_FILE" in caught.value.message
    assert caught.value.fields["setting"] == "ETL_CA_FILE"
