"""Fetch what the walk asks for, with a small pool of threads, as many at a time as ``Pace`` allows.

Here the service's replies become pages: read, decoded and checked for order.  A page that cannot be
trusted is requested again.  An answer that the service fails on each time may hold a row that it
cannot serve.  Such a page is returned as ``Undeliverable``, and the walk steps around the row; such
a lookup is divided until the ids of those rows are left.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import is_not
from typing import TYPE_CHECKING, Final

import msgspec

from etl.coverage import page_span
from etl.errors import DataRefused, ServiceUnavailable
from etl.kaltura.retry import RowSuspected
from etl.process.log_context import with_log_fields
from etl.run.audit import audit_unreadable
from etl.run.pace import Pace
from etl.tokens.columns import DecodedRows
from etl.tokens.decode import decode_rows
from etl.tokens.page import Page, PageFacts, page_of
from etl.tokens.pseudonyms import Suppression
from etl.tokens.token import OPEN_STATUSES
from etl.walk import Lookup, PageRequest, Request

if TYPE_CHECKING:
    from etl.kaltura.upload_token import PageReply, UploadTokens

log = logging.getLogger(__name__)

UNTRUSTED_PAGE_TRIES: Final = 3
ROW_ATTEMPTS: Final = 3
"""An answer that fails so often inside the service is suspected to hold an unreadable row; ..."""
PROBE_ATTEMPTS: Final = 1
"""... a part of it is suspected at once.  Every other failure is retried in full, here too."""
LOOKUP_IDS_AT_MOST: Final = 500
IDS_NAMED: Final = 100
"""Of more unreadable ids, the log names the first."""
IDS_IN_LEDGER: Final = 20
"""Of a longer lookup, the ledger names the first and the last id."""
STATUS_IN_OPEN: Final = ",".join(map(str, OPEN_STATUSES))
"""``statusIn`` of the list of open tokens."""
FAILURES_LIKE_AN_OUTAGE: Final = 6
"""After so many unreadable rows in a lookup, and before a run is refused for them, a page of the
list must show that it is the rows, and not the service."""
FINAL_REASONS: Final = frozenset({"foreign_partner"})
"""Page-level refusals that are final: the page is not requested again."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """The service failed on this page each time, as it does for an unreadable row."""

    request: PageRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a lookup, in as many pages as it took."""

    pages: list[Page] = field(default_factory=list)
    """What each page was asked for (``Page.asked``) is complete on it."""
    unreadable: list[str] = field(default_factory=list)
    """The ids of rows on which the service fails each time; nothing is known of them."""


Fetched = Page | Undeliverable | Answer


