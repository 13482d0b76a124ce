"""One partner's upload tokens: the present list, and the truth about what was listed when.

Every mutation has a number (1, 2, …), a time and the number of requests answered before it.  A
*mark* is the count of mutations so far: the state "at mark m" is the state after the first m.
Methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from etl.simulator.account.encode import encode_token
from etl.simulator.account.token_line import ORDER_BITS, Token, TokenLine, token_key

DELETED = 5
"""The status that is never listed."""


class Departed(NamedTuple):
    """A stretch of being listed that is over: from mutation ``since`` until mutation ``until``."""

    token: Token
    since: int
    until: int


class Superseded(NamedTuple):
    """A body that a token had until mutation ``until``."""

    token_id: str
    body: bytes
    until: int


class Account:
    """The tokens of one partner.

    ``clock`` gives the account's own time in Unix seconds (createdAt of new tokens, updatedAt of
    changes); sessions have the service's clock.
    """

    def __init__(self, partner_id: int = 102, *, clock: Callable[[], float] = time.time) -> None:
        self.partner_id = partner_id
        self.clock = clock
        self.lock = threading.RLock()
        self.line = TokenLine()
        self.poison: set[str] = set()
        """Ids of tokens that make every page holding them fail."""
        self.requests_answered = 0
        self.departed: list[Departed] = []
        self.superseded: list[Superseded] = []
        self._by_id: dict[str, Token | list[Token]] = {}
        self._order = 0
        self._mutation_times = array("d")
        self._mutation_requests = array("q")

    # ---- loading ------------------------------------------------------------------------------

    def load(self, bodies: Iterable[tuple[str, int, int, str | None, bytes]]) -> None:
        """Fill an empty account with (id, created_at, status, user_id, JSON), in any order."""
        tokens = []
        for order, (token_id, created_at, status, user_id, body) in enumerate(bodies):
            tokens.append(
                Token(
                    token_id,
                    created_at << ORDER_BITS | order,
                    status=status,
                    user_id=user_id,
                    body=body,
                    since=0,
                )
            )
        tokens.sort(key=token_key)
        with self.lock:
            self._order = len(tokens)
            self.line = TokenLine(tokens)
            for token in tokens:
                self._remember(token)

    # ---- reading ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.line)

    def find(self, token_id: str) -> list[Token]:
        """Listed tokens of this id: one, none, or several that differ in createdAt."""
        found = self._by_id.get(token_id)
        if found is None:
            return []
        return [found] if isinstance(found, Token) else list(found)

    def fields(self, token: Token) -> dict[str, Any]:
        """The token's JSON object."""
        return msgspec.json.decode(token.body, type=dict[str, Any])

    @property
    def mark(self) -> int:
        """How many mutations there have been."""
        return len(self._mutation_times)

    # ---- mutations ----------------------------------------------------------------------------

    def insert(self, fields: Mapping[str, Any]) -> Token:
        """Add a token.  ``createdAt`` may lie anywhere; what is missing gets a plain value.

        A token with status 5 is remembered but not listed.
        """
        with self.lock:
            now = int(self.clock())
            known: dict[str, Any] = {
                "partnerId": self.partner_id,
                "status": 0,
                "createdAt": now,
                "updatedAt": now,
                "autoFinalize": False,
                **fields,
            }
            created_at = known["createdAt"]
            return self.insert_raw(
                str(known["id"]),
                int(created_at) if isinstance(created_at, int | float) else now,
                encode_token(known),
                status=known["status"] if isinstance(known["status"], int) else -1,
                user_id=known.get("userId"),
            )

    def insert_raw(
        self,
        token_id: str,
        created_at: int,
        body: bytes,
        *,
        status: int = 0,
        user_id: str | None = None,
    ) -> Token:
        """Add a token with exactly this JSON, whatever it says (for rows that are malformed)."""
        with self.lock:
            number = self._next_mutation()
            token = Token(
                token_id,
                created_at << ORDER_BITS | self._order,
                status=status,
                user_id=user_id,
                body=body,
                since=number,
            )
            self._order += 1
            if status == DELETED:
                self.departed.append(Departed(token, number, number))
            else:
                self._list(token)
            return token

    def delete(self, token_id: str, created_at: int | None = None) -> bool:
        """Take a token off the list; False if it is not on it."""
        with self.lock:
            for token in self.find(token_id):
                if created_at in (None, token.created_at):
                    self._unlist(token)
                    return True
            return False

    def undelete(self, token_id: str) -> bool:
        """List a departed token again, at its old place; False if there is none."""
        with self.lock:
            for past in reversed(self.departed):
                old = past.token
                if old.id == token_id and not any(t.key == old.key for t in self.find(token_id)):
                    number = self._next_mutation()
                    status = 3 if old.status == DELETED else old.status
                    self._list(
                        Token(
                            old.id,
                            old.key,
                            status=status,
                            user_id=old.user_id,
                            body=old.body,
                            since=number,
                        )
                    )
                    return True
            return False

    def change(self, token_id: str, fields: Mapping[str, Any], *, touch: bool = True) -> bool:
        """Set fields of a listed token, ``updatedAt`` too unless ``touch`` is false.

        A value of ``...`` removes the field.  Setting status 5 deletes the token.  False if the
        token is not listed.
        """
        with self.lock:
            found = self.find(token_id)
            if not found:
                return False
            token = found[0]
            if fields.get("status") == DELETED:
                self._unlist(token)
                return True
            known = self.fields(token)
            if touch:
                known["updatedAt"] = int(self.clock())
            known.update(fields)
            known = {name: value for name, value in known.items() if value is not ...}
            number = self._next_mutation()
            self.superseded.append(Superseded(token.id, token.body, number))
            status = known.get("status", token.status)
            if known["createdAt"] != token.created_at:
                # Kaltura never does this; the adversary of a property test may.
                self.line.remove(token)
                token.key = int(known["createdAt"]) << ORDER_BITS | self._order
                self._order += 1
                self.line.add(token)
            token.status = status if isinstance(status, int) else -1
            token.user_id = known.get("userId")
            token.body = encode_token(known)
            return True

    def delete_user(self, user_id: str) -> int:
        """Delete a user in Kaltura: ``userId`` vanishes from tokens, their updatedAt stays."""
        with self.lock:
            ids = [token.id for token in self.line if token.user_id == user_id]
            for token_id in ids:
                self.change(token_id, {"userId": ...}, touch=False)
            return len(ids)

    # ---- truth --------------------------------------------------------------------------------

    def mark_at_time(self, when: float) -> int:
        """The mark at a moment (Unix seconds by the machine's clock, not the account's)."""
        with self.lock:
            return bisect_right(self._mutation_times, when)

    def mark_at_request(self, number: int) -> int:
        """The mark at the moment when request ``number`` (from 1) was answered."""
        with self.lock:
            return bisect_left(self._mutation_requests, number)

    def listed_throughout(self, first_mark: int, last_mark: int) -> list[tuple[str, int]]:
        """(id, createdAt) of tokens that were on the list at every moment between two marks."""
        with self.lock:
            rows = [
                (token.id, token.created_at)
                for token in self.line
                if token.listed_since <= first_mark
            ]
            rows += [
                (past.token.id, past.token.created_at)
                for past in self.departed
                if past.since <= first_mark and past.until > last_mark
            ]
            return rows

    def listed_sometime(self, first_mark: int, last_mark: int) -> list[tuple[str, int]]:
        """(id, createdAt) of tokens that were on the list at some moment between two marks."""
        with self.lock:
            rows = {
                (token.id, token.created_at)
                for token in self.line
                if token.listed_since <= last_mark
            }
            rows.update(
                (past.token.id, past.token.created_at)
                for past in self.departed
                if past.since <= last_mark and past.until > first_mark
            )
            return sorted(rows, key=lambda row: row[1])

    def versions(self, token_id: str) -> list[tuple[int | None, bytes]]:
        """The JSON a token has had: (number of the mutation that ended it, body), oldest first.

        None stands for the present; a departed token's last body ended when it departed.
        """
        with self.lock:
            past = [(row.until, row.body) for row in self.superseded if row.token_id == token_id]
            past += [(d.until, d.token.body) for d in self.departed if d.token.id == token_id]
            present: list[tuple[int | None, bytes]] = [(None, t.body) for t in self.find(token_id)]
            return [*sorted(past), *present]

    # ---- inside -------------------------------------------------------------------------------

    def _next_mutation(self) -> int:
        self._mutation_times.append(time.time())
        self._mutation_requests.append(self.requests_answered)
        return len(self._mutation_times)

    def _remember(self, token: Token) -> None:
        found = self._by_id.setdefault(token.id, token)
        if found is not token:
            if isinstance(found, Token):
                self._by_id[token.id] = [found, token]
            else:
                found.append(token)

    def _list(self, token: Token) -> None:
        self.line.add(token)
        self._remember(token)

    def _unlist(self, token: Token) -> None:
        number = self._next_mutation()
        self.line.remove(token)
        rest = [other for other in self.find(token.id) if other is not token]
        if rest:
            self._by_id[token.id] = rest
        else:
            del self._by_id[token.id]
        self.departed.append(Departed(token, token.listed_since, number))
