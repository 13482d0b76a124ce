"""``Warehouse``: everything that a run asks of Postgres, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from etl.coverage import Coverage
from etl.errors import ConfigurationError, EtlError
from etl.warehouse.access.privileges import current_role, missing_privileges, shortened
from etl.warehouse.engine import transaction
from etl.warehouse.ledger import certificates
from etl.warehouse.ledger import lease as ledger
from etl.warehouse.ledger.certificates import Complete
from etl.warehouse.ledger.run import AuditCounts, BatchResult, Database, OpenRun, StagedPage
from etl.warehouse.load import publish, resolve, staging
from etl.warehouse.schema.revision import require_current
from etl.warehouse.schema.tables import build_tables


class Warehouse:
    """The tables of one schema behind one engine.  Not for several threads at once.

    Every method is one transaction (``prune`` a few) and raises WarehouseUnavailable,
    CredentialsRefused or ConfigurationError as ``engine.translate_error`` says; methods that take
    a run raise LeaseHeld if it no longer holds its lease.
    """

    def __init__(self, engine: sa.Engine, schema: str) -> None:
        self._database = Database(engine, build_tables(schema), schema)

    @property
    def database(self) -> Database:
        return self._database

    def close(self) -> None:
        """Close the connections."""
        self._database.engine.dispose()

    def require_current_schema(self) -> None:
        """Raise ConfigurationError unless the schema is exactly of this program's revision."""
        with transaction(self._database.engine) as connection:
            require_current(connection, self._database.schema)

    def require_loader_privileges(self) -> None:
        """Raise ConfigurationError unless the role may do all that a run does.

        The server would refuse it only at the statement, after hours of reading.
        """
        schema = self._database.schema
        with transaction(self._database.engine) as connection:
            missing = missing_privileges(connection, schema)
            if missing:
                role = current_role(connection)
                raise ConfigurationError(
                    f"The database role {role} may not load into schema {schema}: it lacks "
                    f"{shortened(missing)}. The owner of the tables grants it: kaltura-etl grant "
                    f"--loader {role} --apply.",
                    schema=schema,
                    missing=missing,
                )

    def open_run(
        self,
        *,
        partner_id: int,
        mode: str,
        range_from: datetime | None = None,
        range_to: datetime | None = None,
        lease_seconds: float,
        resume_window: timedelta | None,
        page_age_max: timedelta | None = None,
        dry_run: bool = False,
    ) -> OpenRun:
        """Take the partner's lease, and resume the walk of a run that ended without publishing.

        A run whose heartbeat is older than ``lease_seconds`` (by the database's clock) is marked
        abandoned.  A walk is resumed if it has the same mode and range, began within
        ``resume_window`` (None: never), has no page older than ``page_age_max`` (None: of any age),
        was not refused by the audit, nothing was published since and its staging is whole.
        Raises LeaseHeld, naming the holder.  Call ``require_current_schema`` first.
        """
        return ledger.open_run(
            self._database,
            partner_id=partner_id,
            mode=mode,
            range_from=range_from,
            range_to=range_to,
            lease_seconds=lease_seconds,
            resume_window=resume_window,
            page_age_max=page_age_max,
            dry_run=dry_run,
        )

    def last_complete(self, partner_id: int) -> Complete | None:
        """The last published run that read the whole account."""
        return certificates.last_complete(self._database, partner_id)

    def watermark(self, partner_id: int) -> int | None:
        """The second up to which the account was read without a gap; None: read it all."""
        return certificates.watermark(self._database, partner_id)

    def known_tokens(
        self,
        partner_id: int,
        range_from: datetime | None = None,
        range_to: datetime | None = None,
    ) -> int:
        """How many tokens of a range are known as listed."""
        return certificates.known_tokens(self._database, partner_id, range_from, range_to)

    def unknown_ids(self, partner_id: int, token_ids: Sequence[str]) -> list[str]:
        """Those of the ids that no token in the warehouse has."""
        return certificates.unknown_ids(self._database, partner_id, token_ids)

    def heartbeat(self, run: OpenRun) -> None:
        """A sign of life, for a run that waits longer than a third of its lease."""
        ledger.heartbeat(self._database, run)

    def stage_batch(
        self,
        run: OpenRun,
        pages: Sequence[StagedPage],
        *,
        coverage: Coverage,
        open_coverage: Coverage | None = None,
        holes: list[dict[str, Any]],
        requests: int,
        retries: int,
    ) -> BatchResult:
        """Save pages, what differs on them, and the coverage of the walk including them.

        ``open_coverage`` is that of the list of open tokens, whose pages need batches of their own;
        None: as it was.  ``requests`` and ``retries`` are totals of this run.  Pages may come in
        any order and in batches of any size: the outcome is the same.  Of a run with a range,
        nothing outside it is taken, of the coverage neither.
        """
        return staging.stage_batch(
            self._database,
            run,
            pages,
            coverage=coverage,
            open_coverage=open_coverage,
            holes=holes,
            requests=requests,
            retries=retries,
        )

    def missing_tokens(
        self, run: OpenRun, *, after: str | None, limit: int = 500
    ) -> list[tuple[str, datetime]]:
        """Tokens after the id ``after`` that must be asked for by id, in the order of their ids.

        Those missing on the pages that ought to show them, and those with two rows of different
        createdAt (or another one than known).  Each call reads the walk's staging once, so a large
        ``limit`` is cheaper.  A token that a look-up has settled no longer comes.
        """
        return staging.missing_tokens(self._database, run, after=after, limit=limit)

    def stage_lookup(
        self,
        run: OpenRun,
        asked: Sequence[str],
        page: StagedPage,
        *,
        absence_grace: timedelta,
    ) -> None:
        """Save the answer to a look-up of ``asked`` (at most a few thousand ids).

        Known listed tokens that do not answer are confirmed absent, unless they were created less
        than ``absence_grace`` before the answer.  The page's span must be None.
        """
        staging.stage_lookup(self._database, run, asked, page, absence_grace=absence_grace)

    def audit_counts(self, run: OpenRun) -> AuditCounts:
        """What publishing would do, counted by the server."""
        with transaction(self._database.engine, work_mem="64MB") as connection:
            return resolve.audit_counts(connection, self._database, run)

    def publish(
        self,
        run: OpenRun,
        counts: AuditCounts,
        *,
        holes: list[dict[str, Any]],
        overrides: Mapping[str, Any],
        total_counts: tuple[int | None, int | None],
        requests: int,
        retries: int,
        unreadable: int = 0,
        page_age_max: timedelta | None = None,
    ) -> datetime:
        """Make the walk visible and end the run; returns the stamp of all that it published.

        All or nothing.  If the connection dies in the commit, the ledger is asked what happened.
        Raises DataRefused with ``fields['reason']`` ``other_run_published``, ``staging_lost``,
        ``pages_too_old`` (than ``page_age_max``, by the stamp) or ``row_count_mismatch``.
        """
        return publish.publish(
            self._database,
            run,
            counts,
            holes=holes,
            overrides=overrides,
            total_counts=total_counts,
            requests=requests,
            retries=retries,
            unreadable=unreadable,
            page_age_max=page_age_max,
        )

    def plan_changes(self, run: OpenRun, limit: int) -> list[dict[str, Any]]:
        """What publishing would write: token_id, change_kind, changed_columns; by token_id."""
        return publish.plan_changes(self._database, run, limit)

    def finish_dry_run(self, run: OpenRun) -> None:
        """End a run that must not publish: its status says so, and its staging is deleted."""
        ledger.finish_dry_run(self._database, run)

    def fail_run(self, run: OpenRun, error: EtlError) -> None:
        """End the run with an error; its walk stays for a resume unless the audit refused it.

        Never raises.  The error's message must be free of secrets, as those of this program are.
        """
        ledger.fail_run(self._database, run, error)

    def restart_walk(self, run: OpenRun) -> None:
        """Start the walk over within the run: what it has read cannot be published."""
        ledger.restart_walk(self._database, run)

    def prune(self, keep_pages_days: float) -> int:
        """Delete pages and rejected rows of runs that began longer ago; returns rows deleted."""
        return ledger.prune(self._database, keep_pages_days)