class Fetcher:
    """Runs requests concurrently; ``submit`` returns a future.  Use as a context manager."""

    def __init__(
        self,
        tokens: UploadTokens,
        *,
        partner_id: int,
        concurrency: int,
        suppression: Suppression | None = None,
        max_unreadable: int | None = None,
    ) -> None:
        """``max_unreadable`` bounds the unreadable rows of one lookup; None: all that there are."""
        self._tokens = tokens
        self._max_unreadable = max_unreadable
        self._partner_id = partner_id
        self._suppression = suppression
        self._without_auto_finalize = False
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="fetch")
        self._pace = Pace(concurrency)
        self._turn = threading.Condition()
        self._in_flight = 0
        self._closed = False
        self._failure: ServiceUnavailable | None = None
        """The first of the failures that end a run."""

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        # Requests in flight end by their own deadline or by the stop; queued ones are dropped.
        with self._turn:
            self._close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, request: Request, *, open_only: bool = False) -> Future[Fetched]:
        """Start a request; with ``open_only``, one to the list of open tokens.

        The future raises what ``etl.kaltura`` raises, or DataRefused.
        """
        if isinstance(request, Lookup):
            return self._submit(lambda: self.look_up(request.token_ids))
        return self._submit(lambda: self._fetch_page(request, open_only))

    def _submit(self, fetch: Callable[[], Fetched]) -> Future[Fetched]:
        return self._pool.submit(with_log_fields(self._in_turn), fetch)

    def _in_turn(self, fetch: Callable[[], Fetched]) -> Fetched:
        """Fetch when the pace allows one more request, and tell it how that went.

        A call that fails after all its attempts ends the run, so it ends all other calls too.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._closed or self._in_flight < self._pace.limit)
            if self._closed:
                raise self._failure or CancelledError
            self._in_flight += 1
            epoch, retries = self._pace.epoch, self._tokens.counters.retries
        facts = None
        try:
            fetched = fetch()
            facts = fetched.facts if isinstance(fetched, Page) else None
        except ServiceUnavailable as failure:
            with self._turn:
                self._failure = self._failure or failure
                self._close()
            raise self._failure from None
        finally:
            with self._turn:
                self._in_flight -= 1
                self._note(epoch, self._tokens.counters.retries > retries, facts)
                self._turn.notify_all()
        return fetched

    def _close(self) -> None:
        """Begin no more requests and retry none; the caller holds the lock."""
        self._closed = True
        self._tokens.give_up()
        self._turn.notify_all()

    def _note(self, epoch: int, repeated: bool, facts: PageFacts | None) -> None:
        before, seconds, rows = self._pace.limit, None, 0
        if facts is not None:
            seconds, rows = (facts.received_at - facts.requested_at).total_seconds(), facts.rows
        self._pace.note(epoch, repeated=repeated, seconds=seconds, rows=rows)
        if self._pace.limit != before:
            log.info(
                "requests at a time: %d",
                self._pace.limit,
                extra={"in_flight_at_most": self._pace.limit, "repeated": repeated},
            )

    def look_up(self, token_ids: Sequence[str]) -> Answer:
        """Look up which of these tokens are listed, in as many requests as it takes.

        A token that is on no page of the answer counts as not listed, so each page must be
        complete.  One that was cut off (the service may return fewer rows than there are ids) and
        one that the service fails on are requested again in halves, down to single ids.

        Raises DataRefused for more unreadable rows than allowed, ServiceUnavailable if the service
        fails on everything.
        """
        # In the order in which the database sorts ids: the ledger names the ends of each request.
        ordered = sorted(token_ids)
        answer = Answer()
        for begin in range(0, len(ordered), LOOKUP_IDS_AT_MOST):
            self._look_up_some(ordered[begin : begin + LOOKUP_IDS_AT_MOST], answer, is_part=False)
        if answer.unreadable:
            log.warning(
                "%d tokens cannot be read: the service fails on their rows",
                len(answer.unreadable),
                extra={"token_ids": answer.unreadable[:IDS_NAMED]},
            )
        return answer

    def _look_up_some(self, ids: Sequence[str], answer: Answer, *, is_part: bool) -> None:
        page = self._look_up_once(ids, is_probe=is_part and len(ids) > 1)
        if page is not None and _is_complete(page, ids):
            answer.pages.append(page)
        elif len(ids) > 1:
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                self._look_up_some(half, answer, is_part=True)
        else:
            answer.unreadable.extend(ids)
            self._check_unreadable(answer.unreadable)

    def _look_up_once(self, ids: Sequence[str], *, is_probe: bool) -> Page | None:
        """The answer to one request; None if the service failed on it each time."""

        def ask(row_attempts: int, omit_auto_finalize: bool) -> Page:
            page = self._trusted(
                lambda: self._tokens.list_by_id(
                    ids, omit_auto_finalize=omit_auto_finalize, row_attempts=row_attempts
                )
            )
            facts = msgspec.structs.replace(page.facts, filter=_lookup_facts(ids))
            return replace(page, facts=facts, asked=tuple(ids))

        return self._unless_undeliverable(ask, is_probe=is_probe)

    def _check_unreadable(self, found: Sequence[str]) -> None:
        most = len(found) if self._max_unreadable is None else self._max_unreadable
        if len(found) > most or len(found) % FAILURES_LIKE_AN_OUTAGE == 0:
            # Retried as any failure of the service: nobody asks whether it is a row.
            self._tokens.list_page(1, 1, omit_auto_finalize=self._without_auto_finalize)
        audit_unreadable((), most, found)

    def _fetch_page(self, request: PageRequest, open_only: bool) -> Page | Undeliverable:
        def ask(row_attempts: int, omit_auto_finalize: bool) -> Page:
            page = self._trusted(
                lambda: self._tokens.list_page(
                    request.index,
                    request.size,
                    descending=request.descending,
                    status_in=STATUS_IN_OPEN if open_only else None,
                    omit_auto_finalize=omit_auto_finalize,
                    row_attempts=row_attempts,
                ),
                descending=request.descending,
            )
            return replace(page, open_only=open_only)

        page = self._unless_undeliverable(ask, is_probe=request.probe)
        return Undeliverable(request) if page is None else page

    def _unless_undeliverable(
        self, ask: Callable[[int, bool], Page], *, is_probe: bool
    ) -> Page | None:
        """What ``ask(row_attempts, omit_auto_finalize)`` gives; None where a row is suspected.

        A cache outage on the service's side looks the same, and a request without autoFinalize
        bypasses the cache.
        """
        omitted = self._without_auto_finalize
        try:
            return ask(PROBE_ATTEMPTS if is_probe else ROW_ATTEMPTS, omitted)
        except RowSuspected:
            if omitted or is_probe:
                return None
        try:
            page = ask(PROBE_ATTEMPTS, True)
        except RowSuspected:
            return None
        self._without_auto_finalize = True
        log.warning("reading without autoFinalize: the service fails on it")
        return page

    def _trusted(self, ask: Callable[[], PageReply], *, descending: bool | None = False) -> Page:
        """Retry until the page can be trusted, a bounded number of times."""
        for tries_left in range(UNTRUSTED_PAGE_TRIES - 1, -1, -1):
            reply = ask()
            facts = reply.facts
            try:
                # With the time of the reply, so that a replay decodes it to the same rows.
                decoded = decode_rows(
                    reply.rows, partner_id=self._partner_id, now=facts.received_at
                )
                positions = decoded.positions
                page_span(positions[::-1] if descending else positions)
            except ValueError:
                refusal = DataRefused(
                    f"Page {facts.page_index} (size {facts.page_size}) is not in createdAt order: "
                    "the service ignored orderBy, and such a page proves nothing.",
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
                    "page refused, requesting it again",
                    extra={"reason": refusal.fields.get("reason"), "page_index": facts.page_index},
                )
        raise refusal


def suppress(page: Page, suppression: Suppression | None) -> Page:
    """The page with pseudonyms for erased subjects; its reply stays as received."""
    if suppression is None:
        return page
    rows = DecodedRows(page.tokens, list(page.rejected), list(page.positions), Counter())
    decoded, raw = suppression.suppress(rows, page.raw)
    changed = any(map(is_not, raw, page.raw)) or any(map(is_not, decoded.rejected, page.rejected))
    return replace(
        page,
        tokens=decoded.tokens,
        rejected=decoded.rejected,
        raw=raw,
        suppressed=page.suppressed or changed,
    )


def in_lookups(token_ids: Iterable[str]) -> Iterator[list[str]]:
    """These ids, as many at a time as one request looks up.

    Without those that have a comma, which would split the id in the request: such a token keeps its
    known version.
    """
    ids = [token_id for token_id in token_ids if "," not in token_id]
    for begin in range(0, len(ids), LOOKUP_IDS_AT_MOST):
        yield ids[begin : begin + LOOKUP_IDS_AT_MOST]


def _is_complete(page: Page, ids: Sequence[str]) -> bool:
    """Whether the answer to a lookup was not cut off; one for a single id cannot be divided."""
    total = page.facts.total_count
    return len(ids) == 1 or total is None or total <= len(page.token_ids)


def _lookup_facts(ids: Sequence[str]) -> str:
    """The filter of a lookup as canonical JSON: all ids, or the first and last of many."""
    if len(ids) <= IDS_IN_LEDGER:
        return msgspec.json.encode({"idIn": ",".join(ids)}).decode()
    facts: dict[str, object] = {"idIn": f"{ids[0]},…,{ids[-1]}", "ids": len(ids)}
    return msgspec.json.encode(facts).decode()
