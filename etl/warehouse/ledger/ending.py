"""How a run ends in the ledger without publishing, also while the database is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from etl.errors import DataRefused, EtlError, WarehouseUnavailable
from etl.warehouse.engine import transaction
from etl.warehouse.ledger.attempts import end_row, ended_by, finished_now
from etl.warehouse.ledger.lease import status_of
from etl.warehouse.ledger.resume import DRY_RUN, RESUMABLE_STATUSES
from etl.warehouse.ledger.run import STAGING_SECONDS, OpenRun
from etl.warehouse.schema.database import Database

LOG = logging.getLogger(__name__)
AWAY_SECONDS_MAX: Final = 60.0
"""How long a run whose database is away tries to record its end."""
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 8.0
COMMIT_UNKNOWN: Final = "commit_unknown"
Result = TypeVar("Result")


@contextmanager
def failed_on_error(
    database: Database, run: OpenRun, sent: Callable[[], dict[str, int]] = dict
) -> Iterator[None]:
    """End the run in the ledger if the block raises; ``sent`` gives columns to save with that."""
    try:
        yield
    except EtlError as error:
        fail_run(database, run, error, **sent())
        error.fields.setdefault("run_id", run.run_id)
        raise
    except BaseException as error:
        fail_run(database, run, EtlError(f"This is a bug: {type(error).__name__}"), **sent())
        raise


def fail_run(database: Database, run: OpenRun, error: EtlError, **sent: int) -> None:
    """End the run with an error.  Never raises, so as not to hide that error.

    Postgres may be away, and be the error: then this waits for it, see ``_when_reachable``.  A run
    that the audit refused becomes ``refused`` (a dry run ``dry_run``) and leaves nothing to
    resume; any other becomes ``failed``, and its walk is kept.
    """
    refused_dry_run = run.dry_run and isinstance(error, DataRefused)
    values = ended_by(error, status=DRY_RUN if refused_dry_run else None) | sent
    try:
        told_in = _when_reachable(
            database,
            run,
            lambda: _finish(database, run, **values),
            # It has waited once already.
            seconds_max=0 if error.fields.get("reason") == COMMIT_UNKNOWN else AWAY_SECONDS_MAX,
        )
        error.fields.setdefault("run_id", run.run_id if told_in is None else told_in)
    except Exception as second:
        # The next run marks it abandoned once its heartbeat is old.
        LOG.warning(
            "the failure could not be recorded in the ledger",
            extra={"run_id": run.run_id, "error": type(second).__name__},
        )


def finish_dry_run(database: Database, run: OpenRun, **sent: int) -> None:
    """End a dry run: set its status and delete its staging; ``sent`` are columns to save."""
    values = {"error_kind": DRY_RUN, "error_message": "A dry run does not publish."}
    _finish(database, run, status=DRY_RUN, **values, **sent)


def settle_commit(database: Database, run: OpenRun) -> bool:
    """Whether the publishing transaction committed, although its reply was lost.

    The UPDATE waits for a commit that is still in progress, and rules out a later one.
    """
    sync_run = database.tables.sync_run

    def settled() -> bool:
        with transaction(database.engine) as connection:
            connection.execute(
                sa.update(sync_run)
                .where(sync_run.c.run_id == run.run_id, sync_run.c.status == "running")
                .values(
                    status="failed",
                    finished_at=finished_now(sync_run),
                    error_kind=WarehouseUnavailable.kind,
                    error_message="The connection was lost before the commit.",
                )
            )
        return status_of(database, run.run_id) == "succeeded"

    try:
        return _when_reachable(database, run, settled)
    except WarehouseUnavailable as error:
        raise WarehouseUnavailable(
            f"The connection was lost while run {run.run_id} was being committed, and Postgres "
            "cannot be reached to check. Its row in sync_run says whether it has published.",
            reason=COMMIT_UNKNOWN,
            run_id=run.run_id,
            sqlstate=error.fields.get("sqlstate"),
        ) from None


def _when_reachable(
    database: Database,
    run: OpenRun,
    work: Callable[[], Result],
    *,
    seconds_max: float = AWAY_SECONDS_MAX,
) -> Result:
    """The result of ``work``, tried again while Postgres is away: a restart, or a failover.

    For at most ``seconds_max`` and until a stop is requested; twice in any case, because the first
    connection may be the one that was lost.  Raises what the last attempt raised.
    """
    deadline = time.monotonic() + seconds_max
    pause = 0.0
    while True:
        try:
            return work()
        except WarehouseUnavailable as error:
            database.engine.dispose()
            if pause:
                if time.monotonic() + pause > deadline:
                    raise
                LOG.info(
                    "waiting for Postgres, to record how the run ended",
                    extra={"run_id": run.run_id, "sqlstate": error.fields.get("sqlstate")},
                )
                if run.wait(pause):
                    raise
            pause = min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def _finish(database: Database, run: OpenRun, *, status: str, **values: Any) -> int | None:
    """End the run; returns the row that tells it, None if it did not hold the lease any more.

    Only a walk that may be resumed keeps its staging.
    """
    sync_run, staging = database.tables.sync_run, database.tables.upload_token_staging
    with transaction(database.engine, statement_seconds=STAGING_SECONDS) as connection:
        told_in = end_row(connection, sync_run, run.run_id, status=status, **values)
        if told_in is not None and status not in RESUMABLE_STATUSES:
            connection.execute(
                sa.delete(staging).where(
                    staging.c.partner_id == run.partner_id,
                    staging.c.walk_id == run.walk.walk_id,
                )
            )
    return told_in
