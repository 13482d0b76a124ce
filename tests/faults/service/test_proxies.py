"""The environment is not read unless asked for; proxies, and what they answer."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from etl.errors import ConfigurationError, EtlError, ServiceUnavailable
from tests.support.service_faults import (
    PROXY_PASSWORD,
    Seen,
    Serve,
    Served,
    Waits,
    error_of,
    open_at,
    run_at,
)
from tests.support.wire import Authority, Proxy


def test_the_environment_is_not_read_unless_asked_for(
    serve: Serve,
    authority: Authority,
    tmp_path: Path,
    waits: Waits,
    seen: Seen,
    environment: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    environment.setenv("HOME", str(tmp_path))
    environment.setenv("SSL_CERT_FILE", str(authority.file))
    environment.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    service = serve(tls=authority.context())
    with closing(Proxy()) as proxy:
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        environment.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        run_at(service, waits, ca_file=authority.file)
        assert all("authorization" not in info.request.headers for info in service.requests)
        # A planted SSL_CERT_FILE does not make its authority trusted.
        with error_of(seen, ConfigurationError):
            run_at(service, waits)
        assert proxy.seen == []


def test_a_proxy_of_the_environment_is_used_if_asked_for(
    serve: Serve, authority: Authority, waits: Waits, environment: pytest.MonkeyPatch
) -> None:
    service = serve(tls=authority.context())
    with closing(Proxy()) as proxy:
        environment.setenv("HTTPS_PROXY", f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}")
        run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert len(proxy.seen) == 1
        assert f"CONNECT 127.0.0.1:{service.server.port}" in proxy.seen[0]
        assert "Proxy-Authorization: Basic" in proxy.seen[0]

        environment.setenv("NO_PROXY", "example.com,127.0.0.1")
        run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert len(proxy.seen) == 1


def test_a_proxy_may_itself_be_reached_by_tls(
    serve: Serve, authority: Authority, waits: Waits, environment: pytest.MonkeyPatch
) -> None:
    service = serve(tls=authority.context())
    with closing(Proxy(tls=authority.context())) as proxy:
        environment.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
        run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert len(proxy.seen) == 1
        assert f"CONNECT 127.0.0.1:{service.server.port}" in proxy.seen[0]
        assert "Proxy-Authorization" not in proxy.seen[0]


def test_the_certificate_of_a_proxy_is_checked(
    serve: Serve, authority: Authority, waits: Waits, seen: Seen, environment: pytest.MonkeyPatch
) -> None:
    service = serve(tls=authority.context())
    with closing(Proxy(tls=authority.context(host="elsewhere.example"))) as proxy:
        environment.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
        with error_of(seen, ConfigurationError) as caught:
            run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)

    assert caught[0].fields["reason"] == "tls"
    assert f"the proxy at 127.0.0.1, port {proxy.port} is not" in caught[0].message
    assert "check HTTPS_PROXY" in caught[0].message
    assert proxy.seen == []


@pytest.mark.parametrize(
    ("answer", "error", "times"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ConfigurationError, 1),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", ConfigurationError, 1),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ServiceUnavailable, 6),
        (b"HTTP/1.1 200 Connec", ServiceUnavailable, 6),
        (b"", ServiceUnavailable, 6),
    ],
)
def test_a_proxy_that_fails_is_reported_without_its_password(
    serve: Serve,
    authority: Authority,
    waits: Waits,
    seen: Seen,
    environment: pytest.MonkeyPatch,
    answer: bytes,
    error: type[EtlError],
    times: int,
) -> None:
    service = serve(tls=authority.context())
    with closing(Proxy(answer=answer)) as proxy:
        environment.setenv("HTTPS_PROXY", f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}")
        with error_of(seen, error) as caught:
            run_at(service, waits, ca_file=authority.file, use_environment_proxies=True)
        assert f"the proxy at 127.0.0.1, port {proxy.port}" in caught[0].message
        assert len(proxy.seen) == times
        assert service.server.connections_accepted == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1", "the proxy at 127.0.0.1, port 1: it was refused"),
        ("http://no-such-proxy.invalid", "the proxy at no-such-proxy.invalid, port 80: its name"),
    ],
)
def test_a_proxy_that_is_not_there_is_named(
    serve: Serve,
    authority: Authority,
    waits: Waits,
    seen: Seen,
    environment: pytest.MonkeyPatch,
    address: str,
    said: str,
) -> None:
    environment.setenv("HTTPS_PROXY", address)
    with error_of(seen, ServiceUnavailable) as caught:
        run_at(
            serve(tls=authority.context()),
            waits,
            ca_file=authority.file,
            use_environment_proxies=True,
        )

    assert said in caught[0].message
    assert "check HTTPS_PROXY" in caught[0].message


def test_an_invalid_proxy_address_is_a_wrong_setting(
    service: Served, waits: Waits, seen: Seen, environment: pytest.MonkeyPatch
) -> None:
    for address in ("socks5://127.0.0.1:1080", f"http://u:{PROXY_PASSWORD}@host:port", "ftp://x"):
        environment.setenv("HTTP_PROXY", address)
        with error_of(seen, ConfigurationError):
            open_at(service, waits, use_environment_proxies=True)
