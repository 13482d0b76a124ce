"""Fetch what the walk asks for, with a small pool of threads.

Here the service's replies become plain rows: read, decoded and checked for order.  A page that
cannot be trusted is asked for again; a page that the service cannot deliver comes back as
``Undeliverable``, and the walk steps around what is in its way.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from etl.coverage import page_span
from etl.errors import DataRefused, ServiceFailure
from etl.tokens.decode import decode_rows
from etl.tokens.page import Page, page_of
from etl.tokens.pseudonyms import Suppression
from etl.tokens.token import OPEN_STATUSES, DecodedRows
from etl.walk import Lookup, PageRequest, Request

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
STATUS_IN_OPEN: Final = ",".join(map(str, OPEN_STATUSES))
"""``statusIn`` of the list of open tokens."""
ROW_FAILURES: Final = frozenset({"INTERNAL_SERVERL_ERROR", "INTERNAL_SERVER_ERROR"})
"""What the service says when one row of a page breaks it, and when its cache is down."""
FINAL_REASONS: Final = frozenset({"foreign_partner"})
"""Page-level refusals that another try must not talk away."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """The service failed on this page each time, in the way of an unreadable row."""

    request: PageRequest


Fetched = Page | Undeliverable | list[Page]


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

    def look_up(self, token_ids: Sequence[str]) -> list[Page]:
        """Which of these tokens are listed, as many requests as it takes."""
        # In the order in which the database sorts ids: the ledger names the ends of each request.
        ordered = sorted(token_ids)
        pages: list[Page] = []
        for begin in range(0, len(ordered), LOOKUP_IDS_AT_MOST):
            pages += self._look_up_some(ordered[begin : begin + LOOKUP_IDS_AT_MOST])
        return pages

    def _look_up_some(self, ids: Sequence[str]) -> list[Page]:
        """The answers to a look-up; one that was cut off is asked for again in halves.

        A token that is not in the answer counts as not listed, so the answer must be whole: the
        service may give fewer rows a page than there are ids.
        """
        page = self._trusted(lambda: self._tokens.list_by_id(ids))
        total = page.facts.total_count
        if len(ids) > 1 and total is not None and total > len(page.token_ids):
            half = len(ids) // 2
            return self._look_up_some(ids[:half]) + self._look_up_some(ids[half:])
        facts = msgspec.structs.replace(page.facts, filter=_lookup_facts(ids))
        return [replace(page, facts=facts, asked=tuple(ids))]

    def _fetch_page(self, request: PageRequest, open_only: bool) -> Page | Undeliverable:
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

    def _page(self, request: PageRequest, open_only: bool, attempts: int) -> Page:
        page = self._trusted(
            lambda: self._tokens.list_page(
                request.index,
                request.size,
                descending=request.descending,
                status_in=STATUS_IN_OPEN if open_only else None,
                omit_auto_finalize=self._without_auto_finalize,
                attempts=attempts,
            ),
            descending=request.descending,
        )
        return replace(page, open_only=open_only)

    def _trusted(self, ask: Callable[[], PageReply], *, descending: bool | None = False) -> Page:
        """Ask until the page is one that proves something, a bounded number of times."""
        for tries_left in range(UNTRUSTED_PAGE_TRIES - 1, -1, -1):
            reply = ask()
            facts = reply.facts
            try:
                # By the time of the reply, so that reading it again later comes to the same.
                decoded = decode_rows(
                    reply.rows, partner_id=self._partner_id, now=facts.received_at
                )
                positions = decoded.positions
                page_span(positions[::-1] if descending else positions)
            except ValueError:
                refusal = DataRefused(
                    f"Page {facts.page_index} (size {facts.page_size}) did not come in createdAt "
                    "order: the service ignored orderBy, and such a page proves nothing.",
                    reason="unordered_page",
                    page_index=facts.page_index,
                )
            except DataRefused as exc:
                if exc.fields.get("reason") in FINAL_REASONS:
                    raise
                refusal = exc
            else:
                return suppress(page_of(facts, reply.body, reply.rows, decoded), self._suppression)
            if tries_left:
                log.warning(
                    "page refused, asking again",
                    extra={"reason": refusal.fields.get("reason"), "page_index": facts.page_index},
                )
        raise refusal


def suppress(page: Page, suppression: Suppression | None) -> Page:
    """The page with pseudonyms for those who were erased; its reply stays as it came."""
    if suppression is None:
        return page
    rows = DecodedRows(list(page.tokens), list(page.rejected), list(page.positions), Counter())
    decoded, raw = suppression.suppress(rows, page.raw)
    return replace(page, tokens=decoded.tokens, rejected=decoded.rejected, raw=raw)


def _lookup_facts(ids: Sequence[str]) -> str:
    """The filter of a look-up as canonical JSON: all ids, or the ends of many."""
    if len(ids) <= IDS_IN_LEDGER:
        return msgspec.json.encode({"idIn": ",".join(ids)}).decode()
    facts: dict[str, object] = {"idIn": f"{ids[0]},…,{ids[-1]}", "ids": len(ids)}
    return msgspec.json.encode(facts).decode()
