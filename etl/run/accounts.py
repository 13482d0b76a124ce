"""A job of many accounts: their runs side by side, so many at a time, in one process.

Each account has a run of its own, with its own session, lease, ledger row and database connection;
they share the process, the limit of requests in flight (``SyncOptions.in_flight``) and the request
to stop.  How one ends changes nothing for the others; nor does it if its service is down, which
takes minutes to be sure of: an account whose service does not answer the first request is set back
until all others have begun.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from etl.errors import ServiceUnavailable
from etl.process.log_context import log_fields
from etl.process.progress import StageTimes, TimedProgress
from etl.run.engine import rare_garbage_collection
from etl.run.leg import STOP_POLL_SECONDS
from etl.run.report import Figures
from etl.warehouse.ledger.labelled import published_with_label
from etl.warehouse.schema.database import open_database

if TYPE_CHECKING:
    from etl.process.progress import Progress
    from etl.process.stop import Stop
    from etl.run.backfill import Range
    from etl.run.plan import SyncOptions
    from etl.run.report import RunReport
    from etl.settings.table import Settings

log = logging.getLogger(__name__)


class Run(Protocol):
    """``sync`` or a backfill, whose range or ids are given already."""

    def __call__(
        self,
        settings: Settings,
        options: SyncOptions,
        *,
        stop: Stop,
        progress: Progress,
        figures: Figures,
    ) -> RunReport: ...


@dataclass(frozen=True, slots=True)
class Member:
    """An account of the job."""

    name: str
    settings: Settings
    """Complete: with partner id, credential and database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an account's part of the job ended: with one of the first three."""

    report: RunReport | None = None
    error: Exception | None = None
    done_in_run: int | None = None
    """It was left out, because this run had published with the label of the job already."""
    figures: Figures = field(default_factory=Figures)
    times: StageTimes = field(default_factory=StageTimes)


def run_accounts(
    members: Sequence[Member],
    run: Run,
    options: SyncOptions,
    *,
    wanted: Range | None = None,
    at_once: int,
    stop: Stop,
    progress: Callable[[], AbstractContextManager[Progress]],
    ended: Callable[[str, Outcome], None],
) -> None:
    """Do the run of each member, ``at_once`` at a time, in their order.

    ``wanted`` is the range of ``run``: with a label, members that have published a run of it are
    left out.  ``ended(name, outcome)`` is called in this thread as
    members end.  After a request to stop, those that have not begun end with Interrupted, too.
    """

    def one(member: Member, options: SyncOptions) -> Outcome:
        with log_fields(account=member.name, partner_id=member.settings.partner_id):
            figures, times = Figures(), StageTimes()
            try:
                stop.check()
                done_in_run = _done_in_run(member.settings, options, wanted)
                if done_in_run is not None:
                    return Outcome(done_in_run=done_in_run)
                with progress() as shown:
                    report = run(
                        member.settings,
                        options,
                        stop=stop,
                        progress=TimedProgress(shown, times),
                        figures=figures,
                    )
                return Outcome(report=report, figures=figures, times=times)
            except Exception as error:
                # Also a bug: it is this account's alone, and the command tells it as one.
                return Outcome(error=error, figures=figures, times=times)

    with (
        # Once for all: runs that begin and end at different times would undo each other's.
        rare_garbage_collection(),
        ThreadPoolExecutor(at_once, thread_name_prefix="account") as pool,
    ):
        # If all begin at once, no other waits.
        first = dataclasses.replace(options, patient=len(members) <= at_once)
        running: dict[Future[Outcome], tuple[Member, SyncOptions]] = {
            pool.submit(one, each, first): (each, first) for each in members
        }
        while running:
            # Signals are handled by this thread, between two of its steps: it waits in short ones.
            done, _ = wait(running, timeout=STOP_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                member, given = running.pop(future)
                outcome = future.result()
                if _is_set_back(member, given, outcome):
                    running[pool.submit(one, member, options)] = (member, options)
                else:
                    ended(member.name, outcome)


def _is_set_back(member: Member, given: SyncOptions, outcome: Outcome) -> bool:
    """Whether it is to be tried again, with patience, because its service has not answered."""
    unanswered = isinstance(outcome.error, ServiceUnavailable) and outcome.figures.run is None
    if given.patient or not unanswered or member.settings.retry_attempts == 1:
        return False
    with log_fields(account=member.name, partner_id=member.settings.partner_id):
        log.warning(
            "the service does not answer: tried again when the other accounts have begun",
            extra={"event": "account_set_back", "reason": str(outcome.error)},
        )
    return True


def _done_in_run(settings: Settings, options: SyncOptions, wanted: Range | None) -> int | None:
    # The ledger does not know which ids a run was asked for.
    of_ids = options.mode == "backfill" and wanted is None
    if options.label is None or options.dry_run or of_ids:
        return None
    with open_database(str(settings.database_url), settings.schema) as database:
        return published_with_label(
            database,
            partner_id=settings.require_partner_id(),
            label=options.label,
            mode=options.mode,
            range_from=None if wanted is None else wanted.begin,
            range_to=None if wanted is None else wanted.end,
        )
