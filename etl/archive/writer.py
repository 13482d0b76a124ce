"""Writes the archive during a run, and the manifest once the run has published.

Replies are written to disk before they are staged, so what is published has been archived.
The ledger decides what belongs to a run: replies that were kept and never staged (the transaction
failed, the walk started over) stay in the folder and are not in the manifest.

If the process dies between the publishing commit and the manifest, ``begin`` of the next archived
run writes it, from the ledger and the files that exist.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from etl.archive.erased import NotRewritten, as_staged
from etl.archive.layout import (
    ERASED_NAME,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_NAME,
    MARK_NAME,
    RUN_NAME,
    Manifest,
    Segment,
    check_mark,
    encode_manifest,
    encode_mark,
    partner_folder,
    run_folder,
    run_name,
    segment_name,
    sha256_of,
    utc,
)
from etl.archive.reader import Archive, Kept
from etl.archive.segment import ArchivedReply, Call, SegmentHead, repack, reply_of
from etl.archive.stores import Store, open_store
from etl.errors import ConfigurationError, DataRefused, EtlError
from etl.resources import program_version
from etl.warehouse.ledger.replayed import entry_of, ledger_rows, published_before, staged_replies

if TYPE_CHECKING:
    from etl.tokens.page import Page
    from etl.warehouse.ledger.run import OpenRun
    from etl.warehouse.schema.database import Database

log = logging.getLogger(__name__)


def open_recorder(address: str, database: Database, *, absence_grace: timedelta) -> Recorder:
    """The recorder of an archive; ``absence_grace`` is that of the run's lookups.

    Raises ConfigurationError for an invalid address; sends no request yet.
    """
    return Recorder(open_store(address), database, absence_grace=absence_grace)


class Recorder:
    """Keeps every reply that one run stages.  Called from one thread; a dry run has none."""

    def __init__(self, store: Store, database: Database, *, absence_grace: timedelta) -> None:
        self._store = store
        self._archive = Archive(store)
        self._database = database
        self._absence_grace = absence_grace
        self._kept: list[Kept] = []
        self._written = 0
        self._without_erased = False

    def begin(self, run: OpenRun) -> bool:
        """Prepare the archive for a run that is open and has read nothing yet.

        False: it resumed a walk of which some replies were not kept, so the walk must start over.
        Raises ConfigurationError or ArchiveUnavailable where replies cannot be kept.
        """
        mark = self._store.read(MARK_NAME)
        if mark is None:
            self._store.write(MARK_NAME, encode_mark())
        else:
            check_mark(mark, self._store.address)
        self._reconcile(run)
        erased = f"{partner_folder(run.partner_id)}/{ERASED_NAME}"
        self._without_erased = self._store.read(erased) is not None
        # Writing a file proves before the first request that replies can be kept.
        self._store.write(
            f"{run_folder(run.partner_id, run.run_id)}/{RUN_NAME}",
            msgspec.json.format(
                msgspec.json.encode(
                    {
                        "run_id": run.run_id,
                        "partner_id": run.partner_id,
                        "mode": run.mode,
                        "walk_id": run.walk.walk_id,
                        "resumed_from": run.resumed_from,
                        "started_at": utc(run.started_at),
                        "program_version": program_version(),
                    }
                ),
                indent=1,
            ),
        )
        return not run.is_resumed or self._has_walk_of(run)

    def record(self, run: OpenRun, pages: Sequence[Page], *, lookup: bool) -> None:
        """Keep pages (their ``seq`` set) that are staged next, in one transaction.

        ``lookup``: the one page is an answer to a lookup by id.  What was recorded and is not in
        ``sync_page`` afterwards was not staged.  Raises ArchiveUnavailable; the run then fails
        without publishing.
        """
        call: Call = "lookup" if lookup else "pages"
        head = SegmentHead(
            partner_id=run.partner_id,
            run_id=run.run_id,
            call=call,
            range=run.range.to_sql(),
            absence_grace_seconds=self._absence_grace.total_seconds(),
            replies=len(pages),
        )
        self._written += 1
        name = segment_name(self._written)
        packed = repack(head, [self._reply_of(run, page) for page in pages])
        self._store.write(f"{run_folder(run.partner_id, run.run_id)}/{name}", packed)
        segment = Segment(
            name=f"{run_name(run.run_id)}/{name}",
            sha256=sha256_of(packed),
            bytes=len(packed),
            replies=len(pages),
            rows=sum(page.facts.rows for page in pages),
        )
        replies = tuple(
            (page.seq, page.facts.received_at) for page in pages if page.seq is not None
        )
        self._kept.append(Kept(segment, replies))

    def _reply_of(self, run: OpenRun, page: Page) -> ArchivedReply:
        """The reply without the data of erased users and tokens; its page gets the new hash."""
        reply = reply_of(page)
        if page.suppressed and self._without_erased:
            try:
                reply = as_staged(reply, page, run.partner_id) or reply
            except NotRewritten:
                log.warning(
                    "a reply is archived with data of an erased user or token",
                    extra={"run_id": run.run_id, "seq": page.seq},
                )
            page.facts = reply.facts
        return reply

    def finish(self, run: OpenRun) -> None:
        """Write the manifest of a published run; if that fails, a later ``begin`` does it."""
        try:
            self._write_manifest(run.partner_id, run.run_id, self._kept)
        except EtlError as error:
            # The run has published, so this is no failure of the run.
            log.warning(
                "the run has published, but its archive is unfinished; the next run finishes it",
                extra={"run_id": run.run_id, "reason": error.message},
            )

    def _has_walk_of(self, run: OpenRun) -> bool:
        """Whether every reply of the resumed walk is here; remembers the files."""
        rows = ledger_rows(self._database, run.run_id)[:-1]
        try:
            self._kept = [kept for row in rows for kept in self._kept_by(row)]
        except DataRefused as damaged:
            log.warning("the archive of the walk is damaged", extra={"reason": damaged.message})
            self._kept = []
        staged = staged_replies(self._database, run.run_id)
        if chosen_of(self._kept, staged) is not None:
            return True
        log.warning(
            "the walk starts over: the archive does not hold every reply of the run to resume",
            extra={"run_id": run.run_id, "resumed_from": run.resumed_from},
        )
        self._kept = []
        return False

    def _kept_by(self, row: Mapping[str, object]) -> Iterator[Kept]:
        return self._archive.kept(int(str(row["partner_id"])), int(str(row["run_id"])))

    def _reconcile(self, run: OpenRun) -> None:
        """Finish what an earlier run left unfinished; refuse the archive of another warehouse."""
        run_ids = self._archive.run_ids(run.partner_id)
        if run_ids[-1:] == [run.run_id] and (
            self._archive.manifest(run.partner_id, run.run_id) is None
        ):
            # Of an attempt that read nothing: it was folded, and this run has its row.
            run_ids.pop()
        if run_ids and run_ids[-1] >= run.run_id:
            raise self._of_another_warehouse(
                f"it has run {run_ids[-1]} of partner {run.partner_id} already, and this is run "
                f"{run.run_id}"
            )
        for run_id in reversed(run_ids):
            manifest = self._archive.manifest(run.partner_id, run_id)
            entry = entry_of(self._database, run_id)
            if manifest is not None:
                if entry is None or entry.published_at != manifest.published_at:
                    raise self._of_another_warehouse(
                        f"it has a run {run_id} of partner {run.partner_id} that this warehouse "
                        "did not publish"
                    )
                break
            if entry is not None and entry.status == "succeeded":
                self._finish_late(run.partner_id, run_id)
        last = run.baseline.last_published_run_id
        if last is not None and (
            last not in run_ids or self._archive.manifest(run.partner_id, last) is None
        ):
            log.warning(
                "the archive has a gap: the last published run is not in it, so no replay can "
                "pass over it",
                extra={"run_id": last, "archive": self._store.address},
            )

    def _finish_late(self, partner_id: int, run_id: int) -> None:
        try:
            rows = ledger_rows(self._database, run_id)
            kept = [kept for row in rows for kept in self._kept_by(row)]
            self._write_manifest(partner_id, run_id, kept)
            log.info("the archive of an earlier run was finished", extra={"run_id": run_id})
        except DataRefused as error:
            log.warning(
                "the archive of an earlier run cannot be finished",
                extra={"run_id": run_id, "reason": error.message},
            )

    def _write_manifest(self, partner_id: int, run_id: int, kept: Iterable[Kept]) -> None:
        rows = ledger_rows(self._database, run_id)
        staged = staged_replies(self._database, run_id)
        chosen = chosen_of(kept, staged)
        row = rows[-1]
        # Fewer pages in the ledger than it counted: they were pruned, and which replies were staged
        # is no longer known.
        if chosen is None or len(staged) != row["pages"] or row["published_at"] is None:
            raise DataRefused(
                f"The archive does not hold every reply of run {run_id}: it cannot be replayed.",
                reason="archive_incomplete",
                run_id=run_id,
            )
        manifest = Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            program_version=row["program_version"],
            partner_id=partner_id,
            run_id=run_id,
            mode=row["mode"],
            published_at=utc(datetime.fromisoformat(row["published_at"])),
            follows_run_id=published_before(self._database, run_id),
            ledger=rows,
            segments=chosen,
        )
        name = f"{run_folder(partner_id, run_id)}/{MANIFEST_NAME}"
        self._store.write(name, encode_manifest(manifest))

    def _of_another_warehouse(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The archive {self._store.address} is of another warehouse, or of a later state of "
            f"this one: {why}. Give an archive of its own (ETL_ARCHIVE), or replay this one first.",
            archive=self._store.address,
        )


def chosen_of(kept: Iterable[Kept], staged: Mapping[int, datetime]) -> list[Segment] | None:
    """The files whose replies were staged, in the order given; None if a staged reply is in none.

    A number alone does not tell: a reply that was never staged may have the number of another.
    """
    chosen: list[Segment] = []
    found: set[int] = set()
    for each in kept:
        if each.replies and all(staged.get(seq) == at for seq, at in each.replies):
            chosen.append(each.segment)
            found.update(seq for seq, _ in each.replies)
    return chosen if found == staged.keys() else None
