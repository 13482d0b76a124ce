"""One call of an action, and the record that is kept of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etl.simulator.account.account import Account
from etl.simulator.account.token_line import Token
from etl.simulator.api.auth import Caller
from etl.simulator.faults import Fault


@dataclass(slots=True)
class RequestRecord:
    """One answered request.  ``rows`` and the createdAt pair are those of the page, if any."""

    number: int
    time: float
    service: str
    action: str
    position: str
    filter: Any = None
    page_index: int | None = None
    page_size: int | None = None
    total_count: int | None = None
    rows: int | None = None
    first_created_at: int | None = None
    last_created_at: int | None = None
    first_key: int | None = None
    last_key: int | None = None
    error_code: str | None = None
    fault: str | None = None
    mark: int = 0
    """Mutations of the account before it was answered."""
    ids: tuple[str, ...] | None = None
    """Ids of the rows, if the server keeps them."""


@dataclass(slots=True)
class Call:
    """What an action sees."""

    params: Mapping[str, Any]
    caller: Caller
    now: float
    fault: Fault | None
    record: RequestRecord
    keep_ids: bool = False

    @property
    def account(self) -> Account:
        if self.caller.partner is None:
            raise RuntimeError("an action that needs an account must check the session first")
        return self.caller.partner.account

    def note_page(
        self, page_index: int, page_size: int | None, total: int, tokens: list[Token]
    ) -> None:
        record = self.record
        record.page_index, record.page_size = page_index, page_size
        record.total_count, record.rows = total, len(tokens)
        if tokens:
            record.first_created_at = tokens[0].created_at
            record.last_created_at = tokens[-1].created_at
            record.first_key, record.last_key = tokens[0].key, tokens[-1].key
        if self.keep_ids:
            record.ids = tuple(token.id for token in tokens)
