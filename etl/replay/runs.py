"""Replay: rebuild the warehouse from archived runs, byte for byte.

Every reply goes through the code that the run itself used: decoding, staging in the same batches,
publishing.  Only the publication timestamp, the numbers and the times come from the archive.  Each
run is published in its own transaction, so an interrupted replay resumes after the last one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from etl.archive.catalogue import ArchivedRun, ReplayPlan, RunName, plan_of
from etl.archive.erased import page_of_reply
from etl.archive.layout import corrupt
from etl.archive.reader import Archive
from etl.archive.stores import open_store
from etl.coverage import EVERYTHING, Coverage, Span
from etl.errors import DataRefused, UsageError
from etl.resources import program_version
from etl.run.fetch import suppress
from etl.tokens.page import Page
from etl.warehouse.ledger.ending import failed_on_error
from etl.warehouse.ledger.replayed import (
    REPLAY,
    all_entries,
    is_empty,
    keeps_to_own_lookups,
    open_replay,
    overrides_of,
    restored,
)
from etl.warehouse.load.publish import publish
from etl.warehouse.load.resolve import AuditCounts, audit_counts
from etl.warehouse.load.staging import stage_batch, stage_lookup
from etl.warehouse.privacy.erase import load_suppression
from etl.warehouse.schema.database import Database, open_database, require_current_primary

if TYPE_CHECKING:
    from etl.archive.segment import ArchivedReply
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.settings.table import Settings
    from etl.tokens.pseudonyms import Suppression
    from etl.warehouse.ledger.run import OpenRun

log = logging.getLogger(__name__)

COMPARED_COUNTS: Final = (
    *("pages", "rows_read", "tokens_read", "inserted", "changed", "unchanged", "rejected"),
    *("absent", "relisted", "listed_before", "coverage", "open_coverage"),
    *("total_count_first", "total_count_last"),
)
"""Counts of a replayed run that must equal the original's."""
COUNTED_OTHERWISE: Final = ("tokens_read", "unchanged")
"""Of these, what earlier programs counted otherwise: see ``counted_otherwise``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedRun:
    """A run that was replayed."""

    partner_id: int
    run_id: int
    mode: str
    published_at: datetime
    pages: int
    inserted: int
    changed: int
    absent: int
    relisted: int
    differs: dict[str, list[Any]]
    """Counts that differ from the original's: [original, replayed]."""


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """The result of a replay."""

    schema: str
    archives: list[str] = field(default_factory=list)
    found_runs: int
    """Published runs in the archives, up to the last one wanted."""
    already_there: int
    """Those of them that an earlier replay had published."""
    runs: list[ReplayedRun] = field(default_factory=list)
    unfinished: list[RunName] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


def open_archives(addresses: Sequence[str]) -> list[Archive]:
    """Raises ConfigurationError for an invalid address."""
    return [Archive(open_store(address)) for address in addresses]


def replay(
    settings: Settings,
    addresses: Sequence[str],
    *,
    stop: Stop,
    progress: Progress,
    until: int | None = None,
    accept_gaps: bool = False,
) -> ReplayReport:
    """Publish every archived run into the schema of ``settings``, which must be empty.

    Raises:
        UsageError: the warehouse holds something else.
        DataRefused: an archive is damaged (``archive_corrupt``), a run is missing (``archive_gap``)
            or its result differs from the original (``replay_differs``).
    """
    plan = plan_of(open_archives(addresses), until=until)
    if plan.gaps and not accept_gaps:
        raise DataRefused(
            f"The archive is incomplete: {plan.gaps[0]}{_more(len(plan.gaps))}. Later runs were "
            "compared with what is missing, so the history would differ. Give the missing archive "
            "as well, or accept a history that starts again there (--accept-gaps).",
            reason="archive_gap",
        )
    with open_database(str(settings.database_url), settings.schema) as database:
        report = replay_into(database, plan, settings, stop=stop, progress=progress)
    report.archives = list(addresses)
    return report


