"""Bodies as they are unpacked, and addresses as they are understood."""

from __future__ import annotations

import gzip

import pytest

from etl.errors import DataRefused
from etl.kaltura.client import BODY_BYTES_MAX, _unzipped
from etl.kaltura.retry import PassingFailure
from etl.kaltura.transport import Address

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 200_000, 4 * MIB - 1, 4 * MIB, 9 * MIB, BODY_BYTES_MAX])
@pytest.mark.parametrize("level", [0, 1])
def test_a_body_up_to_the_limit_is_unpacked(size: int, level: int) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]

    assert _unzipped(gzip.compress(body, level)) == body


def test_one_byte_more_is_refused() -> None:
    with pytest.raises(DataRefused):
        _unzipped(gzip.compress(bytes(BODY_BYTES_MAX + 1), 1))


@pytest.mark.parametrize("size", [0, 100, 5 * MIB])
def test_a_body_that_is_cut_off_or_has_something_behind_it_is_broken(size: int) -> None:
    packed = gzip.compress(bytes(size), 1)
    for broken in (b"", packed[:1], packed[:10], packed[:-1], packed[:-8], packed + b"\0"):
        with pytest.raises(PassingFailure):
            _unzipped(broken)
    with pytest.raises(PassingFailure):
        _unzipped(packed + packed)


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "header"),
    [
        ("https://www.kaltura.com", "www.kaltura.com", 443, "www.kaltura.com:443", None),
        ("https://WWW.Kaltura.com:443/x", "www.kaltura.com", 443, "www.kaltura.com:443", None),
        ("https://kaltura:8443", "kaltura", 8443, "kaltura:8443", "kaltura:8443"),
        ("http://[::1]", "::1", 80, "[::1]:80", "[::1]"),
        ("http://[::1]:8080", "::1", 8080, "[::1]:8080", "[::1]:8080"),
        ("https://bücher.example", "xn--bcher-kva.example", 443, "xn--bcher-kva.example:443", None),
    ],
)
def test_an_address(url: str, host: str, port: int, authority: str, header: str | None) -> None:
    address = Address.of(url)

    assert (address.host, address.port, address.authority) == (host, port, authority)
    assert address.host_header == (header or host)


@pytest.mark.parametrize("url", ["ftp://host", "https://", "https://host:port", "https://ä..b"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"address|[Pp]ort|label"):
        Address.of(url)
