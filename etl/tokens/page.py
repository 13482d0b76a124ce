"""A page: one accepted reply of ``uploadToken.list``, with its rows decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from etl.coverage import Span
from etl.tokens.columns import DecodedRows, PageTokens
from etl.tokens.token import Rejected


class PageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one reply, shared by the ledger, the archive and replay.

    The times are aware UTC, by the database's clock.
    """

    page_index: int
    """As requested, from 1."""
    page_size: int
    """As requested."""
    filter: str
    """The requested filter, as canonical JSON (sorted keys, no spaces)."""
    requested_at: datetime
    received_at: datetime
    total_count: int | None
    """totalCount: a hint, None if it was missing or nonsense."""
    rows: int
    """Rows in the reply, which may be more or fewer than ``page_size``."""
    body_sha256: bytes


@dataclass(slots=True, kw_only=True)
class Page:
    """A reply with its decoded rows, from the fetch to the ledger.

    ``tokens`` and ``raw`` are parallel; ``positions`` and ``token_ids`` have one entry per row, in
    the order of the reply.
    """

    facts: PageFacts
    body: bytes
    """The reply's JSON as it was accepted."""
    tokens: PageTokens
    raw: Sequence[msgspec.Raw | bytes]
    """The JSON of each token: kept if a token turns out to be a duplicate."""
    rejected: Sequence[Rejected] = ()
    positions: Sequence[float | int | None] = ()
    """createdAt in Unix seconds; None where the row cannot be placed."""
    token_ids: Sequence[str | None] = ()
    """None where the id cannot be stored."""
    asked: tuple[str, ...] | None = None
    """The ids of a lookup; None for a page of the list."""
    open_only: bool = False
    """Whether it is a page of the list of open tokens: its span covers no others."""
    suppressed: bool = False
    """Whether values of erased users or tokens were replaced, which ``body`` still contains."""
    span: Span | None = None
    """The createdAt interval in which it shows every listed token; set by the walk."""
    seq: int | None = None
    """Its number in the run; None until it is staged."""

    @property
    def first_created_second(self) -> int | None:
        """createdAt of its oldest row that can be placed, in whole Unix seconds."""
        return min(self._placed(), default=None)

    @property
    def last_created_second(self) -> int | None:
        """createdAt of its newest row that can be placed, in whole Unix seconds."""
        return max(self._placed(), default=None)

    def _placed(self) -> list[int]:
        return [int(position) for position in self.positions if position is not None]


def page_of(
    facts: PageFacts,
    body: bytes,
    rows: Sequence[msgspec.Raw],
    decoded: DecodedRows,
    *,
    asked: tuple[str, ...] | None = None,
    open_only: bool = False,
) -> Page:
    """The page of a reply, with its ``rows`` divided into tokens and rejected ones."""
    raw_tokens: Sequence[msgspec.Raw | bytes] = rows
    token_ids: Sequence[str | None] = decoded.tokens.token_ids
    if decoded.rejected:
        raw_tokens, token_ids = [], []
        # Both lists are in page order.
        ids, rejected = iter(decoded.tokens.token_ids), deque(decoded.rejected)
        for payload in rows:
            if rejected and rejected[0].payload == bytes(payload):
                token_ids.append(rejected.popleft().token_id)
            else:
                token_ids.append(next(ids))
                raw_tokens.append(payload)
    return Page(
        facts=facts,
        body=body,
        tokens=decoded.tokens,
        raw=raw_tokens,
        rejected=decoded.rejected,
        positions=decoded.positions,
        token_ids=token_ids,
        asked=asked,
        open_only=open_only,
    )
