"""One run, from opening to publishing: walk and stage, confirm, audit, publish.

The only place where the service meets the warehouse.  The plan says what is read; this code runs
all modes.  A run that fails anywhere changes nothing that a reader can see; its coverage is kept,
and the next run of the same mode resumes from there.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from etl.errors import DataRefused, EtlError, LeaseHeld
from etl.kaltura.retry import Counters
from etl.run.audit import (
    audit_changes,
    audit_coverage,
    audit_fields,
    audit_unreadable,
    overrides_of,
)
from etl.run.fetch import LOOKUP_IDS_AT_MOST, Fetcher, in_lookups
from etl.run.leg import LegReader, RunContext
from etl.run.plan import Planner, RunPlan
from etl.run.report import Figures, RunReport
from etl.run.service import open_upload_tokens, service_address
from etl.warehouse.ledger.attempts import begin_attempt, recorded_attempt, still_starting
from etl.warehouse.ledger.certificates import unknown_ids
from etl.warehouse.ledger.ending import failed_on_error, finish_dry_run
from etl.warehouse.ledger.lease import open_run, restart_walk
from etl.warehouse.ledger.run import OpenRun
from etl.warehouse.load.digests import fill_digests
from etl.warehouse.load.missing import missing_tokens
from etl.warehouse.load.publish import plan_changes, publish
from etl.warehouse.load.ready import require_ready
from etl.warehouse.load.resolve import AuditCounts, audit_counts
from etl.warehouse.load.vanished import Vanished, vanished_fields
from etl.warehouse.privacy.erase import load_suppression
from etl.warehouse.privacy.prune import prune_old_pages
from etl.warehouse.schema.database import Database, open_database

if TYPE_CHECKING:
    from etl.archive.writer import Recorder
    from etl.kaltura.upload_token import UploadTokens
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.run.plan import SyncOptions
    from etl.settings.table import Settings

log = logging.getLogger(__name__)

WALKS_AT_MOST: Final = 3
STAGING_LOST: Final = "staging_lost"
CHANGES_SHOWN: Final = 1_000
LEASE_POLL_SECONDS: Final = 1.0
WAITING_SAID_SECONDS: Final = 60.0
GARBAGE_COLLECTION: Final = (50_000, 20, 50)


def run_plan(
    settings: Settings,
    options: SyncOptions,
    plan_for: Planner,
    *,
    stop: Stop,
    progress: Progress,
    figures: Figures | None = None,
) -> RunReport:
    """Read what the plan says and publish what changed.  ``settings.database_url`` must be set.

    ``figures`` is filled in as the run goes on, also of one that fails.  Raises the errors of
    ``etl.errors``, which the ledger records as well.
    """
    figures = Figures() if figures is None else figures
    with (
        rare_garbage_collection(),
        open_database(str(settings.database_url), settings.schema) as database,
        ExitStack() as opened,
    ):
        require_ready(database)
        attempt = begin_attempt(
            database,
            partner_id=settings.require_partner_id(),
            mode=options.mode,
            service=service_address(settings.service_url),
            label=options.label,
            dry_run=options.dry_run,
        )
        clock, counters = _Clock(), Counters()
        figures.counters = counters
        progress.stage("logging in")
        with recorded_attempt(database, attempt, counters.columns), worded_errors(settings):
            tokens = opened.enter_context(
                open_upload_tokens(
                    settings,
                    stop,
                    clock=clock,
                    counters=counters,
                    in_flight=options.in_flight,
                    rate=options.request_rate,
                    patient=options.patient,
                )
            )
            recorder = _recorder(settings, options, database)
            run, plan = _take_lease(settings, options, plan_for, database, attempt, stop, progress)
        clock.read, run.wait = run.clock, stop.wait
        figures.run = run
        engine = _Engine(
            settings, options, plan, database, run, tokens, stop, progress, recorder, figures
        )
        with failed_on_error(database, run, counters.columns), worded_errors(settings):
            return engine.run_all()


@contextmanager
def worded_errors(settings: Settings) -> Iterator[None]:
    """Errors of the block name the settings as they were given."""
    try:
        yield
    except EtlError as error:
        error.message = settings.worded(error.message)
        error.args = (error.message,)
        raise


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect garbage rarely during a run.

    A batch is thousands of small objects without cycles: with the default threshold of 700
    objects, collection took a quarter of the CPU time of a run.  Inside another such block this
    does nothing.
    """
    thresholds = gc.get_threshold()
    if thresholds == GARBAGE_COLLECTION:
        yield
        return
    _freeze_modules()
    gc.set_threshold(*GARBAGE_COLLECTION)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@cache