def replay_into(
    database: Database, plan: ReplayPlan, settings: Settings, *, stop: Stop, progress: Progress
) -> ReplayReport:
    """Replay the runs of a plan that are not in the warehouse yet; raises as ``replay`` does."""
    require_current_primary(database)
    done = _published_before(database, plan, settings.schema)
    report = ReplayReport(
        schema=settings.schema,
        found_runs=len(plan.runs),
        already_there=done,
        unfinished=plan.unfinished,
        gaps=plan.gaps,
    )
    total = sum(run.manifest.row["rows_read"] for run in plan.runs[done:])
    replayer = _Replayer(settings, database, plan, stop, progress, total)
    for archived in plan.runs[done:]:
        report.runs.append(replayer.replay_run(archived))
    return report


def _published_before(database: Database, plan: ReplayPlan, schema: str) -> int:
    """How many runs of the plan are in the warehouse already; it must hold nothing else."""
    if is_empty(database):
        return 0
    entries = all_entries(database)
    replayed = {
        (entry.run_id, entry.published_at) for entry in entries if entry.published_at is not None
    }
    wanted = [(run.manifest.run_id, run.manifest.published_at) for run in plan.runs]
    done = len(replayed)
    if replayed != set(wanted[:done]) or any(entry.mode != REPLAY for entry in entries):
        raise UsageError(
            f"Schema {schema} is not empty, and what it holds is not the beginning of this "
            "replay: give another one (--into-schema NAME) or an empty database.",
        )
    if done:
        log.info("resuming a replay", extra={"runs_already_there": done})
    return done


