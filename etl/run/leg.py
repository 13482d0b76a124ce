"""One leg of a run: walk a list and stage its pages in batches."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from etl.coverage import TIE_GROUP
from etl.errors import (
    CredentialsRefused,
    DataRefused,
    EtlError,
    Interrupted,
    ServiceUnavailable,
)
from etl.run.audit import NOTHING_PUBLISHED
from etl.run.fetch import Answer, Fetched, Fetcher, Undeliverable, in_lookups
from etl.run.plan import Leg
from etl.tokens.page import Page
from etl.tokens.token import OPEN_STATUSES
from etl.walk import (
    Hole,
    Lookup,
    PageRequest,
    PageRows,
    Remembered,
    Request,
    Walk,
    WalkStuck,
)
from etl.warehouse.ledger.certificates import listed_ids
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.ledger.unreadable import unreadable_rows
from etl.warehouse.load.publish import require_fresh_pages
from etl.warehouse.load.staging import stage_batch, stage_lookup

if TYPE_CHECKING:
    from etl.archive.writer import Recorder
    from etl.kaltura.retry import Counters
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.settings.table import Settings
    from etl.warehouse.schema.database import Database

BATCH_PAGES: Final = 8
"""Pages that are compared with the warehouse together: 4,000 rows cost little more than 500."""
BATCH_PAGES_MAX: Final = 24
"""The same while pages come fast, or while a tie is being certified."""
BATCH_SOON_SECONDS: Final = 0.5
BATCH_SECONDS: Final = 20.0
"""A checkpoint is written at least this often, for a walk of slow pages."""
PAGES_AHEAD_PER_THREAD: Final = 2
"""Requests that are sent or wait for their turn, per request in flight."""
PAGES_AHEAD: Final = 16
"""At least so many for the whole list, to be fetched and decoded while a batch is saved."""
STOP_POLL_SECONDS: Final = 0.5
ROWS_READ_TWICE: Final = 1.1
"""Pages overlap: a quiet walk reads at most so many times the rows of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What all stages of a run use; made once, when the run is open."""

    settings: Settings
    database: Database
    run: OpenRun
    fetcher: Fetcher
    counters: Counters
    stop: Stop
    progress: Progress
    recorder: Recorder | None
    compare: str
    """How pages are compared with what is known: see ``stage_batch``."""
    expected_tokens: int | None = None
    unreadable_ids: set[str] = field(default_factory=set)
    """Ids that were looked up, and on whose rows the service fails each time."""

    def wait(self, future: Future[Fetched]) -> Fetched:
        """The reply; checks for a requested stop while it waits."""
        while True:
            self.stop.check()
            try:
                return future.result(timeout=STOP_POLL_SECONDS)
            except FutureTimeoutError:
                if future.done():
                    raise

    def number(self, pages: list[Page], *, lookup: bool = False) -> None:
        """Number the pages and record them in the archive; call it just before staging."""
        for seq, page in enumerate(pages, self.run.walk.next_seq):
            page.seq = seq
        self.run.walk.next_seq += len(pages)
        if self.recorder is not None:
            self.recorder.record(self.run, pages, lookup=lookup)

    def require_fresh_pages(self) -> None:
        """Raise DataRefused if a page of the walk is too old to be published."""
        require_fresh_pages(
            self.run.walk.oldest_page_at,
            now=self.run.clock(),
            age_max=self.settings.publish_age_max,
        )

    def look_up(self, token_ids: list[str]) -> set[str]:
        """Look up these ids (at most 500), stage the answers, and return the ids found."""
        answered: set[str] = set()
        answer = self.wait(self.fetcher.submit(Lookup(tuple(token_ids))))
        assert isinstance(answer, Answer)  # noqa: S101 - a lookup's future gives one
        self.unreadable_ids.update(answer.unreadable)
        for page in answer.pages:
            self.number([page], lookup=True)
            stage_lookup(self.database, self.run, page, absence_grace=self.settings.absence_grace)
            answered.update(token_id for token_id in page.token_ids if token_id is not None)
        return answered


class LegReader:
    """Walks one leg.  ``holes_before`` are the holes of earlier legs, for the ledger."""

    def __init__(self, context: RunContext, leg: Leg, holes_before: list[dict[str, Any]]) -> None:
        self._context = context
        self._leg = leg
        self._holes_before = holes_before
        self._batch: list[Page] = []
        self._saved = time.monotonic()
        self._tie: datetime | None = None
        run = context.run
        # The holes of a resumed walk are dropped: what could not be read then may be readable now.
        # They are remembered like those of other runs.
        self.walk = Walk(
            leg.target,
            page_size=context.settings.page_size,
            coverage=run.walk.open_coverage if leg.open_only else run.walk.coverage,
            max_unreadable=context.settings.max_unreadable,
            in_flight=context.settings.concurrency,
            newest_first=leg.newest_first,
            positions=() if leg.open_only else run.walk.positions or leg.positions,
            total_count=leg.total_count,
            remembered=[
                Remembered(*rows)
                for rows in unreadable_rows(
                    context.database,
                    run.partner_id,
                    tokens_before=context.settings.page_size,
                    open_only=leg.open_only,
                )
            ],
        )

    @property
    def holes(self) -> list[dict[str, Any]]:
        """The holes of this leg and of those before it, for the ledger."""
        return [*self._holes_before, *_for_ledger(self.walk.holes, self._leg)]

    def read(self) -> None:
        """Walk to the end, and stage everything.  Raises DataRefused, ServiceUnavailable, …"""
        in_flight: deque[tuple[Request, Future[Fetched]]] = deque()
        try:
            self._request_ahead(in_flight)
            while in_flight:
                request, future = in_flight.popleft()
                self._take_in(request, self._context.wait(future))
                # Before the batch is saved, so that the service does not wait for the warehouse.
                self._request_ahead(in_flight)
                self._save_batch_if_due()
        except WalkStuck as stuck:
            self._save_batch()
            raise _refusal(stuck) from stuck
        except (Interrupted, ServiceUnavailable, CredentialsRefused):
            # A run that resumes from here does not read this again.
            with suppress(EtlError):
                self._save_batch()
            raise
        finally:
            for _, future in in_flight:
                future.cancel()
        self._save_batch()
        self._look_up_busy_seconds()

    def _look_up_busy_seconds(self) -> None:
        """Look up the known tokens of the seconds that changed too fast to be certified."""
        context = self._context
        for hole in self.walk.holes:
            if hole.reason != TIE_GROUP or not hole.tokens:
                continue
            ids = listed_ids(
                context.database,
                context.run.partner_id,
                hole.span,
                open_only=self._leg.open_only,
            )
            for some in in_lookups(ids):
                context.look_up(some)

    def _request_ahead(self, in_flight: deque[tuple[Request, Future[Fetched]]]) -> None:
        """Submit what the walk wants next; as many as are fetched at a time wait for their turn."""
        window = self._context.settings.concurrency * PAGES_AHEAD_PER_THREAD
        if not (self._leg.newest_first or self._leg.open_only):
            window = max(window, PAGES_AHEAD)
        while len(in_flight) < window and (request := self.walk.next_request()) is not None:
            future = self._context.fetcher.submit(request, open_only=self._leg.open_only)
            in_flight.append((request, future))

    def _take_in(self, request: Request, fetched: Fetched) -> None:
        if isinstance(fetched, Undeliverable):
            self.walk.fail(fetched.request)
        elif isinstance(request, Lookup):
            assert isinstance(fetched, Answer)  # noqa: S101 - a lookup's future gives one
            pages = fetched.pages
            self._batch.extend(pages)
            self._tie = next((token.created_at for page in pages for token in page.tokens), None)
            self.walk.receive_lookup(request, self._listed(pages))
        else:
            assert isinstance(fetched, Page)  # noqa: S101
            assert isinstance(request, PageRequest)  # noqa: S101
            rows = PageRows(fetched.positions, fetched.token_ids, fetched.facts.total_count)
            fetched.span = self.walk.receive(request, rows)
            self._batch.append(fetched)
            self._show_progress()

    def _listed(self, answer: list[Page]) -> set[str]:
        """The ids of an answer that are on the list of this leg."""
        if self._leg.open_only:
            return {
                token.token_id
                for page in answer
                for token in page.tokens
                if token.status in OPEN_STATUSES
            }
        return {token_id for page in answer for token_id in page.token_ids if token_id}

    def _show_progress(self) -> None:
        counts, total = self._context.run.walk.counts, self.walk.total_count
        if self._leg.open_only or self._leg.newest_first:
            total = None  # how much of the list is in the range is not known beforehand
        if self._context.expected_tokens is not None:
            total = self._context.expected_tokens
        rows = counts.rows_read + sum(page.facts.rows for page in self._batch)
        pages = counts.pages + len(self._batch)
        if total is not None and rows > total * ROWS_READ_TWICE:
            total = None  # what has to be read again allows no estimate of the time that is left
        self._context.progress.update(rows if total is None else min(rows, total), total, pages)

    def _save_batch_if_due(self) -> None:
        if self._tie is not None:
            # A second with more tokens than a page holds is certified by several pages.  They stay
            # in one batch with the lookup between them, which shows the whole group: in a separate
            # batch, the last page would make the rest of the group look missing.
            certified = self.walk.coverage.contains(int(self._tie.timestamp()))
            if not certified and len(self._batch) < BATCH_PAGES_MAX:
                return
            self._tie = None
        waited = time.monotonic() - self._saved
        pages = BATCH_PAGES if waited > BATCH_SOON_SECONDS else BATCH_PAGES_MAX
        if len(self._batch) >= pages or waited > BATCH_SECONDS:
            self._save_batch()

    def _save_batch(self) -> None:
        """Write a checkpoint: pages, differences and coverage, in one transaction."""
        self._saved = time.monotonic()
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        context = self._context
        context.number(batch)
        open_only = self._leg.open_only
        stage_batch(
            context.database,
            context.run,
            batch,
            coverage=context.run.walk.coverage if open_only else self.walk.coverage,
            open_coverage=self.walk.coverage if open_only else None,
            holes=self.holes,
            requests=context.counters.requests,
            retries=context.counters.retries,
            compare=context.compare,
        )
        context.require_fresh_pages()


def _refusal(stuck: WalkStuck) -> EtlError:
    if stuck.reason == "outage":
        return ServiceUnavailable(
            "The service answers INTERNAL_SERVERL_ERROR for every page. "
            "Nothing was published; try again later.",
            code="INTERNAL_SERVERL_ERROR",
        )
    reason = stuck.reason if stuck.reason in {"unreadable", "no_progress"} else "incomplete"
    return DataRefused(f"The walk was given up: {stuck}. {NOTHING_PUBLISHED}", reason=reason)


def _for_ledger(holes: list[Hole], leg: Leg) -> list[dict[str, Any]]:
    facts: dict[str, Any] = {"open_only": True} if leg.open_only else {}
    return [
        {
            "span": hole.span.to_sql(),
            "reason": hole.reason,
            "tokens": hole.tokens,
            **({} if hole.after is None else {"after": hole.after}),
            **facts,
        }
        for hole in holes
    ]
