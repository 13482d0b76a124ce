"""Erased subjects stay erased: keyed pseudonyms, and their use in the rows of a page.

Pure: no clock, no network, no database.  A pseudonym is an HMAC-SHA256 of the value with the secret
ETL_ERASURE_KEY, so that equal values stay equal and different ones different (versions still differ
where they did), and names cannot be guessed and tested without the key.  It contains a keyed check
of itself: so a pseudonym is recognised and never taken for personal data, and a file whose name
looks like one is not taken for a pseudonym.

The pseudonym of a user is the same on every token of the account; that of a file name or of
``extra`` is specific to its token, so that equal names of two users are not revealed.
"""

from __future__ import annotations

import hmac
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from etl.tokens.columns import DecodedRows
from etl.tokens.digest import canonical
from etl.tokens.token import Rejected, Token
from etl.tokens.values import EXACT_JSON, Number, storable

MARK: Final = "erased:"
EXTRA_KEY: Final = "erased"
_HASH_DIGITS: Final = 24
_CHECK_DIGITS: Final = 8
ERASED_PAYLOAD_BYTES: Final = len('{"erased":""}') + _HASH_DIGITS + _CHECK_DIGITS
"""Length of what replaces a rejected row."""
_PSEUDONYM: Final = re.compile(f"([0-9a-f]{{{_HASH_DIGITS}}})([0-9a-f]{{{_CHECK_DIGITS}}})")
_OWNERS_REMEMBERED: Final = 100_000


class Pseudonyms:
    """The pseudonyms of one account, made with one key."""

    def __init__(self, key: str, partner_id: int) -> None:
        self._key = key.encode()
        self._partner = str(partner_id)

    def __repr__(self) -> str:
        return f"Pseudonyms(partner_id={self._partner})"

    def key_check(self) -> bytes:
        """16 bytes that identify the key and reveal nothing else."""
        return self._hash("key")[:16]

    def subject_hash(self, kind: str, subject: str) -> bytes:
        """The keyed hash of a user's or a token's id in the list of erased subjects: 32 bytes."""
        return self._hash("subject", kind, subject)

    def of_user(self, user_id: str) -> str:
        """The pseudonym of a user; an empty value or a pseudonym is returned unchanged."""
        return self._of_text(user_id, "user_id")

    def of_file_name(self, token_id: str, file_name: str) -> str:
        """The pseudonym of a file name; an empty value or a pseudonym is returned unchanged."""
        return self._of_text(file_name, "file_name", token_id)

    def of_extra(self, token_id: str, extra: bytes) -> bytes:
        """A JSON object in place of ``extra``; objects equal as jsonb have equal pseudonyms."""
        value = EXACT_JSON.decode(extra.decode())
        if self._is_erased_object(value):
            return extra
        digits = self._digits("extra", token_id, canonical(value))
        return json.dumps({EXTRA_KEY: digits}, separators=(",", ":")).encode()

    def of_payload(self, payload: bytes) -> bytes:
        """A small JSON object for a row that was not loaded."""
        if self.is_erased_payload(payload):
            return payload
        digits = self._keyed_digits(b"payload\0" + self._partner.encode() + b"\0" + payload)
        return json.dumps({EXTRA_KEY: digits}, separators=(",", ":")).encode()

    def is_erased_payload(self, payload: bytes) -> bool:
        """Whether a row was replaced by ``of_payload`` with this key."""
        if len(payload) != ERASED_PAYLOAD_BYTES:
            return False
        try:
            return self._is_erased_object(EXACT_JSON.decode(payload.decode()))
        except (ValueError, RecursionError):
            return False

    def is_pseudonym(self, text: str | None) -> bool:
        """Whether ``text`` is a pseudonym made with this key, of a user or a file name."""
        return text is not None and text.startswith(MARK) and self._are_ours(text[len(MARK) :])

    def is_marked(
        self, user_id: str | None, file_name: str | None, extra: bytes | str | None
    ) -> bool:
        """Whether any value of a version is a pseudonym."""
        if self.is_pseudonym(user_id) or self.is_pseudonym(file_name):
            return True
        return extra is not None and self._is_erased_object(json.loads(extra, parse_int=Number))

    def _of_text(self, text: str, *purpose: str) -> str:
        if not text or self.is_pseudonym(text):
            return text
        return MARK + self._digits(*purpose, text)

    def _is_erased_object(self, value: object) -> bool:
        if not isinstance(value, dict) or value.keys() != {EXTRA_KEY}:
            return False
        digits = value[EXTRA_KEY]
        return isinstance(digits, str) and self._are_ours(digits)

    def _are_ours(self, digits: str) -> bool:
        match = _PSEUDONYM.fullmatch(digits)
        return match is not None and match[2] == self._check_of(match[1])

    def _digits(self, *parts: str) -> str:
        return self._keyed_digits("\0".join((*parts[:-1], self._partner, parts[-1])).encode())

    def _keyed_digits(self, message: bytes) -> str:
        digits = hmac.digest(self._key, b"value\0" + message, "sha256").hex()[:_HASH_DIGITS]
        return digits + self._check_of(digits)

    def _check_of(self, digits: str) -> str:
        return self._hash("check", digits).hex()[:_CHECK_DIGITS]

    def _hash(self, *parts: str) -> bytes:
        message = "\0".join((*parts[:-1], self._partner, parts[-1]))
        return hmac.digest(self._key, message.encode(), "sha256")


