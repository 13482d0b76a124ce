"""Kaltura sessions (KS) as strings: version 2 made here, version 1 read.

v2: ``urlsafe_base64("v2|<partner>|" + AES-128-CBC(sha1(body) + body))`` where ``body`` is 16 random
bytes and the urlencoded fields; zero IV, zero padding, key = first 16 bytes of sha1(secret).
v1: ``base64(sha1hex(secret + info) + "|" + info)``, readable without the secret.
Both are Kaltura's formats, weak by design: the random bytes are what makes the zero IV bearable.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from urllib.parse import urlencode

ADMIN_TYPE = 2
_BLOCK_BYTES = 16


@dataclass(frozen=True, slots=True)
class KsFacts:
    """What a KS says about itself.  ``session_type`` and ``expires_at`` (Unix seconds by the
    server's clock) are None for v2, where only the secret's owner can read them."""

    partner_id: int
    session_type: int | None
    expires_at: int | None


def make_ks(*, partner_id: int, admin_secret: str, expires_at: int) -> str:
    """A KS v2 of admin type without privileges.  ``expires_at``: Unix seconds, server's clock."""
    # The other logins need no cryptography, and with an app token no run imports it.
    from cryptography.hazmat.primitives.ciphers import (  # noqa: PLC0415
        Cipher,
        algorithms,
        modes,
    )

    fields = {"_e": expires_at, "_t": ADMIN_TYPE, "_u": ""}
    body = secrets.token_bytes(_BLOCK_BYTES) + urlencode(fields).encode()
    plain = hashlib.sha1(body, usedforsecurity=False).digest() + body
    plain += b"\0" * (-len(plain) % _BLOCK_BYTES)
    key = hashlib.sha1(admin_secret.encode(), usedforsecurity=False).digest()[:_BLOCK_BYTES]
    encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(_BLOCK_BYTES))).encryptor()
    sealed = encryptor.update(plain) + encryptor.finalize()
    return base64.urlsafe_b64encode(f"v2|{partner_id}|".encode() + sealed).decode()


def read_ks(ks: str) -> KsFacts | None:
    """What can be read of a KS without its secret; None if it is not one."""
    try:
        data = base64.b64decode(ks.translate(_URL_SAFE).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    if data.startswith(b"v2|"):
        partner = data[3:].partition(b"|")[0]
        return KsFacts(int(partner), None, None) if _is_number(partner) else None
    signature, _, info = data.partition(b"|")
    parts = info.split(b";")
    if len(signature) != 40 or len(parts) < 4 or not all(_is_number(parts[i]) for i in (0, 2, 3)):
        return None
    return KsFacts(int(parts[0]), session_type=int(parts[3]), expires_at=int(parts[2]))


_URL_SAFE = str.maketrans("-_", "+/")


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= 18