def _freeze_modules() -> None:
    """Once, because what is frozen is never freed; gc.get_freeze_count() would count it all."""
    gc.freeze()


def _recorder(settings: Settings, options: SyncOptions, database: Database) -> Recorder | None:
    if settings.archive is None or options.dry_run:
        return None
    from etl.archive.writer import open_recorder  # noqa: PLC0415 - what only an archive needs

    return open_recorder(settings.archive, database, absence_grace=settings.absence_grace)


def _take_lease(
    settings: Settings,
    options: SyncOptions,
    plan_for: Planner,
    database: Database,
    attempt: int,
    stop: Stop,
    progress: Progress,
) -> tuple[OpenRun, RunPlan]:
    """Open the run; wait for a running one to end for as long as ``options`` allow."""
    deadline = time.monotonic() + options.wait_seconds
    said = float("-inf")
    while True:
        stop.check()
        plan = plan_for(database)
        try:
            run = open_run(
                database,
                partner_id=settings.require_partner_id(),
                mode=plan.mode,
                service=service_address(settings.service_url),
                range_from=plan.range_from,
                range_to=plan.range_to,
                lease_seconds=settings.lease_seconds,
                # Two lists of ids look alike in the ledger.
                resume_window=(
                    settings.resume_window if options.resume and not plan.token_ids else None
                ),
                page_age_max=settings.publish_age_max,
                dry_run=options.dry_run,
                label=options.label,
                attempt=attempt,
            )
        except LeaseHeld as held:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            if said == float("-inf"):
                progress.stage("waiting")
            if time.monotonic() - said > WAITING_SAID_SECONDS:
                said = time.monotonic()
                still_starting(database, attempt)
                log.info("waiting: %s", held.message, extra={"wait_seconds_left": round(left)})
            stop.wait(min(left, LEASE_POLL_SECONDS))
        else:
            return run, plan


class _Clock:
    """The database's clock once a run is open; this machine's may be years off."""

    def __init__(self) -> None:
        self.read: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.read()


