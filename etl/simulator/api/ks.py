"""Kaltura sessions (KS), version 1 and 2: make one, read one, check its signature."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote_plus, unquote_plus

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

USER, ADMIN = 0, 2
_BLOCK = 16
_SHA1 = 20


@dataclass(frozen=True, slots=True)
class Session:
    """What a session string says.  ``privileges`` are (name, value) in their order."""

    ks: str
    partner_id: int
    expires_at: int
    type: int
    user_id: str
    privileges: tuple[tuple[str, str], ...]

    def privilege(self, name: str) -> str | None:
        return next((value for known, value in self.privileges if known == name), None)

    @property
    def privileges_text(self) -> str:
        """As session.get shows them: ``name:value`` or ``name``, by commas."""
        return ",".join(f"{name}:{value}" if value else name for name, value in self.privileges)


def parse_privileges(text: str) -> tuple[tuple[str, str], ...]:
    """``a:b,c`` as pairs; only the first colon divides."""
    pairs = (part.partition(":") for part in text.split(",") if part.strip())
    return tuple((name.strip(), value) for name, _, value in pairs)


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).digest()  # noqa: S324 (the protocol's own hash)


def _cipher(secret: str) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(_sha1(secret.encode())[:_BLOCK]), modes.CBC(bytes(_BLOCK)))


def mint_v2(
    secret: str,
    partner_id: int,
    *,
    expires_at: int,
    type: int = ADMIN,
    user_id: str = "",
    privileges: tuple[tuple[str, str], ...] = (),
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> str:
    """A version 2 session string, signed and encrypted with ``secret``."""
    fields = [*privileges, ("_e", str(expires_at)), ("_t", str(type)), ("_u", user_id)]
    text = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in fields)
    body = random_bytes(_BLOCK) + text.encode()
    plain = _sha1(body) + body
    plain += bytes(-len(plain) % _BLOCK)
    encryptor = _cipher(secret).encryptor()
    data = encryptor.update(plain) + encryptor.finalize()
    return base64.urlsafe_b64encode(b"v2|%d|" % partner_id + data).decode()


def mint_v1(
    secret: str,
    partner_id: int,
    *,
    expires_at: int,
    type: int = ADMIN,
    user_id: str = "",
    privileges: str = "",
) -> str:
    """A version 1 session string: readable, signed with SHA-1."""
    noise = secrets.randbelow(10**16) / 10**16
    info = f"{partner_id};{partner_id};{expires_at};{type};{noise};{user_id};{privileges};;"
    signature = hashlib.sha1((secret + info).encode()).hexdigest()  # noqa: S324
    return base64.b64encode(f"{signature}|{info}".encode()).decode()


def read_ks(ks: str, secrets_of: Callable[[int], tuple[str, ...]]) -> Session | None:
    """The session in a string, or None if it is no session or no secret of its partner fits.

    ``secrets_of`` gives the secrets of a partner, none for an unknown one.
    """
    try:
        data = base64.urlsafe_b64decode(ks.encode() + b"=" * (-len(ks) % 4))
    except (ValueError, binascii.Error):
        return None
    if data.startswith(b"v2|"):
        return _read_v2(ks, data, secrets_of)
    return _read_v1(ks, data, secrets_of)


def _read_v2(ks: str, data: bytes, secrets_of: Callable[[int], tuple[str, ...]]) -> Session | None:
    parts = data.split(b"|", 2)
    if len(parts) < 3 or not parts[1].isdigit() or not parts[2] or len(parts[2]) % _BLOCK:
        return None
    partner_id = int(parts[1])
    for secret in secrets_of(partner_id):
        decryptor = _cipher(secret).decryptor()
        plain = (decryptor.update(parts[2]) + decryptor.finalize()).rstrip(b"\0")
        if len(plain) < _SHA1 + _BLOCK:
            continue
        if hmac.compare_digest(_sha1(plain[_SHA1:]), plain[:_SHA1]):
            return _session_from_fields(ks, partner_id, plain[_SHA1 + _BLOCK :].decode())
    return None


def _session_from_fields(ks: str, partner_id: int, text: str) -> Session:
    pairs = [part.partition("=") for part in text.split("&")]
    fields = [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs if name]
    known = dict(fields)
    return Session(
        ks,
        partner_id,
        int(known.get("_e") or 0),
        int(known.get("_t") or 0),
        known.get("_u", ""),
        tuple(pair for pair in fields if pair[0] not in ("_e", "_t", "_u")),
    )


def _read_v1(ks: str, data: bytes, secrets_of: Callable[[int], tuple[str, ...]]) -> Session | None:
    signature, bar, info = data.decode("utf-8", "replace").partition("|")
    fields = info.split(";")
    if not bar or len(fields) < 6 or not fields[0].isdigit():
        return None
    if not (fields[2].isdigit() and fields[3].isdigit()):
        return None
    partner_id = int(fields[0])
    for secret in secrets_of(partner_id):
        wanted = hashlib.sha1((secret + info).encode()).hexdigest()  # noqa: S324
        if hmac.compare_digest(wanted.encode(), signature.encode()):
            privileges = parse_privileges(fields[6]) if len(fields) > 6 else ()
            return Session(ks, partner_id, int(fields[2]), int(fields[3]), fields[5], privileges)
    return None