class _Replayer:
    """Replays runs, one after the other, into one warehouse."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        plan: ReplayPlan,
        stop: Stop,
        progress: Progress,
        rows_expected: int,
    ) -> None:
        self._settings = settings
        self._database = database
        self._plan = plan
        self._stop = stop
        self._progress = progress
        self._rows_expected = rows_expected
        self._rows = 0
        self._pages = 0

    def replay_run(self, archived: ArchivedRun) -> ReplayedRun:
        """Publish one run; if it fails, nothing of it is visible to a reader."""
        self._stop.check()
        manifest = archived.manifest
        run = open_replay(
            self._database,
            manifest.ledger,
            lease_seconds=self._settings.lease_seconds,
            run_ids_up_to=self._plan.last_run_id,
        )
        run.wait = self._stop.wait
        with failed_on_error(self._database, run):
            return self._publish_again(archived, run)

    def _publish_again(self, archived: ArchivedRun, run: OpenRun) -> ReplayedRun:
        manifest, row = archived.manifest, archived.manifest.row
        self._progress.stage("replaying")
        suppression = self._suppression(run)
        for segment in manifest.segments:
            self._stop.check()
            head, replies = archived.archive.replies(manifest, segment)
            pages = [staged_again(reply, run.partner_id, suppression) for reply in replies]
            run.range = span_of(head.range, segment.name) or EVERYTHING
            if head.call == "lookup":
                (page,) = pages
                if head.run_id != run.run_id and keeps_to_own_lookups(row):
                    received_at = page.facts.received_at
                    run.walk.lookups_after = max(received_at, run.walk.lookups_after or received_at)
                stage_lookup(
                    self._database,
                    run,
                    page,
                    absence_grace=timedelta(seconds=head.absence_grace_seconds),
                )
            else:
                self._stage(run, pages, row)
            self._rows += segment.rows
            self._pages += segment.replies
            self._progress.update(self._rows, self._rows_expected, self._pages)
        counts = audit_counts(self._database, run)
        if counts.staged_now != counts.staged_expected:
            raise DataRefused(
                "The database emptied the staging table: it seems to have restarted. Run again.",
                reason="staging_lost",
            )
        differs = _differences(row, run, counts)
        otherwise = counted_otherwise(row, differs, run.walk.beside_holes)
        if otherwise:
            log.warning(
                "an earlier program counted otherwise: the replayed run keeps its counts",
                extra={"run_id": run.run_id, **otherwise},
            )
        unexplained = {name: both for name, both in differs.items() if name not in otherwise}
        if unexplained:
            self._judge(manifest.program_version, manifest.run_id, unexplained, suppression)
        self._progress.stage("publishing", changes=counts.versions)
        published_at = publish(
            self._database,
            run,
            counts,
            holes=row["holes"],
            overrides=overrides_of(row),
            requests=row["requests"],
            retries=row["retries"],
            unreadable=row["unreadable"],
            stamp=manifest.published_at,
            ledger=restored(row) | otherwise,
        )
        log.info("run replayed", extra={"run_id": run.run_id, "published_at": published_at})
        return ReplayedRun(
            partner_id=run.partner_id,
            run_id=run.run_id,
            mode=run.mode,
            published_at=published_at,
            pages=run.walk.counts.pages,
            inserted=counts.inserted,
            changed=counts.changed,
            absent=counts.absent,
            relisted=counts.relisted,
            differs=differs,
        )

    def _stage(self, run: OpenRun, pages: Sequence[Page], row: dict[str, Any]) -> None:
        whole, open_only = run.walk.coverage, run.walk.open_coverage
        for page in pages:
            if page.span is None:
                continue
            if page.open_only:
                open_only = open_only.add(page.span)
            else:
                whole = whole.add(page.span)
        stage_batch(
            self._database,
            run,
            pages,
            coverage=whole,
            open_coverage=open_only,
            holes=row["holes"],
            requests=row["requests"],
            retries=row["retries"],
        )

    def _suppression(self, run: OpenRun) -> Suppression | None:
        return load_suppression(self._database, run.partner_id, self._settings.erasure_key)

    def _judge(
        self,
        archived_by: str,
        run_id: int,
        differs: dict[str, list[Any]],
        suppression: Suppression | None,
    ) -> None:
        """Refuse a different outcome, unless the program, an erasure or a gap explains it."""
        said = ", ".join(f"{name} {was} → {now}" for name, (was, now) in differs.items())
        if archived_by == program_version() and suppression is None and not self._plan.gaps:
            raise DataRefused(
                f"The replay of run {run_id} differs from the original ({said}): the archive and "
                "the program do not match. Nothing of it was published.",
                reason="replay_differs",
                differs=differs,
            )
        log.warning(
            "a replayed run differs from the original",
            extra={"run_id": run_id, "program_version": archived_by, "differs": said},
        )


def staged_again(reply: ArchivedReply, partner_id: int, suppression: Suppression | None) -> Page:
    """The page of a reply, as it was when first staged.

    Raises DataRefused for a body that is not a list: it was one when it was archived.
    """
    head = reply.head
    page = suppress(page_of_reply(reply, partner_id), suppression)
    page.seq, page.span = head.seq, span_of(head.span, f"reply {head.seq}")
    return page


def span_of(text: str | None, where: str) -> Span | None:
    """The span of an int8range literal; None for None or an empty one."""
    if text is None:
        return None
    try:
        spans = list(Coverage.from_sql(text))
    except ValueError:
        raise corrupt(f"the range of {where} cannot be read") from None
    return spans[0] if spans else None


def _differences(row: dict[str, Any], run: OpenRun, counts: AuditCounts) -> dict[str, list[Any]]:
    """[original, replayed] of each value in which the two runs differ, by name."""
    walk = run.walk
    found: dict[str, Any] = {
        "pages": walk.counts.pages,
        "rows_read": walk.counts.rows_read,
        "coverage": walk.coverage.to_sql(),
        "open_coverage": walk.open_coverage.to_sql(),
        "total_count_first": walk.counts.total_count_first,
        "total_count_last": walk.counts.total_count_last,
    }
    found |= {name: getattr(counts, name) for name in COMPARED_COUNTS if name not in found}
    return {
        name: [row[name], value]
        for name, value in found.items()
        if name in row and row[name] != value
    }


def counted_otherwise(
    row: Mapping[str, Any],
    differs: Mapping[str, list[Any]],
    beside_holes: Mapping[int, Collection[str]],
) -> dict[str, Any]:
    """The original counts that differ only because the run's program counted otherwise.

    Tokens that pages show in the second of a hole count as read today, and for some time did not
    if they were unchanged.  The programs that did not count them wrote rows of the ledger without
    the column ``service`` (revision 0012).  So both counts are greater now, by the same number, and
    by no more than there are such tokens (``beside_holes``, by second).  Whatever else differs is
    not explained by it, least of all a smaller count.
    """
    if "service" in row or not all(name in differs for name in COUNTED_OTHERWISE):
        return {}
    more = {now - was for was, now in (differs[name] for name in COUNTED_OTHERWISE)}
    shown = sum(map(len, beside_holes.values()))
    if len(more) != 1 or not 0 < more.pop() <= shown:
        return {}
    return {name: differs[name][0] for name in COUNTED_OTHERWISE}


def _more(gaps: int) -> str:
    return f" (and {gaps - 1} more)" if gaps > 1 else ""