class _Engine:
    """The state of one run between its stages."""

    def __init__(
        self,
        settings: Settings,
        options: SyncOptions,
        plan: RunPlan,
        database: Database,
        run: OpenRun,
        tokens: UploadTokens,
        stop: Stop,
        progress: Progress,
        recorder: Recorder | None,
        figures: Figures,
    ) -> None:
        self._figures = figures
        self._settings = settings
        self._options = options
        self._plan = plan
        self._database = database
        self._run = run
        self._tokens = tokens
        self._stop = stop
        self._progress = progress
        self._recorder = recorder
        self._began = time.monotonic()
        self._readers: list[LegReader] = []
        self._found: set[str] = set()
        self._unreadable_ids: set[str] = set()
        self._vanished: list[Vanished] = []

    def run_all(self) -> RunReport:
        """Walk, confirm, audit and publish."""
        run, plan = self._run, self._plan
        facts = {
            "run_id": run.run_id,
            "mode": plan.mode,
            "resumed_from": run.resumed_from,
            "range_from": plan.range_from,
            "range_to": plan.range_to,
            "expected_tokens": plan.expected_tokens,
            "expected_requests": plan.expected_requests,
        }
        log.info("run opened", extra={name: v for name, v in facts.items() if v is not None})
        if plan.full_because is not None:
            log.warning("a full run instead of an incremental one: %s", plan.full_because)
        if self._recorder is not None and not self._recorder.begin(run):
            log.warning("the archive lacks a part of the walk: the walk starts over")
            restart_walk(self._database, run)
        with Fetcher(
            self._tokens,
            partner_id=run.partner_id,
            concurrency=self._settings.concurrency,
            suppression=load_suppression(
                self._database, run.partner_id, self._settings.erasure_key
            ),
            max_unreadable=self._settings.max_unreadable,
        ) as fetcher:
            counts = self._walk_until_audited(
                RunContext(
                    settings=self._settings,
                    database=self._database,
                    run=run,
                    fetcher=fetcher,
                    counters=self._tokens.counters,
                    stop=self._stop,
                    progress=self._progress,
                    recorder=self._recorder,
                    compare=self._options.compare,
                    expected_tokens=plan.expected_tokens,
                    unreadable_ids=self._unreadable_ids,
                )
            )
        self._stop.check()
        if self._options.dry_run:
            changes = plan_changes(self._database, run, CHANGES_SHOWN)
            not_found = self._not_found()
            finish_dry_run(self._database, run, **self._tokens.counters.columns())
            return self._report(counts, None, changes, not_found)
        not_found = self._not_found()
        self._progress.stage("publishing", changes=counts.versions)
        published_at = publish(
            self._database,
            run,
            counts,
            holes=self._holes(),
            overrides=overrides_of(self._options),
            requests=self._tokens.counters.requests,
            retries=self._tokens.counters.retries,
            unreadable=self._unreadable(),
            page_age_max=self._settings.publish_age_max,
        )
        if self._recorder is not None:
            self._recorder.finish(run)
        self._progress.stage("tidying up")
        self._maintain()
        return self._report(counts, published_at, [], not_found)

    # --- reading -----------------------------------------------------------------------------

    def _walk_until_audited(self, context: RunContext) -> AuditCounts:
        """Read, confirm and audit.

        A run is refused for what it has read itself, never for what an earlier run of the walk has
        read: the service may have been fixed since.  So a resumed walk that fails the audit starts
        over, and so does one whose staging was emptied by a crash of the database.
        """
        walks = 1
        while True:
            try:
                counts = self._read_and_confirm(context)
                self._audit(context, counts)
            except DataRefused as refusal:
                reason = refusal.fields.get("reason")
                if walks == WALKS_AT_MOST or not (self._run.is_resumed or reason == STAGING_LOST):
                    raise
                log.warning(
                    "the resumed walk cannot be published and starts over: %s",
                    refusal.message,
                    extra={"reason": reason},
                )
            else:
                return counts
            restart_walk(self._database, self._run)
            walks += 1

    def _read_and_confirm(self, context: RunContext) -> AuditCounts:
        self._progress.stage("reading")
        self._readers = []
        self._unreadable_ids.clear()
        for leg in self._plan.legs:
            self._readers.append(LegReader(context, leg, self._holes()))
            self._readers[-1].read()
        self._ask_for_ids(context)
        self._progress.stage("confirming")
        self._confirm_missing(context)
        self._progress.stage("auditing")
        self._figures.counts = audit_counts(self._database, self._run)
        return self._figures.counts

    def _ask_for_ids(self, context: RunContext) -> None:
        ids = sorted(self._plan.token_ids)
        self._found = set()
        for begin in range(0, len(ids), LOOKUP_IDS_AT_MOST):
            some = ids[begin : begin + LOOKUP_IDS_AT_MOST]
            self._found |= context.look_up(some)
            self._progress.update(begin + len(some), len(ids), self._run.walk.counts.pages)

    def _confirm_missing(self, context: RunContext) -> None:
        """Look up by id what was missing from its page: only a lookup confirms an absence.

        In an incremental run these include the known open tokens that it has found neither among
        the newest nor among the open ones.
        """
        after: str | None = None
        confirmed = 0
        while True:
            self._stop.check()
            missing = missing_tokens(
                self._database, self._run, after=after, limit=LOOKUP_IDS_AT_MOST * 100
            )
            if not missing:
                return
            after = missing[-1][0]
            for some in in_lookups(token_id for token_id, _ in missing):
                context.look_up(some)
                confirmed += len(some)
                self._progress.update(confirmed, None, self._run.walk.counts.pages)

    # --- the end -----------------------------------------------------------------------------

    def _audit(self, context: RunContext, counts: AuditCounts) -> None:
        if counts.staged_now != counts.staged_expected:
            raise DataRefused(
                "The database emptied the staging table: it seems to be restarting repeatedly. "
                "Nothing was published; run again when it is stable.",
                reason=STAGING_LOST,
            )
        context.require_fresh_pages()
        for leg, reader in zip(self._plan.legs, self._readers, strict=True):
            audit_coverage(
                target=leg.target,
                coverage=self._run.walk.open_coverage if leg.open_only else self._run.walk.coverage,
                holes=reader.walk.holes,
                max_unreadable=self._settings.max_unreadable,
            )
        worst = max(
            (reader.walk for reader in self._readers), key=attrgetter("unreadable"), default=None
        )
        audit_unreadable(
            worst.holes if worst is not None else (),
            self._settings.max_unreadable,
            self._unreadable_ids,
        )
        audit_changes(
            counts,
            accept_absences=self._options.accept_absences,
            accept_rejected=self._options.accept_rejected,
        )
        self._audit_fields(counts)

    def _audit_fields(self, counts: AuditCounts) -> None:
        """Refuse a run from which a field has vanished; an incremental one reads too few tokens to
        be sure, and warns."""
        self._vanished = vanished_fields(self._database, self._run, counts)
        if self._run.mode != "incremental":
            audit_fields(self._vanished, accepted=self._options.accept_vanished_fields)
        for each in self._vanished:
            facts = each._asdict()
            log.warning(
                "the field %(field)s has vanished from %(lacking)d of %(of)d tokens",
                facts,
                extra=facts,
            )

    def _holes(self) -> list[dict[str, Any]]:
        return self._readers[-1].holes if self._readers else []

    def _unreadable(self) -> int:
        in_holes = sum(reader.walk.unreadable for reader in self._readers)
        return in_holes + len(self._unreadable_ids)

    def _not_found(self) -> list[str]:
        answered = self._found | self._unreadable_ids
        silent = [token_id for token_id in self._plan.token_ids if token_id not in answered]
        return unknown_ids(self._database, self._run.partner_id, silent)

    def _maintain(self) -> None:
        """Delete old pages and rejected rows, and fill in digests that known tokens lack.

        The run has published: a failure is a warning.
        """
        run = self._run
        try:
            prune_old_pages(self._database, self._settings.keep_pages_days)
        except EtlError as error:
            log.warning("old pages were not pruned", extra={"reason": error.message})
        if not run.walk.undigested:
            return
        try:
            filled = fill_digests(
                self._database, run.partner_id, run.run_id, check=self._stop.check
            )
        except EtlError as error:
            log.warning("digests were not filled in", extra={"reason": error.message})
        else:
            log.info("digests filled in", extra={"tokens": filled})

    def _report(
        self,
        counts: AuditCounts,
        published_at: datetime | None,
        changes: list[dict[str, Any]],
        not_found: list[str],
    ) -> RunReport:
        run, plan = self._run, self._plan
        return RunReport(
            run_id=run.run_id,
            status="succeeded" if published_at else "dry run",
            mode=run.mode,
            partner_id=run.partner_id,
            tokens_read=counts.tokens_read,
            rows_read=run.walk.counts.rows_read,
            inserted=counts.inserted,
            changed=counts.changed,
            absent=counts.absent,
            relisted=counts.relisted,
            unchanged=counts.unchanged,
            rejected=counts.rejected,
            partly_loaded=counts.partly_loaded,
            unreadable=self._unreadable(),
            unreadable_ids=sorted(self._unreadable_ids),
            requests=self._tokens.counters.requests,
            retries=self._tokens.counters.retries,
            pages=run.walk.counts.pages,
            duration_seconds=round(time.monotonic() - self._began, 3),
            coverage=run.walk.coverage.to_sql(),
            holes=self._holes(),
            resumed_from=run.resumed_from,
            published_at=published_at,
            dry_run=self._options.dry_run,
            changes=changes,
            open_coverage=run.walk.open_coverage.to_sql(),
            full_because=plan.full_because,
            range_from=plan.range_from,
            range_to=plan.range_to,
            asked=len(plan.token_ids),
            not_found=not_found,
            vanished_fields=[each._asdict() for each in self._vanished],
            expected_tokens=plan.expected_tokens,
            expected_requests=plan.expected_requests,
        )
