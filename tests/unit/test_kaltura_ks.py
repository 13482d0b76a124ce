"""Session strings: version 2 as Kaltura reads it, version 1 read without its secret."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from etl.kaltura.ks import KsFacts, make_ks, read_ks
from etl.simulator.api.ks import read_ks as read_as_the_simulator_does

SECRET = "a1b2c3d4e5f60718293a4b5c6d7e8f90"


def decrypt(ks: str, secret: str) -> tuple[bytes, bytes, bytes]:
    """(header, random bytes, fields) of a KS v2; asserts its signature.  Written from PHP's side:
    decrypt, cut the zero padding, compare the hash in front."""
    data = base64.urlsafe_b64decode(ks)
    header, partner, sealed = data.split(b"|", 2)
    key = hashlib.sha1(secret.encode()).digest()[:16]
    decryptor = Cipher(algorithms.AES(key), modes.CBC(b"\0" * 16)).decryptor()
    plain = (decryptor.update(sealed) + decryptor.finalize()).rstrip(b"\0")
    signature, body = plain[:20], plain[20:]

    assert hashlib.sha1(body).digest() == signature
    return header + b"|" + partner, body[:16], body[16:]


def test_a_session_made_here_reads_as_kaltura_writes_it() -> None:
    ks = make_ks(partner_id=102, admin_secret=SECRET, expires_at=1_795_510_035)
    header, _, fields = decrypt(ks, SECRET)
    values = {k: v[0] for k, v in parse_qs(fields.decode(), keep_blank_values=True).items()}

    assert header == b"v2|102"
    assert values == {"_e": "1795510035", "_t": "2", "_u": ""}


def test_the_simulator_accepts_it_with_the_right_secret_only() -> None:
    ks = make_ks(partner_id=102, admin_secret=SECRET, expires_at=1_795_510_035)

    session = read_as_the_simulator_does(ks, lambda _: (SECRET,))

    assert session is not None
    assert read_as_the_simulator_does(ks, lambda _: ("0" * 32,)) is None


def test_two_sessions_of_the_same_second_differ() -> None:
    texts = {make_ks(partner_id=1, admin_secret=SECRET, expires_at=1) for _ in range(50)}

    assert len(texts) == 50


def test_the_partner_of_a_version_2_session_can_be_read_and_nothing_else() -> None:
    ks = make_ks(partner_id=102, admin_secret=SECRET, expires_at=1)

    assert read_ks(ks) == KsFacts(102, None, None)


def test_a_version_1_session_can_be_read_whole() -> None:
    info = "102;102;1795510035;2;0.123;etl;setrole:1;;"
    signature = hashlib.sha1((SECRET + info).encode()).hexdigest()
    ks = base64.b64encode(f"{signature}|{info}".encode()).decode()

    assert read_ks(ks) == KsFacts(102, 2, 1_795_510_035)


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "aGVsbG8=", "é", "djJ8", base64.b64encode(b"v2|x|y").decode(), "a" * 41],
)
def test_what_is_not_a_session_reads_as_none(text: str) -> None:
    assert read_ks(text) is None
