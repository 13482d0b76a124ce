"""Removes secrets from texts: known ones in every form in which they travel, others by shape.

``scrub`` is the process's own scrubber, which knows the secrets of the settings; the Kaltura
client has one too, which knows its sessions.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

REMOVED = "***"
_LEAST_LENGTH = 3
_SHORT_LENGTH = 12
_LEAST_ENCODED_LENGTH = 8
_PART_LENGTH = 6
_NOTHING = "(?!)"

# A KS that is not known by value: v2 begins with base64 of "v2|", v1 is base64 of
# "sha1-in-hexadecimal|partner;…".
_KS_V2 = re.compile(r"djJ8[\w\-+/=%]{8,}", re.ASCII)
_LONG_BASE64 = re.compile(r"[A-Za-z0-9+/]{56,}={0,2}")
_KS_V1_DECODED = re.compile(rb"[0-9a-f]{40}\|")
# The start of a KS, or any other long unbroken run of base64 or hexadecimal.  Kaltura's app tokens
# and secrets are 32 hexadecimal digits; its error codes have underscores in them.
_LOOKS_SECRET = re.compile(r"djJ8[\w\-+/=%]+|\b(?=[A-Za-z0-9+/\-]*\d)[A-Za-z0-9+/\-]{28,}={0,2}")


class Scrubber:
    """Replaces secrets by ***.  Thread-safe; secrets may be added at any time."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Reentrant: a signal's handler may log while the expression is made.
        self._lock = threading.RLock()
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: str | None) -> None:
        """Remember secrets; those shorter than 3 characters would remove ordinary text."""
        with self._lock:
            self._secrets.update(each for each in secrets if each and len(each) >= _LEAST_LENGTH)
            self._pattern = None

    def __call__(self, text: str) -> str:
        """``text`` without known secrets and without Kaltura sessions."""
        text = (self._pattern or self._expression()).sub(REMOVED, text)
        return _LONG_BASE64.sub(_without_ks_v1, _KS_V2.sub(REMOVED, text))

    def _expression(self) -> re.Pattern[str]:
        """What finds the secrets; made when it is needed: most runs have nothing to remove."""
        with self._lock:
            forms = {form: pattern for each in self._secrets for form, pattern in _patterns(each)}
            # Longest first: a secret inside another one would leave the rest of it readable.
            longest_first = [forms[form] for form in sorted(forms, key=len, reverse=True)]
            self._pattern = re.compile("|".join(longest_first) or _NOTHING)
            return self._pattern

    def holds_part_of_secret(self, text: str) -> bool:
        """Whether ``text`` has 6 characters in a row of a secret, in any form and any case."""
        folded = text.lower()
        parts = {folded[at : at + _PART_LENGTH] for at in range(len(text) - _PART_LENGTH + 1)}
        with self._lock:
            forms = {form.lower() for each in self._secrets for form in _forms(each)}
        return any(part in form for form in forms for part in parts)

    def scrub_foreign(self, text: str) -> str:
        """A text from outside, also without everything that looks like a secret.

        Too strict for our own logs and results, which contain digests and paths.
        """
        return _LOOKS_SECRET.sub(REMOVED, self(text))


def _without_ks_v1(match: re.Match[str]) -> str:
    start = match[0][:56]
    return REMOVED if _KS_V1_DECODED.match(base64.b64decode(start)) else match[0]


def _patterns(secret: str) -> Iterator[tuple[str, str]]:
    """Each form in which a secret travels, with the expression that finds it.

    A short word or number ("etl", "postgres", "1234") is replaced only where it stands alone:
    it would tear ordinary words apart.
    """
    is_ordinary = len(secret) < _SHORT_LENGTH and (secret.isalpha() or secret.isdigit())
    for form in _forms(secret):
        is_encoded = form != secret and len(form) >= _LEAST_ENCODED_LENGTH
        if is_encoded or (len(secret) > _LEAST_LENGTH and not is_ordinary):
            yield form, re.escape(form)
        else:
            yield form, rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])"


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    as_json = json.dumps(secret)[1:-1]
    forms = {
        secret,
        quote(raw, safe=""),
        quote_plus(raw),
        as_json,
        as_json.replace("/", "\\/"),  # as PHP writes it
        secret.replace("/", "\\/"),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
    }
    # Base64 of a text that contains the secret somewhere: three alignments, without the characters
    # that depend on the neighbours.
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        middle = encoded[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
        if len(middle) >= _LEAST_ENCODED_LENGTH:
            forms |= {middle, middle.replace("+", "-").replace("/", "_")}
    return forms


scrub = Scrubber()
"""The process's own scrubber; ``setup_logging`` teaches it the secrets of the settings."""
