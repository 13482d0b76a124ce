"""Keeps secrets out of texts: by value for those that we know, by shape for those that we do not.

The service's own error texts echo session strings, another client's among them, so texts from
outside are never passed on whole: ``code_text`` and ``word_text`` let through only what they know
to be harmless.  What is left (a sentence of the operating system, a name of a parameter) goes
through ``Secrets.scrub``.
"""

from __future__ import annotations

import base64
import re
import threading
from urllib.parse import quote, quote_plus

REMOVED = "***"

# A KS (v2 starts with base64 of "v2|") or any other long unbroken run of base64 or hexadecimal.
# Kaltura's app tokens and secrets are 32 hexadecimal digits; its codes have underscores in them.
_LOOKS_SECRET = re.compile(r"djJ8[\w\-+/=%]+|\b(?=[A-Za-z0-9+/\-]*\d)[A-Za-z0-9+/\-]{28,}={0,2}")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9_:.\-> \[\]]{1,60}")
_SESSION_ID = re.compile(r"\d{1,20}, ?\d{1,20}")


class Secrets:
    """All secrets of this run.  Thread-safe; sessions are added as they are made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: tuple[str, ...] = ()

    def add(self, *values: str | None) -> None:
        """Remember secrets, and the forms in which they travel.

        Longest first, or a short secret inside a long one would leave the rest of it readable.
        Values under 4 characters are left out: to remove them would remove ordinary words.
        """
        with self._lock:
            forms = set(self._forms)
            for value in values:
                if value and len(value) >= 4:
                    forms |= _forms_of(value)
            self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def scrub(self, text: str) -> str:
        """``text`` with every known secret, and everything that looks like one, removed."""
        for form in self._forms:
            text = text.replace(form, REMOVED)
        return _LOOKS_SECRET.sub(REMOVED, text)

    def code_text(self, code: str) -> str:
        """An error code as it may be shown; one that is not shaped like a code is not shown."""
        return self.scrub(code) if _CODE.fullmatch(code) else "(unreadable code)"

    def word_text(self, word: str) -> str | None:
        """The name of a parameter or service as it may be shown, else None."""
        return self.scrub(word) if _WORD.fullmatch(word) else None


def session_id_text(header: str | None) -> str | None:
    """``X-Kaltura-Session`` (random number, Unix time): what to quote to Kaltura's support."""
    return header if header and _SESSION_ID.fullmatch(header) else None


def _forms_of(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {
        secret,
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
        secret.replace("/", "\\/"),
        raw.hex(),
    }
    # Base64 of a text that holds the secret somewhere: three alignments, without the characters
    # at the ends that depend on the neighbours.
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        middle = encoded[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
        if len(middle) >= 8:
            forms |= {middle, middle.replace("+", "-").replace("/", "_")}
    forms |= {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    return {form for form in forms if len(form) >= 4}
