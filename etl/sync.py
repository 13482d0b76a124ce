"""One run, from opening to publishing: walk and stage, confirm, audit, publish.

The only place where the service meets the warehouse.  A run that fails anywhere changes nothing
that a reader can see; its coverage stays, and the next run goes on from there.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from etl.audit import audit
from etl.coverage import EVERYTHING, Span
from etl.errors import DataRefused, EtlError, ServiceUnavailable
from etl.fetch import Fetched, FetchedPage, Fetcher, Undeliverable
from etl.source import open_upload_tokens
from etl.walk import Hole, Lookup, PageRequest, Request, Walk, WalkStuck
from etl.warehouse.engine import connect
from etl.warehouse.runs import AuditCounts, OpenRun, StagedPage
from etl.warehouse.store import Warehouse

if TYPE_CHECKING:
    from etl.kaltura.upload_token import UploadTokens
    from etl.options import SyncOptions
    from etl.progress import Progress
    from etl.settings import Settings
    from etl.stop import Stop

log = logging.getLogger(__name__)

BATCH_PAGES: Final = 8
"""Pages that are compared with the warehouse together: 4,000 rows cost little more than 500."""
BATCH_SECONDS: Final = 20.0
"""A checkpoint is written at least this often, for a walk of slow pages."""
TIE_BATCH_PAGES: Final = 24
"""A batch may grow to this while a tie is being certified."""
PAGES_AHEAD_PER_THREAD: Final = 2
LOOKUP_IDS: Final = 500
SMALL_ACCOUNT: Final = 20_000
WALKS_AT_MOST: Final = 3
CHANGES_SHOWN: Final = 1_000
STOP_POLL_SECONDS: Final = 0.5
GARBAGE_COLLECTION: Final = (50_000, 20, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run came to.  Counts are of tokens unless they say otherwise."""

    run_id: int
    status: str
    mode: str
    partner_id: int
    tokens_read: int
    rows_read: int
    inserted: int
    changed: int
    absent: int
    relisted: int
    unchanged: int
    rejected: int
    """Rows that could not be loaded; they are in ``rejected_row``."""
    unreadable: int
    requests: int
    retries: int
    pages: int
    duration_seconds: float
    coverage: str
    """The certificate: ``{(,)}`` is everything."""
    holes: list[dict[str, Any]]
    resumed_from: int | None
    published_at: datetime | None
    dry_run: bool
    changes: list[dict[str, Any]] = field(default_factory=list)
    """For a dry run: the first changes that it would have published."""


def sync_full(
    settings: Settings, options: SyncOptions, *, stop: Stop, progress: Progress
) -> RunReport:
    """Read the whole account and publish what changed.  ``settings.database_url`` must be set.

    Raises the errors of ``etl.errors``; the ledger then says what happened.
    """
    # A batch is thousands of small objects without cycles: looking for cycles among them every 700
    # objects took a quarter of the processor time of a run.
    gc.freeze()
    gc.set_threshold(*GARBAGE_COLLECTION)
    warehouse = Warehouse(connect(str(settings.database_url)), settings.schema)
    try:
        warehouse.require_current_schema()
        clock = _Clock()
        with open_upload_tokens(settings, stop, clock=clock) as tokens:
            run = warehouse.open_run(
                partner_id=settings.require_partner_id(),
                mode=options.mode,
                lease_seconds=settings.lease_seconds,
                resume_window=settings.resume_window if options.resume else None,
                dry_run=options.dry_run,
            )
            clock.read = run.clock
            sync = _Sync(settings, options, warehouse, run, tokens, stop, progress)
            return _finish_or_fail(sync, warehouse, run)
    finally:
        warehouse.close()


def _finish_or_fail(sync: _Sync, warehouse: Warehouse, run: OpenRun) -> RunReport:
    try:
        return sync.run_all()
    except EtlError as error:
        error.fields.setdefault("run_id", run.run_id)
        warehouse.fail_run(run, error)
        raise
    except BaseException as error:
        warehouse.fail_run(run, EtlError(f"This is a bug: {type(error).__name__}"))
        raise


class _Clock:
    """The database's clock as soon as a run is open; this machine's may be years off."""

    def __init__(self) -> None:
        self.read: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.read()


