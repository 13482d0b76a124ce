"""Fetch what the walk asks for, with a small pool of threads.

Here the service's replies become plain rows: read, decoded and checked for order.  A page that
cannot be trusted is asked for again; a page that the service cannot deliver comes back as
``Undeliverable``, and the walk steps around what is in its way.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from etl.coverage import page_span
from etl.errors import DataRefused, ServiceFailure
from etl.records import DecodedRows, decode_rows
from etl.walk import Lookup, PageRequest, PageRows, Request

if TYPE_CHECKING:
    from etl.kaltura.upload_token import PageReply, UploadTokens

log = logging.getLogger(__name__)

UNTRUSTED_PAGE_TRIES: Final = 3
FIRST_ATTEMPTS: Final = 3
PROBE_ATTEMPTS: Final = 1
"""A row that fails once is asked for again before it is called unreadable."""
LOOKUP_IDS_AT_MOST: Final = 500
ROW_FAILURES: Final = frozenset({"INTERNAL_SERVERL_ERROR", "INTERNAL_SERVER_ERROR"})
"""What the service says when one row of a page breaks it, and when its cache is down."""
FINAL_REASONS: Final = frozenset({"foreign_partner"})
"""Page-level refusals that another try must not talk away."""


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """A reply with its rows."""

    reply: PageReply
    decoded: DecodedRows
    raw: list[bytes]
    """The JSON of each token, parallel to ``decoded.tokens``."""
    token_ids: list[str | None]
    """The id of each row, in the order of the reply; None where it cannot be stored."""

    def rows(self) -> PageRows:
        """As the walk wants it, in the order of the reply."""
        return PageRows(self.decoded.positions, self.token_ids, self.reply.total_count)

    @classmethod
    def of(cls, reply: PageReply, decoded: DecodedRows) -> FetchedPage:
        """Tell the rows of tokens from the rejected ones; both lists are in page order."""
        raw = [bytes(row) for row in reply.rows]
        if not decoded.rejected:
            return cls(reply, decoded, raw, [token.token_id for token in decoded.tokens])
        tokens, rejected = iter(decoded.tokens), deque(decoded.rejected)
        token_ids: list[str | None] = []
        raw_tokens = []
        for payload in raw:
            if rejected and rejected[0].payload == payload:
                token_ids.append(rejected.popleft().token_id)
            else:
                token_ids.append(next(tokens).token_id)
                raw_tokens.append(payload)
        return cls(reply, decoded, raw_tokens, token_ids)


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """The service failed on this page each time, in the way of an unreadable row."""

    request: PageRequest


Fetched = FetchedPage | Undeliverable | list[FetchedPage]


class Fetcher:
    """Runs requests side by side; ``submit`` gives a future.  Use as a context manager."""

    def __init__(
        self,
        tokens: UploadTokens,
        *,
        partner_id: int,
        concurrency: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._tokens = tokens
        self._partner_id = partner_id
        self._clock = clock
        self._without_auto_finalize = False
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="fetch")

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        # Requests under way end by their own deadline or by the stop; nobody waits for the queued.
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, request: Request) -> Future[Fetched]:
        """Start a request.  The future raises what ``etl.kaltura`` raises, or DataRefused."""
        if isinstance(request, Lookup):
            return self._pool.submit(self.look_up, request.token_ids)
        return self._pool.submit(self._fetch_page, request)

    def look_up(self, token_ids: Sequence[str]) -> list[FetchedPage]:
        """Which of these tokens are listed, as many requests as it takes."""
        pages = []
        for begin in range(0, len(token_ids), LOOKUP_IDS_AT_MOST):
            some = token_ids[begin : begin + LOOKUP_IDS_AT_MOST]
            page = self._trusted(lambda some=some: self._tokens.list_by_id(some))  # type: ignore[misc]
            # The ids themselves would make the ledger as large as the account.
            facts = f'{{"idIn":"{some[0]}, … ({len(some)} ids)"}}'
            pages.append(replace(page, reply=replace(page.reply, filter=facts)))
        return pages

    def _fetch_page(self, request: PageRequest) -> FetchedPage | Undeliverable:
        attempts = PROBE_ATTEMPTS if request.probe else FIRST_ATTEMPTS
        try:
            return self._page(request, attempts)
        except ServiceFailure as failure:
            if failure.code not in ROW_FAILURES:
                return self._page(request, FIRST_ATTEMPTS)
        if not self._without_auto_finalize and not request.probe:
            # A cache outage on the service's side looks the same, and this avoids the cache.
            self._without_auto_finalize = True
            try:
                page = self._page(request, 1)
            except ServiceFailure as failure:
                self._without_auto_finalize = False
                if failure.code not in ROW_FAILURES:
                    raise
            else:
                log.warning("reading without autoFinalize: the service fails on it")
                return page
        return Undeliverable(request)

    def _page(self, request: PageRequest, attempts: int) -> FetchedPage:
        return self._trusted(
            lambda: self._tokens.list_page(
                request.index,
                request.size,
                descending=request.descending,
                omit_auto_finalize=self._without_auto_finalize,
                attempts=attempts,
            ),
            descending=request.descending,
        )

    def _trusted(
        self, ask: Callable[[], PageReply], *, descending: bool | None = False
    ) -> FetchedPage:
        """Ask until the page is one that proves something, a bounded number of times."""
        for tries_left in range(UNTRUSTED_PAGE_TRIES - 1, -1, -1):
            reply = ask()
            try:
                decoded = decode_rows(reply.rows, partner_id=self._partner_id, now=self._clock())
                positions = decoded.positions
                page_span(positions[::-1] if descending else positions)
            except ValueError:
                refusal = DataRefused(
                    f"Page {reply.page_index} (size {reply.page_size}) did not come in createdAt "
                    "order: the service ignored orderBy, and such a page proves nothing.",
                    reason="unordered_page",
                    page_index=reply.page_index,
                )
            except DataRefused as exc:
                if exc.fields.get("reason") in FINAL_REASONS:
                    raise
                refusal = exc
            else:
                return FetchedPage.of(reply, decoded)
            if tries_left:
                log.warning(
                    "page refused, asking again",
                    extra={"reason": refusal.fields.get("reason"), "page_index": reply.page_index},
                )
        raise refusal
