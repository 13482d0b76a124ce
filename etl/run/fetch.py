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
from typing import TYPE_CHECKING, Final

import msgspec

from etl.coverage import Span, page_span
from etl.errors import DataRefused, ServiceFailure
from etl.tokens.decode import DecodedRows, decode_rows
from etl.tokens.pseudonyms import Suppression
from etl.walk import Lookup, PageRequest, PageRows, Request
from etl.warehouse.ledger.run import StagedPage

if TYPE_CHECKING:
    from etl.kaltura.upload_token import PageReply, UploadTokens

log = logging.getLogger(__name__)

UNTRUSTED_PAGE_TRIES: Final = 3
FIRST_ATTEMPTS: Final = 3
PROBE_ATTEMPTS: Final = 1
"""A row that fails once is asked for again before it is called unreadable."""
LOOKUP_IDS_AT_MOST: Final = 500
IDS_IN_LEDGER: Final = 20
"""Of a longer look-up, the ledger names the first and the last id."""
OPEN_STATUSES: Final = "0,1,2"
"""``statusIn`` of the list of open tokens."""
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
    asked: tuple[str, ...] | None = None
    """The ids of a look-up."""
    open_only: bool = False
    """A page of the list of open tokens."""

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
        suppression: Suppression | None = None,
    ) -> None:
        self._tokens = tokens
        self._partner_id = partner_id
        self._suppression = suppression
        self._without_auto_finalize = False
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="fetch")

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        # Requests under way end by their own deadline or by the stop; nobody waits for the queued.
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, request: Request, *, open_only: bool = False) -> Future[Fetched]:
        """Start a request, of the list of open tokens with ``open_only``.

        The future raises what ``etl.kaltura`` raises, or DataRefused.
        """
        if isinstance(request, Lookup):
            return self._pool.submit(self.look_up, request.token_ids)
        return self._pool.submit(self._fetch_page, request, open_only)

    def look_up(self, token_ids: Sequence[str]) -> list[FetchedPage]:
        """Which of these tokens are listed, as many requests as it takes."""
        # In the order in which the database sorts ids: the ledger names the ends of each request.
        ordered = sorted(token_ids)
        pages: list[FetchedPage] = []
        for begin in range(0, len(ordered), LOOKUP_IDS_AT_MOST):
            pages += self._look_up_some(ordered[begin : begin + LOOKUP_IDS_AT_MOST])
        return pages

    def _look_up_some(self, ids: Sequence[str]) -> list[FetchedPage]:
        """The answers to a look-up; one that was cut off is asked for again in halves.

        A token that is not in the answer counts as not listed, so the answer must be whole: the
        service may give fewer rows a page than there are ids.
        """
        page = self._trusted(lambda: self._tokens.list_by_id(ids))
        total = page.reply.total_count
        if len(ids) > 1 and total is not None and total > len(page.token_ids):
            half = len(ids) // 2
            return self._look_up_some(ids[:half]) + self._look_up_some(ids[half:])
        reply = replace(page.reply, filter=_lookup_facts(ids))
        return [replace(page, reply=reply, asked=tuple(ids))]

    def _fetch_page(self, request: PageRequest, open_only: bool) -> FetchedPage | Undeliverable:
        attempts = PROBE_ATTEMPTS if request.probe else FIRST_ATTEMPTS
        try:
            return self._page(request, open_only, attempts)
        except ServiceFailure as failure:
            if failure.code not in ROW_FAILURES:
                return self._page(request, open_only, FIRST_ATTEMPTS)
        if not self._without_auto_finalize and not request.probe:
            # A cache outage on the service's side looks the same, and this avoids the cache.
            self._without_auto_finalize = True
            try:
                page = self._page(request, open_only, 1)
            except ServiceFailure as failure:
                self._without_auto_finalize = False
                if failure.code not in ROW_FAILURES:
                    raise
            else:
                log.warning("reading without autoFinalize: the service fails on it")
                return page
        return Undeliverable(request)

    def _page(self, request: PageRequest, open_only: bool, attempts: int) -> FetchedPage:
        page = self._trusted(
            lambda: self._tokens.list_page(
                request.index,
                request.size,
                descending=request.descending,
                status_in=OPEN_STATUSES if open_only else None,
                omit_auto_finalize=self._without_auto_finalize,
                attempts=attempts,
            ),
            descending=request.descending,
        )
        return replace(page, open_only=open_only)

    def _trusted(
        self, ask: Callable[[], PageReply], *, descending: bool | None = False
    ) -> FetchedPage:
        """Ask until the page is one that proves something, a bounded number of times."""
        for tries_left in range(UNTRUSTED_PAGE_TRIES - 1, -1, -1):
            reply = ask()
            try:
                # By the time of the reply, so that reading it again later comes to the same.
                decoded = decode_rows(
                    reply.rows, partner_id=self._partner_id, now=reply.received_at
                )
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
                return suppress(FetchedPage.of(reply, decoded), self._suppression)
            if tries_left:
                log.warning(
                    "page refused, asking again",
                    extra={"reason": refusal.fields.get("reason"), "page_index": reply.page_index},
                )
        raise refusal


def suppress(page: FetchedPage, suppression: Suppression | None) -> FetchedPage:
    """The page with pseudonyms for those who were erased; its reply stays as it came."""
    if suppression is None:
        return page
    decoded, raw = suppression.suppress(page.decoded, page.raw)
    return replace(page, decoded=decoded, raw=raw)


def staged_page(page: FetchedPage, span: Span | None) -> StagedPage:
    """A page as it goes to the warehouse, with what the walk says that it proves."""
    reply, decoded = page.reply, page.decoded
    placed = [int(position) for position in decoded.positions if position is not None]
    return StagedPage(
        seq=None,
        page_index=reply.page_index,
        page_size=reply.page_size,
        filter=reply.filter,
        requested_at=reply.requested_at,
        received_at=reply.received_at,
        total_count=reply.total_count,
        body_sha256=reply.body_sha256,
        rows=len(decoded.positions),
        first_created_at=min(placed, default=None),
        last_created_at=max(placed, default=None),
        span=span,
        tokens=decoded.tokens,
        raw=page.raw,
        rejected=decoded.rejected,
        body=reply.body,
        asked=page.asked,
        open_only=page.open_only,
    )


def _lookup_facts(ids: Sequence[str]) -> str:
    """The filter of a look-up as canonical JSON: all ids, or the ends of many."""
    if len(ids) <= IDS_IN_LEDGER:
        return msgspec.json.encode({"idIn": ",".join(ids)}).decode()
    facts: dict[str, object] = {"idIn": f"{ids[0]},…,{ids[-1]}", "ids": len(ids)}
    return msgspec.json.encode(facts).decode()