class Suppression:
    """Replaces the data of erased subjects of one account in incoming rows.  Thread-safe.

    ``users`` and ``tokens`` are hashes of ids (``Pseudonyms.subject_hash``).  ``marked`` are the
    ids of tokens that have a pseudonym in any version: once Kaltura has deleted an erased user, the
    user's tokens arrive without a user, and their file names must not be stored again.
    """

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        *,
        users: Iterable[bytes],
        tokens: Iterable[bytes],
        marked: Iterable[str] = (),
    ) -> None:
        self._pseudonyms = pseudonyms
        self._users = frozenset(users)
        self._tokens = frozenset(tokens)
        self._marked = set(marked)
        self._owners: dict[str, bool] = {}

    def suppress(
        self, rows: DecodedRows, raw: Sequence[msgspec.Raw | bytes]
    ) -> tuple[DecodedRows, Sequence[msgspec.Raw | bytes]]:
        """The page's rows with pseudonyms where required; ``raw`` is parallel to its tokens.

        The payload of a rejected row is replaced as a whole: its content is unknown.
        """
        replaced: dict[int, Token] = {}
        payloads = list(raw)
        ids, users = rows.tokens.token_ids, rows.tokens.user_ids
        for index in rows.tokens.untold:
            # A user that cannot be used is not among the users, but may be named all the same.
            if any(map(self._is_erased_user, owners_of(bytes(payloads[index])))):
                self._marked.add(ids[index])
        for index, (token_id, user_id) in enumerate(zip(ids, users, strict=True)):
            whole = self._is_erased_token(token_id)
            owner = user_id is not None and self._is_erased_user(user_id)
            if whole or owner or token_id in self._marked:
                self._marked.add(token_id)
                replaced[index] = pseudonymised(
                    self._pseudonyms, rows.tokens[index], user=whole or owner
                )
                payloads[index] = self._pseudonyms.of_payload(bytes(payloads[index]))
        rejected = [self._suppress_rejected(each) for each in rows.rejected]
        tokens = rows.tokens.replaced(replaced)
        return DecodedRows(tokens, rejected, rows.positions, rows.coercions), payloads

    def _suppress_rejected(self, row: Rejected) -> Rejected:
        token_id = row.token_id
        known = token_id is not None and (
            token_id in self._marked or self._is_erased_token(token_id)
        )
        if not known and not any(map(self._is_erased_user, owners_of(row.payload))):
            return row
        if token_id is not None:
            self._marked.add(token_id)
        payload = self._pseudonyms.of_payload(row.payload)
        return Rejected(token_id, row.reason, payload, row.created_second)

    def _is_erased_user(self, user_id: str) -> bool:
        known = self._owners.get(user_id)
        if known is None:
            known = self._pseudonyms.subject_hash("user", user_id) in self._users
            if len(self._owners) >= _OWNERS_REMEMBERED:
                self._owners.clear()
            self._owners[user_id] = known
        return known

    def _is_erased_token(self, token_id: str) -> bool:
        # Single tokens are rarely erased: the hash of every id is computed only then.
        return bool(self._tokens) and (
            self._pseudonyms.subject_hash("token", token_id) in self._tokens
        )


def pseudonymised(pseudonyms: Pseudonyms, token: Token, *, user: bool) -> Token:
    """The token with pseudonyms for file name and ``extra``, and for its user if ``user``."""
    return token._replace(
        user_id=pseudonyms.of_user(token.user_id) if user and token.user_id else token.user_id,
        file_name=None
        if token.file_name is None
        else pseudonyms.of_file_name(token.token_id, token.file_name),
        extra=None if token.extra is None else pseudonyms.of_extra(token.token_id, token.extra),
    )


def owners_of(payload: bytes) -> Iterator[str]:
    """The users that a row may belong to: every text and number in its ``userId``,
    in whatever case the key was sent.

    As the column would store them.  A row that cannot be read yields none.
    """
    try:
        row = EXACT_JSON.decode(payload.decode())
    except (ValueError, RecursionError):
        return
    if isinstance(row, dict):
        for key, value in row.items():
            if key.lower() == "userid":
                yield from _leaves(value)


def _leaves(value: object) -> Iterator[str]:
    # Not recursive: the nesting of what was sent is unbounded.
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield storable(each, "user_id", Counter())
        elif isinstance(each, Number):
            yield each.literal
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