class _Sync:
    """The state of one run between its stages."""

    def __init__(
        self,
        settings: Settings,
        options: SyncOptions,
        warehouse: Warehouse,
        run: OpenRun,
        tokens: UploadTokens,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._options = options
        self._warehouse = warehouse
        self._run = run
        self._tokens = tokens
        self._stop = stop
        self._progress = progress
        self._began = time.monotonic()
        self._batch: list[StagedPage] = []
        self._saved = time.monotonic()
        self._tie: datetime | None = None
        self._walk = self._new_walk()

    def run_all(self) -> RunReport:
        """Walk, confirm, audit and publish."""
        log.info(
            "run opened",
            extra={"run_id": self._run.run_id, "resumed_from": self._run.resumed_from},
        )
        with Fetcher(
            self._tokens,
            partner_id=self._run.partner_id,
            concurrency=self._settings.concurrency,
            clock=self._run.clock,
        ) as fetcher:
            counts = self._walk_until_staged(fetcher)
        audit(
            counts,
            target=EVERYTHING,
            coverage=self._run.coverage,
            holes=self._walk.holes,
            max_unreadable=self._settings.max_unreadable,
            accept_absences=self._options.accept_absences,
        )
        self._stop.check()
        if self._options.dry_run:
            changes = self._warehouse.plan_changes(self._run, CHANGES_SHOWN)
            self._warehouse.finish_dry_run(self._run)
            return self._report(counts, None, changes)
        published_at = self._warehouse.publish(
            self._run,
            counts,
            holes=_holes_for_ledger(self._walk.holes),
            overrides=self._overrides(),
            total_counts=(self._run.total_count_first, self._run.total_count_last),
            requests=self._tokens.counters.requests,
            retries=self._tokens.counters.retries,
            unreadable=self._walk.unreadable,
        )
        self._prune()
        return self._report(counts, published_at, [])

    def _walk_until_staged(self, fetcher: Fetcher) -> AuditCounts:
        """Walk and confirm; start over if a crash of the database emptied the staging table."""
        for _ in range(WALKS_AT_MOST):
            self._walk_and_stage(fetcher)
            self._confirm_missing(fetcher)
            counts = self._warehouse.audit_counts(self._run)
            if counts.staged_now == counts.staged_expected:
                return counts
            log.warning("the staging table was emptied; the walk starts over")
            self._warehouse.restart_walk(self._run)
            self._walk = self._new_walk()
        raise DataRefused(
            "The database emptied the staging table again and again: it seems to restart.",
            reason="staging_lost",
        )

    # --- walking -----------------------------------------------------------------------------

    def _new_walk(self) -> Walk:
        # The holes of a resumed walk are not taken over: what could not be read then may be now.
        return Walk(
            EVERYTHING,
            page_size=self._settings.page_size,
            coverage=self._run.coverage,
            max_unreadable=self._settings.max_unreadable,
            # As many as may be under way, so that the service never waits for the warehouse.
            lanes=self._pages_ahead(),
        )

    def _pages_ahead(self) -> int:
        return max(2, self._settings.concurrency * PAGES_AHEAD_PER_THREAD)

    def _walk_and_stage(self, fetcher: Fetcher) -> None:
        window = self._pages_ahead()
        in_flight: deque[tuple[Request, Future[Fetched]]] = deque()
        try:
            while True:
                while len(in_flight) < window:
                    request = self._walk.next_request()
                    if request is None:
                        break
                    in_flight.append((request, fetcher.submit(request)))
                if not in_flight:
                    break
                request, future = in_flight.popleft()
                self._take_in(request, self._wait(future))
                self._save_batch_if_due()
        except WalkStuck as stuck:
            self._save_batch()
            raise _refusal(stuck) from stuck
        finally:
            for _, future in in_flight:
                future.cancel()
        self._save_batch()

    def _wait(self, future: Future[Fetched]) -> Fetched:
        """The reply; looks up from waiting to see whether a stop was asked for."""
        while True:
            self._stop.check()
            try:
                return future.result(timeout=STOP_POLL_SECONDS)
            except FutureTimeoutError:
                if future.done():
                    raise

    def _take_in(self, request: Request, fetched: Fetched) -> None:
        if isinstance(fetched, Undeliverable):
            self._walk.fail(fetched.request)
        elif isinstance(request, Lookup):
            assert isinstance(fetched, list)  # noqa: S101 - a look-up's future gives pages
            listed = {token_id for page in fetched for token_id in page.token_ids if token_id}
            self._batch.extend(_staged(page, None) for page in fetched)
            self._tie = next(
                (token.created_at for page in fetched for token in page.decoded.tokens), None
            )
            self._walk.receive_lookup(request, listed)
        else:
            assert isinstance(fetched, FetchedPage)  # noqa: S101
            assert isinstance(request, PageRequest)  # noqa: S101
            span = self._walk.receive(request, fetched.rows())
            self._batch.append(_staged(fetched, span))
            self._run.small = (self._walk.total_count or 0) <= SMALL_ACCOUNT
            total = self._walk.total_count
            rows = self._run.rows_read + sum(page.rows for page in self._batch)
            pages = self._run.pages + len(self._batch)
            self._progress.update(rows if total is None else min(rows, total), total, pages)

    def _save_batch_if_due(self) -> None:
        if self._tie is not None:
            # A second with more tokens than a page holds is certified by several pages.  They stay
            # in one batch with the look-up between them, which shows the whole group: in a batch
            # of its own, the last page would make the rest of the group look missing.
            certified = self._walk.coverage.contains(int(self._tie.timestamp()))
            if not certified and len(self._batch) < TIE_BATCH_PAGES:
                return
            self._tie = None
        if len(self._batch) >= BATCH_PAGES or time.monotonic() - self._saved > BATCH_SECONDS:
            self._save_batch()

    def _save_batch(self) -> None:
        """A checkpoint: what the pages said and the coverage, in one transaction."""
        self._saved = time.monotonic()
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        for page in batch:
            page.seq = self._run.next_seq
            self._run.next_seq += 1
        self._warehouse.stage_batch(
            self._run,
            batch,
            coverage=self._walk.coverage,
            holes=_holes_for_ledger(self._walk.holes),
            requests=self._tokens.counters.requests,
            retries=self._tokens.counters.retries,
        )

    # --- absences ----------------------------------------------------------------------------

    def _confirm_missing(self, fetcher: Fetcher) -> None:
        """Ask by id for what was missing where it ought to be: only silence is an absence."""
        after: str | None = None
        while True:
            self._stop.check()
            missing = self._warehouse.missing_tokens(self._run, after=after, limit=LOOKUP_IDS * 20)
            if not missing:
                return
            after = missing[-1][0]
            # A comma would cut an id in two; such a token stays as it is known.
            asked = [token_id for token_id, _ in missing if "," not in token_id]
            for begin in range(0, len(asked), LOOKUP_IDS):
                some = asked[begin : begin + LOOKUP_IDS]
                (page,) = self._wait(fetcher.submit(Lookup(tuple(some))))  # type: ignore[misc]
                assert isinstance(page, FetchedPage)  # noqa: S101
                staged = _staged(page, None)
                staged.seq = self._run.next_seq
                self._run.next_seq += 1
                self._warehouse.stage_lookup(
                    self._run, some, staged, absence_grace=self._settings.absence_grace
                )

    # --- the end -----------------------------------------------------------------------------

    def _overrides(self) -> dict[str, Any]:
        if self._options.accept_absences is None:
            return {}
        return {"accept_absences": self._options.accept_absences}

    def _prune(self) -> None:
        """Old pages and rejected rows go; the run has published, so a failure is a warning."""
        try:
            self._warehouse.prune(self._settings.keep_pages_days)
        except EtlError as error:
            log.warning("old pages were not pruned", extra={"reason": error.message})

    def _report(
        self, counts: AuditCounts, published_at: datetime | None, changes: list[dict[str, Any]]
    ) -> RunReport:
        run = self._run
        return RunReport(
            run_id=run.run_id,
            status="succeeded" if published_at else "dry run",
            mode=run.mode,
            partner_id=run.partner_id,
            tokens_read=counts.tokens_read,
            rows_read=run.rows_read,
            inserted=counts.inserted,
            changed=counts.changed,
            absent=counts.absent,
            relisted=counts.relisted,
            unchanged=counts.unchanged,
            rejected=counts.rejected,
            unreadable=self._walk.unreadable,
            requests=self._tokens.counters.requests,
            retries=self._tokens.counters.retries,
            pages=run.pages,
            duration_seconds=round(time.monotonic() - self._began, 3),
            coverage=run.coverage.to_sql(),
            holes=_holes_for_ledger(self._walk.holes),
            resumed_from=run.resumed_from,
            published_at=published_at,
            dry_run=self._options.dry_run,
            changes=changes,
        )


def _staged(page: FetchedPage, span: Span | None) -> StagedPage:
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
    )


def _refusal(stuck: WalkStuck) -> EtlError:
    if stuck.reason == "outage":
        return ServiceUnavailable(
            "The service answers INTERNAL_SERVERL_ERROR whatever page is asked for. "
            "Nothing was published; try again later.",
            code="INTERNAL_SERVERL_ERROR",
        )
    reason = "unreadable" if stuck.reason == "unreadable" else "incomplete"
    return DataRefused(f"The walk was given up: {stuck}. Nothing was published.", reason=reason)


def _holes_for_ledger(holes: list[Hole]) -> list[dict[str, Any]]:
    return [
        {"span": hole.span.to_sql(), "reason": hole.reason, "tokens": hole.tokens} for hole in holes
    ]
